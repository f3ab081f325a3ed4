"""The ways to write what a request is about (RFC 9112 3.2), and what is in a path (RFC 3986 2)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from support.network import LOOPBACK
from support.web import Web, web
from tomowire.server.users import Role


async def asked(running: Web, line: str, host: str = "localhost", *headers: str) -> tuple[int, bytes]:
    """Status and body of the answer to a request that is written by hand."""
    reader, writer = await asyncio.open_connection(LOOPBACK, running.http.port)
    lines = (f"{line} HTTP/1.1", f"Host: {host}", "Connection: close", *headers)
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
    try:
        async with asyncio.timeout(20):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return int(head.split()[1]), body


async def test_a_whole_uri_is_a_target_too(tmp_path: Path) -> None:
    """RFC 9112 3.2.2: a server must accept it."""
    async with web(tmp_path, users=False, filled=False) as running:
        here = f"{LOOPBACK}:{running.http.port}"
        for line, status in (
            (f"GET http://{here}/api/status", 200),
            (f"GET HTTP://LocalHost:{running.http.port}/api/studies?PatientName=a%2Fb&limit=1", 200),
            (f"HEAD http://{here}/healthz", 200),
            (f"GET http://{here}/api/nothing", 404),
            (f"GET http://{here}", 404),
            (f"GET http://{here}?a=b", 404),
            (f"PUT http://{here}/api/status", 405),
        ):
            assert (await asked(running, line))[0] == status, line
        status, body = await asked(running, f"GET https://{here}/api/status")
        assert (status, json.loads(body)["detail"]) == (
            421,
            "the address is one for https, and the connection one of http",
        )


async def test_the_host_in_the_target_is_the_one_that_counts(tmp_path: Path) -> None:
    """RFC 9112 3.2.2: `Host` is ignored then. A page that gave its own name our address is not let in by the other one."""
    async with web(tmp_path, users=False, filled=False) as running:
        assert (await asked(running, "GET http://evil.example/api/status"))[0] == 403
        assert (await asked(running, "GET http://localhost/api/status", "evil.example"))[0] == 200
        foreign = "Origin: http://evil.example"
        assert (await asked(running, "PUT http://evil.example/api/nodes/CT1", "localhost", foreign))[0] == 403


@pytest.mark.parametrize(
    "target",
    [
        "api/status",
        "?",
        "*",
        "ftp://localhost/",
        "http:///api/status",
        "http://jane@localhost/api/status",
        "localhost:80",
    ],
)
async def test_what_is_no_target(tmp_path: Path, target: str) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        status, body = await asked(running, f"GET {target}")
        assert status == 400
        assert "a path that begins with /, or an address such as http://host/path" in json.loads(body)["detail"]


async def test_a_slash_that_belongs_to_a_name(tmp_path: Path) -> None:
    """An AE title may have one (PS3.5 6.2): `%2F` is a part of it, and no boundary in the path (RFC 3986 2.2)."""
    async with web(tmp_path) as running:
        ask = running.administrator
        node = {"host": "127.0.0.1", "port": 104}
        for title, written in (("A/B", "A%2fB"), ("/", "%2F"), ("CT/echo", "CT%2Fecho"), ("A%2FB", "A%252FB")):
            put = await ask.put(f"/api/nodes/{written}", json=node)
            assert (put.status_code, put.json()["ae_title"]) == (200, title)
            assert (await ask.get(f"/api/nodes/{written}")).json() == put.json()
            assert title in running.archive.nodes
            echo = await ask.post(f"/api/nodes/{written}/echo")
            assert (echo.status_code, echo.json()["ae_title"]) == (200, title)
        assert (await ask.delete("/api/nodes/A%2FB")).status_code == 204
        assert set(running.archive.nodes) == {"/", "CT/echo", "A%2FB"}
        assert (await ask.get("/api/nodes/A%2FB")).json()["detail"] == "there is no node A/B"
        refused = await ask.patch("/api/nodes/A%2FB", json={})
        assert (refused.status_code, refused.headers["Allow"]) == (405, "DELETE, GET, HEAD, PUT")


async def test_an_encoded_slash_is_no_boundary(tmp_path: Path) -> None:
    async with web(tmp_path) as running:
        for address in ("/api%2Fstatus", "/api/nodes%2FCT1", "/%2Fhealthz", "/api/logs%2Fstream"):
            for ask in (running.clients[Role.READER], running.administrator):
                assert (await ask.get(address)).status_code == 404, address
                assert (await ask.head(address)).status_code == 404, address
        wrong = await running.administrator.get("/api/users/a%2Fb")
        assert "a user's name has 1 to 64 letters" in wrong.json()["detail"]
        assert (await running.administrator.get("/api/%73tatus")).status_code == 200, "RFC 3986 6.2.2.2"


@pytest.mark.parametrize(
    "address", ["/api/nodes/%FF", "/api/studies?PatientName=M%FCller", "/%ED%B0%AF", "/api/status?%C3"]
)
async def test_what_is_no_utf_8_is_not_taken_for_something_else(tmp_path: Path, address: str) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        status, body = await asked(running, f"GET {address}")
        assert status == 400
        assert "no text in UTF-8" in json.loads(body)["detail"]
