"""What somebody who works on a job has: the job, its items, a place to write down what became of them, and the word to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from tomowire.errors import TomowireError
from tomowire.server.lazily import Lazily

if TYPE_CHECKING:
    from tomowire.server.jobs import table
    from tomowire.server.jobs.claim import Claim
    from tomowire.server.jobs.model import Job, JobItem
    from tomowire.server.jobs.settling import Settling
    from tomowire.server.records import Records
else:
    table = Lazily("tomowire.server.jobs.table")

T = TypeVar("T")

_FIRST_PAGE: Final = 64
_PAGE: Final = 1000


class TryAgain(TomowireError):
    """The attempt ended early, by something that may pass. The text says what happened, whose fault it is and what to do."""


class JobFailed(TomowireError):
    """The job cannot be done, and trying again would not help before somebody has done something: the text says what."""


class Stopped(TomowireError):
    """The job is to stop: it was cancelled, or the archive ends."""


class Work:
    """A job that is being worked on by this process. `settling` is where it says what has become of each item."""

    def __init__(self, claim: Claim, records: Records, settling: Settling) -> None:
        self.claim = claim
        self.settling = settling
        self.stop: Final = asyncio.Event()
        """Set when nothing more is to be begun."""
        self.is_cancelled = False
        """Whether somebody wants the job to end; otherwise it is stopped because the archive ends."""
        self.result: Any = None
        """To be kept with the job, for JSON."""
        self._records = records

    @property
    def job(self) -> Job:
        return self.claim.job

    def cancel(self) -> None:
        """Somebody has cancelled the job."""
        self.is_cancelled = True
        self.stop.set()

    async def pages(self) -> AsyncGenerator[list[JobItem], None]:
        """The items that are not done yet, a few at first, as they are asked for."""
        after, size = -1, _FIRST_PAGE
        while page := await self._waiting(after, size):
            yield page
            after, size = page[-1].position, _PAGE

    async def items(self) -> AsyncGenerator[JobItem, None]:
        """The items that are not done yet, one by one, until it is to stop. Raises `Stopped` then."""
        async with aclosing(self.pages()) as pages:
            async for page in pages:
                for item in page:
                    if self.stop.is_set():
                        raise Stopped
                    yield item

    async def unless_stopped(self, doing: Coroutine[Any, Any, T]) -> T:
        """Do it; when the job is to stop, cancel it, wait until it has ended, and raise `Stopped`."""
        task, stopping = asyncio.create_task(doing), asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            if task.cancelled():
                raise Stopped
            return task.result()
        finally:
            stopping.cancel()
            task.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)

    async def _waiting(self, after: int, size: int) -> list[JobItem]:
        key = self.claim.job_key
        return await self._records.read(lambda connection: table.waiting_items(connection, key, after, size))


Kind: TypeAlias = Callable[[Work], Awaitable[None]]
"""Works on a job: settles its items, and returns when there is nothing left to begin. What it leaves waiting is tried again later.

Raises `TryAgain`, `JobFailed`, `Stopped`.
"""
