"""Keeping the archive within its limits: the oldest studies go, one after the other, until it is; protected studies stay.

A study is as old as its last object. What is looked at, and how often: every `every` seconds, and when as much has come as there
was room for, the bytes of what came since the last look are added up. Only when that says that there is too much, or that a study
may be too old, all instances are gone through once, in a thread that reads; the list of the oldest studies that this gives is
worked off before it is made again. Storing an object costs one addition.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from tomowire.errors import IndexUnavailable, StudyProtected
from tomowire.server.index.ages import OldStudy, Usage
from tomowire.server.index.deleting import Deleted
from tomowire.server.setbacks import Setbacks
from tomowire.server.settings import QuotaSettings

if TYPE_CHECKING:
    from tomowire.server.deletion import Deletion
    from tomowire.server.records import Records

logger: Final = logging.getLogger(__name__)

BY: Final = "the quota"
"""On whose behalf studies are deleted; no user has a name with a blank."""

_FIRST_LOOK: Final = 2.0
"""Seconds: an archive that starts has other things to do than to import what this takes."""

_MICROSECONDS: Final = 1_000_000


class Quotas:
    """`async with Quotas(settings, records, deletion) as quotas`; without limits it does nothing. `now` gives seconds since 1970.

    `grew` is to be told of what is stored.
    """

    def __init__(
        self,
        settings: QuotaSettings,
        records: Records,
        deletion: Deletion,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._records = records
        self._deletion = deletion
        self._now = now
        self._wake = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._usage: Usage | None = None
        self._room = settings.bytes
        self._came = 0
        self._oldest: deque[OldStudy] = deque()
        self._next_expiry = 0.0
        self._tells_of_protected = True
        self.setbacks: Final = Setbacks("looking after the quota")

    @property
    def bytes(self) -> int | None:
        """Of all files, as of the last look; None if there has been none."""
        return self._usage.bytes if self._usage is not None else None

    def grew(self, size: int) -> None:
        """An object of `size` bytes was stored."""
        self._came += size
        if self._room is not None and self._came > self._room:
            self._room = None  # once is enough
            self._wake.set()

    async def __aenter__(self) -> Self:
        if self._settings.bytes is not None or self._settings.age is not None:
            self._deletion.listeners.append(self._shrank)
            self._watching = asyncio.get_running_loop().create_task(self._watch(), name="tomowire-quotas")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
            self._watching = None
            self._deletion.listeners.remove(self._shrank)

    async def apply(self, settings: QuotaSettings) -> None:
        """Have other limits in force from now on."""
        if settings != self._settings:
            await self.__aexit__()
            self._settings = settings
            self._usage, self._room = None, settings.bytes
            self._oldest.clear()
            self._next_expiry = 0.0
            await self.__aenter__()

    async def enforce(self) -> int:
        """Look now, and delete what is too much or too old; gives the number of studies that went. Raises `IndexUnavailable`."""
        self._came = 0
        self._usage = await self._records.read(lambda connection: _grown(connection, self._usage))
        count = 0
        while (study := await self._next()) is not None:
            count += await self._delete(study)
        self._room = None if self._settings.bytes is None else max(self._settings.bytes - self._usage.bytes, 0)
        return count

    async def _next(self) -> OldStudy | None:
        """The study that is to go next; None if all is well, or if there is none that may go."""
        assert self._usage is not None
        too_much = self._settings.bytes is not None and self._usage.bytes > self._settings.bytes
        if not (too_much or self._may_be_too_old()):
            return None
        if not self._oldest:
            await self._list_oldest()
            too_much = self._settings.bytes is not None and self._usage.bytes > self._settings.bytes
        if not self._oldest:
            self._tell_of_protected(too_much=too_much)
            return None
        if too_much or self._is_too_old(self._oldest[0].last_received):
            return self._oldest.popleft()
        self._note_expiry()
        return None

    async def _list_oldest(self) -> None:
        """Go through all instances: exact figures, and the oldest studies that are not protected."""
        from tomowire.server.index.ages import oldest_studies

        self._usage, oldest = await self._records.read(oldest_studies)
        self._oldest.extend(oldest)
        self._note_expiry()

    async def _delete(self, study: OldStudy) -> int:
        """0 if it is not there any more, has grown, or is protected by now."""
        try:
            gone = await self._deletion.study(study.study_instance_uid, by=BY, unless_newer=study.last_received)
        except StudyProtected:
            return 0
        # The listener hears of it in the event loop's next turn.
        await asyncio.sleep(0)
        for deleted in gone:
            logger.warning(
                "the quota takes study %s: %d objects, %d bytes",
                deleted.study_instance_uid,
                deleted.instances,
                deleted.bytes,
            )
        return len(gone)

    def _shrank(self, deleted: Deleted, by: str) -> None:
        if self._usage is not None:
            self._usage = self._usage.less(deleted.bytes)

    def _is_too_old(self, last_received: int) -> bool:
        age = self._settings.age
        return age is not None and self._now() - last_received / _MICROSECONDS > age

    def _may_be_too_old(self) -> bool:
        return self._settings.age is not None and self._now() > self._next_expiry

    def _note_expiry(self) -> None:
        """Nothing is too old before the oldest of the list is; without a list, before the newest object would be."""
        if (age := self._settings.age) is not None:
            oldest = self._oldest[0].last_received / _MICROSECONDS if self._oldest else self._now()
            self._next_expiry = oldest + age

    def _tell_of_protected(self, *, too_much: bool) -> None:
        if too_much and self._tells_of_protected:
            logger.error("the archive holds more than its quota, and all studies are protected: nothing can be deleted")
        self._tells_of_protected = not too_much

    async def _watch(self) -> None:
        await asyncio.sleep(min(_FIRST_LOOK, self._settings.every))
        while True:
            self._wake.clear()
            try:
                await self.enforce()
            except IndexUnavailable as error:
                logger.warning("the quota cannot be looked after now: %s", error)
            except Exception as error:
                self._oldest.clear()  # whatever it was about, all is looked at anew
                await asyncio.sleep(self.setbacks.failed(error))
                continue
            else:
                self.setbacks.went_well()
            try:
                async with asyncio.timeout(self._settings.every):
                    await self._wake.wait()
            except TimeoutError:
                pass


def _grown(connection: object, usage: Usage | None) -> Usage:
    from tomowire.server.index.ages import grown

    return grown(connection, usage)  # type: ignore[arg-type]
