"""Waiting for worker threads that use borrowed memory."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


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
