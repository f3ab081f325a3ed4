"""Reindexing while the archive runs: the files of studies are read again, and what the index says of them is put right in place.

It changes what is said of objects that the index has, such as after an upgrade that reads more attributes of them. What the index
does not have, it does not find: that is what `tomowire db check --repair` and `tomowire db reindex` are for.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.errors import WireError
from tomowire.server.counting import counted
from tomowire.server.index.extraction import instance_record
from tomowire.server.jobs.claim import Settled
from tomowire.server.jobs.model import ItemState
from tomowire.server.jobs.work import Stopped
from tomowire.server.lazily import Lazily
from tomowire.server.stored_file import read_stored_file
from tomowire.services.models import Level

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from tomowire.server.index.attributes import InstanceRecord
    from tomowire.server.index.reader import IndexReader
    from tomowire.server.index.rows import IndexedObject
    from tomowire.server.jobs import mending, selection
    from tomowire.server.jobs.mending import Mended
    from tomowire.server.jobs.model import JobItem
    from tomowire.server.jobs.parts import Parts, Reindexed
    from tomowire.server.jobs.work import Work
    from tomowire.server.records import Records
else:
    mending = Lazily("tomowire.server.jobs.mending")
    selection = Lazily("tomowire.server.jobs.selection")

_OTHER_PATIENT: Final = "it is kept under another patient than its first object names: 'tomowire db reindex' moves it"


class Reindexing:
    """`await Reindexing(parts).run(work)`."""

    def __init__(self, parts: Parts) -> None:
        self._storage = parts.storage
        self._reindexed = parts.reindexed

    async def run(self, work: Work) -> None:
        noted = self._reindexed(work.job)
        try:
            async with aclosing(work.items()) as items:
                async for item in items:
                    await work.settling.add(await self._study(work, item, noted))
        finally:
            noted.end()

    async def _study(self, work: Work, item: JobItem, noted: Reindexed) -> Settled:
        count, mended, unreadable, is_elsewhere = 0, 0, 0, False
        async with aclosing(_objects(self._storage.records, item.uid)) as pages:
            async for uids in pages:
                known = await self._storage.index.ask(_find(uids))
                for found in known.values():
                    if work.stop.is_set():
                        raise Stopped
                    count += 1
                    record = await asyncio.to_thread(_read, self._storage.root, found)
                    if record is None:
                        unreadable += 1
                        noted.looked_at(item.uid, found.sop_class_uid, None)
                        continue
                    put_right = await self._storage.records.write(_mend(found, record))
                    if put_right is not None:
                        mended += put_right.rows
                        is_elsewhere |= put_right.is_of_another_patient
                    noted.looked_at(item.uid, found.sop_class_uid, put_right.rows if put_right is not None else 0)
        said = f"{counted(count, 'file')} read, {counted(mended, 'row')} put right"
        if unreadable:
            said += f", {counted(unreadable, 'file')} missing or not what was stored: 'tomowire db check' names them"
            return Settled(item.position, ItemState.FAILED, comment=said)
        if is_elsewhere:
            return Settled(item.position, ItemState.WARNING, comment=f"{said}; {_OTHER_PATIENT}")
        return Settled(item.position, ItemState.DONE, comment=said)


async def _objects(records: Records, study_uid: str) -> AsyncGenerator[Sequence[str], None]:
    """The SOP Instance UIDs of a study, page by page."""

    def page(key: int, after: int) -> Callable[[Connection], tuple[list[str], int]]:
        def work(connection: Connection) -> tuple[list[str], int]:
            found, last = selection.of_series(connection, key, after)
            return [each.uid for each in found], last

        return work

    for key in await records.read(lambda connection: selection.series_keys(connection, Level.STUDY, [study_uid])):
        uids, after = await records.read(page(key, -1))
        while uids:
            yield uids
            uids, after = await records.read(page(key, after))


def _find(uids: Sequence[str]) -> Callable[[IndexReader], Mapping[str, IndexedObject]]:
    return lambda reader: reader.find_objects(uids)


def _read(root: Path, known: IndexedObject) -> InstanceRecord | None:
    """What the file of an object says; None if it cannot be read, or is not what was stored."""
    try:
        file = read_stored_file(root / known.name.path, scan=True)
    except (OSError, WireError):
        return None
    assert file.scanned is not None  # it was asked for
    return instance_record(file.scanned) if file.checksum == known.checksum else None


def _mend(known: IndexedObject, record: InstanceRecord) -> Callable[[Connection], Mended | None]:
    return lambda connection: mending.mend(connection, known.instance_id, known.checksum, record)
