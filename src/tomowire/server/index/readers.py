"""Questions to the index from the event loop: answered in worker threads, each with a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import chain, repeat
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from tomowire.aio.threads import finished
from tomowire.errors import IndexUnavailable
from tomowire.server.index.reader import Counts, Dialect, IndexReader, ReaderSource, Row, Statement, Statistics
from tomowire.server.index.rows import IndexedObject

T = TypeVar("T")

_THREADS: Final = 4
_MOST_IDLE: Final = 8  # connections: each keeps up to 2 MB of pages, and one is made in a millisecond
_MOST_STREAMS: Final[dict[Dialect, int]] = {"sqlite": 256, "postgresql": 32}
"""Answers that are being streamed. Each has a connection of its own, of which a PostgreSQL server has a hundred for all its users,
and a peer takes them as slowly as it likes."""
_PATIENCE: Final = 20.0
"""Seconds that one more waits for its turn."""
_BATCH: Final = 200
# The first answers are not to wait for more of their kind.
_FIRST_BATCHES: Final = (1, 50)
_INTERRUPT_AGAIN: Final = 0.02
_LONGEST: Final = 600.0
"""Seconds. While somebody sees the index as it was at a moment, nothing that has come since can leave its log, which grows; and who
asks what takes for ever keeps a thread from the others."""


class IndexReaders:
    """Threads and connections are made when they are first needed; `close` ends them."""

    def __init__(self, source: ReaderSource, *, threads: int = _THREADS) -> None:
        self._source = source
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tomowire-read")
        # Not one of those: they may all be busy, and what nobody wants any more is not to wait for them.
        self._stopping = ThreadPoolExecutor(1, thread_name_prefix="tomowire-read-stop")
        self._idle: SimpleQueue[IndexReader] = SimpleQueue()
        self._streams = asyncio.Semaphore(_MOST_STREAMS[source.dialect])
        self._closed = False

    @property
    def dialect(self) -> Dialect:
        """How statements for this index are to be written."""
        return self._source.dialect

    async def ask(self, question: Callable[[IndexReader], T]) -> T:
        """Run `question` in a thread. It may go on there when this is cancelled. Raises `IndexUnavailable`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, question)

    async def instance(self, sop_instance_uid: str) -> IndexedObject | None:
        """The object with this UID."""
        return await self.ask(lambda reader: reader.instance(sop_instance_uid))

    async def counts(self) -> Counts:
        """How many patients, studies, series and instances there are."""
        return await self.ask(lambda reader: reader.counts())

    async def statistics(self) -> Statistics:
        """What the archive holds. Walks over all instances."""
        return await self.ask(lambda reader: reader.statistics())

    async def objects(self) -> AsyncIterator[IndexedObject]:
        """All objects, a page at a time."""
        after = 0
        while page := await self.ask(partial(_page, after)):
            for found in page:
                yield found
            after = page[-1].instance_id

    async def stream(
        self,
        statement: Statement,
        convert: Callable[[list[Row]], list[T]],
        *,
        batch: int = _BATCH,
        longest: float = _LONGEST,
    ) -> AsyncGenerator[list[T], None]:
        """What `convert` makes of each row of a statement, in the thread that has read them; `batch` rows at most at a time.

        The next rows are read when they are asked for, so it takes the same memory however many there are. All of them are of one
        moment, for which the index is held for `longest` seconds at most. A statement that is being worked on is interrupted then,
        and when this is cancelled. Raises `IndexUnavailable`, and `TimeoutError` when there may be rows left after that time.
        """
        async with self._turn(), aclosing(self._stream(statement, convert, batch, longest)) as batches:
            async for found in batches:
                yield found

    async def _stream(
        self, statement: Statement, convert: Callable[[list[Row]], list[T]], batch: int, longest: float
    ) -> AsyncGenerator[list[T], None]:
        rows = _Rows(self, statement, longest)
        expiry = asyncio.get_running_loop().call_later(longest, rows.expire)
        try:
            for size in chain((min(size, batch) for size in _FIRST_BATCHES), repeat(batch)):
                with rows.being_read():
                    found = await self._interruptible(rows, size, convert)
                if found:
                    yield found
                if len(found) < size:
                    return
                rows.check()
        except IndexUnavailable:
            rows.check()
            raise
        finally:
            expiry.cancel()
            if (closing := rows.close()) is not None:
                await finished(asyncio.wrap_future(closing))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._streams.acquire()
        except TimeoutError:
            raise IndexUnavailable("too many questions are being answered at once") from None
        try:
            yield
        finally:
            self._streams.release()

    async def close(self) -> None:
        """Wait for questions that are being answered, and close the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._stopping.shutdown)
        self._closed = True
        while not self._idle.empty():
            self._idle.get().close()

    def take(self) -> IndexReader:
        """A connection that nobody uses. Give it back. Raises `IndexUnavailable`."""
        while True:
            try:
                reader = self._idle.get_nowait()
            except Empty:
                return self._source.open_reader()
            if reader.is_usable:
                return reader
            reader.close()

    def give_back(self, reader: IndexReader) -> None:
        """The next question may have it, unless there are enough."""
        if self._closed or not reader.is_usable or self._idle.qsize() >= _MOST_IDLE:
            reader.close()
        else:
            self._idle.put(reader)

    def stop(self, reader: IndexReader) -> Future[None] | None:
        """Let go of what it works on, and give it back; in a thread if that takes a word with the database."""
        if not reader.stops_at_once:
            with suppress(RuntimeError):  # closed meanwhile
                return self._stopping.submit(self._stop, reader)
        self._stop(reader)
        return None

    def _stop(self, reader: IndexReader) -> None:
        reader.stop()
        self.give_back(reader)

    def _ask(self, question: Callable[[IndexReader], T]) -> T:
        reader = self.take()
        try:
            return question(reader)
        finally:
            self.give_back(reader)

    async def _interruptible(self, rows: _Rows, size: int, convert: Callable[[list[Row]], list[T]]) -> list[T]:
        """Read in a thread. When cancelled: interrupt, and wait for the thread to have stopped."""
        job = self._threads.submit(lambda: convert(rows.read(size)))
        reading = asyncio.wrap_future(job)
        cancelled: asyncio.CancelledError | None = None
        while not reading.done():
            try:
                await asyncio.wait([reading], timeout=None if cancelled is None else _INTERRUPT_AGAIN)
            except asyncio.CancelledError as error:
                cancelled = error
                job.cancel()  # if it has not begun
            if cancelled is not None:
                rows.interrupt()
        if cancelled is not None:
            if not reading.cancelled():
                reading.exception()  # seen: nobody is left to tell
            raise cancelled
        return reading.result()


def _page(after: int, reader: IndexReader) -> list[IndexedObject]:
    return reader.page(after)


class _Rows:
    """The rows of one statement, with a connection of its own. Used by one thread at a time, but for `interrupt`."""

    def __init__(self, readers: IndexReaders, statement: Statement, longest: float) -> None:
        self._readers = readers
        self._statement = statement
        self._longest = longest
        self._reader: IndexReader | None = None
        self._has_expired = False
        self._is_being_read = False
        self._has_ended = False

    @contextmanager
    def being_read(self) -> Iterator[None]:
        """While a thread may be at work on them. If the time is over by then, they are let go of at once."""
        self._is_being_read = True
        try:
            yield
        finally:
            self._is_being_read = False
            if self._has_expired:
                self.close()

    def read(self, size: int) -> list[Row]:
        if self._has_expired:  # before its turn came
            raise IndexUnavailable("interrupted")
        if self._reader is None:
            self._reader = self._readers.take()
            self._reader.start(self._statement)
        found = self._reader.read(size)
        if len(found) < size:
            self._reader.stop()
            self._has_ended = True
        return found

    def check(self) -> None:
        """Raises `TimeoutError` if the time is over."""
        if self._has_expired:
            raise TimeoutError(f"it took more than {self._longest:g} s")

    def interrupt(self) -> None:
        """To be repeated until the thread has stopped: what has not begun cannot be interrupted."""
        if self._reader is not None:
            self._reader.interrupt()

    def expire(self) -> None:
        """Let go of the index, which has been held for long enough."""
        self._has_expired = True
        if self._is_being_read:
            self.interrupt()
            asyncio.get_running_loop().call_later(_INTERRUPT_AGAIN, self.expire)
        else:
            self.close()

    def close(self) -> Future[None] | None:
        """Let go of the index. What is returned is what there is to be waited for."""
        reader, self._reader = self._reader, None
        if reader is None:
            return None
        if not self._has_ended:
            return self._readers.stop(reader)
        self._readers.give_back(reader)
        return None
