"""What commands that look after an archive have done, for its audit trail: backup, restore, repair, reindex.

A copy of objects in another place is an Export (PS3.15 A.5.3.4), objects from there are an Import (A.5.3.5); both name the studies
and their patients. What a repair gives up is deleted (A.5.3.6, A.5.3.8), what it takes in is created (A.5.3.6). An index that was
made again is a Security Alert, Software Configuration (A.5.3.11).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from tomowire.server.audit.counted import Counted, Exported, Imports
from tomowire.server.audit.deletions import event_of
from tomowire.server.audit.events import (
    Change,
    ConfigurationChanged,
    EventsLost,
    Export,
    Import,
    InstancesAccessed,
    Study,
)
from tomowire.server.audit.noting import NotedCommand
from tomowire.server.audit.teller import person
from tomowire.server.counting import counted

if TYPE_CHECKING:
    from tomowire.server.backup_folder import Point, Problem
    from tomowire.server.index.rows import IndexedObject
    from tomowire.server.repair import Mended
    from tomowire.server.settings import Settings

_REPAIR: Final = "db check --repair"


class BackupNoted:
    """`with BackupNoted(settings, folder) as noted`: what has been copied is told, also of a backup that fails half-way."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._noted = NotedCommand(settings)
        self._by, self._uri = person(), folder.absolute().as_uri()
        self._exported = Exported(self._noted.tell, self._by, self._uri, "backup")

    def copied(self, row: IndexedObject) -> None:
        """An object is in the folder now that was not."""
        self._exported.add(row.name.study_instance_uid, row.sop_class_uid)

    def made(self, point: Point) -> None:
        """It is done. Without a new object too it has taken the whole index with it."""
        if not self._exported.total:
            reason = f"backup, point {point.name}: the index, and none of its objects that were not there"
            self._noted.tell(Export(requested_by=self._by, uri=self._uri, studies=(), reason=reason))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._exported.end()
        self._noted.finish(error)


def note_restored(settings: Settings, folder: Path, point: Point, problems: Collection[Problem]) -> None:
    """The archive of `settings` was made again from a point of the backups in `folder`, but for the objects with problems."""
    from tomowire.server.index.backend import backend_for

    uri, reason = folder.absolute().as_uri(), f"restored from point {point.name}"
    missing = {each.path for each in problems}
    with NotedCommand(settings) as noted, ExitStack() as stack:
        imports = Imports(noted.tell, person(), uri, reason)
        reader = stack.enter_context(backend_for(settings.index_url, settings.data_dir).open_reader())
        for row in reader.objects():
            if row.name.sop_instance_uid not in missing:
                imports.add(row.name.study_instance_uid, row.sop_class_uid)
        imports.end()
        if not imports.total:
            noted.tell(Import(by=person(), uri=uri, studies=(), reason=f"{reason}: no objects"))


def note_reindexed(settings: Settings, count: int, findings: int, lost: Iterable[str]) -> None:
    """The index was made again from the files; `lost` says what of the audit trail went with the old one."""
    what = f"the index was made again from the files: {counted(count, 'object')}, {counted(findings, 'finding')}"
    with NotedCommand(settings) as noted:
        for each in lost:
            noted.tell(EventsLost(count=0, reason=each))
        noted.tell(ConfigurationChanged(by=person(), change=Change.SOFTWARE, what=what))


class RepairNoted:
    """`with RepairNoted(settings) as noted`: what the index does not have any more, and what it has now."""

    def __init__(self, settings: Settings) -> None:
        self._noted = NotedCommand(settings)
        self._by = person()
        self._came = Counted(self._created)

    def mended(self, mended: Mended) -> None:
        """One finding is over."""
        for each in mended.gone:
            self._noted.tell(event_of(each, self._by, _REPAIR))
        if mended.came is not None:
            record = mended.came.row.record
            self._came.add(mended.came.name.study_instance_uid, record.instance.sop_class_uid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._came.tell()
        self._noted.finish(error)

    def _created(self, studies: list[Study]) -> None:
        for study in studies:
            self._noted.tell(InstancesAccessed(by=self._by, study=study, action="C", reason=_REPAIR))
