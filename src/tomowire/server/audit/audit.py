"""`Audit`: what the parts of the archive tell their events to. It writes them down in the background, in order, some at a time.

Nobody waits for it: an event is put into a queue, and a transaction takes what is there. Between two transactions there is a
second, so that recording does not get in the way of storing, which writes to the same database. What a killed process had not
written yet is lost, then: a second of it, or what came since the start. While the database cannot be used events wait, as many as
there is room for; the rest is counted, logged, and recorded as a loss when that is possible again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Final, Self

from tomowire.errors import IndexUnavailable
from tomowire.server.audit.anchor import read_anchor
from tomowire.server.audit.events import AuditEvent, EventsLost, Query
from tomowire.server.audit.teller import Teller
from tomowire.server.audit.trail import BEFORE_ALL, EVERYTHING, Entry, Filter, problems, read
from tomowire.server.audit.writing import TrailWriter
from tomowire.server.index.paging import each_of_pages
from tomowire.server.settings import AuditSettings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tomowire.server.audit.syslog import Syslog
    from tomowire.server.records import Records

logger: Final = logging.getLogger("tomowire.audit")

DEFAULT_SETTINGS: Final = AuditSettings()
ROOM: Final = 16 * 1024 * 1024
"""Bytes that waiting events may take, about: ten thousand of them, or more."""

_WEIGHT: Final = 1024
_MOST_AT_ONCE: Final = 256
_FIRST_WRITE: Final = 2.0
"""Seconds after the start: writing takes SQLAlchemy, and whoever calls at once has objects to store."""
_INTERVAL: Final = 1.0
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 30.0
_CLOSING: Final = 5.0
_MOST_PROBLEMS: Final = 100
_BETWEEN_COMPLAINTS: Final = 60.0
"""All in seconds."""


class Audit:
    """`async with Audit(records, root, teller) as audit`; `audit.record(event)`, from any thread.

    `root` is the data directory, for the anchor. Where `settings` do not have it enabled nothing is recorded, and what is there can
    be read.
    """

    def __init__(
        self,
        records: Records,
        root: Path,
        teller: Teller,
        *,
        settings: AuditSettings = DEFAULT_SETTINGS,
        room: int = ROOM,
        first_write: float = _FIRST_WRITE,
        interval: float = _INTERVAL,
        first_wait: float = _FIRST_WAIT,
    ) -> None:
        self._records = records
        self._root = root
        self._teller = teller
        self._writer = TrailWriter(records, root, lambda: self._teller, self.record)
        self._settings = settings
        self._syslog: Syslog | None = None
        self._room = room
        self._interval = interval
        self._first_wait = first_wait
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._not_before = self._loop.time() + first_write
        self._queue: deque[tuple[int, AuditEvent]] = deque()
        self._used = 0
        self._arrived = asyncio.Event()
        self._hurried = asyncio.Event()
        self._hurrying = 0
        self._changed = asyncio.Condition()
        self._unreported = 0
        self._is_away = False
        self._complained_at = -_BETWEEN_COMPLAINTS
        self._task: asyncio.Task[None] | None = None
        self._connecting = AsyncExitStack()
        self.recorded = 0
        """Events that were told since the start."""
        self.written = 0
        self.lost = 0
        """Of these, those that are in the trail, and those that will never be."""

    @property
    def waiting(self) -> int:
        """How many events have yet to be written."""
        return len(self._queue)

    @property
    def syslog(self) -> Syslog | None:
        """What sends the messages to a syslog server, if that is wanted; it counts those `sent`, `waiting` and `lost`."""
        return self._syslog

    def record(self, event: AuditEvent) -> None:
        """Have `event` written down, as of now. Returns at once, and never fails."""
        if not self._settings.enabled:
            return
        moment = time.time_ns() // 1000
        if get_ident() == self._thread:
            self._take(moment, event)
        else:
            with suppress(RuntimeError):  # the event loop has ended
                self._loop.call_soon_threadsafe(self._take, moment, event)

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was recorded so far is written, or lost. False if that takes more than `timeout` seconds."""
        told = self.recorded
        self._hurrying += 1
        self._hurried.set()
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self.written + self.lost >= told)
        except TimeoutError:
            return False
        finally:
            self._hurrying -= 1
            if not self._hurrying:
                self._hurried.clear()
        return True

    async def list(
        self,
        wanted: Filter = EVERYTHING,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Sequence[Entry]:
        """Entries of the trail, as `trail.read` gives them. Raises `IndexUnavailable`."""

        def work(connection: Connection) -> Sequence[Entry]:
            return read(connection, wanted, after=after, before=before, limit=limit, newest_first=newest_first)

        return await self._records.read(work)

    async def verify(self) -> Sequence[str]:
        """What is wrong with the trail, in words; the first hundred of it. Raises `IndexUnavailable`, `UsageError`."""
        return await asyncio.to_thread(self._verify)

    async def __aenter__(self) -> Self:
        await self._connect()
        self._task = self._loop.create_task(self._run(), name="audit")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what is waiting; not for ever, if the database cannot be used."""
        if not await self.flush(_CLOSING):
            logger.error("%d audit events were not written: the database cannot be used", self.waiting)
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._connecting.aclose()

    async def apply(self, settings: AuditSettings, teller: Teller | None = None) -> None:
        """Have other settings in force from now on, told by `teller`, if that is another one now. What waits for a syslog server
        that is not used any more is lost."""
        self._teller = teller or self._teller
        if settings != self._settings:
            self._settings = settings
            before, self._connecting = self._connecting, AsyncExitStack()
            await self._connect()  # first: what is recorded while the one of before is left goes to the new one
            await before.aclose()

    async def _connect(self) -> None:
        """Begin to send to the syslog server, if there is one; whether it is there is seen later."""
        self._syslog = None
        if self._settings.enabled and self._settings.syslog_host is not None:
            from tomowire.server.audit.syslog import Syslog

            self._syslog = await self._connecting.enter_async_context(Syslog.to(self._settings))

    def _take(self, moment: int, event: AuditEvent) -> None:
        self.recorded += 1
        weight = _weight(event)
        if self._used + weight > self._room and not isinstance(event, EventsLost):
            self._lose(1, "more events came than there was room for while the database could not be used")
            return
        self._used += weight
        self._queue.append((moment, event))
        self._arrived.set()

    def _lose(self, count: int, why: str) -> None:
        self.lost += count
        self._unreported += count
        if self._loop.time() - self._complained_at >= _BETWEEN_COMPLAINTS:
            self._complained_at = self._loop.time()
            logger.error("audit events are being lost, %d so far: %s", self.lost, why)

    async def _run(self) -> None:
        wait = self._first_wait
        while True:
            await self._arrived.wait()
            await self._pause()
            try:
                await self._write_some()
            except Exception as error:
                self._wait_for_database(error)
                self._not_before = self._loop.time() + wait
                wait = min(2 * wait, _LONGEST_WAIT)
                self._hurried.clear()
            else:
                if self._is_away:
                    logger.warning("audit events are written again")
                    self._is_away = False
                wait = self._first_wait
                self._not_before = self._loop.time() + self._interval
            async with self._changed:
                self._changed.notify_all()

    def _wait_for_database(self, error: Exception) -> None:
        """Told once, until it is there again."""
        why = str(error) if isinstance(error, IndexUnavailable) else type(error).__name__
        level = logging.DEBUG if self._is_away else logging.WARNING
        logger.log(level, "audit events wait, %d so far: the database cannot be used: %s", self.waiting, why)
        self._is_away = True

    async def _pause(self) -> None:
        delay = self._not_before - self._loop.time()
        if delay > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._hurried.wait()

    async def _write_some(self) -> None:
        """Write the first of the queue. Raises `IndexUnavailable`: they are still there then."""
        batch = list(islice(self._queue, _MOST_AT_ONCE))
        try:
            added = await self._writer.append(batch)
        except IndexUnavailable:
            raise
        except Exception as error:
            # Only of what kind it is: the text of a database's error may quote a message, and that names patients.
            logger.error("%d audit events cannot be written together: %s", len(batch), type(error).__name__)
            await self._write_singly(len(batch))
        else:
            await self._settle(len(batch), added)
        if self._unreported:
            count, self._unreported = self._unreported, 0
            self.record(EventsLost(count=count, reason="the database could not be used, or could not take them"))

    async def _write_singly(self, count: int) -> None:
        """Write those of the first `count` that can be written. Raises `IndexUnavailable`: those that were not tried are still
        there then."""
        for _ in range(count):
            event = self._queue[0]
            try:
                added = await self._writer.append([event])
            except IndexUnavailable:
                raise
            except Exception as error:
                await self._settle(1, ())
                self._lose(1, f"{type(event[1]).__name__} cannot be written: {type(error).__name__}")
            else:
                await self._settle(1, added)

    async def _settle(self, count: int, added: Sequence[Entry]) -> None:
        """The first `count` of the queue are over; `added` is what became of them."""
        for _ in range(count):
            _, event = self._queue.popleft()
            self._used -= _weight(event)
        self.written += len(added)
        if not self._queue:
            self._arrived.clear()
        if added:
            await self._writer.anchor(added[-1])
        if self._syslog is not None:
            for entry in added:
                self._syslog.send(entry)

    def _verify(self) -> Sequence[str]:
        anchor = read_anchor(self._root)  # before the trail: it is never ahead of it
        return list(islice(problems(self._entries(), anchor), _MOST_PROBLEMS))

    def _entries(self) -> Iterator[Entry]:
        return each_of_pages(
            lambda after: self._records.read_now(partial(read, after=after)), lambda each: each.number, BEFORE_ALL
        )


def _weight(event: AuditEvent) -> int:
    return _WEIGHT + (len(event.identifier) if isinstance(event, Query) else 0)
