"""Transactions beside those that store objects: on the same database, in threads of their own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError

from support.postgres import Cluster
from tomowire.errors import IndexUnavailable
from tomowire.server.index.administration import protected_studies, tokens
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.records import Records

STUDY = {"study_instance_uid": "1.2.3", "protected_at": 1, "protected_by": "somebody", "reason": "a trial"}


@pytest.fixture
def backend(index_url: str | None, tmp_path: Path) -> IndexBackend:
    backend = backend_for(index_url, tmp_path, busy_timeout=0.2)
    backend.open_writer().close()
    return backend


@pytest.fixture
async def records(backend: IndexBackend) -> AsyncIterator[Records]:
    async with Records(backend.engine) as records:
        yield records


@contextmanager
def held(backend: IndexBackend) -> Iterator[None]:
    """Another process is at work on what we want."""
    engine = backend.engine()
    with engine.connect().execution_options(tomowire_writes=True) as holder, holder.begin():
        if backend.dialect == "postgresql":
            holder.exec_driver_sql("LOCK TABLE protected_studies IN SHARE MODE")
        yield
    engine.dispose()


async def count(records: Records) -> int:
    return await records.read(
        lambda connection: connection.execute(select(func.count()).select_from(protected_studies)).scalar_one()
    )


async def test_what_is_committed_survives_a_power_cut_whatever_the_database_would_do(
    postgres: Cluster, postgres_url: str, tmp_path: Path
) -> None:
    """The end of the audit trail, which is noted in a file, would be one that the database does not know."""
    show = text("SHOW synchronous_commit")
    for given, expected in (("off", "on"), ("remote_write", "remote_write")):
        name = postgres_url.rpartition("/")[2]
        postgres.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {given}')
        async with Records(backend_for(postgres_url, tmp_path).engine) as records:
            assert await records.write(lambda connection: connection.execute(show).scalar_one()) == expected


async def test_what_is_written_is_there(records: Records) -> None:
    await records.write(lambda connection: connection.execute(insert(protected_studies), STUDY))
    assert await count(records) == 1


async def test_work_that_raises_is_undone(records: Records) -> None:
    def work(connection):
        connection.execute(insert(protected_studies), STUDY)
        raise LookupError

    with pytest.raises(LookupError):
        await records.write(work)
    assert await count(records) == 0


async def test_as_many_threads_as_there_are_may_ask(records: Records) -> None:
    """Metrics and the audit trail are read in threads of their own: nobody is to lose a connection to them."""
    threads = 8
    met = threading.Barrier(threads)
    asked = select(func.count()).select_from(protected_studies)

    def work(connection):
        connection.execute(asked)
        met.wait(20)
        return connection.execute(asked).scalar_one()

    with ThreadPoolExecutor(threads) as executor:
        assert list(executor.map(records.read_now, [work] * threads)) == [0] * threads


async def test_work_goes_on_when_its_task_is_cancelled(records: Records) -> None:
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def work(connection):
        loop.call_soon_threadsafe(begun.set)
        connection.execute(insert(protected_studies), STUDY)

    task = asyncio.create_task(records.write(work))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await count(records) == 1


async def test_a_database_that_another_process_holds_is_unavailable(records: Records, backend: IndexBackend) -> None:
    with held(backend):
        with pytest.raises(IndexUnavailable, match="lock"):
            await records.write(lambda connection: connection.execute(insert(protected_studies), STUDY))
        assert await count(records) == 0
    await records.write(lambda connection: connection.execute(insert(protected_studies), STUDY))
    assert await count(records) == 1


async def test_a_connection_that_was_lost_is_replaced(postgres: Cluster, postgres_url: str, tmp_path: Path) -> None:
    async with Records(backend_for(postgres_url, tmp_path).engine) as records:
        assert await count(records) == 0
        postgres.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname LIKE 'test_%'")
        assert await count(records) == 0


async def test_a_row_that_cannot_be_is_an_error_of_the_caller(records: Records) -> None:
    token = {"token_id": "a", "token_hash": b"", "user_name": "nobody", "description": "", "created_at": 1}
    with pytest.raises(IntegrityError):
        await records.write(lambda connection: connection.execute(insert(tokens), token))


def test_an_error_does_not_show_the_values(records: Records) -> None:
    """They name patients, and an error is shown on the terminal and in the log."""
    name = "SMITH^JOHN"
    statement = text("INSERT INTO nothing_of_this_name VALUES (:name)")
    with pytest.raises(Exception, match="nothing_of_this_name") as caught:
        records.write_now(lambda connection: connection.execute(statement, {"name": name}))
    shown = "".join(traceback.format_exception(caught.value))
    assert "INSERT INTO nothing_of_this_name" in shown
    assert name not in shown


async def test_a_damaged_database_is_an_index_that_cannot_be_used(tmp_path: Path) -> None:
    """SQLite's "database disk image is malformed" is of no kind that SQLAlchemy has a class for."""
    backend, index = backend_for(None, tmp_path), tmp_path / "index.sqlite"
    backend.open_writer().close()
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'protected_studies'")
    data = index.read_bytes()
    index.write_bytes(data[: (page - 1) * 4096] + b"\xff" * 4096 + data[page * 4096 :])
    async with Records(backend.engine) as records:
        with pytest.raises(IndexUnavailable, match="malformed") as raised:
            await records.read(lambda connection: connection.execute(select(protected_studies)).all())
    assert raised.value.is_damage
