"""Events on their way into the trail: in transactions of `Records`, behind the end that the trail had when it was last seen."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.audit.anchor import ANCHOR, read_anchor, write_anchor
from tomowire.server.audit.events import AuditEvent, EventsLost
from tomowire.server.audit.telling import Teller
from tomowire.server.audit.trail import START, End, Entry, append, last_entry

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tomowire.server.records import Records

logger: Final = logging.getLogger("tomowire.audit")

_MOST_ATTEMPTS: Final = 20


class TrailWriter:
    """Writes events with the moments at which they were recorded (microseconds since 1970).

    `record` gets an event that is to be written too, `lose` why one is not, and never will be.
    """

    def __init__(
        self,
        records: Records,
        root: Path,
        teller: Teller,
        *,
        record: Callable[[AuditEvent], object],
        lose: Callable[[str], object],
    ) -> None:
        self._records = records
        self._root = root
        self._teller = teller
        self._record = record
        self._lose = lose
        self._has_begun = False
        self._end: End | None = None

    async def append(self, batch: Sequence[tuple[int, AuditEvent]]) -> Sequence[Entry]:
        """Write some, as often as it takes: another process that uses the same database may have been quicker.

        Raises `IndexUnavailable`, and anything else for an event that cannot be written.
        """

        def work(connection: Connection) -> Sequence[Entry]:
            from tomowire.server.audit.drafting import drafts_of  # which imports SQLAlchemy, in this thread

            if not self._has_begun:
                self._begin(connection)
            return append(connection, drafts_of(connection, batch, self._teller), self._end)

        for _ in range(_MOST_ATTEMPTS - 1):
            try:
                return await self._records.write(work)
            except Exception as error:
                from sqlalchemy import exc  # not `sqlalchemy.exc`: see `lazily`

                if not isinstance(error, exc.IntegrityError):
                    raise
        return await self._records.write(work)

    async def append_one_by_one(self, batch: Sequence[tuple[int, AuditEvent]]) -> Sequence[Entry]:
        """Write those that can be written."""
        added = deque[Entry]()
        for moment, event in batch:
            try:
                added += await self.append([(moment, event)])
            except IndexUnavailable:
                self._lose("the database could not be used")
            except Exception as error:
                self._lose(f"{type(event).__name__} cannot be written: {type(error).__name__}")
        return added

    def _begin(self, connection: Connection) -> None:
        """See whether the trail still has the end that it had when the archive was stopped."""
        unknown = f"{ANCHOR} is missing"
        try:
            self._end = read_anchor(self._root)
        except UsageError as error:
            unknown = str(error)
        last = last_entry(connection)
        number = 0 if last is None else last.number
        if self._end is None and last is None:
            with suppress(OSError):  # which is told when there is an event
                write_anchor(self._root, 0, START)  # before the first event: killed after it, the file would be missed
        elif self._end is None:
            logger.error("%s: whether audit events were removed from the end of the trail cannot be told", unknown)
            self._record(EventsLost(count=0, reason=f"{unknown}: whether events were removed cannot be told"))
        if self._end is not None and self._end[0] > number:
            missing = self._end[0] - number
            logger.error(
                "%d audit events have been removed from the end of the trail, or lost with its database", missing
            )
            self._record(EventsLost(count=missing, reason="they are not in the trail any more"))
        self._has_begun = True

    async def anchor(self, last: Entry) -> None:
        """Note that `last` is the end of the trail."""
        try:
            self._end = last.number, last.hash
            await asyncio.to_thread(write_anchor, self._root, *self._end)
        except OSError as error:
            logger.error("the end of the audit trail cannot be noted: %s", error)
