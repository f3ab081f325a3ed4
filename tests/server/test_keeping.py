"""An archive that has nothing to store keeps its hold on the index all the same, and says when it has none."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import psycopg
import pytest

from support.objects import Sample, chunks_of, stream
from support.postgres import PASSWORD, Cluster, cluster, postgres_programs, running
from support.telling import listening
from support.web import web
from tomowire.errors import IndexUnavailable
from tomowire.server.archive import ArchiveStorage
from tomowire.server.index.hangup import Hangup
from tomowire.server.index.postgres_session import is_free

_LOGGER = "tomowire.server.index.postgres_session"


def end_the_writer(postgres: Cluster, database: str) -> None:
    """Who holds the lock is ended by an administrator."""
    postgres.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        f" AND database = (SELECT oid FROM pg_database WHERE datname = '{database}')"
    )


async def well(storage: ArchiveStorage) -> None:
    """What is in the log is known to all a moment later."""
    async with asyncio.timeout(30):
        while await storage.keeping.trouble():  # noqa: ASYNC110 - it is a question, and no event
            await asyncio.sleep(0.01)


async def test_an_idle_archive_takes_its_lock_again_when_the_database_was_restarted(tmp_path: Path) -> None:
    with cluster() as first, listening(_LOGGER) as told:
        url = first.url(first.create())
        async with ArchiveStorage(tmp_path, index_url=url) as storage:
            assert await storage.keeping.trouble() == ""
            first.stop()
            await told.of("is lost")
            assert await storage.keeping.trouble() == "it cannot be written to now"
            with running(postgres_programs(), first.folder, first.port):
                await told.of("is back")
                with psycopg.connect(url) as other:
                    assert not is_free(other)  # type: ignore[arg-type] - it is asked no more than any connection
                await well(storage)
                await storage.ingest.receive(Sample(1).incoming(), stream(chunks_of(Sample(1).data_set)))


async def test_a_lock_that_somebody_else_has_taken_is_said_in_the_log_and_by_readyz(
    postgres: Cluster, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomowire.web.health.FRESH", 0.0)
    database = postgres_url.rpartition("/")[2]
    async with web(tmp_path, filled=False, users=False, index_url=postgres_url) as archive:
        assert (await archive.nobody.get("/readyz")).status_code == 200
        with listening(_LOGGER) as told, psycopg.connect(postgres_url, autocommit=True) as other:
            taken = asyncio.create_task(asyncio.to_thread(_take, other))  # it is waiting when the lock is let go
            await asyncio.to_thread(_wait_for_a_waiter, postgres, database)
            await asyncio.to_thread(end_the_writer, postgres, database)
            await taken
            said = await told.of("another archive uses the index")
            while not said.startswith("ERROR"):
                said = await told.of("another archive uses the index")
            assert f"server process {other.info.backend_pid}" in said
            assert "stop the other" in said
            assert PASSWORD not in said
            answer = await archive.nobody.get("/readyz")
            assert answer.status_code == 503
            assert answer.json()["checks"]["index"] == "another archive uses it"
            other.close()
            await told.of("is back")
            await well(archive.archive.storage)
            assert (await archive.nobody.get("/readyz")).status_code == 200


async def test_readyz_says_that_the_database_takes_nothing(
    postgres: Cluster, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover to a standby, which answers questions."""
    monkeypatch.setattr("tomowire.web.health.FRESH", 0.0)
    database = postgres_url.rpartition("/")[2]
    async with web(tmp_path, filled=False, users=False, index_url=postgres_url) as archive:
        postgres.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        with listening(_LOGGER) as told:
            end_the_writer(postgres, database)
            await told.of("is back")
        answer = await archive.nobody.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"]["index"] == "it cannot be written to now"


async def test_a_file_that_somebody_has_locked_is_said_too(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    async with ArchiveStorage(tmp_path, busy_timeout=0.1) as storage:
        assert await storage.keeping.trouble() == ""
        with closing(sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert await storage.keeping.trouble() == "it cannot be written to now"


def test_a_hangup_is_told_once_and_data_is_not() -> None:
    ours, theirs = socket.socketpair()
    hangup = Hangup()
    with ours, theirs:
        if hangup.fileno() < 0:
            pytest.skip("only Linux has it")
        hangup.watch(ours.fileno())
        theirs.send(b"an answer")
        assert not hangup.take()
        theirs.close()
        assert [hangup.take(), hangup.take()] == [True, False]
    hangup.close()


async def test_a_question_that_nobody_waits_for_any_more_leaves_nothing(tmp_path: Path, no_leaks: None) -> None:
    async with ArchiveStorage(tmp_path) as storage:
        asking = asyncio.create_task(storage.keeping.trouble())
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    with pytest.raises(IndexUnavailable):
        await storage.commit.perform(lambda writer: None)


def _take(connection: psycopg.Connection) -> None:
    connection.execute(f"SELECT pg_advisory_lock({0x746F6D6F_77697201})")


def _wait_for_a_waiter(postgres: Cluster, database: str) -> None:
    import time

    waiting = (
        "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        f" AND database = (SELECT oid FROM pg_database WHERE datname = '{database}')"
    )
    deadline = time.monotonic() + 30
    while not postgres.execute(waiting):
        assert time.monotonic() < deadline
