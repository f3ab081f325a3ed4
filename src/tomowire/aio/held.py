"""A data set that is held in memory while it comes, as far as there is memory for it."""

from __future__ import annotations

from asyncio import get_running_loop
from io import BytesIO
from typing import TYPE_CHECKING, Self

from tomowire.aio.memory import NONE_LEFT, DataMemory
from tomowire.aio.timing import Alarm
from tomowire.errors import MemoryShort

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable, Iterable


class HeldMemory(DataMemory):
    """The memory for data sets, with a clock. To be used in one event loop."""

    _alarm: Alarm | None = None

    def hold(self, last_heard: Callable[[], float]) -> HeldData:
        """Begin to hold a data set; `last_heard` gives the loop's time at which something last came from its peer."""
        return HeldData(self, last_heard)

    def watch(self, loop: AbstractEventLoop) -> None:
        """Somebody waits: give up who is late, now and as long as anybody waits."""
        if self._alarm is None:
            self._alarm = Alarm(loop, self.give_up_late)
        when = self.give_up_late(loop.time())
        if when is not None:
            self._alarm.look_at(when)

    def unwatch(self) -> None:
        """Somebody does not wait any more."""
        if self._alarm is not None and not self.is_short:
            self._alarm.stop()


class HeldData:
    """`with memory.hold(...) as held`: the bytes are there from `write` on, and their memory is free again at the end of the block.

    Everything raises `MemoryShort` from the moment on in which the data set has been given up: what was held of it is gone then.
    """

    def __init__(self, memory: HeldMemory, last_heard: Callable[[], float]) -> None:
        self._memory = memory
        self._loop = get_running_loop()
        self._share = memory.enter(self._loop.time(), self._on_change, last_heard)
        self._content: BytesIO | None = BytesIO()
        self._waiter: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._content = None
        self._memory.leave(self._share, self._loop.time())

    async def write(self, buffers: Iterable[memoryview], size: int) -> None:
        """Hold a copy of `buffers`, which are `size` bytes together. Waits for memory."""
        await self.reserve(size)
        content = self._content
        if content is None:
            raise MemoryShort(NONE_LEFT)
        for buffer in buffers:
            content.write(buffer)

    async def reserve(self, size: int) -> None:
        """Wait for memory for `size` bytes that somebody else holds for this data set."""
        if not self._memory.ask(self._share, size, self._loop.time()):
            self._waiter = self._loop.create_future()
            try:
                self._memory.watch(self._loop)
                await self._waiter
            finally:
                self._waiter = None
                self._memory.withdraw(self._share, self._loop.time())
                self._memory.unwatch()

    def whole(self) -> bytes:
        """All that was written, not copied once more. From now on the data set is in use, and nobody waits for its peer."""
        if self._content is None:
            raise MemoryShort(NONE_LEFT)
        self._memory.finish(self._share, self._loop.time())
        data = self._content.getvalue()  # the very bytes that were written into, as long as nothing more is written
        self._content = BytesIO()
        return data

    def _on_change(self) -> None:
        if self._share.is_given_up:
            self._content = None
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            if self._share.is_given_up:
                waiter.set_exception(MemoryShort(NONE_LEFT))
                waiter.exception()  # seen: who is cancelled at this moment does not look at it
            else:
                waiter.set_result(None)
