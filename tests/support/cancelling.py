"""Cancelling a coroutine at each of its awaits, one run after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any


class CancelAt:
    """Awaits `work`, and cancels the task that does so in the moment in which it waits for the `number`th time (from 0)."""

    def __init__(self, work: Coroutine[Any, Any, Any], number: int) -> None:
        self.work = work
        self.number = number
        self.happened = False

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.work.__await__()
        error: BaseException | None = None
        waits = 0
        while True:
            try:
                waited_for = steps.throw(error) if error is not None else steps.send(None)
            except StopIteration as stop:
                return stop.value
            error = None
            if waits == self.number:
                self.happened = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            waits += 1
            try:
                yield waited_for
            except BaseException as thrown:
                error = thrown


async def cancelled_at_each_await(work: Callable[[], Coroutine[Any, Any, Any]]) -> AsyncIterator[int]:
    """Run `work()` again and again, cancelled at its first, second, ... await, until it gets through.

    Yields the number of the await after each cancelled run. The run must then have ended with the cancellation, or, if that came
    too late for it to matter, well.
    """
    number = 0
    while True:
        cancelling = CancelAt(work(), number)
        task = asyncio.ensure_future(_run(cancelling))
        await _settle(task)
        if not cancelling.happened:
            return
        yield number
        number += 1


async def cancelled_after_each_step(
    work: Callable[[], Coroutine[Any, Any, Any]], *, growth: float = 1.15
) -> AsyncIterator[int]:
    """The same, cancelled after so many turns of the event loop, whatever it waits for by then."""
    steps = 0
    while True:
        task = asyncio.ensure_future(work())
        for _ in range(steps):
            if task.done():
                break
            await asyncio.sleep(0)
        if task.done():
            task.result()
            return
        task.cancel()
        await _settle(task)
        yield steps
        steps = max(steps + 1, int(steps * growth))


async def _run(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _settle(task: asyncio.Future[Any]) -> None:
    async with asyncio.timeout(20):
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
