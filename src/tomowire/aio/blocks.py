"""The memory that a connection receives into: a few reused blocks, lent out in slices.

The kernel writes into the current block; the protocol hands out slices of it. A block with lent slices is pinned and must not be
written over; when all are given back it is free again. When every block is pinned there is no room to receive into, so the
connection stops reading, and TCP makes the peer wait. That is all the backpressure there is, and it bounds the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_BLOCK_SIZE: Final = 16 * 1024
"""Until the association is established a peer is owed no more than this."""
BLOCK_SIZE: Final = 256 * 1024
BLOCK_LIMIT: Final = 16

# Below this much room at the end of a block it is better to begin the next one than to receive in small pieces.
_LEAST_ROOM: Final = 16 * 1024


# An association that was busy once keeps this many blocks besides the current one.
_SPARE_BLOCKS: Final = 2


class Block:
    """A piece of memory and the number of borrowers that hold slices of it."""

    __slots__ = ("_pool", "pins", "view")

    def __init__(self, pool: BlockPool, size: int) -> None:
        self._pool = pool
        self.view: Final = memoryview(bytearray(size))
        self.pins = 0

    def release(self) -> None:
        """One borrower less."""
        self.pins -= 1
        if not self.pins:
            self._pool.freed(self)


class BlockPool:
    """The blocks of one connection. `on_room` is called when there is room again after `has_room` was false."""

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room
        self._size = FIRST_BLOCK_SIZE
        self._left_to_make = 0  # how many blocks of that size there may still be
        self._free: list[Block] = []
        self.current = Block(self, self._size)
        self._filled = 0
        self._starved = False

    def grow(self) -> None:
        """Use full-sized blocks from the next one on: there is an association now."""
        if self._size != BLOCK_SIZE:
            self._size = BLOCK_SIZE
            self._left_to_make = BLOCK_LIMIT

    def has_room(self) -> bool:
        """Make sure that `room` gives space. False: all blocks are lent out, stop reading until `on_room`."""
        current = self.current
        if not current.pins and len(current.view) == self._size:
            self._filled = 0
            return True
        room = len(current.view) - self._filled
        if room >= _LEAST_ROOM:
            return True
        if self._free:
            self._begin(self._free.pop())
        elif self._left_to_make:
            self._left_to_make -= 1
            self._begin(Block(self, self._size))
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
            if len(self._free) < _SPARE_BLOCKS:
                self._free.append(block)
            else:
                self._left_to_make += 1  # its memory goes back; should another burst come, it is made again
        if self._starved:
            self._starved = False
            self._on_room()

    def _begin(self, block: Block) -> None:
        self.current = block
        self._filled = 0
