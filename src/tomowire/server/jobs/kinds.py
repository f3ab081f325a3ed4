"""Which code works on which kind of job: imported when there is one, in a thread, since many archives never have any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tomowire.aio.threads import finished
from tomowire.server.jobs.model import JobKind

if TYPE_CHECKING:
    from tomowire.server.jobs.parts import Parts
    from tomowire.server.jobs.work import Kind, Work


def kinds_of(parts: Parts) -> Mapping[JobKind, Kind]:
    """For an archive with these parts."""
    makers = {
        JobKind.SEND: _sending,
        JobKind.RETRIEVE: _retrieving,
        JobKind.QUERY: _querying,
        JobKind.DELETE: _deleting,
        JobKind.REINDEX: _reindexing,
    }
    return {kind: _made_for_each(make, parts) for kind, make in makers.items()}


def _made_for_each(make: Callable[[Parts], Kind], parts: Parts) -> Kind:
    async def run(work: Work) -> None:
        kind = await finished(asyncio.get_running_loop().run_in_executor(None, make, parts))
        await kind(work)

    return run


def _sending(parts: Parts) -> Kind:
    from tomowire.server.jobs.sending import Sending

    return Sending(parts).run


def _retrieving(parts: Parts) -> Kind:
    from tomowire.server.jobs.retrieving import Retrieving

    return Retrieving(parts).run


def _querying(parts: Parts) -> Kind:
    from tomowire.server.jobs.querying import Querying

    return Querying(parts).run


def _deleting(parts: Parts) -> Kind:
    from tomowire.server.jobs.deleting import Deleting

    return Deleting(parts).run


def _reindexing(parts: Parts) -> Kind:
    from tomowire.server.jobs.reindexing import Reindexing

    return Reindexing(parts).run
