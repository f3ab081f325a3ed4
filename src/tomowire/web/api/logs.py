"""The log: its last lines, and those that come."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import Field
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tomowire.server.logs import LEVELS
from tomowire.server.users import Role
from tomowire.web.api.models import Model
from tomowire.web.api.operation import Asked, Here, operation, topic
from tomowire.web.problems import Problem

logger: Final = logging.getLogger("tomowire.http")

router = topic("logs")

MOST_STREAMS: Final = 16
"""Clients that may follow the log at once: each line is encoded for each of them."""

HEARTBEAT: Final = 15.0
"""Seconds after which a line that says nothing shows that the connection is there, and it is asked again who follows."""

_EVENT_STREAM: Final = "text/event-stream"
_MAY_FOLLOW: Final = Role.OPERATOR

LevelName = Literal["debug", "info", "warning", "error", "critical"]


class LogQuery(Model):
    """Which lines."""

    limit: int = Field(100, ge=1, le=1000, description="How many lines of those that are kept in memory.")
    level: LevelName = Field("debug", description="This one and what is worse.")


class LogLines(Model):
    """Lines of the log, the oldest first."""

    lines: list[dict[str, Any]] = Field(
        examples=[
            [{"time": "2026-01-31T12:00:00.000000Z", "level": "info", "logger": "tomowire.archive", "message": "..."}]
        ]
    )


@router.get("/logs", **operation("getLogs", Role.OPERATOR))
async def get_logs(here: Here, query: Annotated[LogQuery, Query()]) -> LogLines:
    """The last lines of the log."""
    shown = [line for line in here.archive.log_tail.last() if _is_wanted(line, query.level)]
    return LogLines(lines=shown[-query.limit :])


@router.get("/logs/stream", response_class=Response, **operation("followLogs", _MAY_FOLLOW, media=_EVENT_STREAM))
async def follow_logs(here: Here, query: Annotated[LogQuery, Query()]) -> Response:
    """The last lines and then each that comes, as server-sent events `log`.

    Who takes them too slowly does not get all: an event `dropped` says how many are missing. The stream ends with the archive, with
    the connection, also when only the sending side of the client is closed, and within seconds when who follows would not be let in
    any more: the token is revoked or has expired, the user is removed, has another password, or may do less.
    """
    return _Stream(here, query)


class _Stream(StreamingResponse):
    """Has one of the places from the moment at which it is sent until it is over, however that comes about."""

    def __init__(self, here: Asked, query: LogQuery) -> None:
        self._gate = here.gate
        self._events = _events(here, query)
        super().__init__(self._events, media_type=_EVENT_STREAM)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._gate.streams >= MOST_STREAMS:
            raise Problem(503, f"{MOST_STREAMS} clients follow the log already", headers={"Retry-After": "60"})
        self._gate.streams += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._gate.streams -= 1
            await self._events.aclose()  # a client that went away while it was sent something leaves it where it was


async def _events(here: Asked, query: LogQuery) -> AsyncGenerator[str, None]:
    clock = asyncio.get_running_loop().time
    closing = asyncio.ensure_future(here.closing.wait())
    # Who sends no more has mostly gone away, and would have the place until it is written to.
    ended = asyncio.ensure_future(here.has_ended.wait())
    ask_again = clock() + HEARTBEAT
    try:
        async with aclosing(here.archive.log_tail.subscribe(query.limit)) as lines:
            reading: asyncio.Future[dict[str, Any]] | None = None
            try:
                while True:
                    reading = reading or asyncio.ensure_future(anext(lines))
                    waiting: set[asyncio.Future[Any]] = {reading, closing, ended}
                    await asyncio.wait(waiting, timeout=max(ask_again - clock(), 0), return_when="FIRST_COMPLETED")
                    if closing.done() or (ended.done() and not reading.done()):
                        return
                    if clock() >= ask_again:
                        if not await here.may_still(_MAY_FOLLOW):
                            logger.info(
                                "%s follows the log no longer: the login is not good any more", here.principal.name
                            )
                            return
                        ask_again = clock() + HEARTBEAT
                        yield ": still here\n\n"
                    if not reading.done():
                        continue
                    done, reading = reading, None
                    try:
                        line = done.result()
                    except StopAsyncIteration:
                        return
                    if _is_wanted(line, query.level):
                        yield _event(line)
            finally:
                if reading is not None:
                    reading.cancel()
                    with suppress(asyncio.CancelledError, StopAsyncIteration):
                        await reading
    finally:
        closing.cancel()
        ended.cancel()


def _event(line: dict[str, Any]) -> str:
    """HTML 9.2.5: a line of JSON has no line breaks of its own."""
    return f"event: {'dropped' if 'dropped' in line else 'log'}\ndata: {json.dumps(line, default=str)}\n\n"


def _is_wanted(line: dict[str, Any], level: LevelName) -> bool:
    return "dropped" in line or LEVELS.get(line.get("level", ""), 0) >= LEVELS[level]
