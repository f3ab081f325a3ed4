"""Associations that several share: a peer takes so many at once, and who needs one more waits for its turn."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Turns:
    """The turns of one of them. `shared` is what they share; None where nobody counts."""

    def __init__(self, shared: asyncio.Semaphore | None) -> None:
        self._shared = shared
        self._waiting: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[bool]:
        """Wait for a turn, and have it within the block: False without one, when it was not needed any more (`forgo`)."""
        if self._shared is None:
            yield True
        elif not await self._has_come(self._shared):
            yield False
        else:
            try:
                yield True
            finally:
                self._shared.release()

    def forgo(self) -> None:
        """Those that are waited for now are not needed any more. Who is let go by this may say the same."""
        waiting, self._waiting = self._waiting, set()
        for limit in waiting:
            limit.reschedule(asyncio.get_running_loop().time())

    async def _has_come(self, shared: asyncio.Semaphore) -> bool:
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._waiting.add(limit)
                return await shared.acquire()
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(limit)
