"""What has become of each object that is to be sent: every one is told of once, whatever happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tomowire.services.put_off import PutOff
from tomowire.services.sent import Sent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tomowire.services.company import Company
    from tomowire.services.retrying import Retries
    from tomowire.services.sent import Sendable
    from tomowire.services.storage import StoreResponse


class Accounts:
    """The objects that have been begun and those that are put off; and what is known of the others, to be read with `next`.

    With `most_unread` there is no `room` for more when so much is known that nobody has read.
    """

    def __init__(self, retries: Retries, company: Company, most_unread: int | None = None) -> None:
        self.put_off = PutOff(retries, company)
        self._begun: dict[int, Sendable] = {}  # by identity: the same file may have been named twice
        self._told: asyncio.Queue[Sent | None] = asyncio.Queue()
        self._most_unread = most_unread
        self.room = asyncio.Event()
        """Set while more may be begun."""
        self.room.set()

    @property
    def under_way(self) -> int:
        """How many are being sent."""
        return len(self._begun)

    async def next(self) -> Sent | None:
        """The next that is known; None after `close`."""
        sent = await self._told.get()
        self.room.set()
        return sent

    def close(self) -> None:
        """Nothing more will be told."""
        self._told.put_nowait(None)

    def tell(self, sent: Sent) -> None:
        """This is what became of an object."""
        self._told.put_nowait(sent)
        if self._most_unread is not None and self._told.qsize() >= self._most_unread:
            self.room.clear()

    def begin(self, file: Sendable) -> None:
        """It is being sent."""
        self._begun[id(file)] = file

    def call_off(self, file: Sendable) -> None:
        """It is not being sent any more, and counts as not begun."""
        self._begun.pop(id(file), None)

    def ended(self, sent: Sent) -> None:
        """This is what became of an object that has been begun."""
        self.call_off(sent.file)
        self.put_off.forget(sent.file)
        self.tell(sent)

    def answered(self, file: Sendable, response: StoreResponse, *, beside: bool) -> None:
        """The peer has answered: that is what became of it, unless it is worth another try.

        `beside` says that there were other associations at the same time.
        """
        if self.put_off.answered(file, response, beside=beside):
            self.call_off(file)
        else:
            self.ended(Sent(file, response))

    def interrupted(self, file: Sendable, error: Exception, *, beside: bool) -> None:
        """The association ended before the peer had answered: that is what became of it, unless it is worth another try."""
        if self.put_off.interrupted(file, error, beside=beside):
            self.call_off(file)
        else:
            self.ended(Sent(file, None, error))

    def cut_off(self, why: Exception) -> Iterator[Sent]:
        """What was begun, or put off, when nothing is sent any more: it counts as it stands."""
        yield from self.put_off.cut_off()
        for file in self._begun.values():
            yield Sent(file, None, why)
