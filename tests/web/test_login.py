"""Who is let in: logins, the limit of those that fail, and pages of somebody else's."""

from __future__ import annotations

import asyncio
import base64
import re
from pathlib import Path

import httpx2
import pytest

from support.objects import ROOT
from support.web import PASSWORD, web
from tomowire.server.audit.login_failures import MOST, LoginFailures
from tomowire.server.audit.trail import Filter
from tomowire.server.users import Role


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


async def test_a_password_and_a_token(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False) as running:
        await running.archive.users.add("joerg@example.org", Role.READER, PASSWORD)
        answer = await running.nobody.get("/api/me", headers=basic("joerg@example.org", PASSWORD))
        assert answer.json() == {"name": "joerg@example.org", "role": "reader"}
        assert (await running.administrator.get("/api/me")).json()["role"] == "administrator"


async def test_the_longest_password_lets_its_user_in(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False) as running:
        for name, password in (("j" * 64, "x" * 1024), ("jane", "\N{GRINNING FACE}" * 1024)):
            made = await running.administrator.post("/api/users", json={"name": name, "password": password})
            assert made.status_code == 201
            answer = await running.nobody.get("/api/me", headers=basic(name, password))
            assert (answer.status_code, answer.json().get("name")) == (200, name)


async def test_who_gives_none_is_told_which_there_are(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False) as running:
        answer = await running.nobody.get("/api/status")
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="tomowire", charset="UTF-8", Bearer realm="tomowire"'
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = answer.json()
        assert problem["request_id"] == answer.headers["X-Request-ID"]
        assert {name: problem[name] for name in ("type", "title", "status")} == {
            "type": "about:blank",
            "title": "Unauthorized",
            "status": 401,
        }


NO_LOGINS = [
    "",
    "Basic",
    "Basic !!!",
    "Basic " + base64.b64encode(b"no colon").decode(),
    "Basic " + base64.b64encode(b":nobody").decode(),
    "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
    "Basic " + base64.b64encode(b"a\0b:x").decode(),
    "Basic " + base64.b64encode(b"jane:" + b"x" * 5000).decode(),
    "Bearer " + "x" * 9000,
    "Bearer tw_000000000000_" + "A" * 43,
    "Digest username=jane",
]


async def test_what_is_no_login(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False, failed_logins=100) as running:
        for given in NO_LOGINS:
            answer = await running.nobody.get("/api/status", headers={"Authorization": given})
            assert answer.status_code == 401, given
            assert "WWW-Authenticate" in answer.headers


async def test_too_many_that_fail(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False, failed_logins=3, failed_login_window=60.0) as running:
        await running.archive.users.add("jane", Role.READER, PASSWORD)
        statuses = [
            (await running.nobody.get("/api/me", headers=basic("jane", f"wrong {number}"))).status_code
            for number in range(4)
        ]
        assert statuses == [401, 401, 401, 429]
        answer = await running.nobody.get("/api/me", headers=basic("jane", PASSWORD))
        assert answer.status_code == 429, "who tries passwords does not hear that one was right"
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert (await running.administrator.get("/api/me")).status_code == 200, "a token is not guessed"


async def test_who_is_closed_out_does_not_fill_the_audit_trail(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False, failed_logins=2) as running:
        for number in range(8):
            await running.nobody.get("/api/me", headers=basic(f"user{number}", "wrong"))
        await running.archive.audit.flush(10)
        tried = await running.archive.audit.list(Filter(event="login"))
        assert [(each.actor, each.outcome) for each in tried] == [("user0", 4), ("user1", 4), ("user2", 8)]


async def test_without_users_on_this_machine_nobody_has_to(tmp_path: Path) -> None:
    paths = ("/api/status", "/metrics", "/api/openapi.json", "/nothing")
    async with web(tmp_path, users=False, filled=False) as running:
        assert [(await running.nobody.get(path)).status_code for path in paths] == [200, 200, 200, 404]
        # Once there is a user, everybody has to.
        await running.archive.users.add("jane", Role.ADMINISTRATOR)
        assert {(await running.nobody.get(path)).status_code for path in paths} == {401}
        assert (await running.nobody.get("/healthz")).status_code == 200


async def test_bound_to_more_than_this_machine_everybody_has_to(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False, bind="0.0.0.0") as running:
        assert (await running.nobody.get("/api/status")).status_code == 401
        assert (await running.nobody.get("/readyz")).status_code == 200


async def test_metrics_without_a_login_if_a_person_says_so(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False, metrics_login=False) as running:
        assert (await running.nobody.get("/metrics")).status_code == 200
        assert (await running.nobody.get("/api/status")).status_code == 401


FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "evil.example:8080"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


async def test_without_a_login_pages_from_elsewhere_are_refused(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        for headers in FOREIGN:
            assert (await running.nobody.get("/api/status", headers=headers)).status_code == 403, headers
            assert (await running.nobody.post("/api/shutdown", headers=headers)).status_code == 403, headers
            assert (await running.nobody.get("/healthz", headers=headers)).status_code == 200, headers
        assert running.events == []


async def test_a_browsers_own_page_and_a_name_that_was_given(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False, hosts=("archive.hospital.example",)) as running:
        own = {"Origin": running.http.url, "Sec-Fetch-Site": "same-origin"}
        assert (await running.nobody.get("/api/status", headers=own)).status_code == 200
        named = {"Host": "archive.hospital.example:1234", "Origin": "http://archive.hospital.example:1234"}
        assert (await running.nobody.get("/api/status", headers=named)).status_code == 200
        behind_a_proxy = {"Host": "archive.hospital.example", "Origin": "https://archive.hospital.example"}
        assert (await running.nobody.get("/api/status", headers=behind_a_proxy)).status_code == 200
        localhost = {"Host": f"localhost:{running.http.port}"}
        assert (await running.nobody.get("/api/status", headers=localhost)).status_code == 200


async def test_what_changes_something_is_not_taken_from_a_foreign_page_login_or_not(tmp_path: Path) -> None:
    """A browser sends a password that it knows with whatever page asks."""
    async with web(tmp_path, filled=False) as running:
        for headers in FOREIGN[3:]:
            assert (await running.administrator.post("/api/shutdown", headers=headers)).status_code == 403, headers
        assert running.events == []


async def test_logins_are_in_the_audit_trail(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False) as running:
        await running.nobody.get("/api/me", headers=basic("mallory", "guess"))
        for _ in range(3):
            await running.administrator.get("/api/me")
        assert await running.archive.audit.flush(10)
        entries = await running.archive.audit.list()
        found = [each for each in entries if each.event == "login"]
        assert [(each.actor, each.outcome) for each in found] == [("mallory", 4), ("administrator", 0)]


async def test_each_failed_login_is_in_the_audit_trail_until_the_address_is_closed_out(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False, failed_logins=5) as running:
        for password in ("one", "two", "two", "three"):
            assert (await running.nobody.get("/api/me", headers=basic("reader", password))).status_code == 401
        together = [running.nobody.get("/api/me", headers=basic("reader", "four")) for _ in range(3)]
        assert {answer.status_code for answer in await asyncio.gather(*together)} <= {401, 429}
        for _ in range(3):
            assert (await running.nobody.get("/api/me", headers=basic("reader", "five"))).status_code == 429
        assert await running.archive.audit.flush(10)
        found = await running.archive.audit.list(Filter(event="login"), newest_first=False)
        assert [each.outcome for each in found] == [4] * 5 + [8]


async def test_who_has_one_password_cannot_fill_the_audit_trail_with_wrong_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that is right ends the limit of those that fail, and must not end that of what is told of them."""
    monkeypatch.setitem(LoginFailures.__init__.__kwdefaults__, "interval", 3600.0)
    tried = 3 * MOST
    async with web(tmp_path, filled=False, failed_logins=MOST + 2) as running:
        await running.archive.users.add("jane", Role.READER, PASSWORD)
        for number in range(tried):
            assert (await running.nobody.get("/api/me", headers=basic("jane", PASSWORD))).status_code == 200
            wrong = (
                basic("jane", f"wrong {number}"),
                basic(f"user{number % 2}", "wrong"),
                {"Authorization": f"Bearer wrong-{number}"},
            )[number % 3]
            assert (await running.nobody.get("/api/me", headers=wrong)).status_code == 401
        assert await running.archive.audit.flush(10)
        so_far = await running.archive.audit.list(Filter(event="login", outcome=4))
        assert len(so_far) == MOST
    async with web(tmp_path, users=False, filled=False) as running:  # the summaries are told at the end at the latest
        told = await running.archive.audit.list(Filter(event="login", outcome=8))
        counts = {each.actor: int(re.search(r">([0-9]+) more", each.message)[1]) for each in told}  # type: ignore[index]
        assert set(counts) == {"jane", "user0", "user1", "a token"}, "nobody who was tried is hidden"
        assert sum(counts.values()) == tried - MOST


@pytest.mark.parametrize(
    "path",
    [
        "/api/studies?PatientName=Smith*",
        "/api/series?Modality=CT",
        "/api/instances?limit=1",
        f"/api/studies/{ROOT}.1.1",
        f"/api/series/{ROOT}.2.1.1",
        f"/api/instances/{ROOT}.3.1",
    ],
)
async def test_who_asks_what_there_is_is_in_the_audit_trail(tmp_path: Path, path: str) -> None:
    async with web(tmp_path) as running:
        for _ in range(2):
            assert (await running.clients[Role.READER].get(path)).status_code == 200
        assert await running.archive.audit.flush(10)
        (asked,) = await running.archive.audit.list(Filter(event="query"))
        assert (asked.actor, asked.outcome) == ("reader", 0)
        assert base64.b64encode(path.encode()).decode() in asked.message


async def test_when_the_index_cannot_be_used_nobody_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tomowire.errors import IndexUnavailable

    async with web(tmp_path, filled=False) as running:

        async def gone(*_: object) -> None:
            raise IndexUnavailable("postgresql://user:secret@host/database is not there")

        monkeypatch.setattr(running.archive.storage.records, "read", gone)
        answer: httpx2.Response = await running.administrator.get("/api/status")
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert "secret" not in answer.text


async def test_who_wants_too_much_is_in_the_audit_trail_once(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False) as running:
        for _ in range(3):
            assert (await running.clients[Role.READER].get("/api/users")).status_code == 403
        assert await running.archive.audit.flush(10)
        entries = [each for each in await running.archive.audit.list() if each.actor == "reader"]
        assert [each.event for each in entries] == ["login", "access-refused"]
        assert base64.b64encode(b"listUsers, over HTTP").decode() in entries[1].message
