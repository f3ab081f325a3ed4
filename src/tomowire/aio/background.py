"""Handlers that a server calls besides serving requests, and the tasks they run in."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any

from tomowire.aio.failing import log_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

logger = logging.getLogger("tomowire.listen")


class Background:
    """Runs what nobody waits for. What fails is logged; after `close` nothing is left but what will not be cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` in a task. Its result and its failure are the caller's to look at."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call(self, handler: Callable[..., object], *arguments: Any, name: str) -> None:
        """Call a handler; if it is asynchronous, in a task of its own."""
        try:
            result = handler(*arguments)
        except Exception as error:
            log_failure(logger, name, error)
            return
        if inspect.isawaitable(result):
            self.start(_awaited(result, name), name)

    async def close(self, grace: float) -> None:
        """Wait up to `grace` seconds for the tasks to end, then cancel them, and wait as long again; but not for who waits here."""
        if (tasks := self._others()) and grace > 0:
            await asyncio.wait(tasks, timeout=grace)
        self.cancel()
        if tasks := self._others():
            _, stubborn = await asyncio.wait(tasks, timeout=max(grace, 1.0))
            for task in stubborn:
                logger.error("%s has been cancelled, and goes on for more than %g s", task.get_name(), max(grace, 1.0))

    def cancel(self) -> None:
        """Cancel all that is running."""
        for task in self._others():
            task.cancel()

    def _others(self) -> set[asyncio.Task[Any]]:
        return self._tasks - {asyncio.current_task()}


async def _awaited(result: Awaitable[object], name: str) -> None:
    try:
        await result
    except Exception as error:
        log_failure(logger, name, error)
