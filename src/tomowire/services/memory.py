"""Memory that those who transcode share: each waits until there is room for what it makes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

_MOST_HELD: Final = 512 << 20
"""Bytes of transcoded data sets that the sending ones of an event loop hold in memory, together; one alone may have more."""

_budgets: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Budget]] = WeakKeyDictionary()


class _Budget:
    """Memory for a number of borrowers, who wait for one another, first come, first served."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._turn = asyncio.Lock()
        self._given_back = asyncio.Event()

    @asynccontextmanager
    async def borrowed(self, size: int) -> AsyncIterator[None]:
        size = min(size, self._size)
        async with self._turn:
            while self._free < size:
                self._given_back.clear()
                await self._given_back.wait()
            self._free -= size
        try:
            yield
        finally:
            self._free += size
            self._given_back.set()


def transcoding_memory(size: int) -> AbstractAsyncContextManager[None]:
    """`async with transcoding_memory(n)`: room for a transcoded data set of about `n` bytes."""
    return _budgets.setdefault(asyncio.get_running_loop(), _Budget(_MOST_HELD)).borrowed(size)
