"""Questions to the index from the event loop: answered in worker threads, each with a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from tomowire.server.index.rows import IndexedObject
from tomowire.server.index.sqlite_reader import Counts, SqliteReader, Statistics

T = TypeVar("T")

_THREADS: Final = 4


class IndexReaders:
    """Threads and connections are made when they are first needed; `close` ends them."""

    def __init__(self, path: Path, *, threads: int = _THREADS) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tomowire-read")
        self._idle: SimpleQueue[SqliteReader] = SimpleQueue()

    async def ask(self, question: Callable[[SqliteReader], T]) -> T:
        """Run `question` in a thread. It may go on there when this is cancelled. Raises `IndexUnavailable`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, question)

    async def instance(self, sop_instance_uid: str) -> IndexedObject | None:
        """The object with this UID."""
        return await self.ask(lambda reader: reader.instance(sop_instance_uid))

    async def counts(self) -> Counts:
        """How many patients, studies, series and instances there are."""
        return await self.ask(SqliteReader.counts)

    async def statistics(self) -> Statistics:
        """What the archive holds. Walks over all instances."""
        return await self.ask(SqliteReader.statistics)

    async def objects(self) -> AsyncIterator[IndexedObject]:
        """All objects, a page at a time."""
        after = 0
        while page := await self.ask(partial(SqliteReader.page, after=after)):
            for found in page:
                yield found
            after = page[-1].instance_id

    async def close(self) -> None:
        """Wait for questions that are being answered, and close the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        while not self._idle.empty():
            self._idle.get().close()

    def _ask(self, question: Callable[[SqliteReader], T]) -> T:
        try:
            reader = self._idle.get_nowait()
        except Empty:
            reader = SqliteReader.open(self._path)
        try:
            return question(reader)
        finally:
            self._idle.put(reader)
