"""The PostgreSQL server goes away in the middle: objects are refused, nothing is lost or half there, and all goes on afterwards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.objects import Sample, chunks_of, stream
from support.postgres import PASSWORD, Cluster, cluster, postgres_programs, running
from support.proxy import Wire
from support.stored import files_below
from tomowire.errors import IndexUnavailable, StoreFailed
from tomowire.protocol.status import OUT_OF_RESOURCES
from tomowire.server.archive import ArchiveStorage
from tomowire.server.check import check
from tomowire.server.incoming import Outcome, Stored
from tomowire.server.index import postgres_connect, postgres_writer
from tomowire.server.index.postgres_writer import PostgresWriter
from tomowire.server.index.rows import IndexedObject

PATIENCE = 3.0


@pytest.fixture
def wire(postgres: Cluster) -> Iterator[Wire]:
    with Wire(postgres.port) as opened:
        yield opened


@pytest.fixture
def url(postgres: Cluster, wire: Wire, postgres_url: str) -> str:
    """The database, by way of the wire."""
    return postgres.url(postgres_url.rpartition("/")[2], port=wire.port) + "?connect_timeout=2"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connect, "ANSWER_TIMEOUT", PATIENCE)


@asynccontextmanager
async def opened(root: Path, url: str) -> AsyncIterator[ArchiveStorage]:
    async with ArchiveStorage(root, index_url=url) as storage:
        yield storage


async def keep(storage: ArchiveStorage, sample: Sample) -> Stored:
    return await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))


async def refused(storage: ArchiveStorage, sample: Sample) -> StoreFailed:
    with pytest.raises(StoreFailed) as failure:
        async with asyncio.timeout(60):
            await keep(storage, sample)
    assert failure.value.status == OUT_OF_RESOURCES
    return failure.value


def end_connections(postgres: Cluster, url: str) -> None:
    """What an administrator does, or a server that is shut down."""
    database = url.rpartition("/")[2]
    postgres.execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"
        " AND pid <> pg_backend_pid()"
    )


def before_the_commit(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """`do` comes just before an object's transaction is committed. (Others are, too: files of deleted objects are looked for.)"""
    insertion, commit = postgres_writer._insertion, postgres_writer._commit
    inserting: list[object] = []

    def noted(*arguments: Any) -> Any:
        inserting.append(arguments)
        return insertion(*arguments)

    def committing(*arguments: Any) -> None:
        if inserting:
            do()
        commit(*arguments)

    monkeypatch.setattr(postgres_writer, "_insertion", noted)
    monkeypatch.setattr(postgres_writer, "_commit", committing)


async def test_a_connection_lost_between_objects_is_not_noticed(
    no_leaks: None, postgres: Cluster, postgres_url: str, tmp_path: Path
) -> None:
    async with opened(tmp_path, postgres_url) as storage:
        await keep(storage, Sample(1))
        end_connections(postgres, postgres_url)
        assert (await keep(storage, Sample(2))).is_new
    assert list(check(tmp_path, index_url=postgres_url)) == []


async def test_a_connection_lost_within_a_transaction(
    postgres: Cluster, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, postgres_url) as storage:
        await keep(storage, Sample(1))
        with monkeypatch.context() as patched:
            before_the_commit(patched, lambda: end_connections(postgres, postgres_url))
            await refused(storage, Sample(2, series=7))
        assert (await storage.index.counts()).instances == 1
        assert (await keep(storage, Sample(2, series=7))).is_new
        assert (await storage.index.counts()).instances == 2
    assert list(check(tmp_path, index_url=postgres_url)) == []
    assert len(files_below(tmp_path)) == 2


async def test_a_server_that_stops_and_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tomowire")
    with cluster() as first:
        url = first.url(first.create())
        async with opened(tmp_path, url) as storage:
            await keep(storage, Sample(1))
            first.stop()
            for number in (2, 3):
                failure = await refused(storage, Sample(number))
                assert "connection" in str(failure)
            with running(postgres_programs(), first.folder, first.port):
                for number in (2, 3):
                    assert (await keep(storage, Sample(number))).is_new
                assert (await storage.index.counts()).instances == 3
                assert list(check(tmp_path, index_url=url)) == []
            await refused(storage, Sample(4))
    said = [record.getMessage() for record in caplog.records if record.name.endswith("postgres_session")]
    assert [message.partition(" is ")[2].partition(",")[0] for message in said] == ["lost", "back", "lost"]
    assert PASSWORD not in caplog.text


async def test_a_silent_server_holds_nobody_up(wire: Wire, url: str, tmp_path: Path) -> None:
    async with opened(tmp_path, url) as storage:
        await keep(storage, Sample(1))
        wire.silence()
        began = asyncio.get_running_loop().time()
        await refused(storage, Sample(2))
        assert asyncio.get_running_loop().time() - began < 45
        wire.restore()
        assert (await keep(storage, Sample(2))).is_new
    assert list(check(tmp_path, index_url=url)) == []


async def test_a_silent_server_is_unavailable_to_whoever_asks_for_users_or_jobs(
    wire: Wire, url: str, tmp_path: Path
) -> None:
    """SQLAlchemy looks first whether a connection that was idle still lives."""
    async with opened(tmp_path, url) as storage:
        await storage.records.read(lambda connection: connection.exec_driver_sql("SELECT 1").all())
        await storage.records.write(lambda connection: connection.exec_driver_sql("SELECT 1").all())
        wire.silence()
        for ask in (storage.records.read, storage.records.write):
            with pytest.raises(IndexUnavailable):
                async with asyncio.timeout(60):
                    await ask(lambda connection: connection.exec_driver_sql("SELECT 1").all())


@pytest.mark.parametrize("lost", ["requests", "answers"])
async def test_a_commit_of_which_nobody_knows(
    wire: Wire, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The file stays until it is known, and is then where the index says: it is there, or neither is."""
    sample = Sample(2)
    async with opened(tmp_path, url) as storage:
        await keep(storage, Sample(1))
        with monkeypatch.context() as patched:
            silence = {"requests": False, "answers": False} | {lost: True}
            before_the_commit(patched, lambda: wire.silence(**silence))
            await refused(storage, sample)
        wire.restore()
        assert len(files_below(tmp_path)) == 2
        assert (await keep(storage, Sample(3))).is_new  # now it is known
        assert len(files_below(tmp_path)) == (3 if lost == "answers" else 2)
        again = await keep(storage, sample)
        assert again.outcome is (Outcome.IDENTICAL if lost == "answers" else Outcome.STORED)
    assert list(check(tmp_path, index_url=url)) == []
    assert len(files_below(tmp_path)) == 3


async def test_a_connection_lost_while_it_is_found_out_what_became_of_a_commit(
    wire: Wire, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has just been stored is stored all the same, and the file goes with the next batch."""
    find, asked = PostgresWriter.find, []

    def lost(self: PostgresWriter, uids: Sequence[str]) -> dict[str, IndexedObject]:
        if list(uids) == [Sample(2).uid] and not asked:
            asked.append(uids)
            raise IndexUnavailable("lost")
        return find(self, uids)

    async with opened(tmp_path, url) as storage:
        await keep(storage, Sample(1))
        with monkeypatch.context() as patched:
            before_the_commit(patched, wire.silence)
            await refused(storage, Sample(2))
        wire.restore()
        monkeypatch.setattr(PostgresWriter, "find", lost)
        assert (await keep(storage, Sample(3))).is_new
        assert len(files_below(tmp_path)) == 3
        assert asked
        assert (await keep(storage, Sample(4))).is_new
        assert len(files_below(tmp_path)) == 3
    assert list(check(tmp_path, index_url=url)) == []


async def test_one_index_has_one_writer(postgres_url: str, tmp_path: Path) -> None:
    async with opened(tmp_path / "first", postgres_url):
        with pytest.raises(IndexUnavailable, match="another archive uses the index"):
            async with ArchiveStorage(tmp_path / "second", index_url=postgres_url, busy_timeout=0.2):
                pass
    async with opened(tmp_path / "second", postgres_url):
        pass


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace(PASSWORD, "wrong-secret"), "password authentication failed"),
        (lambda url: url + "_missing", "does not exist"),
        (lambda url: url.replace("//tomowire", "//nobody-there"), "authentication failed"),
        (lambda url: url.rpartition(":")[0] + ":1/there", "refused"),
    ],
    ids=["password", "database", "role", "port"],
)
async def test_what_is_wrong_with_the_address_is_said(
    postgres_url: str, tmp_path: Path, change: Callable[[str], str], said: str
) -> None:
    with pytest.raises(IndexUnavailable, match=said) as error:
        async with ArchiveStorage(tmp_path, index_url=change(postgres_url)):
            pass
    assert str(error.value).startswith("postgresql://")
    assert PASSWORD not in str(error.value)
    assert "wrong-secret" not in str(error.value)
