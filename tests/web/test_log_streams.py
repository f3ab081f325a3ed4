"""The log over HTTP: its last lines, and those that come, for as long as who follows them may."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.web import PASSWORD, Web, web
from tomowire.server.users import Role, Users

log = logging.getLogger("tomowire.test")


@asynccontextmanager
async def following(running: Web, **parameters: Any) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    async with running.nobody.stream("GET", "/api/logs/stream", params=parameters) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = answer.aiter_lines()

        async def events() -> AsyncIterator[tuple[str, Any]]:
            name = ""
            async for line in lines:
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

        yield events()


async def test_the_log_is_followed(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        log.warning("before")
        log.error("one\nof two lines")
        answer = await running.nobody.get("/api/logs", params={"level": "warning", "limit": 2})
        lines = answer.json()["lines"]
        assert [(each["level"], each["message"]) for each in lines] == [
            ("warning", "before"),
            ("error", "one\nof two lines"),
        ]
        async with following(running, level="error", limit=1) as events:
            assert (await anext(events))[1]["message"] == "one\nof two lines"
            log.warning("not wanted")
            log.error("wanted")
            name, line = await anext(events)
            assert (name, line["message"], line["logger"]) == ("log", "wanted", "tomowire.test")


async def test_who_follows_too_slowly_is_told_what_is_missing(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        async with following(running, level="error") as events:
            log.error("first")
            assert (await anext(events))[1]["message"] == "first"
            for number in range(5000):  # nobody can take them in the meantime: the event loop does not run
                log.error("line %d", number)
            seen, dropped = 0, 0
            async for name, line in events:
                if name == "dropped":
                    dropped += line["dropped"]
                    break
                seen += 1
            assert dropped > 0
            assert seen + dropped == 5000
        assert seen <= 1100, "what waits is bounded"


async def test_only_so_many_follow_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomowire.web.api.logs.MOST_STREAMS", 1)
    async with web(tmp_path, users=False, filled=False) as running:
        log.error("something")
        async with following(running, level="error") as events:
            await anext(events)
            assert (await running.nobody.get("/api/logs/stream")).status_code == 503
        await until(lambda: streams(running) == 0)
        async with following(running, level="error") as events:
            await anext(events)


async def test_of_many_who_begin_at_once_no_more_than_there_are_places_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomowire.web.api.logs.MOST_STREAMS", 3)
    async with web(tmp_path, users=False, filled=False) as running, AsyncExitStack() as stack:
        log.error("something")

        async def follow() -> int:
            stream = running.nobody.stream("GET", "/api/logs/stream", params={"level": "error"})
            return (await stack.enter_async_context(stream)).status_code

        statuses = await asyncio.gather(*(follow() for _ in range(20)))
        assert sorted(statuses) == [200] * 3 + [503] * 17


async def test_who_goes_away_without_a_word_frees_the_place(tmp_path: Path) -> None:
    """The client takes nothing: the server is in the middle of sending when the connection is gone."""
    async with web(tmp_path, users=False, filled=False) as running:
        _, writer = await asyncio.open_connection("127.0.0.1", running.http.port)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /api/logs/stream?level=error HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: streams(running) == 1)
        for number in range(900):
            log.error("%d %s", number, "x" * 20_000)
            if number % 50 == 0:
                await asyncio.sleep(0)
        writer.transport.abort()
        await until(lambda: streams(running) == 0)


def streams(running: Web) -> int:
    assert running.http._app is not None
    return running.http._app.gate.streams


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(400):
        if happened():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it does not happen")


@dataclass
class Follower:
    """An operator's login, and how it stops being good."""

    name: str
    end: Callable[[Users, str], Awaitable[object]]
    by_password: bool = False


async def _a_day_goes_by(users: Users, token_id: str) -> None:
    users._clock = lambda: time.time() + 86_400


FOLLOWERS = [
    Follower("the token is revoked", lambda users, token_id: users.revoke(token_id)),
    Follower("the token expires", _a_day_goes_by),
    Follower("the user is removed", lambda users, _: users.remove("jo")),
    Follower("the user is a reader now", lambda users, _: users.change("jo", role=Role.READER)),
    Follower("the password is another one", lambda users, _: users.change("jo", password="entirely new"), True),
]


@pytest.mark.parametrize("follower", FOLLOWERS, ids=lambda each: each.name)
async def test_the_log_is_not_followed_with_a_login_that_is_not_good_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follower: Follower
) -> None:
    monkeypatch.setattr("tomowire.web.api.logs.HEARTBEAT", 0.1)
    async with web(tmp_path, filled=False) as running:
        users = running.archive.users
        await users.add("jo", Role.OPERATOR, PASSWORD)
        made = await users.make_token("jo", expires_at=datetime.now(UTC) + timedelta(hours=12))
        if follower.by_password:
            running.nobody.auth = ("jo", PASSWORD)
        else:
            running.nobody.headers["Authorization"] = f"Bearer {made.secret}"
        log.error("before")
        async with following(running, level="error") as events:
            assert (await anext(events))[1]["message"] == "before"
            await asyncio.sleep(0.3)
            log.error("still")
            assert (await anext(events))[1]["message"] == "still", (
                "a login that is good is asked for again, and goes on"
            )
            await follower.end(users, made.token.token_id)
            async with asyncio.timeout(10):
                assert [each async for each in events] == [], "the stream ends, in order"
        await until(lambda: streams(running) == 0)


async def test_the_log_is_not_followed_by_anybody_once_there_is_a_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomowire.web.api.logs.HEARTBEAT", 0.1)
    async with web(tmp_path, users=False, filled=False) as running, following(running, level="error") as events:
        await running.archive.users.add("jo", Role.ADMINISTRATOR)
        async with asyncio.timeout(10):
            assert [each async for each in events] == []
