"""The memory that all associations of one server may take together, and how it is divided.

    total ── receiving      at most half: blocks of 256 KiB
          │    ├─ two for each association that may be: with these each of them can always go on; four more for the buffers of TLS
          │    └─ the rest is for those that want more, first come, first served, up to 16 each
          └─ data sets      what is left: those that are held whole, and attributes that are read before the pixel data

The two never borrow from each other. If they did, associations that wait for memory for a data set could hold, as receive blocks,
the very memory that they wait for. An association that gets no further block waits for one of its own to come free, never for those
of others; that is why no share of the receive memory can lead to a deadlock. `memory` says why none of the other can.
"""

from __future__ import annotations

import logging
from typing import Final

from tomowire.aio.arguments import seconds, whole
from tomowire.aio.blocks import BLOCK_LIMIT, BLOCK_SIZE, LEAST_BLOCKS
from tomowire.aio.held import HeldMemory
from tomowire.aio.memory import DEFAULT_MEMORY_WAIT
from tomowire.errors import UsageError

logger = logging.getLogger("tomowire.listen")

DEFAULT_MEMORY: Final = 1 << 30
"""So much that 100 associations have all the blocks that are of use to them, and half a gigabyte is left for data sets."""
LEAST_MEMORY: Final = 4 << 20

BLOCKS_FOR_TLS: Final = 4
"""So much do the buffers below one association take: 256 KiB that encrypted bytes are received into, up to 512 KiB of them that
wait for somebody to read, and those of OpenSSL. Measured, with peers that are not read from: 0.8 MiB, on both event loops."""


class MemoryBudget:
    """`total` bytes for up to `maximum_associations`, with `tls` or without; fewer, if it is not enough for so many.

    Raises `UsageError` for what cannot be, and below 4 MiB.
    """

    def __init__(
        self, total: int, *, maximum_associations: int, tls: bool = False, wait: float = DEFAULT_MEMORY_WAIT
    ) -> None:
        whole(0)("memory", total)
        whole(1)("maximum_associations", maximum_associations)
        seconds()("memory_wait", wait)
        if total < LEAST_MEMORY:
            raise UsageError(f"{total} bytes of memory are too few for a server: {LEAST_MEMORY >> 20} MiB is the least")
        below = BLOCKS_FOR_TLS if tls else 0
        blocks = min(total // 2 // BLOCK_SIZE, maximum_associations * (BLOCK_LIMIT + below))
        self.total: Final = total
        self._wanted = maximum_associations
        self.maximum_associations: Final = min(maximum_associations, blocks // (LEAST_BLOCKS + below))
        self.data: Final = HeldMemory(total - blocks * BLOCK_SIZE, wait=wait)
        self._extra_blocks = blocks - self.maximum_associations * (LEAST_BLOCKS + below)

    def warn(self) -> None:
        """Log it if there is less memory than the associations need that were asked for."""
        if self.maximum_associations < self._wanted:
            logger.warning(
                "%d MiB of memory is enough for %d associations at once, not for %d",
                self.total >> 20,
                self.maximum_associations,
                self._wanted,
            )

    def take_block(self) -> bool:
        """One receive block more than the two that every association has; False if there is none."""
        if not self._extra_blocks:
            return False
        self._extra_blocks -= 1
        return True

    def return_block(self) -> None:
        """What was taken with `take_block` is free again."""
        self._extra_blocks += 1
