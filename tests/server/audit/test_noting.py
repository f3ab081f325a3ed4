"""`Notes`: what a command changes is in the trail with it, whoever writes to it at the same moment, and wherever the anchor is."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from support.clock import ManualClock
from support.network import LOOPBACK
from support.subprocesses import python_environment
from tomowire.errors import IndexUnavailable, UserExists
from tomowire.server.accounts import Role
from tomowire.server.audit.anchor import ANCHOR, move_anchor, read_anchor, write_anchor
from tomowire.server.audit.audit import Audit
from tomowire.server.audit.checking import check_audit
from tomowire.server.audit.events import Change, ConfigurationChanged, Login, Party
from tomowire.server.audit.noting import NotedCommand, Notes
from tomowire.server.audit.teller import Teller, person
from tomowire.server.audit.trail import Entry, read
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.index.reader import Statement
from tomowire.server.records import Records
from tomowire.server.settings import AuditSettings, Settings
from tomowire.server.users import Users

TELLER = Teller("TOMOWIRE@archive", ("TOMOWIRE",))


@pytest.fixture
async def records(backend: IndexBackend) -> AsyncIterator[Records]:
    backend.open_writer().close()
    async with Records(backend.engine) as records:
        yield records


def event(what: str) -> ConfigurationChanged:
    return ConfigurationChanged(by=Party("jane@archive"), change=Change.USER, what=what)


def notes(records: Records, root: Path, **audit: Any) -> Notes:
    return Notes(records, Settings(root, audit=AuditSettings(**audit)))


async def note(records: Records, root: Path, count: int = 1) -> None:
    for number in range(count):
        await notes(records, root).write(lambda _: None, event(str(number)))


async def entries(records: Records) -> list[Entry]:
    return await records.read(read)


def wrong(backend: IndexBackend, root: Path) -> list[str]:
    with backend.open_reader() as reader:
        return [finding.explanation for finding in check_audit(reader, root)]


async def cut(records: Records, after: int) -> None:
    """What somebody does who owns the database."""

    def done(connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            connection.execute(text("DROP TRIGGER IF EXISTS audit_events_no_delete"))
        else:
            connection.execute(text("DROP TRIGGER IF EXISTS audit_events_stay ON audit_events"))
        connection.execute(text("DELETE FROM audit_events WHERE event_key > :after"), {"after": after})

    await records.write(done)


async def test_a_user_and_the_event_of_it_are_there_together(
    records: Records, backend: IndexBackend, tmp_path: Path
) -> None:
    async with Users(records, notes=notes(records, tmp_path)) as users:
        await users.add("jo", Role.OPERATOR)
        made = await users.make_token("jo")
        await users.change("jo", role=Role.READER)
        await users.revoke(made.token.token_id)
        await users.remove("jo")
        await users.add("kim", Role.READER)
        with pytest.raises(UserExists):
            await users.add("kim", Role.READER)
    found = await entries(records)
    assert {(each.event, each.actor, each.outcome) for each in found} == {("configuration-changed", person().name, 0)}
    assert len(found) == 6, "a user that was there already is not another event"
    assert all('csd-code="110137"' in each.message for each in found)
    assert wrong(backend, tmp_path) == []


async def test_what_cannot_be_told_is_not_done(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> object:
        raise OSError("no room")

    monkeypatch.setattr("tomowire.server.audit.noting.append", fails)
    async with Users(records, notes=notes(records, tmp_path)) as users:
        with pytest.raises(OSError, match="no room"):
            await users.add("jo", Role.READER)
        assert not await users.any()


_ADD_A_USER = """
import asyncio, sys
from pathlib import Path
from sqlalchemy import event
from tomowire.server.accounts import Role
from tomowire.server.audit.noting import NotedCommand, Notes
from tomowire.server.index.backend import backend_for
from tomowire.server.records import Records
from tomowire.server.settings import Settings
from tomowire.server.users import Users

async def main(root):
    async with Records(backend_for(None, root).engine) as records:
        before = set()
        event.listen(records._engine, "begin", lambda connection: before.update(sys.modules))
        event.listen(records._engine, "commit", lambda connection: print(sorted(set(sys.modules) - before)))
        async with Users(records, notes=Notes(records, Settings(root))) as users:
            await users.add("jane", Role.ADMINISTRATOR)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_nothing_is_imported_while_the_archive_waits_for_the_transaction(tmp_path: Path) -> None:
    """Twelve commands at once, each of which had the database of SQLite for as long as that takes, were too many of them."""
    backend_for(None, tmp_path).open_writer().close()
    command = [sys.executable, "-c", _ADD_A_USER, tmp_path]
    done = subprocess.run(command, env=python_environment(), capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


async def test_who_has_no_trail_has_users_all_the_same(records: Records, tmp_path: Path) -> None:
    async with Users(records, notes=notes(records, tmp_path, enabled=False)) as users:
        await users.add("jo", Role.READER)
        assert await users.any()
    assert await entries(records) == []


async def test_a_command_and_the_archive_make_one_chain(
    records: Records, backend: IndexBackend, tmp_path: Path
) -> None:
    async with (
        Records(backend.engine) as others,
        Audit(records, tmp_path, TELLER, first_write=0, interval=0) as audit,
    ):
        for number in range(15):
            audit.record(Login(user=Party(f"user{number}")))
            await note(others, tmp_path)
        assert await audit.flush(30)
    found = await entries(records)
    assert [each.number for each in found] == list(range(1, 31))
    assert wrong(backend, tmp_path) == []
    assert read_anchor(tmp_path) == (30, found[-1].hash)


async def test_who_was_slower_does_all_of_it_again(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PostgreSQL says it to the second of two that want the same number."""
    from tomowire.server.audit import noting

    real, done = noting.append, 0

    def slower(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done < 3:
            raise IntegrityError("INSERT", {}, Exception("duplicate key"))
        return real(*arguments)

    monkeypatch.setattr(noting, "append", slower)
    async with Users(records, notes=notes(records, tmp_path)) as users:
        await users.add("jo", Role.READER)
        assert [user.name for user in await users.list()] == ["jo"]
    assert len(await entries(records)) == 1


async def test_what_a_command_records_goes_to_the_syslog_server(records: Records, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((LOOPBACK, 0))
        server.settimeout(20)
        told = notes(records, tmp_path, syslog_host=LOOPBACK, syslog_port=server.getsockname()[1])
        await told.write(lambda _: None, event("user jo added"))
        message = await asyncio.to_thread(server.recv, 65536)
    [entry] = await entries(records)
    assert message.endswith(b"\xef\xbb\xbf" + entry.message.encode())


# The anchor


async def test_the_end_moves_on_with_each_command(records: Records, tmp_path: Path) -> None:
    await note(records, tmp_path, 3)
    assert read_anchor(tmp_path) == (3, (await entries(records))[-1].hash)
    assert ANCHOR in os.listdir(tmp_path)
    (tmp_path / f"{ANCHOR}.new-1").touch()  # of a process that was killed: the archive removes it
    async with Audit(records, tmp_path, TELLER, first_write=0) as audit:
        audit.record(Login(user=Party("jo")))
    assert not [name for name in os.listdir(tmp_path) if name.startswith(f"{ANCHOR}.")]


async def test_a_command_on_another_machine_makes_no_anchor_and_breaks_nothing(
    records: Records, backend: IndexBackend, tmp_path: Path
) -> None:
    """The data directory is where the archive is; the end that it remembers is behind the trail until the archive writes next."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    await note(records, home, 2)
    await note(records, elsewhere, 2)
    assert not elsewhere.exists()
    assert read_anchor(home) == (2, (await entries(records))[1].hash)
    assert wrong(backend, home) == []
    async with Audit(records, home, TELLER, first_write=0) as audit:
        audit.record(Login(user=Party("jo")))
    assert [each.event for each in await entries(records)][4:] == ["login"], "nothing is said to be lost"
    assert read_anchor(home) == (5, (await entries(records))[-1].hash)


async def test_an_anchor_that_was_taken_away_is_not_made_again_by_a_command(
    records: Records, backend: IndexBackend, tmp_path: Path
) -> None:
    await note(records, tmp_path, 3)
    (tmp_path / ANCHOR).unlink()
    await cut(records, 1)
    await note(records, tmp_path)
    assert not (tmp_path / ANCHOR).exists()
    assert wrong(backend, tmp_path) == ["the file is missing: whether events are missing at the end cannot be told"]
    async with Audit(records, tmp_path, TELLER, first_write=0, interval=0) as audit:
        audit.record(Login(user=Party("jo")))
        assert await audit.flush(10)
    found = await entries(records)
    assert [each.event for each in found][2:] == ["login", "events-lost"]


async def test_a_trail_that_was_cut_off_is_told_after_a_command_too(
    records: Records, backend: IndexBackend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await note(records, tmp_path, 5)
    await cut(records, 3)
    await note(records, tmp_path)
    assert "does not end where audit.anchor says" in caplog.text
    assert wrong(backend, tmp_path) == ["event 5 is missing at the end"]
    await note(records, tmp_path)
    assert wrong(backend, tmp_path) == ["event 5 is not the one that was recorded: the trail was written anew"]


async def test_the_directory_of_another_archive_is_left_as_it_is(
    records: Records, backend: IndexBackend, tmp_path: Path
) -> None:
    """A command that was given the wrong folder must not go on from that archive's end: the trail would have a gap."""
    other = tmp_path / "other"
    other.mkdir()
    write_anchor(other, 4711, bytes(range(32)))
    await note(records, tmp_path, 2)
    await note(records, other)
    assert [each.number for each in await entries(records)] == [1, 2, 3]
    assert read_anchor(other) == (4711, bytes(range(32)))
    assert wrong(backend, tmp_path) == []


async def test_the_anchor_never_goes_back(tmp_path: Path) -> None:
    write_anchor(tmp_path, 7, bytes(range(32)))
    await asyncio.gather(*(asyncio.to_thread(move_anchor, tmp_path, number, bytes(32)) for number in (5, 6, 7)))
    assert read_anchor(tmp_path) == (7, bytes(range(32)))
    move_anchor(tmp_path, 8, bytes(32))
    assert read_anchor(tmp_path) == (8, bytes(32))


async def test_the_archive_notices_what_is_done_to_the_trail_while_it_runs(
    records: Records, backend: IndexBackend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut off, and written anew up to the same number: a chain that is whole in itself, and not the one that was recorded."""
    async with Audit(records, tmp_path, TELLER, first_write=0, interval=0) as audit:
        for name in ("alice", "bob", "carol"):
            audit.record(Login(user=Party(name)))
        assert await audit.flush(10)
        await cut(records, 1)
        await note(records, tmp_path / "nowhere", 2)
        with caplog.at_level(logging.ERROR):
            audit.record(Login(user=Party("dave")))
            assert await audit.flush(10)
            assert await audit.flush(10)
    assert "event 3 is not the one that was recorded: the trail was written anew" in caplog.text
    found = await entries(records)
    assert [(each.event, each.outcome) for each in found][3:] == [("login", 0), ("events-lost", 12)]
    assert wrong(backend, tmp_path) == [
        "event 4 does not follow the one before it: one of the two was changed or put in"
    ], "the break stays to be seen"


def test_a_command_that_is_killed_has_told_of_all_but_the_last_second(tmp_path: Path) -> None:
    """It may go on for hours, with little to tell."""
    backend = backend_for(None, tmp_path)
    backend.open_writer().close()
    clock = ManualClock()
    noted = NotedCommand(Settings(tmp_path), clock=clock.time)

    def told() -> int:
        with backend.open_reader() as reader:
            return len(list(reader.rows(Statement("SELECT event_key FROM audit_events", {}))))

    noted.tell(event("at once"))
    assert told() == 0
    clock.advance(1)
    noted.tell(event("a second later"))
    assert told() == 2
    for number in range(32):
        noted.tell(event(str(number)))
    assert told() == 34, "many at once"
    clock.advance(3600)
    noted.tell(event("an hour later"))
    assert told() == 35


def test_an_error_of_a_command_is_told_before_that_of_its_trail(
    tmp_path: Path, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = Settings(tmp_path, index_url=f"postgresql://{LOOPBACK}:{unused_tcp_port}/nothing")
    with pytest.raises(IndexUnavailable, match="not in the audit trail"), NotedCommand(nowhere) as noted:
        noted.tell(event("all went well"))
    with pytest.raises(OSError, match="disk is full"):
        fail_half_way(nowhere)
    assert "not in the audit trail" in caplog.text


def fail_half_way(settings: Settings) -> None:
    with NotedCommand(settings) as noted:
        noted.tell(event("half of it"))
        raise OSError("the disk is full")
