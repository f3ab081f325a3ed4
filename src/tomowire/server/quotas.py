"""Keeping the archive within its limits: the oldest studies go, one after the other, until it is; protected studies stay.

A study is as old as its last object; one of which an object came just now may still be coming, and does not go to make room. Its
sender has been told Success, and will not send it again: better to hold more than the quota for some seconds. (Orthanc does not
recycle the patient of the object that it stores either, and refuses the object when there is nobody else.)

What is looked at, and how often: every `every` seconds, and when as much has come as there was room for, the bytes of what came
since the last look are added up. Only when that says that there is too much, or that a study may be too old, all instances are
gone through once, in a thread that reads; the list of the oldest studies that this gives is worked off before it is made again.
Storing an object costs an addition, and an entry for its study.

Where protected studies alone hold more than the quota no study goes to make room: if all went it would still not be kept, and what
comes would be deleted as soon as its grace is over, though its sender was told Success. A disk that is full refuses it instead, and
senders keep what is refused.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from tomowire.errors import IndexUnavailable, StudyProtected
from tomowire.server.incoming import Outcome, Stored
from tomowire.server.index.ages import Held, OldStudy, Usage
from tomowire.server.index.deleting import Deleted
from tomowire.server.setbacks import Setbacks
from tomowire.server.settings import QuotaSettings
from tomowire.wire.value import value

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tomowire.server.deletion import Deletion
    from tomowire.server.records import Records

logger: Final = logging.getLogger(__name__)

BY: Final = "the quota"
"""On whose behalf studies are deleted; no user has a name with a blank."""

_FIRST_LOOK: Final = 2.0
"""Seconds: an archive that starts has other things to do than to import what this takes."""

_MICROSECONDS: Final = 1_000_000


@value()
class Foreseen:
    """What limits will take of what there is, in words; empty for nothing."""

    settings: QuotaSettings
    held: Held | None
    old: int
    """Studies that are older than the limit, and not protected."""

    @property
    def takes(self) -> bool:
        """Whether any study may go."""
        return bool(self.old) or (self._excess > 0 and not self._is_hopeless)

    def __str__(self) -> str:
        parts = []
        if self.held is not None and self._excess > 0:
            parts.append(
                f"there are {self._excess} bytes too many for the quota of {self.settings.bytes}: "
                + (
                    f"protected studies alone hold {self.held.protected} bytes, so that no study goes to make room, "
                    "as that could not be enough"
                    if self._is_hopeless
                    else f"the oldest studies are deleted; protected studies hold {self.held.protected} bytes, and stay"
                )
            )
        if self.old:
            parts.append(f"{self.old} studies are older than quota.age and are deleted")
        if self.takes:
            parts.append(f"that begins after {self.settings.every:g} seconds (quota.every)")
        return "; ".join(parts)

    @property
    def _excess(self) -> int:
        limit = self.settings.bytes
        return self.held.bytes - limit if self.held is not None and limit is not None else 0

    @property
    def _is_hopeless(self) -> bool:
        limit = self.settings.bytes
        return self.held is not None and limit is not None and self.held.protected > limit


class Quotas:
    """`async with Quotas(settings, records, deletion) as quotas`; without limits it does nothing. `now` gives seconds since 1970,
    and `clock` those of a clock that nobody sets.

    `received` is to be told of each object that gets Success.
    """

    def __init__(
        self,
        settings: QuotaSettings,
        records: Records,
        deletion: Deletion,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._records = records
        self._deletion = deletion
        self._now = now
        self._clock = clock
        self._wake = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._usage: Usage | None = None
        self._is_guess = False
        # When, by `clock`, which study last had an answer of Success: of an object that was there already too.
        self._lately: dict[str, float] = {}
        self._room = settings.bytes
        self._came = 0
        self._oldest: deque[OldStudy] = deque()
        # Bytes of protected studies as of the last list, and of which protections that was.
        self._protected = 0
        self._protections = (0, 0)
        self._first_look = min(_FIRST_LOOK, settings.every)
        self._next_expiry = 0.0
        self.trouble = ""
        """Why the archive holds more bytes than it is to; empty if it does not, as of the last look."""
        self.setbacks: Final = Setbacks("looking after the quota")

    @property
    def bytes(self) -> int | None:
        """Of all files, as of the last look; None if there has been none."""
        return self._usage.bytes if self._usage is not None else None

    @property
    def excess(self) -> int | None:
        """Bytes beyond the limit that cannot be had back now, as of the last look; None without a limit."""
        if self._settings.bytes is None:
            return None
        return max(self._usage.bytes - self._settings.bytes, 0) if self.trouble and self._usage is not None else 0

    @property
    def limit(self) -> int | None:
        """Of bytes."""
        return self._settings.bytes

    def received(self, stored: Stored, size: int) -> None:
        """An object of `size` bytes has got Success."""
        if self._settings.bytes is None:
            return
        self._lately[stored.study_instance_uid] = self._clock()
        if stored.outcome is Outcome.REPLACED:  # in SQLite it may have the key of the one that went
            self._is_guess = True
        if stored.is_new:
            self.grew(size)

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

    async def foresee(self, settings: QuotaSettings) -> Foreseen | None:
        """What these limits would take of what there is now; None for nothing. Walks over all instances. Raises
        `IndexUnavailable`."""
        from tomowire.server.index.ages import held, too_old

        there = await self._records.read(held) if settings.bytes is not None else None
        old = 0
        if settings.age is not None:
            before = int((self._now() - settings.age) * _MICROSECONDS)
            old = await self._records.read(lambda connection: too_old(connection, before))
        foreseen = Foreseen(settings, there, old)
        return foreseen if str(foreseen) else None

    async def apply(self, settings: QuotaSettings, foreseen: Foreseen | None = None) -> None:
        """Have other limits in force from now on. Of what was `foreseen` nothing goes before the look that comes after `every`: who
        reads the warning can take them back."""
        if settings != self._settings:
            await self.__aexit__()
            self._settings = settings
            if foreseen is not None:
                logger.warning("%s", foreseen)
            is_to_wait = foreseen is not None and foreseen.takes
            self._first_look = settings.every if is_to_wait else min(_FIRST_LOOK, settings.every)
            self._usage, self._room = None, settings.bytes
            self._oldest.clear()
            self._lately.clear()
            self.trouble = ""
            self._next_expiry = 0.0
            await self.__aenter__()

    async def enforce(self) -> int:
        """Look now, and delete what is too much or too old; gives the number of studies that went. Raises `IndexUnavailable`."""
        self._came = 0
        since = self._clock() - self._settings.grace
        self._lately = {study: at for study, at in self._lately.items() if at > since}
        if self._is_guess:
            self._usage, self._is_guess = None, False
        self._usage, protections = await self._records.read(lambda connection: _look(connection, self._usage))
        if protections != self._protections:
            self._oldest.clear()
        count = 0
        while (study := await self._next()) is not None:
            count += await self._delete(study)
        assert self._usage is not None
        if self._settings.bytes is None or self.trouble:  # what comes now changes nothing
            self._room = None
        else:
            self._room = max(self._settings.bytes - self._usage.bytes, 0)
        return count

    async def _next(self) -> OldStudy | None:
        """The study that is to go next; None if all is well, or if there is none that may go."""
        if not (self._is_too_much or self._may_be_too_old()):
            self._note_trouble("")
            return None
        if is_new := not self._oldest:
            await self._list_oldest()
        for study in self._oldest:
            if self._may_go(study):
                self._oldest.remove(study)
                return study
        if self._is_too_much and not (is_new or self.trouble):  # exactly, before anybody is told
            self._oldest.clear()
            return await self._next()
        self._note_expiry()
        self._note_trouble(self._hindrance() if self._is_too_much else "")
        return None

    @property
    def _is_too_much(self) -> bool:
        assert self._usage is not None
        return self._settings.bytes is not None and self._usage.bytes > self._settings.bytes

    @property
    def _is_hopeless(self) -> bool:
        return self._settings.bytes is not None and self._protected > self._settings.bytes

    def _may_go(self, study: OldStudy) -> bool:
        return self._is_too_old(study.last_received) or (
            self._is_too_much and not self._is_hopeless and self._grace_left(study) <= 0
        )

    def _grace_left(self, study: OldStudy) -> float:
        """Seconds for which a study does not go to make room; what the clock, set back since, takes for the future has none."""
        stored = self._now() - study.last_received / _MICROSECONDS
        heard = self._clock() - self._lately.get(study.study_instance_uid, -math.inf)
        return self._settings.grace - min(stored if stored >= 0 else math.inf, heard)

    def _hindrance(self) -> str:
        """Why the oldest study does not go, though there is too much."""
        if not self._oldest:
            return "all studies are protected: nothing can be deleted"
        if self._is_hopeless:
            return (
                f"protected studies alone hold {self._protected} bytes, where quota.bytes is {self._settings.bytes}: "
                "no study goes to make room, as that could not be enough"
            )
        return (
            f"each study that may go got an object within the last {self._settings.grace:g} seconds (quota.grace): "
            "they go after that, the oldest first"
        )

    async def _list_oldest(self) -> None:
        """Go through all instances: exact figures, and the oldest studies that are not protected."""
        from tomowire.server.index.ages import oldest_studies, protected_bytes, protections

        (self._usage, oldest), self._protected, self._protections = await self._records.read(
            lambda connection: (oldest_studies(connection), protected_bytes(connection), protections(connection))
        )
        self._oldest.extend(oldest)
        self._note_expiry()

    async def _delete(self, study: OldStudy) -> int:
        """0 if it is not there any more, has grown, or is protected by now."""
        try:
            gone = await self._deletion.study(study.study_instance_uid, by=BY, unless_newer=study.last_received)
        except StudyProtected:
            self._oldest.clear()  # whether the others are enough is another question now
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

    def _shrank(self, deleted: Deleted, by: str, address: str) -> None:
        if self._usage is None:  # what is being read now may have it still
            self._is_guess = True
            return
        self._usage = self._usage.less(deleted.bytes)
        # SQLite gives the keys after the greatest that is left once more: what comes now may seem to be counted already.
        self._is_guess |= deleted.last_key >= self._usage.last_key
        if self.trouble and not self._is_too_much:
            self._note_trouble("")
            self._wake.set()

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

    def _note_trouble(self, why: str) -> None:
        """Told once, when it begins."""
        if why and why != self.trouble:
            logger.error("the archive holds more than its quota, and %s", why)
        self.trouble = why

    @property
    def _until_next_look(self) -> float:
        """Seconds: what does not go now goes when its grace is over."""
        if self.trouble and self._oldest and not self._is_hopeless:
            return min(self._settings.every, max(min(map(self._grace_left, self._oldest)), _FIRST_LOOK))
        return self._settings.every

    async def _watch(self) -> None:
        await asyncio.sleep(self._first_look)
        while True:
            self._wake.clear()
            try:
                await self.enforce()
            except IndexUnavailable as error:
                logger.warning("the quota cannot be looked after now: %s", error)
                self._oldest.clear()
            except Exception as error:
                self._oldest.clear()  # whatever it was about, all is looked at anew
                await asyncio.sleep(self.setbacks.failed(error))
                continue
            else:
                self.setbacks.went_well()
            try:
                async with asyncio.timeout(self._until_next_look):
                    await self._wake.wait()
            except TimeoutError:
                pass


def _look(connection: Connection, usage: Usage | None) -> tuple[Usage, tuple[int, int]]:
    from tomowire.server.index.ages import grown, protections

    return grown(connection, usage), protections(connection)
