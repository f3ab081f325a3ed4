"""The audit trail's chain: what is done to its rows is found, in both databases."""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from tomowire.errors import UsageError
from tomowire.server.audit.anchor import ANCHOR, read_anchor, write_anchor
from tomowire.server.audit.checking import check_audit
from tomowire.server.audit.trail import START, Draft, Entry, Filter, append, hash_of, last_entry, problems, read
from tomowire.server.findings import FindingKind
from tomowire.server.index.administration import audit_events
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.records import Records

DRAFTS = [
    Draft(1000 * number, "query", 0, "WS", "192.0.2.1", f"<AuditMessage>{number}\u00fc</AuditMessage>")
    for number in range(1, 6)
]


@pytest.fixture
def records(backend: IndexBackend) -> Iterator[Records]:
    backend.open_writer().close()
    made = Records(backend.engine)
    yield made
    made.close()


@pytest.fixture
def trail(records: Records, tmp_path: Path) -> Records:
    """Five events in two transactions, and the anchor."""
    records.write_now(lambda connection: append(connection, DRAFTS[:2]))
    added = records.write_now(lambda connection: append(connection, DRAFTS[2:]))
    write_anchor(tmp_path, added[-1].number, added[-1].hash)
    return records


def found(backend: IndexBackend, root: Path) -> list[str]:
    with backend.open_reader() as reader:
        findings = list(check_audit(reader, root))
    assert {finding.kind for finding in findings} <= {FindingKind.AUDIT_BROKEN}
    return [finding.explanation for finding in findings]


def without_triggers(records: Records, work: Callable[[Connection], object]) -> None:
    """What somebody does who owns the database."""

    def done(connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            connection.execute(text("DROP TRIGGER audit_events_no_update"))
            connection.execute(text("DROP TRIGGER audit_events_no_delete"))
        else:
            connection.execute(text("DROP TRIGGER audit_events_stay ON audit_events"))
        work(connection)

    records.write_now(done)


def test_what_is_added_is_there_and_is_a_chain(trail: Records, backend: IndexBackend, tmp_path: Path) -> None:
    entries = trail.read_now(read)
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.message for entry in entries] == [draft.message for draft in DRAFTS]
    assert entries[0].previous_hash == START
    assert all(after.previous_hash == before.hash for before, after in itertools.pairwise(entries))
    assert found(backend, tmp_path) == []


def test_the_hash_is_what_the_documentation_says() -> None:
    """SHA-256 over the previous hash and each field, with its length in front in eight bytes."""
    fields = ["7", "1000", "query", "0", "WS", "192.0.2.1", DRAFTS[0].message]
    expected = sha256(bytes(range(32)))
    for each in fields:
        raw = each.encode("utf-8")
        expected.update(len(raw).to_bytes(8, "big") + raw)
    assert hash_of(7, DRAFTS[0], bytes(range(32))) == expected.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"recorded_at": 1},
        {"event": "login"},
        {"outcome": 8},
        {"actor": "NOBODY"},
        {"source": ""},
        {"message": "<AuditMessage/>"},
        {"hash": bytes(32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_event_is_found(
    trail: Records, backend: IndexBackend, tmp_path: Path, change: dict[str, object]
) -> None:
    without_triggers(
        trail, lambda each: each.execute(update(audit_events).where(audit_events.c.event_key == 3).values(change))
    )
    assert "event 3 was changed" in found(backend, tmp_path)


def test_an_event_that_is_changed_with_its_hash_is_found(trail: Records, backend: IndexBackend, tmp_path: Path) -> None:
    third = trail.read_now(read)[2]
    forged = replace(DRAFTS[2], actor="NOBODY")
    values = {"actor": "NOBODY", "hash": hash_of(3, forged, third.previous_hash)}
    without_triggers(
        trail, lambda each: each.execute(update(audit_events).where(audit_events.c.event_key == 3).values(values))
    )
    assert found(backend, tmp_path) == [
        "event 4 does not follow the one before it: one of the two was changed or put in"
    ]


def test_events_that_are_taken_out_are_found(trail: Records, backend: IndexBackend, tmp_path: Path) -> None:
    without_triggers(
        trail, lambda each: each.execute(audit_events.delete().where(audit_events.c.event_key.in_([2, 3])))
    )
    assert found(backend, tmp_path) == ["events 2 to 3 are missing"]


def test_the_first_event_is_missed(trail: Records, backend: IndexBackend, tmp_path: Path) -> None:
    without_triggers(trail, lambda each: each.execute(audit_events.delete().where(audit_events.c.event_key == 1)))
    assert found(backend, tmp_path) == ["event 1 is missing"]


def test_events_that_are_cut_off_at_the_end_are_found(trail: Records, backend: IndexBackend, tmp_path: Path) -> None:
    without_triggers(trail, lambda each: each.execute(audit_events.delete().where(audit_events.c.event_key > 3)))
    assert found(backend, tmp_path) == ["events 4 to 5 are missing at the end"]


def test_an_emptied_trail_is_found(trail: Records, backend: IndexBackend, tmp_path: Path) -> None:
    without_triggers(trail, lambda each: each.execute(audit_events.delete()))
    assert found(backend, tmp_path) == ["events 1 to 5 are missing at the end"]


@dataclass
class Tampering:
    """What somebody does who owns the database, and the words of `db check`, all of them."""

    name: str
    do: Callable[[Connection], object]
    words: list[str]


def statements(*texts: str) -> Callable[[Connection], object]:
    return lambda connection: [connection.execute(text(each)) for each in texts]


def put_in(connection: Connection) -> None:
    """Between 3 and 4, with all that follows one further, and with the hash that belongs there."""
    third = read(connection)[2]
    for number in (5, 4):
        connection.execute(update(audit_events).where(audit_events.c.event_key == number).values(event_key=number + 1))
    forged = replace(DRAFTS[0], actor="NOBODY")
    digest = hash_of(4, forged, third.hash)
    connection.execute(
        audit_events.insert().values(event_key=4, previous_hash=third.hash, hash=digest, **asdict(forged))
    )


def put_in_front(connection: Connection) -> None:
    connection.execute(audit_events.insert().values(event_key=0, previous_hash=START, hash=START, **asdict(DRAFTS[0])))


_BREAK = "does not follow the one before it: one of the two was changed or put in"
TAMPERINGS = [
    Tampering(
        "changed", statements("UPDATE audit_events SET actor = 'X' WHERE event_key = 3"), ["event 3 was changed"]
    ),
    Tampering(
        "taken out of the middle",
        statements("DELETE FROM audit_events WHERE event_key = 3"),
        ["event 3 is missing"],
    ),
    Tampering(
        "taken out, and the gap closed",
        statements(
            "DELETE FROM audit_events WHERE event_key = 3",
            "UPDATE audit_events SET event_key = 3 WHERE event_key = 4",
            "UPDATE audit_events SET event_key = 4 WHERE event_key = 5",
        ),
        [f"event 3 {_BREAK}", "event 3 was changed", "event 4 was changed", "event 5 is missing at the end"],
    ),
    Tampering(
        "cut off at the end",
        statements("DELETE FROM audit_events WHERE event_key > 3"),
        ["events 4 to 5 are missing at the end"],
    ),
    Tampering(
        "put in",
        put_in,
        [
            f"event 5 {_BREAK}",
            "event 5 was changed",
            "event 5 is not the one that was recorded: the trail was written anew",
            "event 6 was changed",
        ],
    ),
    Tampering("put in front", put_in_front, ["event 0 was put in: the first one is 1"]),
    Tampering(
        "two that change places",
        statements(
            "UPDATE audit_events SET event_key = 100 WHERE event_key = 2",
            "UPDATE audit_events SET event_key = 2 WHERE event_key = 3",
            "UPDATE audit_events SET event_key = 3 WHERE event_key = 100",
        ),
        [f"event 2 {_BREAK}", "event 2 was changed", f"event 3 {_BREAK}", "event 3 was changed", f"event 4 {_BREAK}"],
    ),
]


@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda each: each.name)
def test_the_check_says_what_was_done(
    trail: Records, backend: IndexBackend, tmp_path: Path, tampering: Tampering
) -> None:
    without_triggers(trail, tampering.do)
    assert found(backend, tmp_path) == tampering.words


def test_bytes_in_the_place_of_text_are_a_change_and_do_not_end_the_check(tmp_path: Path) -> None:
    """SQLite takes them."""
    backend = backend_for(None, tmp_path)
    backend.open_writer().close()
    with closing(Records(backend.engine)) as records:
        added = records.write_now(lambda connection: append(connection, DRAFTS))
        write_anchor(tmp_path, added[-1].number, added[-1].hash)
        without_triggers(records, statements("UPDATE audit_events SET message = x'FF00' WHERE event_key = 2"))
        assert found(backend, tmp_path) == ["event 2 was changed"]


def test_a_trail_that_is_written_anew_is_found_by_the_anchor(
    trail: Records, backend: IndexBackend, tmp_path: Path
) -> None:
    def anew(connection: Connection) -> None:
        connection.execute(audit_events.delete())
        append(connection, [replace(draft, actor="NOBODY") for draft in DRAFTS])

    without_triggers(trail, anew)
    assert found(backend, tmp_path) == ["event 5 is not the one that was recorded: the trail was written anew"]


@pytest.mark.parametrize("statement", ["UPDATE audit_events SET actor = 'x'", "DELETE FROM audit_events"])
def test_the_database_does_neither_change_nor_remove_events(trail: Records, statement: str) -> None:
    with pytest.raises((DBAPIError, IntegrityError), match="audit events are only added"):
        trail.write_now(lambda connection: connection.execute(text(statement)))
    assert len(trail.read_now(read)) == 5


def test_postgresql_does_not_truncate_them_either(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection, pytest.raises(psycopg.Error, match="audit events are only added"):
        connection.execute("TRUNCATE audit_events")


def test_events_behind_a_gap_go_on_from_the_known_end(trail: Records, backend: IndexBackend, tmp_path: Path) -> None:
    end = read_anchor(tmp_path)
    without_triggers(trail, lambda each: each.execute(audit_events.delete().where(audit_events.c.event_key > 3)))
    [entry] = trail.write_now(lambda connection: append(connection, DRAFTS[:1], end))
    write_anchor(tmp_path, entry.number, entry.hash)
    assert entry.number == 6
    assert found(backend, tmp_path) == ["events 4 to 5 are missing"]


def test_whoever_adds_waits_for_another_that_does(trail: Records, backend: IndexBackend, tmp_path: Path) -> None:
    """Or of many commands at once some would never get a number."""

    def add(connection: Connection) -> Entry:
        return append(connection, DRAFTS[:1])[0]

    def while_another_waits(connection: Connection) -> Entry:
        added = add(connection)
        other.append(threads.submit(trail.write_now, add))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 2003399170"
        deadline = time.monotonic() + 60
        while connection.dialect.name == "postgresql" and not connection.execute(text(waits)).scalar_one():
            assert time.monotonic() < deadline
        return added

    other: list[Future[Entry]] = []
    with ThreadPoolExecutor(1) as threads:
        first = trail.write_now(while_another_waits)
        second = other[0].result(60)
    assert (first.number, second.number) == (6, 7)
    assert found(backend, tmp_path) == []


def test_two_that_add_at_the_same_moment_do_not_both_succeed(trail: Records) -> None:
    last = trail.read_now(last_entry)
    assert last is not None

    def twice(connection: Connection) -> None:
        append(connection, DRAFTS[:1])
        connection.execute(
            audit_events.insert().values(
                event_key=last.number + 1,
                recorded_at=1,
                event="",
                outcome=0,
                actor="",
                source="",
                message="",
                previous_hash=last.hash,
                hash=b"",
            )
        )

    with pytest.raises(IntegrityError):
        trail.write_now(twice)
    assert len(trail.read_now(read)) == 5


def test_entries_are_found_by_what_they_are_about(records: Records) -> None:
    drafts = [
        Draft(10, "login", 0, "alice", "192.0.2.1", "1"),
        Draft(20, "login", 4, "bob", "192.0.2.2", "2"),
        Draft(30, "query", 0, "alice", "192.0.2.1", "3"),
    ]
    records.write_now(lambda connection: append(connection, drafts))

    def numbers(wanted: Filter, **more: object) -> list[int]:
        return [entry.number for entry in records.read_now(lambda each: read(each, wanted, **more))]  # type: ignore[arg-type]

    assert numbers(Filter(event="login")) == [1, 2]
    assert numbers(Filter(outcome=4)) == [2]
    assert numbers(Filter(actor="alice", event="query")) == [3]
    assert numbers(Filter(source="192.0.2.2")) == [2]
    assert numbers(Filter(since=20)) == [2, 3]
    assert numbers(Filter(since=10, until=30)) == [1, 2]
    assert numbers(Filter(), newest_first=True, limit=2) == [3, 2]
    assert numbers(Filter(), after=1) == [2, 3]
    assert numbers(Filter(), before=3, newest_first=True) == [2, 1]


# The anchor


def test_a_missing_anchor_is_told_once_there_are_events(trail: Records, backend: IndexBackend, tmp_path: Path) -> None:
    (tmp_path / ANCHOR).unlink()
    assert found(backend, tmp_path) == ["the file is missing: whether events are missing at the end cannot be told"]


def test_no_anchor_is_missed_where_there_are_no_events(records: Records, backend: IndexBackend, tmp_path: Path) -> None:
    assert found(backend, tmp_path) == []


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b'{"number": "x", "hash": ""}', b'{"number": 1, "hash": "zz"}']
)
def test_a_damaged_anchor_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ANCHOR).write_bytes(content)
    with pytest.raises(UsageError, match=ANCHOR):
        read_anchor(tmp_path)


def test_the_anchor_is_replaced_in_one_step_and_for_nobody_else(tmp_path: Path) -> None:
    write_anchor(tmp_path, 1, bytes(32))
    write_anchor(tmp_path, 2, bytes(range(32)))
    assert read_anchor(tmp_path) == (2, bytes(range(32)))
    assert json.loads((tmp_path / ANCHOR).read_text())["number"] == 2
    assert (tmp_path / ANCHOR).stat().st_mode & 0o007 == 0
    assert [path.name for path in tmp_path.iterdir()] == [ANCHOR]


def test_an_anchor_that_many_write_at_once_can_be_read(tmp_path: Path) -> None:
    """In containers with one data directory an archive and a command may have the same number of a process."""

    def write(number: int) -> tuple[int, bytes] | None:
        write_anchor(tmp_path, number, bytes(32), fsync=False)
        return read_anchor(tmp_path)

    with ThreadPoolExecutor(8) as threads:
        assert None not in list(threads.map(write, range(1, 2000)))
    assert [path.name for path in tmp_path.iterdir()] == [ANCHOR]


def test_what_cannot_take_the_place_of_an_anchor_is_not_left(tmp_path: Path) -> None:
    (tmp_path / ANCHOR).mkdir()
    with pytest.raises(OSError, match=ANCHOR):
        write_anchor(tmp_path, 1, bytes(32))
    assert [path.name for path in tmp_path.iterdir()] == [ANCHOR]


def test_an_anchor_that_is_behind_is_nothing_wrong() -> None:
    entries, previous = [], START
    for number, draft in enumerate(DRAFTS, start=1):
        digest = hash_of(number, draft, previous)
        entries.append(
            Entry(
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
        )
        previous = digest
    assert list(problems(entries, (3, entries[2].hash))) == []
    assert list(problems(entries[:3], (5, entries[4].hash))) == ["events 4 to 5 are missing at the end"]


def test_an_index_of_sqlite_has_the_triggers_however_it_was_made(tmp_path: Path) -> None:
    from tomowire.server.index import versions
    from tomowire.server.index.sqlite_writer import SqliteWriter

    SqliteWriter.open(tmp_path / "new").close()
    versions.upgrade(tmp_path / "migrated")
    for name in ("new", "migrated"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            triggers = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
            ).fetchall()
        assert [each for (each,) in triggers] == ["audit_events_no_delete", "audit_events_no_update"]
