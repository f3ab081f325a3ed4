"""A data set as it arrives: chunks of borrowed memory, in an async iterator with backpressure."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tomowire.errors import UsageError

if TYPE_CHECKING:
    from tomowire.aio.blocks import Block

GATHER: Final = 1 << 20
"""Bytes that are gathered before a chunk of an unfinished data set is handed out: smaller data sets arrive whole."""

# A slice takes some 200 bytes of memory. Smaller pieces are copied together: a peer may send a megabyte a byte at a time.
_WORTH_A_SLICE: Final = 256

_TOO_LATE: Final = "the data set was read after the request had been answered"


@dataclass(slots=True)
class Chunk:
    """Some bytes of a data set, where they were received.

    `buffers` are slices of receive blocks, in order. They are borrowed: valid until the next chunk is asked for; those of the
    last chunk until the handler has returned. Whoever wants to keep them longer copies them, or calls `keep`: afterwards the memory
    holds what other associations receive.
    """

    buffers: tuple[memoryview, ...]
    last: bool
    nbytes: int
    _blocks: list[Block] = field(default_factory=list, repr=False, compare=False)
    _kept: bool = field(default=False, repr=False, compare=False)

    def keep(self) -> None:
        """Keep the buffers until `release` is called, which must be soon: there is less memory to receive into until then."""
        self._kept = True

    def release(self) -> None:
        """Give the memory of a chunk back that was kept. In the event loop's thread; its buffers are not valid any more."""
        self._kept = False
        while self._blocks:
            self._blocks.pop().release()

    def pass_by(self) -> None:
        """For the stream: whoever has not kept the chunk is done with it."""
        if not self._kept:
            self.release()


class DataStream:
    """The data set of one message. `async for chunk in stream` gives one or more chunks, exactly one of which, the last, is `last`.

    A data set that is no larger than `GATHER` comes as a single chunk. When the association ends before the data set does, the
    iteration raises the `AssociationError` that says why. It raises `UsageError` after the handler has returned, when the memory
    is not its any more, and for a second task that reads the same stream.
    """

    __slots__ = (
        "_blocks",
        "_closed",
        "_complete",
        "_error",
        "_finished",
        "_hurry",
        "_lent",
        "_parts",
        "_rest",
        "_size",
        "_waiter",
        "received",
    )

    def __init__(self) -> None:
        self.received = 0
        """Bytes that have arrived so far."""
        self._parts: list[memoryview | bytearray] = []  # slices, and small pieces copied together
        self._blocks: list[Block] = []
        self._lent: Chunk | None = None
        self._rest: Chunk | None = None  # of the chunk that was lent last, put back
        self._size = 0
        self._complete = False  # the last byte has arrived
        self._finished = False  # the last chunk has been handed out
        self._closed = False
        self._hurry = False
        self._error: Exception | None = None
        self._waiter: Future[None] | None = None

    def __aiter__(self) -> DataStream:
        return self

    async def __anext__(self) -> Chunk:
        if self._finished:
            if self._rest is None:
                if self._closed:  # an end would be taken for that of an empty data set
                    raise UsageError(_TOO_LATE)
                raise StopAsyncIteration
            return self._take_rest(self._rest)
        if self._waiter is not None:
            raise UsageError("two tasks read the same data set")
        self._take_back()
        while self._closed or not self._ready():
            if self._closed:
                raise UsageError(_TOO_LATE)
            if self._error is not None:
                raise self._error.with_traceback(None)
            self._waiter = get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._take()

    @property
    def is_untouched(self) -> bool:
        """Whether nothing has been handed out yet."""
        return self._lent is None and not self._finished

    @property
    def is_over(self) -> bool:
        """Whether all of it has been handed out."""
        return self._finished and self._rest is None

    @property
    def is_put_back(self) -> bool:
        """Whether nothing has been handed out since the last `put_back`."""
        return self._rest is not None

    @property
    def lent(self) -> Chunk | None:
        """The chunk that was handed out last, while it is lent."""
        return self._lent

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for bytes that have not come."""
        return self._waiter is not None

    def put_back(self, used: int, before: memoryview) -> None:
        """Only `used` bytes of the chunk handed out last have been taken: the next is `before`, and what is left of that one."""
        chunk = self._lent
        assert chunk is not None and used <= chunk.nbytes
        buffers = _without(chunk.buffers, used)
        if before:
            buffers = (before, *buffers)
        self._rest = Chunk(buffers, chunk.last, chunk.nbytes - used + len(before))
        self._finished = True  # so that what is left has to be looked for only when there might be nothing else

    async def read(self) -> bytes:
        """All that is left of the data set, as a copy. For handlers of small data sets, such as identifiers."""
        parts = [bytes(buffer) async for chunk in self for buffer in chunk.buffers]
        return b"".join(parts)

    async def pass_over(self) -> None:
        """Wait for what is left of the data set, and drop it. Raises the `AssociationError` that kept it from becoming whole."""
        async for _ in self:
            pass

    def push(self, data: memoryview, block: Block, *, last: bool) -> None:
        """Add received bytes that lie in `block`. After `close` they are passed over."""
        if self._closed:
            return
        if data:
            if len(data) >= _WORTH_A_SLICE:
                self._parts.append(data)
            elif self._parts and isinstance(self._parts[-1], bytearray):
                self._parts[-1] += data
            else:
                self._parts.append(bytearray(data))
            # Also for what was copied: it must hold up the peer like all else.
            if not self._blocks or self._blocks[-1] is not block:
                block.pins += 1
                self._blocks.append(block)
            self._size += len(data)
            self.received += len(data)
        self._complete = last
        if self._ready():
            self._wake()

    def hurry(self) -> None:
        """Hand out what there is without gathering more: there is no memory left to gather in."""
        self._hurry = True
        if self._ready():
            self._wake()

    def fail(self, error: Exception) -> None:
        """The rest will never come."""
        if not self._complete and not self._closed:
            self._error = error
            self._parts.clear()
            self._size = 0
            self._release(self._blocks)
            self._wake()

    def close(self) -> None:
        """Give all memory back; what still arrives is passed over."""
        self._closed = True
        self._parts.clear()
        self._release(self._blocks)
        self._take_back()
        self._wake()

    def _ready(self) -> bool:
        return self._complete or self._size >= GATHER or (self._hurry and self._size > 0)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self) -> Chunk:
        chunk = self._lent = Chunk(tuple(map(memoryview, self._parts)), self._complete, self._size, self._blocks)
        self._blocks = []
        self._parts = []
        self._size = 0
        self._hurry = False
        self._finished = self._complete
        return chunk

    def _take_rest(self, rest: Chunk) -> Chunk:
        """What was put back. It lies in the memory of the chunk that is lent still."""
        lent = self._lent
        if self._closed or lent is None:
            raise UsageError(_TOO_LATE)
        rest._blocks, lent._blocks = lent._blocks, []
        self._lent, self._rest = rest, None
        self._finished = rest.last
        return rest

    def _take_back(self) -> None:
        if self._lent is not None:
            self._lent.pass_by()
            self._lent = None

    @staticmethod
    def _release(blocks: list[Block]) -> None:
        while blocks:
            blocks.pop().release()


def _without(buffers: tuple[memoryview, ...], used: int) -> tuple[memoryview, ...]:
    """`buffers` without their first `used` bytes."""
    left = []
    for buffer in buffers:
        if used < len(buffer):
            left.append(buffer[used:])
        used = max(0, used - len(buffer))
    return tuple(left)
