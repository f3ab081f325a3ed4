"""What has become of the items of a job, made durable: one transaction for all that was reported while the last was written.

So there is no fixed delay: an acknowledgement is written at once where nothing else is being written, and a thousand of them come
with few commits. What was acknowledged and not yet written when the process is killed is sent again: receivers know the object
by its UID.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from sys import maxsize
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

logger: Final = logging.getLogger(__name__)

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
        self._most_unwritten = _MOST_UNWRITTEN
        self._failure: Exception | None = None
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
        self._raise_failure()

    async def add(self, settled: Settled) -> None:
        """This has become of an item. Waits only when too much is not written yet. Raises `TryAgain` if it cannot be written."""
        self._raise_failure()
        self._unwritten.append(settled)
        self._news.set()
        if len(self._unwritten) >= self._most_unwritten:
            self._room.clear()
            await self._room.wait()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            # Other errors of a database quote what was to be written.
            why = self._failure if isinstance(self._failure, IndexUnavailable) else type(self._failure).__name__
            raise TryAgain(f"what was done could not be written down: {why}") from self._failure

    def received(self, size: int) -> None:
        """So many bytes have come, and will be written with what is next."""
        self._bytes += size
        self._news.set()

    async def _write(self) -> None:
        try:
            while not (self._closing.is_set() and not self._unwritten and not self._bytes) and not self.is_lost:
                await self._news.wait()
                self._news.clear()
                while (self._unwritten or self._bytes) and not self.is_lost:
                    await self._write_once()
        except Exception as error:
            if not isinstance(error, IndexUnavailable):
                logger.exception("job %s: the database does not take what was done", self._claim.job.job_id)
            self._failure = error
        self._most_unwritten = maxsize  # nobody writes any more: nobody is to wait for it
        self._room.set()

    async def _write_once(self) -> None:
        batch, self._unwritten = self._unwritten, []
        size, self._bytes = self._bytes, 0
        self._room.set()
        try:
            is_ours = await self._records.write(lambda connection: claims.settle(connection, self._claim, batch, size))
        except IndexUnavailable:
            if self._closing.is_set():
                raise
            self._unwritten[:0] = batch
            self._bytes += size
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_FOR_INDEX):
                    await self._closing.wait()
            return
        if not is_ours:
            self.is_lost = True
            self.on_lost()
