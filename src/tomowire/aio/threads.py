"""Working in threads with borrowed memory."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from concurrent.futures import Executor

    from tomowire.aio.streams import Chunk

T = TypeVar("T")

_AT_ONCE: Final = 2
# So many chunks are worked on before other data sets get their turn in the pool.
_TURN: Final = 8


async def finished(work: asyncio.Future[T]) -> T:
    """Wait for `work` to end, and only then be cancelled: the memory it uses is given back when the waiting ends.

    A thread cannot be cancelled, and `await work` would leave it behind at once. Gives the result of `work`, or raises what it
    raised; raises `CancelledError` if that was asked for meanwhile.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not work.cancelled():
            work.exception()  # seen: nobody is left to tell
        raise cancelled
    return work.result()


async def each_in_worker(
    work: Callable[[Chunk], T], first: Chunk, rest: AsyncIterator[Chunk], executor: Executor | None = None
) -> T:
    """Call `work` with each chunk of a data set, in worker threads, one after the other; gives what it returned for the last.

    While one chunk is worked on the next is received, and waits where the thread finds it. (Asking the event loop for it each
    time left the thread idle for a third of the time that a gigabyte took.) When `work` raises, it is not called again and that is
    raised here; so is what `rest` raises, `StopAsyncIteration` too if it gives no chunk that is the last. On return nothing is
    being worked on, after cancellation neither.
    """
    turns = _Turns(work, executor)
    at_work: deque[asyncio.Future[T]] = deque()
    chunk = first
    try:
        while True:
            at_work.append(turns.call(chunk))
            if chunk.last:
                break
            while at_work and (len(at_work) == _AT_ONCE or at_work[0].done()):
                await finished(at_work.popleft())
            chunk = await anext(rest)
        while len(at_work) > 1:
            await finished(at_work.popleft())
        return await finished(at_work.popleft())
    finally:
        await _all_finished(at_work)


async def _all_finished(at_work: Sequence[asyncio.Future[T]]) -> None:
    """Wait for what is still being worked on; there is another error to be told."""
    if at_work:
        try:
            # They are settled in order. No task waits for them: whoever cancels all tasks would cancel that one too.
            with suppress(Exception):
                await finished(at_work[-1])
        finally:
            for future in at_work:
                future.exception()  # seen


class _Turns(Generic[T]):
    """A queue before one function: a thread of the pool works on it while there is something in it, but lets others in between."""

    def __init__(self, work: Callable[[Chunk], T], executor: Executor | None) -> None:
        self._work = work
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[Chunk, asyncio.Future[T]]] = deque()
        self._lock = Lock()
        self._has_thread = False
        self._error: BaseException | None = None

    def call(self, chunk: Chunk) -> asyncio.Future[T]:
        """Keep `chunk` until the function has returned; gives the future of what it returns."""
        future: asyncio.Future[T] = self._loop.create_future()
        with self._lock:
            self._queue.append((chunk, future))
            begin, self._has_thread = not self._has_thread, True
        chunk.keep()
        if begin:
            self._begin()
        return future

    def _begin(self) -> None:
        """Ask for a thread, behind all others who have."""
        try:
            if self._executor is None:
                self._loop.run_in_executor(None, self._run)
            else:  # nobody waits for the thread: asyncio's future of it would wake the loop once more for each chunk
                self._executor.submit(self._run)
        except RuntimeError as error:  # the pool has been shut down
            self._error = error
            self._run()

    def _run(self) -> None:
        for _ in range(_TURN):
            turn = self._next()
            if turn is None:
                return
            chunk, future = turn
            result: T | None = None
            if self._error is None:
                try:
                    result = self._work(chunk)
                except StopIteration as error:
                    self._error = RuntimeError(f"{error!r} in a worker thread")  # no future takes the thing itself
                except BaseException as error:
                    self._error = error
            self._loop.call_soon_threadsafe(self._settle, chunk, future, result, self._error)
        self._loop.call_soon_threadsafe(self._begin)

    @staticmethod
    def _settle(chunk: Chunk, future: asyncio.Future[T], result: T | None, error: BaseException | None) -> None:
        chunk.release()
        if error is None:
            future.set_result(cast("T", result))
        else:
            future.set_exception(error)

    def _next(self) -> tuple[Chunk, asyncio.Future[T]] | None:
        with self._lock:
            if self._queue:
                return self._queue.popleft()
            self._has_thread = False
            return None
