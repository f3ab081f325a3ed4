"""What no program would send that means well: it is answered, at once, and the answer says what is wrong."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import struct
from pathlib import Path
from typing import Final

import pytest

from support.network import LOOPBACK
from support.objects import ROOT
from support.web import web
from tomowire.web.api.operation import MOST_PARTS

JSON = {"Content-Type": "application/json"}
NODE = "/api/nodes/CT1"

BODIES = {
    "nested": (b"[" * 100_000 + b"]" * 100_000, 400, "nested too deeply"),
    "nested objects": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400, "nested too deeply"),
    "a number of many digits": (b'{"host":"a","port":1' + b"0" * 5000 + b"}", 400, "too many digits"),
    "not UTF-8": (b'{"host":"\xff","port":104}', 400, "no text in UTF-8"),
    "something behind it": (b'{"host":"a","port":104} x', 422, "this is no JSON: Extra data, at character 24"),
    "NaN": (b'{"host":"a","port":NaN}', 422, "port"),
    "infinite": (b'{"host":"a","port":1e400}', 422, "port"),
    "true": (b'{"host":"a","port":true}', 422, "neither true nor false"),
    "half a character": (b'{"host":"\\ud800","port":104}', 422, "host"),
    "half a character in a name": (b'{"\\ud800":1,"host":"a","port":104}', 422, "body"),
    "a control character": (b'{"host":"a\\u0000","port":104}', 422, "a host is a name or an address"),
    "nothing": (b"", 422, "is missing"),
    "a list": (b"[]", 422, "body"),
    "a key of half a megabyte": (b'{"' + b"k" * 500_000 + b'":1}', 422, "host: is missing"),
    "more than anybody needs": (b"{" + b",".join(b'"k%d":1' % n for n in range(MOST_PARTS + 2)) + b"}", 413, "parts"),
}


@pytest.mark.parametrize("what", BODIES)
async def test_bodies_that_make_no_sense(tmp_path: Path, what: str) -> None:
    body, status, words = BODIES[what]
    async with web(tmp_path, users=False, filled=False) as running:
        for method, path in (("PUT", NODE), ("POST", "/api/users")):
            answer = await running.nobody.request(method, path, content=body, headers=JSON)
            assert answer.status_code == status, answer.text
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["title"]
            assert method == "POST" or words in answer.json()["detail"], answer.text
        assert (await running.nobody.get(NODE)).status_code == 404, "nothing came of it"


@pytest.mark.parametrize(
    ("method", "path", "body", "names"),
    [
        ("PUT", NODE, '{"host":"a","port":1,"port":104}', ["port"]),
        ("PUT", NODE, '{"host":"a","port":104,"port":104}', ["port"]),
        ("PUT", NODE, '{"host":"a","ho\\u0073t":"b","port":1,"may":[],"may":[]}', ["host", "may"]),
        ("POST", "/api/query", '{"node":"CT1","keys":{"PatientID":"1","PatientID":"2"}}', ["PatientID"]),
        ("PUT", "/api/configuration", '{"configuration":{"nodes":{"A":{"host":"a","host":"b"}}}}', ["host"]),
        ("POST", "/api/users", '[{"x' + "x" * 200 + '":1,"x' + "x" * 200 + '":1}]', ["x" * 100]),
        (
            "POST",
            "/api/users",
            "{" + ",".join(f'"{n}":1,"{n}":2' for n in range(9000)) + "}",
            [str(n) for n in range(20)],
        ),
    ],
)
async def test_a_key_that_is_there_twice_is_not_chosen_from(
    tmp_path: Path, method: str, path: str, body: str, names: list[str]
) -> None:
    """RFC 8259 4: who stands between may have taken the other one."""
    async with web(tmp_path, users=False, filled=False) as running:
        answer = await running.nobody.request(method, path, content=body, headers=JSON)
        assert answer.status_code == 400
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert f"'{names[0]}' is given more than once" in answer.json()["detail"]
        assert [each["name"] for each in answer.json()["errors"]] == names
        assert not running.archive.nodes


@pytest.mark.parametrize(
    ("kind", "is_taken"),
    [
        ("application/json", True),
        ("Application/JSON ; charset=utf-8", True),
        ("application/merge-patch+json", True),
        ("application/a/b+json", False),
        ("application/a b+json", False),
        ("application/+json", False),
        ("application/jsonl", False),
        ("text/json", False),
        ('"application/json"', False),
        (";", False),
    ],
)
async def test_of_what_kind_a_body_is(tmp_path: Path, kind: str, is_taken: bool) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        content = b'{"host":"127.0.0.1","port":104}'
        answer = await running.nobody.put(NODE, content=content, headers={"Content-Type": kind})
        assert answer.status_code == (200 if is_taken else 415)


HALF: Final = "\\ud800"
URL: Final = "postgresql://me:S3CRET@db/x"


@pytest.mark.parametrize(
    "tree",
    [
        f'{{"nodes":{{"{HALF}":{{"host":"a","port":1}}}}}}',
        f'{{"knownDestinations":{{"{HALF}":{{"host":"a","port":1}}}}}}',
        f'{{"{HALF}":1}}',
        f'{{"dicom":{{"{HALF}":1,"ae_title":"{HALF}","bind":"{HALF}"}}}}',
        f'{{"callers":[{{"ae_title":"{HALF}","addresses":["{HALF}"]}}]}}',
        f'{{"index":"{URL}"}}',
        f'{{"index":{{"{URL}":1}}}}',
        f'{{"http":{{"certificate":"{URL}"}}}}',
        f'"{URL}"',
    ],
)
async def test_configurations_that_make_no_sense(tmp_path: Path, tree: str, caplog: pytest.LogCaptureFixture) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        content = f'{{"configuration":{tree}}}'
        checked = await running.nobody.post("/api/configuration/check", content=content, headers=JSON)
        assert (checked.status_code == 200 and not checked.json()["is_valid"]) or checked.status_code == 422
        applied = await running.nobody.put("/api/configuration", content=content, headers=JSON)
        assert applied.status_code == 422
        assert "S3CRET" not in checked.text + applied.text + caplog.text


async def test_no_more_mistakes_are_looked_for_than_are_told(tmp_path: Path) -> None:
    """Everybody waits meanwhile: a body of a megabyte may hold a hundred thousand, an address thousands."""
    body = b"{" + b",".join(b'"k%d":1' % number for number in range(90_000)) + b"}"
    async with web(tmp_path, users=False, filled=False) as running:
        answer = await running.nobody.put(NODE, content=body, headers=JSON)
        assert answer.status_code == 413
        answer = await running.nobody.get("/api/studies?" + "&".join(f"Study{number}" for number in range(1500)))
        assert (answer.status_code, len(answer.json()["errors"])) == (422, 20)


async def test_what_is_no_login_is_not_called_a_token_that_is_not_known(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False, failed_logins=3) as running:
        latin = base64.b64encode("jörg:x".encode("latin-1")).decode()
        for given in ("Basic", "Basic !!!", f"Basic {latin}", "Bearer", "Digest username=jane", "Negotiate abc", "x"):
            answer = await running.nobody.get("/api/me", headers={"Authorization": given})
            assert answer.status_code == 401, "and not 429: there is nothing in it that could be guessed"
            assert "Bearer with a token, or Basic with name:password" in answer.json()["detail"]


async def test_head_is_answered_as_get_without_the_content(tmp_path: Path) -> None:
    """RFC 9110 9.3.2."""
    async with web(tmp_path, users=False) as running:
        for path in (
            "status",
            "studies?limit=1",
            "studies/1.2.3",
            f"instances/{ROOT}.3.1/file",
            "audit/export",
            "logs",
        ):
            got, head = await running.nobody.get(f"/api/{path}"), await running.nobody.head(f"/api/{path}")
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert head.headers["Content-Type"] == got.headers["Content-Type"]
        size = (await running.nobody.head(f"/api/instances/{ROOT}.3.1/file")).headers["Content-Length"]
        assert int(size) == len((await running.nobody.get(f"/api/instances/{ROOT}.3.1/file")).content)
        assert (await running.nobody.head("/api/logs/stream")).status_code == 405, "it has no end to wait for"
        refused = await running.nobody.put("/api/status")
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")


async def test_who_goes_away_before_the_body_has_come_is_no_mistake_of_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tomowire.http")
    async with web(tmp_path, users=False, filled=False) as running:
        head = f"Host: {LOOPBACK}:{running.http.port}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        assert running.http._connections is not None
        connections = running.http._connections._open
        async with asyncio.timeout(30):
            with socket.create_connection((LOOPBACK, running.http.port)) as gone:
                gone.sendall(f"PUT {NODE} HTTP/1.1\r\n{head}{{".encode())
                while not any(each.is_answering and each.scope["method"] == "PUT" for each in connections):
                    await running.nobody.get("/healthz")
                # With its sending side closed it might still read an answer: this is what tells that it does not.
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            while not any(f"PUT {NODE}" in record.getMessage() for record in caplog.records):
                await running.nobody.get("/healthz")
    [line] = [record for record in caplog.records if f"PUT {NODE}" in record.getMessage()]
    assert f"PUT {NODE}: 499, " in line.getMessage()
    assert all(record.levelno < logging.WARNING for record in caplog.records)
