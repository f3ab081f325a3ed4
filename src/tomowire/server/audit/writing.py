"""Events on their way into the trail: in transactions of `Records`, behind the end that the trail had when it was last seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from tomowire.errors import UsageError
from tomowire.server.audit.anchor import ANCHOR, clear_unfinished, move_anchor, read_anchor, write_anchor
from tomowire.server.audit.events import AuditEvent, EventsLost, Outcome
from tomowire.server.audit.teller import Teller
from tomowire.server.audit.trail import START, Draft, End, Entry, append, holds, last_entry

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tomowire.server.records import Records

T = TypeVar("T")

logger: Final = logging.getLogger("tomowire.audit")

_MOST_ATTEMPTS: Final = 20


class TrailWriter:
    """Writes events with the moments at which they were recorded (microseconds since 1970).

    `teller` gives who tells them; `record` gets an event that is to be written too.
    """

    def __init__(
        self,
        records: Records,
        root: Path,
        teller: Callable[[], Teller],
        record: Callable[[AuditEvent], object],
    ) -> None:
        self._records = records
        self._root = root
        self._teller = teller
        self._record = record
        self._has_begun = False
        self._end: End | None = None

    async def append(self, batch: Sequence[tuple[int, AuditEvent]]) -> Sequence[Entry]:
        """Write some, as often as it takes: another process that uses the same database may have been quicker.

        Raises `IndexUnavailable`, and anything else for an event that cannot be written.
        """

        drafts_of = await asyncio.to_thread(load_drafts_of)

        def work(connection: Connection) -> tuple[Sequence[Entry], EventsLost | None]:
            if not self._has_begun:
                self._begin(connection)
            loss = _loss(connection, self._end)
            return append(connection, drafts_of(connection, batch, self._teller()), self._end), loss

        added, loss = await until_first(lambda: self._records.write(work))
        if added:
            self._end = added[-1].number, added[-1].hash
        if loss is not None:
            logger.error("%s", _in_words(loss))
            self._record(loss)
        return added

    def _begin(self, connection: Connection) -> None:
        """See whether the trail still has the end that it had when the archive was stopped."""
        clear_unfinished(self._root)
        unknown = f"{ANCHOR} is missing"
        try:
            self._end = read_anchor(self._root)
        except (UsageError, OSError) as error:
            unknown = str(error)
        if self._end is None and last_entry(connection) is None:
            with suppress(OSError):  # which is told when there is an event
                write_anchor(self._root, 0, START)  # before the first event: killed after it, the file would be missed
        elif self._end is None:
            logger.error("%s: whether audit events were removed from the end of the trail cannot be told", unknown)
            self._record(EventsLost(count=0, reason=f"{unknown}: whether events were removed cannot be told"))
        self._has_begun = True

    async def anchor(self, last: Entry) -> None:
        """Note that `last` is the end of the trail."""
        try:
            await asyncio.to_thread(move_anchor, self._root, last.number, last.hash)
        except OSError as error:
            logger.error("the end of the audit trail cannot be noted: %s", error)


def load_drafts_of() -> Callable[[Connection, Sequence[tuple[int, AuditEvent]], Teller], Sequence[Draft]]:
    """`drafting.drafts_of`. In a thread, since it imports SQLAlchemy; before a transaction, for which all who store wait."""
    import tomowire.server.index.administration  # noqa: F401 - for `append`
    from tomowire.server.audit.drafting import drafts_of

    return drafts_of


async def until_first(write: Callable[[], Awaitable[T]]) -> T:
    """Do it again while another process is quicker: both want the same number, and one of them gets it."""
    for _ in range(_MOST_ATTEMPTS - 1):
        try:
            return await write()
        except Exception as error:
            from sqlalchemy import exc  # not `sqlalchemy.exc`: see `lazily`

            if not isinstance(error, exc.IntegrityError):
                raise
    return await write()


def _loss(connection: Connection, end: End | None) -> EventsLost | None:
    """What was done to the trail behind our back, if anything: it does not hold what was its end. What keeps it may have been
    compromised then, which is a major failure (PS3.15 A.5.3.11)."""
    if end is None or holds(connection, end):
        return None
    last = last_entry(connection)
    missing = end[0] - (last.number if last is not None else 0)
    if missing > 0:
        return EventsLost(count=missing, reason="they are not in the trail any more", outcome=Outcome.MAJOR_FAILURE)
    reason = f"event {end[0]} is not the one that was recorded: the trail was written anew"
    return EventsLost(count=0, reason=reason, outcome=Outcome.MAJOR_FAILURE)


def _in_words(loss: EventsLost) -> str:
    if not loss.count:
        return f"audit {loss.reason}"
    return f"{loss.count} audit events have been removed from the end of the trail, or lost with its database"
