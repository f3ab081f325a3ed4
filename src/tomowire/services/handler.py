"""Calling the handler of the Storage SCP: what it may answer, and how long it may take."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from tomowire.errors import StoreFailed, UsageError
from tomowire.protocol.status import PROCESSING_FAILURE, SUCCESS, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tomowire.aio.streams import DataStream

logger = logging.getLogger("tomowire.storage")

Outcome: TypeAlias = "int | tuple[int, str | None]"
"""What a handler returns: a status, or a status and an error comment."""

_LARGEST_STATUS: Final = 0xFFFF
_PLAIN: Final = (Status, int)


def checked_handler(handler: Any) -> Any:
    """The handler, if it is something that can be called. Raises `UsageError` for anything else."""
    if not callable(handler) or isinstance(handler, type):
        what = handler.__name__ if isinstance(handler, type) else type(handler).__name__
        raise UsageError(f"a storage handler is an async function that takes the request, and not {what}")
    return handler


def awaitable(work: Any, handler: Callable[..., Any]) -> Awaitable[Any]:
    """What calling a handler has given. Raises `UsageError`, which names it, if that cannot be awaited: `async` was forgotten."""
    if not hasattr(work, "__await__"):
        raise UsageError(f"the storage handler is no async function (`async def`): {name_of(handler)}")
    return cast("Awaitable[Any]", work)


def status_and_comment(outcome: Any, handler: Callable[..., Any]) -> tuple[int, str | None]:
    """What a handler has returned, checked.

    Raises `UsageError`, which names it, for what is no final status of a C-STORE: nothing of that kind may tell the sender that its
    object is safe, least of all the commonest mistake there is, a forgotten `return`.
    """
    if outcome == SUCCESS and type(outcome) in _PLAIN:  # nearly always
        return outcome, None
    status, comment = outcome if isinstance(outcome, tuple) and len(outcome) == 2 else (outcome, None)
    if not _is_final(status):
        raise _nonsense("returned", status, "a status", handler)
    if not (comment is None or isinstance(comment, str)):
        raise _nonsense("returned", comment, "an error comment", handler)
    return status, comment


def failure(raised: StoreFailed, handler: Callable[..., Any]) -> tuple[int, str]:
    """Status and error comment of a `StoreFailed`. Raises `UsageError` if the status is not that of a failure."""
    if not (_is_final(raised.status) and Status(raised.status).is_failure):
        raise _nonsense("raised StoreFailed with", raised.status, "the status of a failure", handler)
    return raised.status, raised.comment


def _is_final(status: Any) -> bool:
    """PS3.7 9.1.1.1.9: a C-STORE has one response, and cannot be cancelled."""
    if not isinstance(status, int) or isinstance(status, bool) or not 0 <= status <= _LARGEST_STATUS:
        return False
    return not (Status(status).is_pending or Status(status).is_cancel)


def _nonsense(how: str, what: Any, wanted: str, handler: Callable[..., Any]) -> UsageError:
    # Of a text only that it is one: it may be anything, patient data too.
    shown = repr(what) if what is None or isinstance(what, bool | float) else f"a {type(what).__name__}"
    if isinstance(what, int) and not isinstance(what, bool):
        shown = f"{what:04X}H" if 0 <= what <= _LARGEST_STATUS else "a number of more than 16 bits"
    return UsageError(f"the storage handler {how} {shown} and not {wanted}: {name_of(handler)}")


def name_of(handler: Callable[..., Any]) -> str:
    """A handler's name, with its module."""
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    return f"{getattr(handler, '__module__', None) or type(handler).__module__}.{name}"


class TimeLimit:
    """Calls handlers, each of which may take `seconds` without asking for data. It may wait for data as long as the peer takes.

    A handler that takes longer is cancelled, and its object has failed: also when the handler does not let itself be cancelled, in
    which case it goes on by itself, and is complained about in the log.
    """

    def __init__(self, seconds: float, handler: Callable[..., Any]) -> None:
        if seconds <= 0:
            raise UsageError(f"a handler cannot do its work in {seconds:g} s")
        self._seconds = seconds
        self._handler = handler
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def call(self, work: Awaitable[Any], data: DataStream) -> Any:
        """What `work` returns. Raises what it raises, and `StoreFailed` (0110H) when it takes too long."""
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
        raise StoreFailed(PROCESSING_FAILURE, f"the storage handler did nothing for {self._seconds:g} s")

    async def _wait(self, task: asyncio.Task[Any], data: DataStream) -> None:
        """Until it is done, or has had the same chunk for so long."""
        while True:
            chunk = data.lent
            await asyncio.wait([task], timeout=self._seconds)
            if task.done() or (data.lent is chunk and not data.is_awaited):
                return

    async def _stop(self, task: asyncio.Task[Any]) -> None:
        task.cancel()
        await asyncio.wait([task], timeout=self._seconds)
        if task.done():
            _seen(task)
            return
        logger.error("%s has been cancelled after %g s, and goes on", name_of(self._handler), self._seconds)
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
