"""Group commit: objects from all associations, made durable together by one thread.

While a batch is written the next one gathers; nobody waits for company. One object at a time costs one hand-over to the thread
and one back; sixteen in flight cost the same, and share the syncs. The event loop is called once for a batch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

from tomowire.aio.threads import finished
from tomowire.errors import IndexUnavailable
from tomowire.protocol.status import OUT_OF_RESOURCES
from tomowire.server.batch import BatchWriter, Result
from tomowire.server.failures import failure_of, store_failed
from tomowire.server.incoming import NewObject, Stored

T = TypeVar("T")

logger: Final = logging.getLogger(__name__)

_MOST_IN_A_BATCH: Final = 128
"""Each has a file open until the batch is synced."""


@dataclass(slots=True, eq=False)
class _Waiting:
    new: NewObject
    settled: asyncio.Future[Result | None]
    over: bool = False
    """The thread has let go of it."""

    abandoned: bool = False
    """Nobody waits for the result any more: the object is not written, if it has not been by then."""


@dataclass(slots=True, eq=False)
class _Task:
    """Something else that only this thread may do."""

    work: Callable[[BatchWriter], Any]
    done: asyncio.Future[Any]


class GroupCommit:
    """The thread that stores. Made and used inside the event loop; `close` ends the thread."""

    def __init__(self, writer: BatchWriter) -> None:
        self.on_batch: Callable[[int, float], object] | None = None
        """Called in the thread after each batch, with the number of its objects and the seconds that it took."""
        self._writer = writer
        self.loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Waiting | _Task | None] = SimpleQueue()
        self._closed = False
        self._thread = Thread(target=self._run, name="tomowire-commit", daemon=True)
        self._thread.start()

    async def store(self, new: NewObject) -> Stored:
        """Returns when `new` is durable and indexed. Raises `StoreFailed`.

        When cancelled it still waits until the thread has let go of the object's memory, which is only borrowed.
        """
        if self._closed:
            raise store_failed(OUT_OF_RESOURCES, "the archive is being closed")
        waiting = _Waiting(new, self.loop.create_future())
        self._queue.put(waiting)
        try:
            result = await waiting.settled
        except asyncio.CancelledError:
            await self._abandon(waiting)
            raise
        if isinstance(result, Stored):
            return result
        raise result if result is not None else asyncio.CancelledError

    async def perform(self, work: Callable[[BatchWriter], T]) -> T:
        """Call `work` in the thread that stores, between two batches, and so quickly that nobody minds who has an object waiting.

        It is finished even when this is cancelled. Raises what it raises; `IndexUnavailable` when the archive is being closed.
        """
        if self._closed:
            raise IndexUnavailable("the archive is being closed")
        task = _Task(work, self.loop.create_future())
        self._queue.put(task)
        result: T = await finished(task.done)
        return result

    @property
    def waiting(self) -> int:
        """How many objects wait for the batch that is being written to be done."""
        return self._queue.qsize()

    async def close(self) -> None:
        """Store what is waiting, and end the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _abandon(self, waiting: _Waiting) -> None:
        if not waiting.over:
            waiting.abandoned = True
            waiting.settled = self.loop.create_future()  # the first one was cancelled with the task
            await finished(waiting.settled)

    def _run(self) -> None:
        queue = self._queue
        while True:
            batch = [queue.get()]
            while len(batch) < _MOST_IN_A_BATCH and not queue.empty():
                batch.append(queue.get())
            todo = [waiting for waiting in batch if isinstance(waiting, _Waiting)]
            if todo:
                self.loop.call_soon_threadsafe(_settle, todo, self._write(todo))
            if len(todo) < len(batch):
                for task in batch:
                    if isinstance(task, _Task):
                        self._perform(task)
                if None in batch:  # that `close` has put
                    return

    def _perform(self, task: _Task) -> None:
        try:
            result, error = task.work(self._writer), None
        except Exception as raised:
            result, error = None, raised
        self.loop.call_soon_threadsafe(_conclude, task, result, error)

    def _write(self, batch: Sequence[_Waiting]) -> Sequence[Result | None]:
        begun = time.perf_counter()
        wanted = [None if waiting.abandoned else waiting.new for waiting in batch]
        try:
            results = iter(self._writer.write([new for new in wanted if new is not None]))
            return [None if new is None else next(results) for new in wanted]
        except Exception as error:
            logger.exception("a batch of %d objects was not stored", len(batch))
            return [failure_of(error)] * len(batch)
        finally:
            if self.on_batch is not None:
                self.on_batch(len(batch), time.perf_counter() - begun)


def _conclude(task: _Task, result: Any, error: Exception | None) -> None:
    if error is None:
        task.done.set_result(result)
    else:
        task.done.set_exception(error)


def _settle(batch: Sequence[_Waiting], results: Sequence[Result | None]) -> None:
    for waiting, result in zip(batch, results, strict=True):
        waiting.over = True
        if not waiting.settled.done():  # unless its task is being cancelled
            waiting.settled.set_result(result)
