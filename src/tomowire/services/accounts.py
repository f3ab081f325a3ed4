"""What has become of each object that is to be sent: every one is told of once, whatever happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tomowire.services.put_off import PutOff
from tomowire.services.sent import Sent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tomowire.services.retrying import Retries
    from tomowire.services.sent import Sendable
    from tomowire.services.storage import StoreResponse


class Accounts:
    """The objects that have been begun and those that are put off; and what is known of the others, to be read with `next`."""

    def __init__(self, retries: Retries) -> None:
        self.put_off = PutOff(retries)
        self.begun: set[Sendable] = set()
        """Those that are being sent."""
        self._told: asyncio.Queue[Sent | None] = asyncio.Queue()

    async def next(self) -> Sent | None:
        """The next that is known; None after `close`."""
        return await self._told.get()

    def close(self) -> None:
        """Nothing more will be told."""
        self._told.put_nowait(None)

    def tell(self, sent: Sent) -> None:
        """This is what became of an object."""
        self._told.put_nowait(sent)

    def ended(self, sent: Sent) -> None:
        """This is what became of an object that has been begun."""
        self.begun.discard(sent.file)
        self.put_off.forget(sent.file)
        self.tell(sent)

    def answered(self, file: Sendable, response: StoreResponse) -> None:
        """The peer has answered: that is what became of it, unless it is worth another try."""
        if self.put_off.answered(file, response):
            self.begun.discard(file)
        else:
            self.ended(Sent(file, response))

    def interrupted(self, file: Sendable, error: Exception) -> None:
        """The association ended before the peer had answered: that is what became of it, unless it is worth another try."""
        if self.put_off.interrupted(file, error):
            self.begun.discard(file)
        else:
            self.ended(Sent(file, None, error))

    def cut_off(self, why: Exception) -> Iterator[Sent]:
        """What was begun, or put off, when nothing is sent any more: it counts as it stands."""
        yield from self.put_off.cut_off()
        for file in self.begun:
            yield Sent(file, None, why)
