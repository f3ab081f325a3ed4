"""Calling handlers: that they are async functions, what they are called in the log, and how long one may take."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any, cast

from tomowire.aio.arguments import name_of
from tomowire.aio.failing import log_failure
from tomowire.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tomowire.aio.streams import DataStream

logger = logging.getLogger("tomowire.serving")


def checked_handler(handler: Any, what: str) -> Any:
    """The handler, if it is something that can be called and awaited. Raises `UsageError` for anything else; `what` names it."""
    _check_callable(handler, f"{what} is an async function")
    if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        raise UsageError(f"{what} returns its answer, and does not yield it: {name_of(handler)}")
    return handler


def checked_generator(handler: Any, what: str) -> Any:
    """The same for a handler that yields what it has to say, as an async generator."""
    _check_callable(handler, f"{what} is an async generator")
    if inspect.iscoroutinefunction(handler) or inspect.isgeneratorfunction(handler):
        raise UsageError(f"{what} is an async generator (`async def` with `yield`): {name_of(handler)} is none")
    return handler


def _check_callable(handler: Any, what_it_is: str) -> None:
    if not callable(handler) or isinstance(handler, type):
        shown = handler.__name__ if isinstance(handler, type) else type(handler).__name__
        raise UsageError(f"{what_it_is} that takes the request, and not {shown}")


def awaitable(work: Any, handler: Callable[..., Any], what: str) -> Awaitable[Any]:
    """What calling a handler has given. Raises `UsageError`, which names it, if that cannot be awaited: `async` was forgotten."""
    if not hasattr(work, "__await__"):
        raise UsageError(f"{what} is no async function (`async def`): {name_of(handler)}")
    return cast("Awaitable[Any]", work)


def log_broken(what: str, handler: Callable[..., Any], error: Exception) -> None:
    """A handler has failed by its own fault, or that of what it calls: `what` says of whose request, and what became of it."""
    log_failure(logger, f"{what}: the handler {name_of(handler)}", error)


class TookTooLong(Exception):
    """A handler has used up its time, and what it was to do has failed."""


class TimeLimit:
    """Calls a handler, which may take `seconds` without asking for data. It may wait for data as long as the peer takes.

    One that takes longer is cancelled, and what it was to do has failed: also when it does not let itself be cancelled, in which
    case it goes on by itself, and is complained about in the log.
    """

    def __init__(self, seconds: float, handler: Callable[..., Any]) -> None:
        if not seconds > 0:  # nor may it be NaN
            raise UsageError(f"a handler cannot do its work in {seconds:g} s")
        self.seconds = seconds
        self._handler = handler
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def call(self, work: Awaitable[Any], data: DataStream | None) -> Any:
        """What `work` returns, to whom `data` comes. Raises what it raises, and `TookTooLong`."""
        task = asyncio.get_running_loop().create_task(_result(work))
        try:
            await self._wait(task, data)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            _seen(task)
            raise
        if task.done():
            return task.result()
        await self._stop(task)
        raise TookTooLong

    async def _wait(self, task: asyncio.Task[Any], data: DataStream | None) -> None:
        """Until it is done, or has had the same chunk for so long."""
        while True:
            chunk = data.lent if data is not None else None
            await asyncio.wait([task], timeout=self.seconds)
            if task.done() or data is None or (data.lent is chunk and not data.is_awaited):
                return

    async def _stop(self, task: asyncio.Task[Any]) -> None:
        task.cancel()
        await asyncio.wait([task], timeout=self.seconds)
        if task.done():
            _seen(task)
            return
        logger.error("%s has been cancelled after %g s, and goes on", name_of(self._handler), self.seconds)
        self._abandoned.add(task)  # the event loop alone would not keep it
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        _seen(task)


async def _result(work: Awaitable[Any]) -> Any:
    return await work


def _seen(task: asyncio.Task[Any]) -> None:
    """Take note of how it ended: there is nobody else to tell."""
    if not task.cancelled():
        task.exception()
