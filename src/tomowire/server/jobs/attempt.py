"""One attempt at one job, from its claim until it is let go."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tomowire.errors import IndexUnavailable, TomowireError
from tomowire.protocol.status import Status
from tomowire.server.jobs.backoff import wait_before
from tomowire.server.jobs.lease import keep
from tomowire.server.jobs.model import JobState
from tomowire.server.jobs.settling import Settling
from tomowire.server.jobs.work import JobFailed, Stopped, TryAgain, Work
from tomowire.server.lazily import Lazily

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tomowire.server.jobs import claims, table
    from tomowire.server.jobs.claim import Claim
    from tomowire.server.jobs.model import Job
    from tomowire.server.jobs.work import Kind
    from tomowire.server.records import Records
    from tomowire.server.settings import JobSettings
else:
    claims = Lazily("tomowire.server.jobs.claims")
    table = Lazily("tomowire.server.jobs.table")

logger: Final = logging.getLogger(__name__)

_GRACE: Final = 15.0
"""Seconds to stop in, before what is still being done is cancelled: more than an object that is being sent gets to be answered."""


class Attempt:
    """`await Attempt(...).run()` gives the job as it was left; None when it was not ours any more at the end."""

    def __init__(self, claim: Claim, kind: Kind, records: Records, settings: JobSettings) -> None:
        self._claim = claim
        self._kind = kind
        self._records = records
        self._settings = settings
        self._settling = Settling(records, claim)
        self.work = Work(claim, records, self._settling)
        self.look = asyncio.Event()
        """Set when somebody else may have cancelled it."""

    async def run(self) -> Job | None:
        claimed_at = asyncio.get_running_loop().time()
        job = self._claim.job
        logger.info("job %s (%s %s): attempt %d", job.job_id, job.kind, job.node or "here", job.attempts)
        if job.cancel_requested:
            return await self._let_go(Stopped(), is_cancelled=True)
        if job.attempts > self._settings.attempts:  # none of them came to an end
            return await self._let_go(TryAgain("the archive was ended, or killed, in each attempt"))
        keeping = asyncio.create_task(
            keep(
                self._records,
                self._claim,
                self._settings.lease,
                claimed_at=claimed_at,
                on_cancel=self.work.cancel,
                look=self.look,
            )
        )
        try:
            ending = await self._until_ended(keeping)
            if keeping.done() or self._settling.is_lost:
                logger.warning("job %s: the lease was lost; another process goes on with it", job.job_id)
                return None
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        return await self._let_go(ending, is_cancelled=self.work.is_cancelled)

    async def _until_ended(self, keeping: asyncio.Task[None]) -> Exception | None:
        """Work on it. Gives why that ended early; None if it came to its end, whatever became of the items."""
        doing = asyncio.create_task(self._do())
        stopping = asyncio.create_task(self.work.stop.wait())
        self._settling.on_lost = doing.cancel
        try:
            await asyncio.wait({doing, stopping, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done() and not keeping.done():
                await asyncio.wait({doing, keeping}, timeout=_GRACE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (doing, stopping):
                task.cancel()
            await asyncio.gather(doing, stopping, return_exceptions=True)
        if doing.cancelled():
            return Stopped()
        return doing.result()

    async def _do(self) -> Exception | None:
        try:
            async with self._settling:
                await self._kind(self.work)
        except (TryAgain, JobFailed, Stopped) as error:
            return error
        except IndexUnavailable as error:
            return TryAgain(f"the index cannot be used now: {error}")
        except TomowireError as error:
            return TryAgain(str(error))
        except Exception as error:
            logger.exception("job %s failed in a way that nobody has thought of", self._claim.job.job_id)
            return TryAgain(f"an error of the archive itself, see its log: {type(error).__name__}")
        return None

    async def _let_go(self, ending: Exception | None, *, is_cancelled: bool = False) -> Job | None:
        claim, result = self._claim, self.work.result

        def let_go(connection: Connection) -> Job | None:
            job = table.job_at(connection, claim.job_key)
            if is_cancelled and (ending is not None or job.progress.remaining):  # otherwise it came too late
                return claims.release(connection, claim, JobState.CANCELLED)
            if isinstance(ending, Stopped):
                return claims.release(connection, claim, JobState.WAITING, counts=False)
            if isinstance(ending, JobFailed) or (ending is None and not job.progress.remaining):
                return self._end(connection, job, ending, result)
            if job.attempts < self._settings.attempts:
                why = str(ending) if ending is not None else f"{_left(job)}, and are tried again: the items say why"
                wait = wait_before(job.attempts, self._settings)
                return claims.release(connection, claim, JobState.WAITING, error=why, wait=wait)
            given_up = f"given up after {job.attempts} attempts"
            if ending is not None:
                return self._end(connection, job, JobFailed(f"{given_up}: {ending}"), result)
            why = f"{given_up}: {_left(job)}: the items say why"
            return self._end(connection, job, JobFailed(why), result, of_items=given_up)

        left = await self._records.write(let_go)
        if left is not None:
            # Of its items only how many: what they say is the peer's text, and may name patients.
            failed = f"{left.progress.failed} of {left.progress.total} failed" if left.progress.failed else ""
            why = failed if ending is None and failed else left.error
            logger.info("job %s is %s%s", left.job_id, left.state, f": {why}" if why else "")
        return left

    def _end(
        self, connection: Connection, job: Job, why: Exception | None, result: object, *, of_items: str = ""
    ) -> Job | None:
        """It is over: what still waits has failed with it. `of_items` is said of those that do not say why themselves."""
        said = of_items or str(why)
        if why is not None and job.progress.remaining and not claims.fail_rest(connection, self._claim, said):
            return None
        failed = job.progress.failed
        if why is None and not failed:
            return claims.release(connection, self._claim, JobState.DONE, result=result)
        error = str(why) if why is not None else f"{failed} of {job.progress.total} failed: {self._common(connection)}"
        return claims.release(connection, self._claim, JobState.FAILED, error=error, result=result)

    def _common(self, connection: Connection) -> str:
        """Why, if it is the same for all that failed."""
        reasons = table.reasons_of_failures(connection, self._claim.job_key, 2)
        if len(reasons) != 1:
            return "the items say why"
        status, comment = reasons[0]
        said = "" if status is None or f"{status:04X}" in comment else f"the peer answered {Status(status)}"
        return ": ".join(filter(None, (said, comment))) or "the items say which"


def _left(job: Job) -> str:
    return f"{job.progress.remaining} of {job.progress.total} were not done"
