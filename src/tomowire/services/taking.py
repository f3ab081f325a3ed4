"""What the senders of one association take from: files that are there, read ahead, and those that are still to come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tomowire.services.read_ahead import ReadAhead

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from tomowire.aio.association import Association
    from tomowire.services.put_off import PutOff
    from tomowire.services.read_ahead import Read
    from tomowire.services.sent import Sendable
    from tomowire.services.supply import Supply


class Taker:
    """Gives one file after the other from the left of `files`; `sharers` is how many others take from there.

    With a `supply` it waits for more when there are none, as long as the association lasts and not too much has been put off;
    `on_pause` is told of that.
    """

    def __init__(
        self,
        association: Association,
        files: deque[Sendable],
        sharers: int,
        supply: Supply | None,
        put_off: PutOff,
        on_pause: Callable[[], None] = lambda: None,
    ) -> None:
        self._association = association
        self._ahead = ReadAhead(files, sharers=sharers)
        self._supply = supply
        self._put_off = put_off
        self._on_pause = on_pause
        self._turn = asyncio.Lock()  # one at a time looks for more: what comes is for all
        self._is_over = False

    async def next(self) -> Read[Sendable] | None:
        """The next file, as from `ReadAhead`; None when there is none for this association any more."""
        if not self._is_over and (read := await self._next_there()) is not None:
            return read
        if self._supply is not None:
            async with self._turn:
                while not self._is_over:
                    if (read := await self._next_there()) is not None:
                        return read
                    self._on_pause()
                    # An association that ends while nothing is sent on it is no object's fault, and none is tried on it.
                    self._is_over = (
                        self._put_off.is_much or not await self._supply.more() or not self._association.is_established
                    )
        return None

    async def _next_there(self) -> Read[Sendable] | None:
        if self._supply is not None and not self._put_off.is_much:
            self._supply.refill()
        return await self._ahead.next()

    def done(self, read: Read[Sendable]) -> None:
        """Nobody uses the data set of `read` any more."""
        if self._association.is_established:  # otherwise something of it may still be on its way out
            self._ahead.done(read)

    async def close(self) -> None:
        """Put back what was read and not taken."""
        await self._ahead.close()
