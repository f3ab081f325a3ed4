"""The audit trail: rows that are only ever added, each with a hash over itself and over the one before it.

What is changed, taken out, put in or moved breaks the chain from there on. What is taken away at the end does not: for that there
is the `anchor`, a file beside the database. Who may write to both can of course write a new chain; the copies at a syslog server
are for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tomowire.server.audit.events import Patient, Study
from tomowire.server.index.paging import each_of_pages
from tomowire.wire.value import value

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

End: TypeAlias = tuple[int, bytes]
"""Number and hash of an entry that was the last one once."""

START: Final = bytes(32)
"""What the first row has in the place of a previous hash."""

TRAIL_SINCE: Final = "0002"
"""The first schema of the index whose table of events takes what `append` adds."""

BEFORE_ALL: Final = -(2**63)
"""A number that is smaller than any: who looks for what was put in looks there too."""

_PAGE: Final = 1000

_ADDING: Final = 0x746F6D6F_77697202
"""The advisory lock of whoever adds events, in PostgreSQL: "tomowir" and 2. In SQLite there is one who writes at a time anyway.

All want the next number: without a lock one of them gets it, and of many that try again and again some never do.
"""


@value()
class Draft:
    """A row that has no place yet. `recorded_at` is in microseconds since 1970, UTC; `outcome` as in the message."""

    recorded_at: int
    event: str
    outcome: int
    actor: str
    source: str
    message: str


@value()
class Entry:
    """A row of the trail: the event's `number` in it, and the fields of `Draft`."""

    number: int
    recorded_at: int
    event: str
    outcome: int
    actor: str
    source: str
    message: str
    previous_hash: bytes
    hash: bytes


@value(kw_only=True)
class Filter:
    """Which entries are wanted; what is None does not matter. Times in microseconds since 1970, UTC; `until` is excluded.

    `patient` is a Patient ID and `study` a Study Instance UID: what the message says that it is about. All that is left by the
    others is looked through for them.
    """

    event: str | None = None
    outcome: int | None = None
    actor: str | None = None
    source: str | None = None
    patient: str | None = None
    study: str | None = None
    since: int | None = None
    until: int | None = None


EVERYTHING: Final = Filter()


def hash_of(number: int, draft: Draft, previous_hash: bytes) -> bytes:
    """SHA-256 over the hash of the row before and all that this one says, each with its length in front."""
    found = sha256(previous_hash)
    for each in (
        str(number),
        str(draft.recorded_at),
        draft.event,
        str(draft.outcome),
        draft.actor,
        draft.source,
        draft.message,
    ):
        raw = each.encode()
        found.update(len(raw).to_bytes(8, "big"))
        found.update(raw)
    return found.digest()


def append(connection: Connection, drafts: Sequence[Draft], end: End | None = None) -> list[Entry]:
    """Add rows behind the last one; gives them as they stand there.

    Where the trail does not hold `end`, which was its end once, it goes on from there, so that the gap or the break stays to be
    seen. Another process that adds some at the same moment waits for the end of this transaction. Raises `IntegrityError` if one
    does not, being of another version: to be done again.
    """
    from sqlalchemy import insert

    from tomowire.server.index.administration import audit_events

    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADDING})")
    last = last_entry(connection)
    number, previous = (0, START) if last is None else (last.number, last.hash)
    if end is not None and not holds(connection, end):
        number, previous = max(number, end[0]), end[1]
    added: list[Entry] = []
    for draft in drafts:
        number += 1
        digest = hash_of(number, draft, previous)
        entry = Entry(
            number,
            draft.recorded_at,
            draft.event,
            draft.outcome,
            draft.actor,
            draft.source,
            draft.message,
            previous,
            digest,
        )
        added.append(entry)
        previous = digest
    if added:
        connection.execute(insert(audit_events), [_columns(entry) for entry in added])
    return added


def last_entry(connection: Connection) -> Entry | None:
    """The entry with the greatest number."""
    found = read(connection, limit=1, newest_first=True)
    return found[0] if found else None


def holds(connection: Connection, end: End) -> bool:
    """Whether the event that was the last one once is in the trail, as it was."""
    number, digest = end
    if number == 0:
        return True
    found = read(connection, after=number - 1, before=number + 1, limit=1)
    return bool(found) and found[0].hash == digest


def read(
    connection: Connection,
    wanted: Filter = EVERYTHING,
    *,
    after: int = 0,
    before: int | None = None,
    limit: int = _PAGE,
    newest_first: bool = False,
) -> list[Entry]:
    """Up to `limit` entries whose numbers are between `after` and `before` (both excluded), in their order or the other way."""
    from sqlalchemy import select

    from tomowire.server.index.administration import audit_events

    columns = audit_events.c
    statement = select(audit_events).where(columns.event_key > after, *_conditions(wanted, connection))
    if before is not None:
        statement = statement.where(columns.event_key < before)
    order = columns.event_key.desc() if newest_first else columns.event_key
    return [Entry(*row) for row in connection.execute(statement.order_by(order).limit(limit))]


def entries(connection: Connection) -> Iterator[Entry]:
    """All entries, a page at a time."""
    return each_of_pages(lambda after: read(connection, after=after), lambda each: each.number, 0)


def problems(found: Iterable[Entry], anchor: End | None = None) -> Iterator[str]:
    """What is wrong with a trail, in words: what was changed, is missing, or is not where it was."""
    expected, previous = 1, START
    anchored = anchor is None or anchor[0] == 0
    for entry in found:
        if entry.number < expected:
            yield f"event {entry.number} was put in: the first one is 1"
            continue
        if entry.number != expected:
            yield _missing(expected, entry.number - 1)
        elif entry.previous_hash != previous:
            yield f"event {entry.number} does not follow the one before it: one of the two was changed or put in"
        if not _has_its_hash(entry):
            yield f"event {entry.number} was changed"
        if anchor is not None and entry.number == anchor[0]:
            anchored = True
            if entry.hash != anchor[1]:
                yield f"event {entry.number} is not the one that was recorded: the trail was written anew"
        expected, previous = entry.number + 1, entry.hash
    if not anchored and anchor is not None and anchor[0] >= expected:
        yield f"{_missing(expected, anchor[0])} at the end"


def _has_its_hash(entry: Entry) -> bool:
    draft = Draft(entry.recorded_at, entry.event, entry.outcome, entry.actor, entry.source, entry.message)
    try:
        return hash_of(entry.number, draft, entry.previous_hash) == entry.hash
    except (AttributeError, TypeError, ValueError):
        return False  # SQLite takes bytes where text is to be: somebody has put them there


def _missing(first: int, last: int) -> str:
    return f"event {first} is missing" if first == last else f"events {first} to {last} are missing"


def _columns(entry: Entry) -> dict[str, Any]:
    return {
        "event_key": entry.number,
        "recorded_at": entry.recorded_at,
        "event": entry.event,
        "outcome": entry.outcome,
        "actor": entry.actor,
        "source": entry.source,
        "message": entry.message,
        "previous_hash": entry.previous_hash,
        "hash": entry.hash,
    }


def _conditions(wanted: Filter, connection: Connection) -> list[ColumnElement[bool]]:
    from sqlalchemy import func

    from tomowire.server.index.administration import audit_events

    columns = audit_events.c
    conditions: list[ColumnElement[bool]] = [
        columns[name] == getattr(wanted, name)
        for name in ("event", "outcome", "actor", "source")
        if getattr(wanted, name) is not None
    ]
    if wanted.since is not None:
        conditions.append(columns.recorded_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(columns.recorded_at < wanted.until)
    # Not LIKE: it has wildcards, and in SQLite no regard to case.
    place_in = func.instr if connection.dialect.name == "sqlite" else func.strpos
    conditions += [place_in(columns.message, mark) > 0 for mark in _marks(wanted)]
    return conditions


def _marks(wanted: Filter) -> Iterator[str]:
    """What a message has in it that is about them."""
    from tomowire.server.audit.messages import mark_of  # messages are not made while an archive starts
    from tomowire.server.audit.telling import patient_object, study_object

    if wanted.patient is not None:
        yield mark_of(patient_object(Patient(wanted.patient)))
    if wanted.study is not None:
        yield mark_of(study_object(Study(wanted.study)))
