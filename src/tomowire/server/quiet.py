"""The log of an archive in trouble: a full disk fails every object of every sender, and need not say so for each of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tomowire.errors import StoreFailed
from tomowire.protocol.status import Status

logger: Final = logging.getLogger(__name__)

_STORAGE_LOG: Final = "tomowire.storage"
INTERVAL: Final = 10.0
"""Seconds."""


@dataclass(slots=True)
class _LeftOut:
    """What was not logged since the last line about one status."""

    timer: asyncio.TimerHandle
    count: int = 0
    last: str = ""


class RepeatedFailures(logging.Filter):
    """Lets the first line about a failure to store pass, for each status, and leaves out those that come within `interval` seconds.

    At the end of that time one line says how many they were, and the next interval begins. What is left out are log records with
    a `StoreFailed` among their arguments; with a log that is more talkative than warnings nothing is. For the event loop's thread.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        super().__init__()
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._left_out: dict[int, _LeftOut] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        failure = next((argument for argument in arguments if isinstance(argument, StoreFailed)), None)
        if failure is None or logger.isEnabledFor(logging.INFO):
            return True
        left_out = self._left_out.get(failure.status)
        if left_out is None:
            self._begin(failure.status)
            return True
        left_out.count += 1
        left_out.last = record.getMessage()
        return False

    def flush(self) -> None:
        """Say what has been left out so far, and begin anew."""
        for status, left_out in list(self._left_out.items()):
            left_out.timer.cancel()
            self._end(status)

    def _begin(self, status: int) -> None:
        self._left_out[status] = _LeftOut(self._loop.call_later(self._interval, self._next, status))

    def _next(self, status: int) -> None:
        if self._end(status):
            self._begin(status)

    def _end(self, status: int) -> bool:
        """Whether anything was left out."""
        left_out = self._left_out.pop(status)
        if left_out.count:
            logger.warning(
                "%d more objects not stored, %s; the last: %s", left_out.count, Status(status), left_out.last
            )
        return left_out.count > 0


@contextmanager
def fewer_failures(interval: float = INTERVAL) -> Iterator[None]:
    """Within this the storage service's log is spared repeated failures. Inside an event loop."""
    repeated = RepeatedFailures(interval)
    log = logging.getLogger(_STORAGE_LOG)
    log.addFilter(repeated)
    try:
        yield
    finally:
        log.removeFilter(repeated)
        repeated.flush()
