"""`Audit`: events get into the trail in their order, nobody waits for it, and what is lost is told."""

from __future__ import annotations

import asyncio
import logging
import threading
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sqlalchemy import text

from tomowire.errors import IndexUnavailable
from tomowire.server.audit.anchor import ANCHOR, read_anchor
from tomowire.server.audit.audit import Audit
from tomowire.server.audit.events import (
    ApplicationStarted,
    Export,
    InstancesTransferred,
    Login,
    Party,
    Patient,
    Query,
    Study,
    StudyDeleted,
)
from tomowire.server.audit.teller import Teller
from tomowire.server.audit.trail import Filter
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.records import Records
from tomowire.server.settings import AuditSettings

TELLER = Teller("TOMOWIRE@archive", ("TOMOWIRE",))
WS = Party.node("WS", "192.0.2.1:104")


def login(name: str) -> Login:
    return Login(user=Party(name, "192.0.2.1"))


class Interrupted(Records):
    """Records whose database can be taken away."""

    is_away = False
    before: Callable[[], object] | None = None

    def write_now(self, work: Any) -> Any:
        if self.before is not None:
            self.before()
        if self.is_away:
            raise IndexUnavailable("gone fishing")
        return super().write_now(work)


@asynccontextmanager
async def opened(records: Records, root: Path, **options: Any) -> AsyncIterator[Audit]:
    async with Audit(records, root, TELLER, **({"first_write": 0, "interval": 0} | options)) as audit:
        yield audit


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Interrupted]:
    backend = backend_for(None, tmp_path, fsync=False)
    backend.open_writer().close()
    async with Interrupted(backend.engine) as records:
        yield records


async def names(audit: Audit) -> list[str]:
    return [entry.actor for entry in await audit.list(limit=1000)]


async def test_events_are_written_in_their_order(records: Records, tmp_path: Path) -> None:
    async with opened(records, tmp_path) as audit:
        for number in range(600):
            audit.record(login(f"user{number}"))
        assert audit.waiting == 600
        assert await audit.flush(30)
        assert await names(audit) == [f"user{number}" for number in range(600)]
        assert (audit.recorded, audit.written, audit.lost, audit.waiting) == (600, 600, 0, 0)
        assert await audit.verify() == []
        assert read_anchor(tmp_path) == (600, (await audit.list(after=599))[0].hash)


async def test_the_trail_goes_on_after_a_restart(records: Records, tmp_path: Path) -> None:
    for turn in range(3):
        async with opened(records, tmp_path) as audit:
            audit.record(login(f"user{turn}"))
    async with opened(records, tmp_path) as audit:
        assert [entry.number for entry in await audit.list()] == [1, 2, 3]
        assert await audit.verify() == []


async def test_what_is_recorded_last_is_written_at_the_end(records: Records, tmp_path: Path) -> None:
    async with opened(records, tmp_path, first_write=60, interval=60) as audit:
        audit.record(ApplicationStarted())
    async with opened(records, tmp_path) as audit:
        assert [entry.event for entry in await audit.list()] == ["application-started"]


async def test_between_two_transactions_others_have_time_to_store(records: Interrupted, tmp_path: Path) -> None:
    transactions: list[None] = []
    loop = asyncio.get_running_loop()
    records.before = lambda: transactions.append(None)
    async with opened(records, tmp_path, interval=0.3) as audit:
        begun = loop.time()
        for number in range(30):
            audit.record(login(str(number)))
            await asyncio.sleep(0.02)
        seconds = loop.time() - begun
        assert await audit.flush(10)
    assert 2 <= len(transactions) <= seconds / 0.3 + 3, "two of them were hurried by `flush`"


async def test_who_waits_is_not_kept_waiting_by_others_who_did(records: Interrupted, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    writing, go_on = asyncio.Event(), threading.Event()

    def block() -> None:
        loop.call_soon_threadsafe(writing.set)
        go_on.wait()

    records.before = block
    async with opened(records, tmp_path, first_write=3600, interval=3600) as audit, asyncio.timeout(60):
        audit.record(login("first"))
        first = asyncio.create_task(audit.flush())
        await writing.wait()
        audit.record(login("second"))
        second = asyncio.create_task(audit.flush())
        await asyncio.sleep(0)
        try:
            assert not await audit.flush(0)
        finally:
            go_on.set()
        assert await first
        assert await second


async def test_any_thread_may_record(records: Records, tmp_path: Path) -> None:
    async with opened(records, tmp_path) as audit:
        threads = [threading.Thread(target=audit.record, args=(login(str(number)),)) for number in range(20)]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])
        await asyncio.sleep(0)
        assert await audit.flush(10)
        assert set(await names(audit)) == set(map(str, range(20)))


async def test_patients_are_looked_up_where_they_are_not_told(records: Records, tmp_path: Path) -> None:
    def store(connection: Any) -> None:
        columns = [row[1] for row in connection.execute(text("PRAGMA table_info(patients)"))]
        values = dict.fromkeys(columns, "") | {
            "patient_key": 1,
            "identity": "x",
            "patient_id": "4711",
            "patient_name": "Doe^John",
        }
        marks = ", ".join(f":{name}" for name in columns)
        connection.execute(text(f"INSERT INTO patients VALUES ({marks})"), values)
        columns = [row[1] for row in connection.execute(text("PRAGMA table_info(studies)"))]
        values = dict.fromkeys(columns, "") | {"study_key": 1, "patient_key": 1, "study_instance_uid": "1.2.3"}
        marks = ", ".join(f":{name}" for name in columns)
        connection.execute(text(f"INSERT INTO studies VALUES ({marks})"), values)

    await records.write(store)
    async with opened(records, tmp_path) as audit:
        audit.record(InstancesTransferred(source=WS, study=Study("1.2.3", (("1.2", 1),))))
        audit.record(Export(destination=WS, studies=(Study("1.2.3"), Study("9.9.9"))))
        audit.record(StudyDeleted(by=WS, study=Study("1.2.3", (), Patient("told", "Told^Tina"))))
        assert await audit.flush(10)
        patients = [patients_of(entry.message) for entry in await audit.list()]
    assert patients == [["4711"], ["4711", "unknown"], ["told"]]


def patients_of(message: str) -> list[str]:
    objects = ElementTree.fromstring(message).iter("ParticipantObjectIdentification")
    return [each.attrib["ParticipantObjectID"] for each in objects if each.get("ParticipantObjectTypeCode") == "1"]


# When the database is away


async def test_events_wait_while_the_database_is_away(
    records: Interrupted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(records, tmp_path, first_wait=0.01) as audit:
        records.is_away = True
        audit.record(login("alice"))
        audit.record(login("bob"))
        assert not await audit.flush(0.2)
        assert audit.waiting == 2
        records.is_away = False
        assert await audit.flush(10)
        assert await names(audit) == ["alice", "bob"]
        assert audit.lost == 0
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == [
        "audit events wait, 2 so far: the database cannot be used: gone fishing",
        "audit events are written again",
    ], "once, however often it was tried"


async def test_more_than_there_is_room_for_is_lost_and_the_loss_is_an_event(
    records: Interrupted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(records, tmp_path, first_wait=0.01, room=10 * 1024) as audit:
        records.is_away = True
        for number in range(1000):
            audit.record(login(str(number)))
        assert audit.waiting == 10
        assert audit.lost == 990
        records.is_away = False
        assert await audit.flush(10)
        assert await audit.flush(10)
        entries = await audit.list(limit=1000)
        assert [entry.actor for entry in entries[:10]] == list(map(str, range(10)))
        assert [(entry.event, entry.outcome) for entry in entries[10:]] == [("events-lost", 8)]
        assert await audit.verify() == []
    lines = [record for record in caplog.records if record.levelno == logging.ERROR and "lost" in record.getMessage()]
    assert len(lines) == 1, "one line, and not one for each"


async def test_large_queries_take_up_their_room(records: Interrupted, tmp_path: Path) -> None:
    async with opened(records, tmp_path, first_wait=0.01, room=100 * 1024) as audit:
        records.is_away = True
        for _ in range(10):
            audit.record(Query(by=WS, sop_class_uid="1.2", identifier=bytes(30_000), transfer_syntax_uid="1.2"))
        assert audit.waiting == 3
        records.is_away = False


async def test_recording_returns_at_once_whatever_the_database_does(records: Interrupted, tmp_path: Path) -> None:
    hold = threading.Event()
    records.before = lambda: hold.wait(10)
    loop = asyncio.get_running_loop()
    async with opened(records, tmp_path) as audit:
        audit.record(login("alice"))
        await asyncio.sleep(0.05)
        begun = loop.time()
        for number in range(1000):
            audit.record(login(str(number)))
        assert loop.time() - begun < 5
        hold.set()
        assert await audit.flush(10)


async def test_the_end_does_not_wait_for_ever(
    records: Interrupted, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomowire.server.audit.audit._CLOSING", 0.1)
    async with opened(records, tmp_path, first_wait=30) as audit:
        records.is_away = True
        audit.record(login("alice"))
    assert "1 audit events were not written: the database cannot be used" in caplog.text


async def test_an_event_that_cannot_be_written_does_not_keep_the_others_from_it(
    records: Records, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(records, tmp_path) as audit:
        audit.record(login("alice"))
        audit.record(login("bob"))
        audit.record(InstancesTransferred(source=WS, study=None))  # type: ignore[arg-type]
        audit.record(login("carol"))
        assert await audit.flush(10)
        assert await audit.flush(10)
        assert await names(audit) == ["alice", "bob", "carol", "tomowire"]
        assert audit.lost == 1
    assert "AttributeError" in caplog.text
    assert "alice" not in caplog.text, "what cannot be written may name patients"


async def test_only_what_cannot_be_written_is_lost_when_the_database_goes_away_meanwhile(
    records: Interrupted, tmp_path: Path
) -> None:
    """Those behind an event that cannot be written are tried one by one; the database leaves after the second of them."""
    async with opened(records, tmp_path, first_wait=0.01, first_write=0.05) as audit:
        transactions = 0

        def leave() -> None:
            nonlocal transactions
            transactions += 1
            records.is_away = (
                3 < transactions < 6
            )  # all of them together, alice, the one that cannot be, and then no more

        records.before = leave
        audit.record(login("alice"))
        audit.record(InstancesTransferred(source=WS, study=None))  # type: ignore[arg-type]
        for name in ("bob", "carol", "dave"):
            audit.record(login(name))
        assert await audit.flush(10)
        assert await audit.flush(10)
        assert await names(audit) == ["alice", "bob", "carol", "dave", "tomowire"]
        assert (audit.lost, audit.written, audit.waiting) == (1, 5, 0)
        assert transactions > 5, "the database was away in between"
        assert b"1 audit events were not recorded" in b64decode(last_detail((await audit.list())[-1].message))


def last_detail(message: str) -> str:
    return list(ElementTree.fromstring(message).iter("ParticipantObjectDetail"))[-1].attrib["value"]


# What somebody does to it meanwhile


async def test_a_trail_that_was_cut_off_is_told_at_the_next_start(
    records: Records, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(records, tmp_path) as audit:
        for name in ("alice", "bob", "carol"):
            audit.record(login(name))

    def cut(connection: Any) -> None:
        connection.execute(text("DROP TRIGGER audit_events_no_delete"))
        connection.execute(text("DELETE FROM audit_events WHERE event_key > 1"))

    await records.write(cut)
    async with opened(records, tmp_path) as audit:
        audit.record(login("dave"))
        assert await audit.flush(10)
        assert await audit.flush(10)
        assert [(entry.number, entry.event) for entry in await audit.list()] == [
            (1, "login"),
            (4, "login"),
            (5, "events-lost"),
        ]
        assert await audit.verify() == ["events 2 to 3 are missing"]
    assert "2 audit events have been removed from the end of the trail" in caplog.text


async def test_a_damaged_anchor_keeps_nobody_from_recording(records: Records, tmp_path: Path) -> None:
    (tmp_path / ANCHOR).write_text("what?")
    async with opened(records, tmp_path) as audit:
        audit.record(login("alice"))
        assert await audit.flush(10)
        assert await names(audit) == ["alice"]


async def test_a_missing_anchor_is_told_at_the_next_start(records: Records, tmp_path: Path) -> None:
    async with opened(records, tmp_path) as audit:
        audit.record(login("alice"))
    (tmp_path / ANCHOR).unlink()
    async with opened(records, tmp_path) as audit:
        audit.record(login("bob"))
        assert await audit.flush(10)
        assert await audit.flush(10)
        assert [entry.event for entry in await audit.list()] == ["login", "login", "events-lost"]
        assert (await audit.list())[2].message.count("audit.anchor is missing") == 1


async def test_there_is_an_anchor_before_there_is_an_event(records: Interrupted, tmp_path: Path) -> None:
    """Killed right after the first transaction, the archive leaves nothing that looks like tampering."""
    kept = asyncio.Event()
    async with opened(records, tmp_path) as audit:

        async def never(_: object) -> None:
            kept.set()

        audit._writer.anchor = never  # type: ignore[method-assign]
        audit.record(login("alice"))
        assert await audit.flush(10)
        assert kept.is_set()
        assert read_anchor(tmp_path) == (0, bytes(32))
        assert await audit.verify() == []


async def test_a_full_disk_keeps_nobody_from_recording(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tomowire.server.audit.anchor.write_anchor", full)
    async with opened(records, tmp_path) as audit:
        audit.record(login("alice"))
        assert await audit.flush(10)
        assert await names(audit) == ["alice"]
    assert "the end of the audit trail cannot be noted" in caplog.text


# Settings


async def test_who_does_not_want_it_has_none(records: Records, tmp_path: Path) -> None:
    async with opened(records, tmp_path, settings=AuditSettings(enabled=False)) as audit:
        audit.record(login("alice"))
        assert await audit.flush(10)
        assert await audit.list() == []
        await audit.apply(AuditSettings())
        audit.record(login("bob"))
        assert await audit.flush(10)
        assert [entry.actor for entry in await audit.list(Filter(event="login"))] == ["bob"]
    assert audit.syslog is None


# Both databases


async def test_two_processes_that_share_a_database_make_one_chain(backend: IndexBackend, tmp_path: Path) -> None:
    backend.open_writer().close()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    async with (
        Records(backend.engine) as first,
        Records(backend.engine) as second,
        opened(first, tmp_path / "one") as one,
        opened(second, tmp_path / "two") as two,
    ):
        for number in range(20):
            one.record(login(f"one{number}"))
            two.record(login(f"two{number}"))
            await asyncio.sleep(0.005)
        assert await one.flush(30)
        assert await two.flush(30)
        found = await names(one)
        assert [name for name in found if name.startswith("one")] == [f"one{number}" for number in range(20)]
        assert [name for name in found if name.startswith("two")] == [f"two{number}" for number in range(20)]
        assert await one.verify() == await two.verify() == []
