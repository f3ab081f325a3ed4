"""Rows that are streamed from an index: in order, in batches, at once, and let go of at any time."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from tomowire.errors import IndexUnavailable
from tomowire.server.index.reader import Row, Statement
from tomowire.server.index.readers import IndexReaders
from tomowire.server.index.sqlite_reader import SqliteReader, SqliteSource
from tomowire.server.index.sqlite_writer import SqliteWriter

COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :last) SELECT i FROM n"
FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def counting(last: int) -> Statement:
    return Statement(COUNT, {"last": last})


def numbers(rows: list[Row]) -> list[int]:
    return [number for (number,) in rows]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "index.sqlite"
    SqliteWriter.open(path).close()
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[SqliteReader]:
    """All readers that are opened in the test."""
    readers: list[SqliteReader] = []
    open_reader = SqliteSource.open_reader

    def opening(source: SqliteSource) -> SqliteReader:
        readers.append(open_reader(source))
        return readers[-1]

    monkeypatch.setattr(SqliteSource, "open_reader", opening)
    return readers


@pytest.fixture
async def readers(no_leaks: None, path: Path) -> AsyncIterator[IndexReaders]:
    readers = IndexReaders(SqliteSource(path))
    yield readers
    await readers.close()


@pytest.mark.parametrize(
    ("rows", "batches"),
    [
        (0, []),
        (1, [1]),
        (2, [1, 1]),
        (51, [1, 50]),
        (251, [1, 50, 200]),
        (700, [1, 50, 200, 200, 200, 49]),
    ],
)
async def test_the_first_row_comes_alone_and_the_others_in_batches(
    readers: IndexReaders, rows: int, batches: list[int]
) -> None:
    found = [each async for each in readers.stream(counting(rows), numbers)]
    assert [len(each) for each in found] == batches
    assert [number for each in found for number in each] == [*range(1, rows + 1)]


async def test_no_batch_is_longer_than_asked_for(readers: IndexReaders) -> None:
    found = [len(each) async for each in readers.stream(counting(30), numbers, batch=12)]
    assert found == [1, 12, 12, 5]


async def test_many_rows_take_no_more_memory_than_few(readers: IndexReaders) -> None:
    tracemalloc.start()
    try:
        seen = 0
        async for batch in readers.stream(counting(100_000), lambda rows: [bytes(100) for _ in rows]):
            seen += len(batch)
        assert seen == 100_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


async def test_a_statement_that_takes_for_ever_is_interrupted(
    readers: IndexReaders, opened: list[SqliteReader]
) -> None:
    working = threading.Event()
    assert [each async for each in readers.stream(counting(1), numbers)] == [[1]]
    opened[0].connection.create_function("begun", 0, lambda: working.set() or 1)
    statement = Statement(FOR_EVER.replace("SELECT 1", "SELECT begun()"), {})
    looking = asyncio.create_task(anext(readers.stream(statement, numbers)))
    assert await asyncio.to_thread(working.wait, 10)
    looking.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await looking
    assert [each async for each in readers.stream(counting(2), numbers)] == [[1], [2]]


async def test_at_whatever_moment_it_is_cancelled_it_ends(readers: IndexReaders) -> None:
    for turns in range(12):
        looking = asyncio.create_task(anext(readers.stream(Statement(FOR_EVER, {}), numbers)))
        for _ in range(turns):
            await asyncio.sleep(0)
        looking.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await looking
    assert [each async for each in readers.stream(counting(1), numbers)] == [[1]]


async def test_one_that_has_not_begun_does_not_wait_for_those_that_have(no_leaks: None, path: Path) -> None:
    readers = IndexReaders(SqliteSource(path), threads=1)
    busy, free = threading.Event(), threading.Event()
    in_the_way = asyncio.create_task(readers.ask(lambda _: (busy.set(), free.wait(10))))
    assert await asyncio.to_thread(busy.wait, 10)
    try:
        waiting = asyncio.create_task(anext(readers.stream(counting(1), numbers)))
        await asyncio.sleep(0)
        waiting.cancel()
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError):
                await waiting
    finally:
        free.set()
        await in_the_way
        await readers.close()


async def test_left_early_it_holds_no_read_transaction(readers: IndexReaders, path: Path) -> None:
    async with aclosing(readers.stream(Statement("SELECT * FROM archive, sqlite_schema", {}), list)) as found:
        await anext(found)
        assert not may_truncate_the_log(path)
    assert may_truncate_the_log(path)


def may_truncate_the_log(path: Path) -> bool:
    """Whether nobody reads an older state of the index than the one that this makes."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("UPDATE archive SET last_batch = last_batch + 1")
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    finally:
        connection.close()


async def test_rows_that_are_not_taken_do_not_hold_the_index_for_ever(readers: IndexReaders, path: Path) -> None:
    """Its log would grow with all that is stored meanwhile, and a peer takes the answers to its query as slowly as it likes."""
    statement = Statement("SELECT * FROM archive, sqlite_schema", {})
    async with aclosing(readers.stream(statement, list, longest=1.0)) as found:
        assert len(await anext(found)) == 1
        await asyncio.sleep(1.0)  # behind the end, which was set before
        assert may_truncate_the_log(path)
        with pytest.raises(TimeoutError, match="it took more than"):
            await anext(found)


async def test_a_statement_that_takes_for_ever_does_not_keep_its_thread(no_leaks: None, path: Path) -> None:
    readers = IndexReaders(SqliteSource(path), threads=1)
    try:
        async with asyncio.timeout(30):
            with pytest.raises(TimeoutError, match="it took more than"):
                await anext(readers.stream(Statement(FOR_EVER, {}), list, longest=0.2))
            assert [each async for each in readers.stream(counting(1), numbers)] == [[1]]
    finally:
        await readers.close()


async def test_connections_are_used_again(readers: IndexReaders, opened: list[SqliteReader]) -> None:
    for _ in range(5):
        assert [each async for each in readers.stream(counting(1), numbers)] == [[1]]
    assert len(opened) == 1


async def test_after_many_at_once_few_connections_are_kept(readers: IndexReaders, opened: list[SqliteReader]) -> None:
    streams = [readers.stream(counting(100), numbers) for _ in range(20)]
    assert [await anext(each) for each in streams] == [[1]] * 20
    for each in streams:
        await each.aclose()
    assert len(opened) == 20
    assert sum(map(is_open, opened)) <= 8


def is_open(reader: SqliteReader) -> bool:
    try:
        reader.connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return False
    return True


async def test_one_that_outlives_the_readers_closes_its_connection(no_leaks: None, path: Path) -> None:
    readers = IndexReaders(SqliteSource(path))
    found = readers.stream(counting(100), numbers)
    await anext(found)
    await readers.close()
    await found.aclose()


async def test_an_index_that_cannot_be_used(no_leaks: None, tmp_path: Path) -> None:
    readers = IndexReaders(SqliteSource(tmp_path / "missing"))
    with pytest.raises(IndexUnavailable):
        await anext(readers.stream(counting(1), numbers))
    await readers.close()
