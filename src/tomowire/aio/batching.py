"""Blocking work for many callers on one worker thread, a batch at a time.

A hop to a thread and back costs more than writing a small file. While a batch is at work the next one gathers; nobody ever waits
for a batch to fill.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Runs `process(items)` in a thread of its own; it returns a result or an exception for each item, in order."""

    def __init__(self, process: Callable[[Sequence[Item]], Sequence[Result | Exception]], *, name: str) -> None:
        self._process = process
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._running: asyncio.Future[Sequence[Result | Exception]] | None = None

    async def submit(self, item: Item) -> Result:
        """The result for one item. Cancelling this does not take the item back once its batch is at work."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._start(loop)
        return await future

    async def close(self) -> None:
        """Wait for what was submitted, and end the thread."""
        while self._running is not None:
            await asyncio.wait([self._running])
        self._executor.shutdown()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        batch, self._waiting = [each for each in self._waiting if not each[1].done()], []
        if not batch:
            self._running = None
            return
        self._running = running = loop.run_in_executor(self._executor, self._process, [item for item, _ in batch])
        running.add_done_callback(lambda done: self._deliver(loop, batch, done))

    def _deliver(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[tuple[Item, asyncio.Future[Result]]],
        done: asyncio.Future[Sequence[Result | Exception]],
    ) -> None:
        error = done.exception()
        results: Sequence[Result | BaseException] = [error] * len(batch) if error is not None else done.result()
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._start(loop)
