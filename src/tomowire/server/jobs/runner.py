"""Working on jobs: each is claimed when its time has come and there is a place for it.

This sleeps until it is woken, or until the next job is due, or a lease of another process may have ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from tomowire.aio.threads import finished
from tomowire.errors import IndexUnavailable
from tomowire.server.jobs.attempt import Attempt
from tomowire.server.lazily import Lazily

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tomowire.server.jobs import claims, table
    from tomowire.server.jobs.claim import Claim
    from tomowire.server.jobs.model import Job, JobKind
    from tomowire.server.jobs.work import Kind
    from tomowire.server.records import Records
    from tomowire.server.settings import JobSettings
else:
    claims = Lazily("tomowire.server.jobs.claims")
    table = Lazily("tomowire.server.jobs.table")

logger: Final = logging.getLogger(__name__)

_SOONEST: Final = 0.1
"""Seconds to the next look, at the least: another process may be about to claim what is due."""
_WITHOUT_INDEX: Final = 5.0
_TIDY_EVERY: Final = 3600.0
_TIDIED_AT_ONCE: Final = 1000
"""Rows: a fraction of a second in which nobody else writes to the database."""


class Runner:
    """`async with Runner(...)`: works on jobs until the end of the block, and stops those under way then: they wait for the next.

    `owner` names this process, and no other one at the same time: leases of a former process of that name are ended. `first_look`
    is how many seconds it waits before it looks for the first time, unless it is woken.
    """

    def __init__(
        self,
        records: Records,
        kinds: Mapping[JobKind, Kind],
        settings: JobSettings,
        *,
        owner: str,
        first_look: float = 0.0,
        on_end: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._records = records
        self._kinds = kinds
        self._settings = settings
        self._owner = f"{owner}|"
        self._first_look = first_look
        self._on_end = on_end
        self._woken = asyncio.Event()
        self._attempts: dict[asyncio.Task[None], Attempt] = {}
        self._running: asyncio.Task[None] | None = None
        self._is_ending = False
        self._tidied_at = float("-inf")

    async def __aenter__(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def __aexit__(self, *_: object) -> None:
        assert self._running is not None
        self._is_ending = True
        self._woken.set()
        await finished(asyncio.create_task(self._end(self._running)))

    async def _end(self, running: asyncio.Task[None]) -> None:
        await running  # not cancelled: what it may have claimed at this moment would be nobody's
        for attempt in self._attempts.values():
            attempt.work.stop.set()
        while self._attempts:
            await asyncio.wait(self._attempts.keys())

    def wake(self) -> None:
        """Something may be due now, or be cancelled."""
        self._woken.set()
        for attempt in self._attempts.values():
            attempt.look.set()

    def cancel(self, job_id: str) -> None:
        """Stop working on this job, if we do: somebody has cancelled it."""
        for attempt in self._attempts.values():
            if attempt.work.job.job_id == job_id:
                attempt.work.cancel()

    async def _run(self) -> None:
        await self._sleep(self._first_look)
        is_free = False
        while not self._is_ending:
            try:
                if not is_free:
                    await self._records.write(lambda connection: claims.free(connection, self._owner))
                    is_free = True
                wait = await self._look()
            except IndexUnavailable as error:
                logger.warning("jobs are not worked on now: %s", error)
                wait = _WITHOUT_INDEX
            except Exception:
                logger.exception("jobs are not worked on now")
                wait = _WITHOUT_INDEX
            if not self._is_ending:
                await self._sleep(wait)

    async def _sleep(self, seconds: float | None) -> None:
        """Until it is woken, or for so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()

    async def _look(self) -> float | None:
        """Begin what is due; gives the seconds to the next look, None if there is no place for more."""
        await self._tidy()
        while len(self._attempts) < self._settings.at_once and not self._is_ending:
            claim, deadline = await self._records.write(self._claim)
            if claim is None:
                longest = self._settings.lease  # for what another machine has made, and left
                return longest if deadline is None else min(max(deadline, _SOONEST), longest)
            self._begin(claim)
        return None  # the end of one of them wakes us

    def _claim(self, connection: Connection) -> tuple[Claim | None, float | None]:
        full = self._full_nodes()
        claims.end_unmade(connection)
        token = f"{self._owner}{uuid4()}"
        claim = claims.claim(connection, token, lease=self._settings.lease, full=full)
        return claim, None if claim is not None else claims.next_deadline(connection, full=full)

    def _full_nodes(self) -> list[str]:
        """Those for which as many jobs are being worked on as may be at once."""
        counted = Counter(attempt.work.job.node for attempt in self._attempts.copy().values())
        return [node for node, count in counted.items() if node and count >= self._settings.at_once_for_node]

    def _begin(self, claim: Claim) -> None:
        attempt = Attempt(claim, self._kinds[claim.job.kind], self._records, self._settings)
        task = asyncio.create_task(self._attempt(attempt))
        self._attempts[task] = attempt
        task.add_done_callback(self._ended)

    async def _attempt(self, attempt: Attempt) -> None:
        try:
            job = await attempt.run()
        except IndexUnavailable as error:
            logger.error("job %s was not let go, its lease will end: %s", attempt.work.job.job_id, error)
            return
        if job is not None and job.is_over:
            self._on_end(job)

    def _ended(self, task: asyncio.Task[None]) -> None:
        attempt = self._attempts.pop(task)
        self._woken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("job %s was dropped, its lease will end", attempt.work.job.job_id, exc_info=error)

    async def _tidy(self) -> None:
        """Forget what has been over for long, a little at a time, now and then."""
        time = asyncio.get_running_loop().time()
        if time - self._tidied_at < _TIDY_EVERY:
            return
        self._tidied_at = time
        before = self._settings.keep_finished
        while await self._records.write(
            lambda connection: table.forget_finished(connection, before, most=_TIDIED_AT_ONCE)
        ):
            pass
