"""Deleting studies, series and instances of the archive, one after the other: each is there, or it is not."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from tomowire.errors import IndexUnavailable, TomowireError
from tomowire.server.jobs.claim import Settled
from tomowire.server.jobs.model import ItemState
from tomowire.server.jobs.work import JobFailed
from tomowire.services.models import Level

if TYPE_CHECKING:
    from tomowire.server.jobs.model import Job
    from tomowire.server.jobs.parts import Deletes, Parts
    from tomowire.server.jobs.work import Work


class Deleting:
    """`await Deleting(parts).run(work)`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self, work: Work) -> None:
        if (deletion := self._parts.deletion) is None:
            raise JobFailed("this archive cannot delete")
        level = Level(work.job.parameters["level"])
        async with aclosing(work.items()) as items:
            async for item in items:
                try:
                    await _delete(deletion, level, item.uid, work.job)
                except IndexUnavailable:
                    raise
                except (TomowireError, OSError) as error:
                    settled = Settled(item.position, ItemState.FAILED, comment=str(error))
                else:
                    settled = Settled(item.position, ItemState.DONE)
                await work.settling.add(settled)


async def _delete(deletion: Deletes, level: Level, uid: str, job: Job) -> None:
    """What is gone already is gone: a former attempt may have been killed right after it."""
    by, address = job.created_by, job.address
    if level is Level.STUDY:
        await deletion.study(uid, by=by, address=address)
    elif level is Level.SERIES:
        await deletion.series(uid, by=by, address=address)
    else:
        await deletion.instance(uid, by=by, address=address)
