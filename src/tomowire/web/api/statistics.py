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

_FRESH: Final = 5.0
"""Seconds in which who asks again gets the same answer: counting walks over all instances."""

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
    """The last answer; who asks while it is being worked out waits for the same one."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._fresh_until = float("-inf")
        self._last: Statistics | None = None

    async def get(self, archive: Archive) -> Statistics:
        async with self._turn:
            if self._last is None or time.monotonic() > self._fresh_until:
                began = time.monotonic()
                self._last = await _statistics(archive)
                now = time.monotonic()
                self._fresh_until = now + max(_FRESH, (now - began) * _REST)
            return self._last


_remembered: Final[WeakKeyDictionary[Archive, _Remembered]] = WeakKeyDictionary()


@router.get("/statistics", **operation("getStatistics", Role.READER))
async def get_statistics(here: Here) -> Statistics:
    """Counts, bytes, and how much came lately. An answer may be five seconds old, or more if counting takes long."""
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
