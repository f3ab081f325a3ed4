"""Events of commands: what one changes is in the trail with it, or neither is, whether or not the archive runs meanwhile.

An event is added in the transaction of what it tells of, behind the last one that there is. Where the archive adds some at the
same moment one of the two does it again: the number of an event is given once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Self, TypeVar

from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.audit.anchor import ANCHOR, move_anchor, read_anchor, write_anchor
from tomowire.server.audit.events import AuditEvent
from tomowire.server.audit.teller import teller_of
from tomowire.server.audit.trail import START, TRAIL_SINCE, Entry, append, holds, last_entry
from tomowire.server.audit.writing import load_drafts_of, until_first
from tomowire.server.posix import is_read_only

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tomowire.server.records import Records
    from tomowire.server.settings import AuditSettings, Settings

T = TypeVar("T")

logger: Final = logging.getLogger("tomowire.audit")

_AT_ONCE: Final = 32
_INTERVAL: Final = 1.0
"""Seconds. A command that is killed has not told of so many, or of those of so long: a transaction for each takes too much."""


class Addition:
    """Events that are added in a transaction of somebody else's: `add` in it, which may be done again, and `settle` after it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.audit
        self._root = settings.data_dir.absolute()
        self._teller = teller_of(settings)
        self._is_end_known = False
        self._added: Sequence[Entry] = ()

    def add(self, connection: Connection, numbered: Sequence[tuple[int, AuditEvent]]) -> None:
        """Add events, with the moments at which they were recorded. Imports SQLAlchemy; raises what it does."""
        drafts_of = load_drafts_of()
        self._is_end_known = self._knows_end(connection)
        self._added = append(connection, drafts_of(connection, numbered, self._teller))

    async def settle(self) -> None:
        """They are in the trail."""
        if not self._added:
            return
        if self._is_end_known:
            await asyncio.to_thread(self._move_anchor, self._added[-1])
        if self._settings.syslog_host is not None:
            await _send(self._settings, self._added)

    def _knows_end(self, connection: Connection) -> bool:
        """Whether the end that the data directory remembers is the trail's; see `anchor`."""
        try:
            end = read_anchor(self._root)
            if end is None and last_entry(connection) is None and self._root.is_dir():
                write_anchor(self._root, *(end := (0, START)))
        except (UsageError, OSError) as error:
            logger.warning("the end of the audit trail is not noted: %s", error)
            return False
        if end is None or holds(connection, end):
            return end is not None
        logger.warning("the audit trail does not end where %s says that it did: 'tomowire db check' tells more", ANCHOR)
        return False

    def _move_anchor(self, last: Entry) -> None:
        try:
            move_anchor(self._root, last.number, last.hash)
        except OSError as error:
            logger.warning("the end of the audit trail is not noted: %s", error)


class Notes:
    """For a command that works on the archive of `settings`, and its `records`."""

    def __init__(self, records: Records, settings: Settings) -> None:
        self._records = records
        self._settings = settings

    async def write(self, work: Callable[[Connection], T], *events: AuditEvent) -> T:
        """Do `work` and have `events` in the trail, in one transaction. Raises `IndexUnavailable`, and what `work` raises."""
        if not self._settings.audit.enabled:
            return await self._records.write(work)
        moment = time.time_ns() // 1000
        numbered = [(moment, event) for event in events]
        addition = Addition(self._settings)
        await asyncio.to_thread(load_drafts_of)  # not in the transaction: see there

        def both(connection: Connection) -> T:
            result = work(connection)
            addition.add(connection, numbered)
            return result

        result = await until_first(lambda: self._records.write(both))
        await addition.settle()
        return result

    async def tell(self, events: Sequence[AuditEvent]) -> None:
        """Have events in the trail, some in each transaction. Raises `IndexUnavailable`."""
        for start in range(0, len(events), _AT_ONCE):
            await self.write(lambda _: None, *events[start : start + _AT_ONCE])


async def _send(settings: AuditSettings, added: Sequence[Entry]) -> None:
    from tomowire.server.audit.syslog import Syslog

    async with Syslog.to(settings) as syslog:
        for entry in added:
            syslog.send(entry)


class NotedCommand:
    """`with NotedCommand(settings) as noted`, for a command without an event loop; `noted.tell(event)`.

    They are written some at a time, at once where they come seldom, and the last of them at the end, however it ends. Raises
    `IndexUnavailable`.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._not_before = clock() + _INTERVAL
        self._waiting: list[AuditEvent] = []

    def tell(self, event: AuditEvent) -> None:
        """Have `event` in the trail."""
        self._waiting.append(event)
        if len(self._waiting) >= _AT_ONCE or self._clock() >= self._not_before:
            self.flush()

    def flush(self) -> None:
        """Write those that wait."""
        told, self._waiting = self._waiting, []
        self._not_before = self._clock() + _INTERVAL
        if told and self._settings.audit.enabled:
            try:
                asyncio.run(_tell(self._settings, told))
            except IndexUnavailable as error:
                if self._settings.index_url is not None or not is_read_only(self._settings.data_dir):
                    raise error.said(
                        f"what was done so far is done, and is not in the audit trail, which cannot be written: {error}"
                    ) from error
                # A disk that takes nothing any more is when a backup is wanted most.
                logger.error(
                    "the audit trail is on a read-only disk, and %d events are not in it: %s", len(told), error
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.finish(error)

    def finish(self, error: BaseException | None) -> None:
        """Write those that wait, at the end of a command. When an `error` has ended it, that is what is raised."""
        try:
            self.flush()
        except IndexUnavailable as unwritten:
            if error is None:
                raise
            logger.error("%s", unwritten)


async def _tell(settings: Settings, events: Sequence[AuditEvent]) -> None:
    from tomowire.server.index.backend import backend_for
    from tomowire.server.records import Records

    backend = backend_for(settings.index_url, settings.data_dir)
    if (schema := backend.version()) is not None and schema < TRAIL_SINCE:
        logger.warning("the index has schema %s, and no audit trail yet: %d events are not in one", schema, len(events))
        return
    async with Records(backend.engine) as records:
        try:
            await Notes(records, settings).tell(events)
        except Exception as error:
            from sqlalchemy import exc  # not `sqlalchemy.exc`: see `lazily`

            if not isinstance(error, exc.IntegrityError):
                raise
            raise IndexUnavailable(
                "the number of the next event is taken: 'tomowire db check' looks at the index"
            ) from error
