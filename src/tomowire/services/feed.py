"""The objects of a retrieval, taken from a handler a little ahead of those who send them."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from tomowire.services.answering import closing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tomowire.aio.serving import IncomingRequest

T = TypeVar("T")


class Feed(Generic[T]):
    """`async with Feed(batches, capacity) as feed`: keeps about `capacity` objects in `files`, as long as there are any.

    The iterator is run in a task of its own, and closed in it: at the end, by `stop`, or when the `async with` is left.
    """

    def __init__(self, batches: AsyncIterator[Sequence[T]], capacity: int) -> None:
        self.files: deque[T] = deque()
        """To be taken from; `refill` and `more` see to it that it does not stay empty."""
        self.error: Exception | None = None
        """What the iterator raised."""
        self._batches = batches
        self._capacity = capacity
        self.is_over = False
        """Whether nothing will come but what is in `files`."""
        self._filled = asyncio.Event()
        self._wanted = asyncio.Event()
        self._filling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._filling = asyncio.create_task(self._fill())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        if self._filling is not None:
            await asyncio.wait([self._filling])

    def stop(self) -> None:
        """Nothing more is wanted."""
        self.files.clear()
        self.is_over = True
        self._filled.set()
        if self._filling is not None:
            self._filling.cancel()

    def refill(self) -> None:
        """Some may have been taken: ask for more in time."""
        if 2 * len(self.files) < self._capacity:
            self._wanted.set()

    async def more(self, count: int = 1) -> bool:
        """Wait until there are `count` objects, or no more will come; whether there are any."""
        while len(self.files) < count and not self.is_over:
            self._filled.clear()
            self._wanted.set()
            await self._filled.wait()
        return bool(self.files)

    def take(self, most: int) -> list[T]:
        """The first `most` of the objects that are there."""
        return [self.files.popleft() for _ in range(min(most, len(self.files)))]

    async def _fill(self) -> None:
        try:
            async with closing(self._batches):
                async for batch in self._batches:
                    self.files.extend(batch)
                    self._filled.set()
                    while len(self.files) >= self._capacity:
                        self._wanted.clear()
                        await self._wanted.wait()
        except Exception as error:
            self.error = error
        finally:
            self.is_over = True
            self._filled.set()


@asynccontextmanager
async def stopped_by_cancel(
    request: IncomingRequest, feed: Feed[Any], stop: asyncio.Event | None = None
) -> AsyncIterator[None]:
    """When the peer sends C-CANCEL, `feed` gives nothing more, and `stop` is set."""

    async def watch() -> None:
        await request.wait_cancelled()
        feed.stop()
        if stop is not None:
            stop.set()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
