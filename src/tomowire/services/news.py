"""What a retrieval tells while its caller may be busy with something else."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

T = TypeVar("T")
P = TypeVar("P")

_MOST_UNREAD: Final = 1000


class News(Generic[T, P]):
    """Of each object something to be read, of type T; and between the objects how far it is, of type P, of which the latest counts.

    Whoever brings objects waits for `room` before each: no more of them are unread than a thousand, and those under way.
    """

    def __init__(self) -> None:
        self._unread: deque[tuple[bool, T | P]] = deque()  # and whether it is of an object
        self._objects = 0
        self._is_over = False
        self._is_closed = False
        self._told = asyncio.Event()
        self._read = asyncio.Event()

    def of_object(self, news: T) -> None:
        """This is what became of an object."""
        if not self._is_closed:
            self._objects += 1
            self._unread.append((True, news))
            self._told.set()

    def of_progress(self, news: P) -> None:
        """So far it is now. What was said of that before, since the last object, need not be read any more."""
        if self._is_closed:
            return
        if self._unread and not self._unread[-1][0]:
            self._unread.pop()
        self._unread.append((False, news))
        self._told.set()

    async def room(self) -> None:
        """Wait until enough has been read, or nobody reads any more."""
        while self._objects >= _MOST_UNREAD and not self._is_closed:
            self._read.clear()
            await self._read.wait()

    def end(self) -> None:
        """There will be no more."""
        self._is_over = True
        self._told.set()

    def close(self) -> None:
        """Nobody reads any more: nobody has to wait for it either."""
        self._is_closed = True
        self._unread.clear()
        self._read.set()

    async def next(self) -> T | P | None:
        """The next, when it comes; None at the end."""
        while not self._unread:
            if self._is_over:
                return None
            self._told.clear()
            await self._told.wait()
        is_of_object, news = self._unread.popleft()
        self._objects -= is_of_object
        self._read.set()
        return news
