"""Making a job: its row first, then what it is about, page by page, and at the end the word that it may begin.

Whoever is killed in between leaves a job that nobody begins, and that is given up when its lease ends.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

from tomowire.errors import UsageError
from tomowire.server.lazily import Lazily
from tomowire.services.models import Level

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tomowire.server.jobs import selection, table
    from tomowire.server.jobs.model import Job
    from tomowire.server.jobs.request import NewJob
    from tomowire.server.jobs.selection import SelectedObject
    from tomowire.server.records import Records
else:
    selection = Lazily("tomowire.server.jobs.selection")
    table = Lazily("tomowire.server.jobs.table")

_LEASE: Final = 60.0
_PAGE: Final = 1000
_SHOWN: Final = 3


class Making:
    """`async with Making(records, new) as making`: `add` what it is about, then `begin`.

    What was not begun is not there afterwards, even when this is cancelled.
    """

    def __init__(self, records: Records, new: NewJob) -> None:
        self.parameters = dict(new.parameters)
        self.count = 0
        self.size: int | None = None
        self._records = records
        self._new = new
        self._id = str(uuid4())
        self._key = 0

    async def __aenter__(self) -> Self:
        try:
            self._key = await self._records.write(
                lambda connection: table.make(connection, self._id, self._new, lease=_LEASE)
            )
        except BaseException:  # cancelled, it may have been made all the same
            await self._forget()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            await self._forget()

    async def add(self, uids: Sequence[str]) -> None:
        """So much more. Raises `UsageError` when somebody has cancelled the job meanwhile."""
        key, first = self._key, self.count
        is_made = await self._records.write(
            lambda connection: table.add_items(connection, key, first, uids, lease=_LEASE)
        )
        if not is_made:
            raise UsageError("the job was cancelled while it was being made")
        self.count += len(uids)

    async def begin(self) -> Job:
        """It is due from now on. Raises `UsageError` when somebody has cancelled it meanwhile."""
        job = await self._records.write(
            lambda connection: table.begin(
                connection, self._key, total=self.count, size=self.size, parameters=self.parameters
            )
        )
        if job is None:
            raise UsageError("the job was cancelled while it was being made")
        return job

    async def _forget(self) -> None:
        await self._records.write(lambda connection: table.forget_unmade(connection, self._id))


async def make(records: Records, new: NewJob, uids: Sequence[str]) -> Job:
    """A job about `uids`."""
    async with Making(records, new) as making:
        for start in range(0, len(uids), _PAGE):
            await making.add(uids[start : start + _PAGE])
        return await making.begin()


async def make_of_objects(records: Records, new: NewJob, level: Level, uids: Sequence[str]) -> Job:
    """A job about all objects below the patients, studies or series, or with the SOP Instance UIDs, in `uids`.

    Raises `UsageError` for what the archive does not have.
    """
    kinds: dict[tuple[str, str], None] = {}
    async with Making(records, new) as making:
        making.size = 0
        async with aclosing(_selected(records, level, uids)) as pages:
            async for found in pages:
                await making.add([each.uid for each in found])
                making.size += sum(each.size for each in found)
                kinds.update(dict.fromkeys((each.sop_class_uid, each.transfer_syntax_uid) for each in found))
        if not making.count:  # it was deleted just now
            raise UsageError("the archive has nothing of it any more")
        making.parameters["kinds"] = [list(kind) for kind in kinds]
        return await making.begin()


async def require_all(records: Records, level: Level, uids: Sequence[str]) -> None:
    """Raises `UsageError` for what the archive does not have."""
    missing = await records.read(lambda connection: selection.missing(connection, level, uids))
    if missing:
        shown = ", ".join(missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise UsageError(f"the archive has no {_NAMES[level]} {shown}{more}")


async def _selected(records: Records, level: Level, uids: Sequence[str]) -> AsyncGenerator[list[SelectedObject], None]:
    def of_uids(some: Sequence[str]) -> Callable[[Connection], list[SelectedObject]]:
        return lambda connection: selection.of_uids(connection, some)

    def of_series(key: int, after: int) -> Callable[[Connection], tuple[list[SelectedObject], int]]:
        return lambda connection: selection.of_series(connection, key, after)

    if level is Level.IMAGE:
        for start in range(0, len(uids), _PAGE):
            yield await records.read(of_uids(uids[start : start + _PAGE]))
        return
    for key in await records.read(lambda connection: selection.series_keys(connection, level, uids)):
        found, after = await records.read(of_series(key, -1))
        while found:
            yield found
            found, after = await records.read(of_series(key, after))


_NAMES: Final = {Level.PATIENT: "patient", Level.STUDY: "study", Level.SERIES: "series", Level.IMAGE: "instance"}
