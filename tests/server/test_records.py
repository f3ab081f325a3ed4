"""Transactions beside those that store objects: on the same database, in threads of their own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError

from tomowire.errors import IndexUnavailable
from tomowire.server.index.administration import protected_studies, tokens
from tomowire.server.index.sqlite_writer import SqliteWriter
from tomowire.server.records import Records, sqlite_engine

STUDY = {"study_instance_uid": "1.2.3", "protected_at": 1, "protected_by": "somebody", "reason": "a trial"}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "index.sqlite"
    SqliteWriter.open(path).close()
    return path


@pytest.fixture
async def records(index: Path) -> AsyncIterator[Records]:
    async with Records(lambda: sqlite_engine(index, busy_timeout=0.2)) as records:
        yield records


async def count(records: Records) -> int:
    return await records.read(
        lambda connection: connection.execute(select(func.count()).select_from(protected_studies)).scalar_one()
    )


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


async def test_a_database_that_another_process_holds_is_unavailable(records: Records, index: Path) -> None:
    holder = sqlite3.connect(index, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(IndexUnavailable, match="locked"):
            await records.write(lambda connection: connection.execute(insert(protected_studies), STUDY))
        assert await count(records) == 0
    finally:
        holder.close()
    await records.write(lambda connection: connection.execute(insert(protected_studies), STUDY))
    assert await count(records) == 1


async def test_a_row_that_cannot_be_is_an_error_of_the_caller(records: Records) -> None:
    token = {"token_id": "a", "token_hash": b"", "user_name": "nobody", "description": "", "created_at": 1}
    with pytest.raises(IntegrityError):
        await records.write(lambda connection: connection.execute(insert(tokens), token))
