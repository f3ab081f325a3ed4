"""What has become of the items of a job, made durable: one transaction for all that was reported while the last was written.

So there is no fixed delay: an acknowledgement is written at once where nothing else is being written, and a thousand of them come
with few commits. What was acknowledged and not yet written when the process is killed is sent again: receivers know the object
by its UID.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from tomowire.aio.threads import finished
from tomowire.errors import IndexUnavailable
from tomowire.server.jobs.work import TryAgain
from tomowire.server.lazily import Lazily

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.server.jobs import claims
    from tomowire.server.jobs.claim import Claim, Settled
    from tomowire.server.records import Records
else:
    claims = Lazily("tomowire.server.jobs.claims")

_MOST_UNWRITTEN: Final = 2000
_WAIT_FOR_INDEX: Final = 1.0


class Settling:
    """`async with Settling(records, claim) as settling`: at the end of the block all is written.

    `on_lost` is called when the job turns out not to be ours any more; then nothing is written. The index may be unavailable for
    some time: as long as the block lasts it is tried again. Raises `TryAgain` at the end if it could not be written.
    """

    def __init__(self, records: Records, claim: Claim) -> None:
        self.is_lost = False
        self.on_lost: Callable[[], object] = lambda: None
        self._records = records
        self._claim = claim
        self._unwritten: list[Settled] = []
        self._bytes = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._writing is not None
        self._closing.set()
        self._news.set()
        await finished(self._writing)

    async def add(self, settled: Settled) -> None:
        """This has become of an item. Waits only when too much is not written yet."""
        self._unwritten.append(settled)
        self._news.set()
        if len(self._unwritten) >= _MOST_UNWRITTEN:
            self._room.clear()
            await self._room.wait()

    def received(self, size: int) -> None:
        """So many bytes have come, and will be written with what is next."""
        self._bytes += size
        self._news.set()

    async def _write(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while (self._unwritten or self._bytes) and not self.is_lost:
                batch, self._unwritten = self._unwritten, []
                size, self._bytes = self._bytes, 0
                self._room.set()
                if not await self._wrote(batch, size):
                    self._unwritten[:0] = batch
                    self._bytes += size
            if self._closing.is_set():
                return
            if self.is_lost:
                self._unwritten.clear()
                self._room.set()

    async def _wrote(self, batch: list[Settled], size: int) -> bool:
        try:
            is_ours = await self._records.write(lambda connection: claims.settle(connection, self._claim, batch, size))
        except IndexUnavailable as error:
            if self._closing.is_set():
                raise TryAgain(f"what was done could not be written down: {error}") from error
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_FOR_INDEX):
                    await self._closing.wait()
            return False
        if not is_ours:
            self.is_lost = True
            self.on_lost()
        return True
