"""Rows that are streamed from an index: in order, in batches, at once, and let go of at any time."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from tomowire.errors import IndexUnavailable
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.index.reader import Dialect, IndexReader, Row, Statement
from tomowire.server.index.readers import IndexReaders

COUNT = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :last) SELECT i FROM n WHERE i <= :last"
)
FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def numbers(rows: list[Row]) -> list[int]:
    return [number for (number,) in rows]


class Source:
    """An index, and all readers that have been opened of it."""

    def __init__(self, backend: IndexBackend, folder: Path, url: str | None) -> None:
        self.dialect: Dialect = backend.dialect
        self.opened: list[Any] = []
        self.begun = threading.Event()
        self._open_reader = backend.open_reader
        self._folder = folder
        self._url = url

    def open_reader(self) -> IndexReader:
        reader: Any = self._open_reader()
        start = reader.start

        def starting(statement: Statement) -> None:
            self.begun.set()
            start(statement)

        reader.start = starting
        self.opened.append(reader)
        return cast("IndexReader", reader)

    def is_held(self) -> bool:
        """Whether somebody sees the index as it was at a moment."""
        if self._url is None:
            return not may_truncate_the_log(self._folder / "index.sqlite")
        with psycopg.connect(self._url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
            ).fetchone()
        return row != (0,)

    def counting(self, last: int) -> Statement:
        """Rows with the numbers up to `last`."""
        return Statement(self._written(COUNT), {"last": last})

    @property
    def for_ever(self) -> Statement:
        """A statement that has no end."""
        return Statement(self._written(FOR_EVER), {})

    def wait_until_released(self) -> None:
        deadline = time.monotonic() + 10
        while self.is_held():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @property
    def of_tables(self) -> Statement:
        """Rows that are in a table."""
        return Statement(f"SELECT * FROM archive, {'sqlite_schema' if self._url is None else 'pg_class'}", {})

    def _written(self, sql: str) -> str:
        return sql if self.dialect == "sqlite" else sql.replace(":last", "%(last)s")


@pytest.fixture
def postgres_url(emptied_postgres_url: str) -> str:
    """These tests leave nothing but objects in a database."""
    return emptied_postgres_url


@pytest.fixture
def source(backend: IndexBackend, tmp_path: Path, index_url: str | None) -> Source:
    backend.open_writer().close()
    return Source(backend, tmp_path, index_url)


def may_truncate_the_log(path: Path) -> bool:
    """Whether nobody reads an older state of the index than the one that this makes."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("UPDATE archive SET last_batch = last_batch + 1")
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    finally:
        connection.close()


@pytest.fixture
async def readers(no_leaks: None, source: Source) -> AsyncIterator[IndexReaders]:
    readers = IndexReaders(source)
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
    source: Source, readers: IndexReaders, rows: int, batches: list[int]
) -> None:
    found = [each async for each in readers.stream(source.counting(rows), numbers)]
    assert [len(each) for each in found] == batches
    assert [number for each in found for number in each] == [*range(1, rows + 1)]


async def test_no_batch_is_longer_than_asked_for(source: Source, readers: IndexReaders) -> None:
    found = [len(each) async for each in readers.stream(source.counting(30), numbers, batch=12)]
    assert found == [1, 12, 12, 5]


async def test_many_rows_take_no_more_memory_than_few(source: Source, readers: IndexReaders) -> None:
    tracemalloc.start()
    try:
        seen = 0
        async for batch in readers.stream(source.counting(100_000), lambda rows: [bytes(100) for _ in rows]):
            seen += len(batch)
        assert seen == 100_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


async def test_a_statement_that_takes_for_ever_is_interrupted(source: Source, readers: IndexReaders) -> None:
    looking = asyncio.create_task(anext(readers.stream(source.for_ever, numbers)))
    assert await asyncio.to_thread(source.begun.wait, 10)
    await asyncio.sleep(0.1)  # it is being worked on
    looking.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await looking
    assert [each async for each in readers.stream(source.counting(2), numbers)] == [[1], [2]]


async def test_at_whatever_moment_it_is_cancelled_it_ends(source: Source, readers: IndexReaders) -> None:
    for turns in range(12):
        looking = asyncio.create_task(anext(readers.stream(source.for_ever, numbers)))
        for _ in range(turns):
            await asyncio.sleep(0)
        looking.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await looking
    assert [each async for each in readers.stream(source.counting(1), numbers)] == [[1]]


async def test_one_that_has_not_begun_does_not_wait_for_those_that_have(no_leaks: None, source: Source) -> None:
    readers = IndexReaders(source, threads=1)
    busy, free = threading.Event(), threading.Event()
    in_the_way = asyncio.create_task(readers.ask(lambda _: (busy.set(), free.wait(10))))
    assert await asyncio.to_thread(busy.wait, 10)
    try:
        waiting = asyncio.create_task(anext(readers.stream(source.counting(1), numbers)))
        await asyncio.sleep(0)
        waiting.cancel()
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await waiting
    finally:
        free.set()
        await in_the_way
        await readers.close()


async def test_left_early_it_holds_no_read_transaction(source: Source, readers: IndexReaders) -> None:
    async with aclosing(readers.stream(source.of_tables, list)) as found:
        await anext(found)
        assert source.is_held()
    assert not source.is_held()


async def test_rows_that_are_not_taken_do_not_hold_the_index_for_ever(source: Source, readers: IndexReaders) -> None:
    """What comes meanwhile could not be tidied up, and a peer takes the answers to its query as slowly as it likes."""
    async with aclosing(readers.stream(source.of_tables, list, longest=1.0)) as found:
        assert len(await anext(found)) == 1
        await asyncio.sleep(1.0)  # behind the end, which was set before
        await asyncio.to_thread(source.wait_until_released)
        with pytest.raises(TimeoutError, match="it took more than"):
            await anext(found)


async def test_a_statement_that_takes_for_ever_does_not_keep_its_thread(no_leaks: None, source: Source) -> None:
    readers = IndexReaders(source, threads=1)
    try:
        async with asyncio.timeout(30):
            with pytest.raises(TimeoutError, match="it took more than"):
                await anext(readers.stream(source.for_ever, list, longest=0.2))
            assert [each async for each in readers.stream(source.counting(1), numbers)] == [[1]]
    finally:
        await readers.close()


async def test_connections_are_used_again(source: Source, readers: IndexReaders) -> None:
    for _ in range(5):
        assert [each async for each in readers.stream(source.counting(1), numbers)] == [[1]]
    assert len(source.opened) == 1


async def test_after_many_at_once_few_connections_are_kept(source: Source, readers: IndexReaders) -> None:
    streams = [readers.stream(source.counting(100), numbers) for _ in range(20)]
    assert [await anext(each) for each in streams] == [[1]] * 20
    for each in streams:
        await each.aclose()
    assert len(source.opened) == 20
    assert sum(map(is_open, source.opened)) <= 8


async def test_one_more_than_there_are_connections_for_waits_its_turn(
    no_leaks: None, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomowire.server.index.readers._MOST_STREAMS", {source.dialect: 2})
    monkeypatch.setattr("tomowire.server.index.readers._PATIENCE", 0.05)
    readers = IndexReaders(source)
    one, other = (readers.stream(source.counting(100), numbers) for _ in range(2))
    assert [await anext(one), await anext(other)] == [[1], [1]]
    with pytest.raises(IndexUnavailable, match="too many questions"):
        await anext(readers.stream(source.counting(1), numbers))
    await one.aclose()
    assert [each async for each in readers.stream(source.counting(1), numbers)] == [[1]]
    await other.aclose()
    await readers.close()


def is_open(reader: Any) -> bool:
    try:
        reader.connection.execute("SELECT 1")
    except (sqlite3.ProgrammingError, psycopg.OperationalError):
        return False
    return True


async def test_one_that_outlives_the_readers_closes_its_connection(no_leaks: None, source: Source) -> None:
    readers = IndexReaders(source)
    found = readers.stream(source.counting(100), numbers)
    await anext(found)
    await readers.close()
    await found.aclose()


@pytest.mark.parametrize("url", [None, "postgresql://nobody@127.0.0.1:1/none"])
async def test_an_index_that_cannot_be_used(no_leaks: None, tmp_path: Path, url: str | None) -> None:
    readers = IndexReaders(backend_for(url, tmp_path / "missing"))
    with pytest.raises(IndexUnavailable):
        await anext(readers.stream(Statement(COUNT, {"last": 1}), numbers))
    await readers.close()
