"""What the archive holds and gets, in numbers."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import Final
from weakref import WeakKeyDictionary

from pydantic import Field

from tomowire.server.app import Archive
from tomowire.server.index.listing import Listing
from tomowire.server.ingest_rate import ingest_rate
from tomowire.server.users import Role
from tomowire.web.api.models import Model
from tomowire.web.api.operation import Here, operation, topic

router = topic("statistics")

_QUICK: Final = 0.2
"""Seconds. What took no longer is counted anew: who has just stored or deleted something looks whether it is there."""

_REST: Final = 10.0
"""Times as long as counting took: who asks all the time has the index count for a tenth of it."""


class Counts(Model):
    """How many there are."""

    patients: int
    studies: int
    series: int
    instances: int


class Modality(Model):
    """What there is of one modality."""

    modality: str = Field(description="Empty for objects that name none.", examples=["CT"])
    series: int
    instances: int
    data_set_bytes: int


class Rate(Model):
    """What came lately."""

    seconds: float = Field(description="The time that was looked at.")
    instances: int
    data_set_bytes: int
    instances_per_second: float
    bytes_per_second: float


class Disk(Model):
    """The file system that the objects are on."""

    free_bytes: int
    total_bytes: int


class Statistics(Model):
    """What the archive holds and gets."""

    counts: Counts
    data_set_bytes: int = Field(description="All data sets, without the headers of the files.")
    modalities: list[Modality]
    last_minute: Rate
    last_hour: Rate
    disk: Disk


class _Remembered:
    """The last answer; of those who ask while it is being worked out all get the next one, which is worked out once."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._began = self._fresh_until = float("-inf")
        self._last: Statistics | None = None

    async def get(self, archive: Archive) -> Statistics:
        asked = time.monotonic()
        async with self._turn:
            if self._last is None or max(self._began, self._fresh_until) < asked:
                began = time.monotonic()
                self._last = await _statistics(archive)
                now = time.monotonic()
                self._began = began
                self._fresh_until = now + (now - began) * _REST if now - began > _QUICK else float("-inf")
            return self._last


_remembered: Final[WeakKeyDictionary[Archive, _Remembered]] = WeakKeyDictionary()


@router.get("/statistics", **operation("getStatistics", Role.READER))
async def get_statistics(here: Here) -> Statistics:
    """Counts, bytes, and how much came lately. Where counting takes long, counts may be twenty times as old as that takes, and the
    rest ten times."""
    return await _remembered.setdefault(here.archive, _Remembered()).get(here.archive)


async def _statistics(archive: Archive) -> Statistics:
    held = await Listing(archive.storage.index).statistics()
    minute, hour = await ingest_rate(archive.storage.records, 60, 3600)
    disk = await asyncio.to_thread(shutil.disk_usage, archive.storage.root)
    return Statistics(
        counts=Counts.model_validate(held.counts),
        data_set_bytes=held.data_set_bytes,
        modalities=[Modality.model_validate(each) for each in held.modalities],
        last_minute=Rate.model_validate(minute),
        last_hour=Rate.model_validate(hour),
        disk=Disk(free_bytes=disk.free, total_bytes=disk.total),
    )
