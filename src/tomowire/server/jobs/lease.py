"""Keeping a job while it is worked on, and noticing that it is not ours any more."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tomowire.errors import IndexUnavailable
from tomowire.server.lazily import Lazily

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.server.jobs import claims
    from tomowire.server.jobs.claim import Claim
    from tomowire.server.records import Records
else:
    claims = Lazily("tomowire.server.jobs.claims")

logger: Final = logging.getLogger(__name__)

_RENEWALS: Final = 3
"""In the time of a lease: one that comes late, or fails, costs nothing."""


async def keep(
    records: Records,
    claim: Claim,
    lease: float,
    *,
    claimed_at: float,
    on_cancel: Callable[[], None],
    look: asyncio.Event,
) -> None:
    """Renew the lease until it is lost, and return then; `on_cancel` is called when somebody wants the job cancelled.

    `claimed_at` is when the claim was asked for, by the clock of the loop. A lease is lost when the database says so, and when it
    could not be asked for as long as it holds: another process has the job then. `look` set: look now.
    """
    loop = asyncio.get_running_loop()
    held_until = claimed_at + lease
    while True:
        try:
            async with asyncio.timeout(lease / _RENEWALS):
                await look.wait()
        except TimeoutError:
            pass
        look.clear()
        asked_at = loop.time()
        try:
            wanted = await records.write(lambda connection: claims.renew(connection, claim, lease=lease))
        except IndexUnavailable as error:
            logger.warning("the lease of job %s cannot be renewed now: %s", claim.job.job_id, error)
            if loop.time() + lease / _RENEWALS >= held_until:
                return
            continue
        if wanted is None:
            return
        held_until = asked_at + lease
        if wanted:
            on_cancel()
