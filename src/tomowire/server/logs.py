"""The archive's log: as JSON lines where a program reads it, and its last lines in memory for whoever looks from outside.

Each line knows to which association and request it belongs: from the task that logged it (`aio.log_context`), or from the
association's title among its arguments. A request is named `association.message`, both numbers, or as the HTTP server names it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.facts import AssociationTitle
from tomowire.aio.log_context import serving
from tomowire.errors import UsageError

if TYPE_CHECKING:
    from tomowire.aio.facts import AssociationFacts

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
"""How much is logged, by the names that the configuration has for it."""

http_request: Final[ContextVar[str]] = ContextVar("http_request", default="")
"""The id of the HTTP request that a task is answering; set by the HTTP server."""

LINES_KEPT: Final = 1000
_MOST_WAITING: Final = 1000
"""Lines that a subscriber may be behind."""

_LOGGER: Final = "tomowire"


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says, in the order in which it is written: see docs/reference/log.md."""
    moment = datetime.fromtimestamp(record.created, UTC)
    fields: dict[str, Any] = {
        "time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    request = serving.get()
    association = request.association if request is not None else _association_among(record.args)
    if association is not None:
        fields |= _about(association)
    if request is not None:
        fields["request"] = f"{request.association.number}.{request.message_id}"
        fields["operation"] = type(request.message).__name__
    elif http := http_request.get():
        fields["request"] = http
    if record.exc_info and record.exc_info[0] is not None:
        fields["exception"] = logging.Formatter().formatException(record.exc_info)
    return fields


def line_of(fields: dict[str, Any]) -> str:
    """The line: JSON, in which no line breaks and no control characters are left as they are."""
    return json.dumps(fields, ensure_ascii=True, default=str)


class JsonLines(logging.Formatter):
    """Each record is one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        return line_of(fields_of(record))


class LogTail(logging.Handler):
    """The last lines, and those to come: `async for fields in tail.subscribe()`. For the thread of the event loop."""

    def __init__(self, kept: int = LINES_KEPT) -> None:
        super().__init__()
        self._kept: deque[dict[str, Any]] = deque(maxlen=kept)
        self._subscribers: set[_Subscriber] = set()

    def last(self, count: int | None = None) -> list[dict[str, Any]]:
        """The last lines, the oldest first; None: all that are kept."""
        kept = list(self._kept)
        return kept if count is None else kept[max(len(kept) - count, 0) :]

    async def subscribe(
        self, last: int = 0, *, most_waiting: int = _MOST_WAITING
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The `last` lines that are kept, and then each that comes, until this is closed or the tail is.

        Who takes them too slowly does not get all: before the next line comes one with nothing but `dropped`, their number.
        """
        subscriber = _Subscriber(most_waiting)
        with self._at_once():
            subscriber.lines.extend(self.last(last))
            self._subscribers.add(subscriber)
        try:
            async for fields in subscriber.take():
                yield fields
        finally:
            self._subscribers.discard(subscriber)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = fields_of(record)
            self._kept.append(fields)
            for subscriber in list(self._subscribers):
                subscriber.put(fields)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Keep the lines, and let the subscribers go."""
        for subscriber in list(self._subscribers):
            subscriber.end()
        super().close()

    @contextmanager
    def installed(self) -> Iterator[LogTail]:
        """Gets what tomowire logs, within this."""
        log = logging.getLogger(_LOGGER)
        log.addHandler(self)
        try:
            yield self
        finally:
            log.removeHandler(self)
            self.close()

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """No line is added meanwhile, by whatever thread."""
        self.acquire()
        try:
            yield
        finally:
            self.release()


class _Subscriber:
    """The lines that one reader has not taken yet; put there by any thread, under the handler's lock."""

    def __init__(self, most: int) -> None:
        self.lines: deque[dict[str, Any]] = deque()
        self._most = most
        self._dropped = 0
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def put(self, fields: dict[str, Any]) -> None:
        if len(self.lines) >= self._most:
            self._dropped += 1
            return
        self.lines.append(fields)
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    async def take(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            self._news.clear()
            while self.lines:
                yield self.lines.popleft()
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                yield {"dropped": dropped}
                continue
            if self._ended:
                return
            await self._news.wait()

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)


def write_json() -> None:
    """Have the log that goes to a stream written as JSON lines."""
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(JsonLines())


def set_level(name: str) -> None:
    """Log that much from now on. Raises `UsageError` for a name that is not in `LEVELS`."""
    if name not in LEVELS:
        raise UsageError(f"{name!r} is no log level: {', '.join(LEVELS)}")
    logging.getLogger(_LOGGER).setLevel(LEVELS[name])


def level() -> str:
    """How much is logged now."""
    return logging.getLevelName(logging.getLogger(_LOGGER).getEffectiveLevel()).lower()


def _association_among(arguments: Any) -> AssociationFacts | None:
    for argument in arguments if isinstance(arguments, tuple) else ():
        if isinstance(argument, AssociationTitle):
            return argument.association
    return None


def _about(association: AssociationFacts) -> dict[str, Any]:
    return {
        "association": association.number,
        "calling": association.calling_ae_title,
        "called": association.called_ae_title,
        "address": association.peer_address,
    }
