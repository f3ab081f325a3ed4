"""The memory that a connection receives into: a few reused blocks, lent out in slices.

The kernel writes into the current block; the protocol hands out slices of it. A block with lent slices is pinned and must not be
written over. When every block is pinned there is no room to receive into, so the connection stops reading, and TCP makes the peer
wait. That is all the backpressure there is, and it bounds the memory.

What is not pinned any more goes to a small reserve that all connections share: memory that is asked of the system anew has to be
cleared first, page by page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.aio.budget import MemoryBudget

FIRST_BLOCK_SIZE: Final = 16 * 1024
"""Until the association is established a peer is owed no more than this."""
BLOCK_SIZE: Final = 256 * 1024
BLOCK_LIMIT: Final = 16
LEAST_BLOCKS: Final = 2
"""What a connection has at least, where a server's memory is not enough for more: one to receive into while another is lent out."""

# Below this much room at the end of a block it is better to begin the next one than to receive in small pieces.
_LEAST_ROOM: Final = 16 * 1024

_NOTHING: Final = memoryview(b"")

# No more than one connection may use.
_reserve: Final[list[memoryview]] = []


class Block:
    """A piece of memory and the number of borrowers that hold slices of it."""

    __slots__ = ("_pool", "pins", "view")

    def __init__(self, pool: BlockPool, size: int) -> None:
        self._pool = pool
        self.view = _memory(size)
        self.pins = 0

    def release(self) -> None:
        """One borrower less."""
        self.pins -= 1
        if not self.pins:
            self._pool.freed(self)


class BlockPool:
    """The blocks of one connection. `on_room` is called when there is room again after `has_room` was false.

    With a `budget` there may be `LEAST_BLOCKS` of full size, and up to `BLOCK_LIMIT` as long as the budget has more.
    """

    def __init__(self, on_room: Callable[[], None], budget: MemoryBudget | None = None) -> None:
        self._on_room = on_room
        self._budget = budget
        self._size = FIRST_BLOCK_SIZE
        self._left = 0  # how many blocks of that size there may be besides those that are lent
        self._more = 0  # how many more the budget may be asked for
        self.current = Block(self, self._size)
        self._filled = 0
        self._starved = False
        self._closed = False

    def grow(self) -> None:
        """Use full-sized blocks from the next one on: there is an association now."""
        if self._size != BLOCK_SIZE:
            self._size = BLOCK_SIZE
            self._left = BLOCK_LIMIT if self._budget is None else LEAST_BLOCKS
            self._more = BLOCK_LIMIT - self._left

    def has_room(self) -> bool:
        """Make sure that `room` gives space. False: all blocks are lent out, stop reading until `on_room`."""
        current = self.current
        if not current.pins and len(current.view) == self._size:
            self._filled = 0
            return True
        room = len(current.view) - self._filled
        if room >= _LEAST_ROOM:
            return True
        if self._left or self._borrow():
            self._left -= 1
            self.current = Block(self, self._size)
            self._filled = 0
        elif not room:
            self._starved = True
            return False
        return True

    def room(self) -> memoryview:
        """Where to receive into. Only valid after `has_room` said yes."""
        return self.current.view[self._filled :]

    def received(self, size: int) -> memoryview:
        """The `size` bytes that were just received, as a slice of the current block."""
        start = self._filled
        self._filled = start + size
        return self.current.view[start : self._filled]

    def freed(self, block: Block) -> None:
        """From a block: nobody holds slices of it any more."""
        if block is not self.current:
            if len(block.view) != self._size:
                return  # the first, small one: nothing is received into it again
            self._left += 1
            self._pay_back()
            _give_back(block.view)
        elif self._closed:
            self._let_go()
        if self._starved:
            self._starved = False
            self._on_room()

    def _borrow(self) -> bool:
        if not self._more or self._budget is None or not self._budget.take_block():
            return False
        self._more -= 1
        self._left += 1
        return True

    def _pay_back(self) -> None:
        if self._budget is not None and self._more < BLOCK_LIMIT - LEAST_BLOCKS:
            self._more += 1
            self._left -= 1
            self._budget.return_block()

    def close(self) -> None:
        """The connection is over: nothing is received any more."""
        if not self._closed:
            self._closed = True
            if not self.current.pins:
                self._let_go()

    def _let_go(self) -> None:
        # What is left of a connection has reference cycles: it may be long until it is collected, and it would keep the memory.
        _give_back(self.current.view)
        self.current.view = _NOTHING


def _memory(size: int) -> memoryview:
    if size == BLOCK_SIZE:
        try:
            return _reserve.pop()
        except IndexError:
            pass  # nothing there, or an event loop in another thread was quicker
    return memoryview(bytearray(size))


def _give_back(view: memoryview) -> None:
    if len(view) == BLOCK_SIZE and len(_reserve) < BLOCK_LIMIT:
        _reserve.append(view)
