"""Deleting studies, series and instances: what is asked for is gone from the index when the call returns, all of it or nothing.

The files follow in the background; `removal` says in which order, and why a crash does not matter. Objects that are stored at the
same time come before the deletion or after it, never in the middle: one that comes after it begins its study anew. Memory does not
grow with what is deleted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, Self

from tomowire.errors import IndexUnavailable
from tomowire.server.batch import BatchWriter
from tomowire.server.commit import GroupCommit
from tomowire.server.index.deleting import Deleted, Doomed
from tomowire.server.removal import Round, Swept
from tomowire.server.setbacks import Setbacks
from tomowire.services.models import Level

__all__ = ["Deleted", "Deletion", "Listener"]

logger: Final = logging.getLogger(__name__)

Listener = Callable[[Deleted, str, str], None]
"""Told of what went from each study, on whose behalf, and from which address that was asked for; in the event loop. It must not
raise."""

_LOOK_AGAIN: Final = 5.0
"""Seconds after which to try again what a backup holds (no event tells of the end of a lock) or the disk did not allow."""


class Deletion:
    """`async with Deletion(commit) as deletion`; what an earlier process has left to be removed is removed too.

    `by` is on whose behalf: a user, who asked from `address`, or the quota (`quotas.BY`). Each method gives what went from each
    study; nothing if there was nothing. All raise `StudyProtected`, and `IndexUnavailable` when the index cannot be used now: then
    nothing was deleted, unless `in_doubt` is set. What has begun is finished even when the call is cancelled.
    """

    def __init__(self, commit: GroupCommit) -> None:
        self._commit = commit
        self._wake = asyncio.Event()
        self._sweeping: asyncio.Task[None] | None = None
        self.listeners: list[Listener] = []
        self.setbacks: Final = Setbacks("removing the files of deleted objects")

    async def study(
        self, uid: str, *, by: str = "", address: str = "", unless_newer: int | None = None
    ) -> tuple[Deleted, ...]:
        """Delete a study; not one of which an object came after `unless_newer` (microseconds since 1970)."""
        return await self._delete(Doomed(Level.STUDY, uid, unless_newer=unless_newer), by, address)

    async def series(self, uid: str, *, study: str = "", by: str = "", address: str = "") -> tuple[Deleted, ...]:
        """Delete a series, in all studies that use its UID or in `study` only."""
        return await self._delete(Doomed(Level.SERIES, uid, study), by, address)

    async def instance(self, uid: str, *, by: str = "", address: str = "") -> tuple[Deleted, ...]:
        """Delete an instance, with the series and the study that this leaves empty."""
        return await self._delete(Doomed(Level.IMAGE, uid), by, address)

    async def swept(self) -> None:
        """Returns when the files of all that was deleted so far are gone, or held by a backup, or cannot be removed now."""
        this_round = Round()
        while await self._commit.perform(partial(_sweep, this_round)) is Swept.MORE:
            pass

    def look(self) -> None:
        """There may be files to be removed; for any thread."""
        self._commit.loop.call_soon_threadsafe(self._wake.set)

    async def __aenter__(self) -> Self:
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep(), name="tomowire-removal")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])

    async def _delete(self, doomed: Doomed, by: str, address: str) -> tuple[Deleted, ...]:
        try:
            return tuple(await self._commit.perform(lambda writer: self._delete_now(writer, doomed, by, address)))
        finally:  # after a failure too: it may have been committed
            self._wake.set()

    def _delete_now(self, writer: BatchWriter, doomed: Doomed, by: str, address: str) -> list[Deleted]:
        """In the thread that stores. Listeners are told from here: whoever asked may have been cancelled by now."""
        deleted = writer.removing.delete(doomed)
        if deleted:
            self._commit.loop.call_soon_threadsafe(self._tell, deleted, by, address)
        return deleted

    def _tell(self, deleted: list[Deleted], by: str, address: str) -> None:
        self._wake.set()
        for each in deleted:
            what = "the whole study" if each.is_whole_study else "a part of the study"
            logger.info("deleted %d objects: %s %s (by %s)", each.instances, what, each.study_instance_uid, by or "?")
            for listener in self.listeners:
                listener(each, by, address)

    async def _sweep(self) -> None:
        """Remove files whenever there are some to be removed."""
        this_round = Round()
        while True:
            self._wake.clear()
            try:
                swept = await self._commit.perform(partial(_sweep, this_round))
            except (IndexUnavailable, OSError) as error:
                logger.warning("files of deleted objects are not removed now: %s", error)
                swept = Swept.HELD
            except Exception as error:
                await asyncio.sleep(self.setbacks.failed(error))
                continue
            self.setbacks.went_well()
            if swept is Swept.MORE:
                continue
            try:
                async with asyncio.timeout(_LOOK_AGAIN if swept is Swept.HELD else None):
                    await self._wake.wait()
            except TimeoutError:
                pass


def _sweep(this_round: Round, writer: BatchWriter) -> Swept:
    return writer.removing.sweep(this_round)
