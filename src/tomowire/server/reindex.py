"""`tomowire db reindex`: the index made anew from the files, which are the truth.

The new index is built beside the old one and takes its place in one step: killed at any moment, there is the one or the other.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from tomowire.errors import IndexUnavailable, UsageError, WireError
from tomowire.server.arrival import files_by_arrival
from tomowire.server.audit.checking import begin_anew
from tomowire.server.belonging import (
    Belonging,
    ObjectsElsewhere,
    archive_id_of,
    belonging,
    mark_objects,
    mark_too,
    refuse,
)
from tomowire.server.files import DataDirectory, ObjectName
from tomowire.server.findings import Finding, FindingKind, Progress
from tomowire.server.former import FormerIndex
from tomowire.server.index.attributes import InstanceRecord
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.index.extraction import instance_record
from tomowire.server.index.location import note_location
from tomowire.server.index.rows import IndexedObject, IndexWriter, NewRow
from tomowire.server.index.versions import OnUpgrade
from tomowire.server.moving import index_in_use, keep_protection
from tomowire.server.parallel import in_parallel
from tomowire.server.recovery import recover
from tomowire.server.removal import FilesHeld, finish_removals
from tomowire.server.room import is_of_room, told_of_room
from tomowire.server.stored_file import read_stored_file, stat_stored_file, what_is_wrong
from tomowire.wire.part10 import FileMeta
from tomowire.wire.value import value

logger: Final = logging.getLogger(__name__)

_THREADS: Final = 4
_ROWS_AT_ONCE: Final = 500
_MAKE_ROOM: Final = (
    "the index is as it was. The new one is built beside it and takes about as much room: free that much there, or make the disk "
    "larger, and run 'tomowire db reindex' again; nothing that was stored is lost"
)


@value()
class Found:
    """A file, and the row it deserves."""

    name: ObjectName
    modified: int
    """Nanoseconds since 1970: when it was stored."""

    row: NewRow


def reindex(
    root: Path | str,
    *,
    index_url: str | None = None,
    report: Callable[[Finding], None] = lambda finding: None,
    threads: int = _THREADS,
    progress: Progress | None = None,
    on_upgrade: OnUpgrade | None = None,
    move: bool = False,
) -> int:
    """Build the index of the archive in `root` again; gives the number of objects in it.

    `index_url` is where the index is to be, if not in `root`; `move` says that it may have been elsewhere. `report` gets what is
    wrong with files; they all stay where they are. Memory does not grow with the number of objects, but for those of one study, and
    by the name of each study. `on_upgrade` is told if the old index gets another schema first.
    A file that is not what the old index says was received is indexed, reported, and goes on being found by `db check`.
    Where the objects of a patient, study or series disagree about it the index has what the first of those says that are there, as
    when they were stored: files are read in the order of their `arrival`.
    Raises `UsageError` if there is no archive, a process uses it, its index is elsewhere, a later tomowire has made the index, and
    may know more than the files say, or the old index has objects and none of them is there; `IndexUnavailable`, `OSError`. Then
    the old index stays.
    """
    with DataDirectory.inspect(root) as directory:
        directory.require_lock()
        directory.require_restored()
        backend = backend_for(index_url, directory.root, on_upgrade=on_upgrade, wherever=True)
        backend.settle(directory)
        backend.require_no_newer()
        with told_of_room(directory.root, _MAKE_ROOM):
            old = index_in_use(directory, backend, move=move)
            is_current = _forget_unfinished(directory, old)
        is_of_before = old is not backend or not is_current
        with told_of_room(directory.root, _MAKE_ROOM), backend.rebuild(of_before=is_of_before) as building:
            with FormerIndex.open(directory, old if is_current else None) as former:
                count = _build(building.writer, directory, former, report, threads=threads, progress=progress)
                for finding in former.missing():
                    report(finding)
            if old is not backend:
                for finding in keep_protection(old, backend):
                    report(finding)
            mark_too(directory, building.archive_id)
            for problem in building.finish(directory):
                report(Finding(FindingKind.INDEX_DAMAGED, backend.short_name, problem))
        note_location(directory, backend.place)
        with closing(backend.open_reader()) as reader:
            mark_objects(directory, archive_id_of(reader))
            for finding in begin_anew(reader, directory.root):
                report(finding)
    return count


def _forget_unfinished(directory: DataDirectory, backend: IndexBackend) -> bool:
    """What was deleted, or being stored when the archive was killed, must not be indexed. Only the old index knows what that is.

    Gives whether it is to be asked: not one that another index has come after. What it has deleted may have been stored again.
    Raises `IndexUnavailable` if it could say so another time, `UsageError` if its objects are elsewhere.
    """
    try:
        if not backend.is_empty():
            with backend.open_reader(older=True) as reader:
                archive_id = archive_id_of(reader)
            if belonging(directory, archive_id, partial(backend.open_reader, older=True)) is Belonging.SUPERSEDED:
                return False
            with closing(backend.open_writer()) as index:
                found = belonging(directory, index.archive_id, backend.open_reader)
                if found is not Belonging.LOST_INDEX:  # that is what this is for
                    refuse(directory, found)
                    recover(directory, index)
                    finish_removals(directory, index)
    except (FilesHeld, ObjectsElsewhere):
        raise
    except (IndexUnavailable, UsageError) as error:  # that is why it is to be rebuilt
        if isinstance(error, IndexUnavailable) and not error.is_damage and not _is_of_the_disk(error):
            raise
        if is_of_room(error, directory.root):
            raise
        logger.info("the old index cannot be asked what was unfinished: %s", error)
    return True


def _is_of_the_disk(error: IndexUnavailable) -> bool:
    """Whether SQLite could not read its file (SQLITE_IOERR, with more in the higher bits)."""
    return getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR


class _Builder:
    """Fills an empty index."""

    def __init__(
        self, writer: IndexWriter, directory: DataDirectory, former: FormerIndex, report: Callable[[Finding], None]
    ) -> None:
        self.count = 0
        self._former = former
        self._writer = writer
        self._root = directory.root
        self._report = report
        self._batch: dict[str, Found] = {}

    def add(self, found: Found | Finding) -> None:
        if isinstance(found, Finding):
            self._report(found)
            return
        if found.name.sop_instance_uid in self._batch or len(self._batch) >= _ROWS_AT_ONCE:
            self.flush()
        row, finding = self._former.compare(found.name, found.row)
        if finding is not None:
            self._report(finding)
        self._batch[found.name.sop_instance_uid] = replace(found, row=row)

    def flush(self) -> None:
        known = self._writer.find(list(self._batch))
        rows = [
            row
            for uid, found in self._batch.items()
            if (row := self._preferred(found, known[uid]) if uid in known else found.row) is not None
        ]
        self._batch.clear()
        self._insert(rows)

    def _preferred(self, found: Found, known: IndexedObject) -> NewRow | None:
        """Of two files with one SOP instance the one that was stored last is indexed: the row to insert, if that is `found`."""
        modified = (self._root / known.name.path).stat().st_mtime_ns
        if found.name.folder == known.name.folder:  # the names tell; times are lost when files are restored or copied
            is_newer = known.name.generation < found.name.generation
        else:
            is_newer = (modified, known.name.generation) < (found.modified, found.name.generation)
        loser, winner = (known.name, found.name) if is_newer else (found.name, known.name)
        self._report(Finding(FindingKind.DUPLICATE, loser.path, f"{winner.path} is indexed instead"))
        return replace(found.row, replaces=known) if is_newer else None

    def _insert(self, rows: list[NewRow]) -> None:
        try:
            self._writer.insert(0, rows)
        except IndexUnavailable:
            raise
        except Exception as error:  # one row that the database does not take: the others are tried alone
            if len(rows) == 1:
                self._report(Finding(FindingKind.UNREADABLE, _path(rows[0]), f"cannot be indexed: {error}"))
            else:
                for row in rows:
                    self._insert([row])
        else:
            self.count += sum(row.replaces is None for row in rows)


def _build(
    writer: IndexWriter,
    directory: DataDirectory,
    former: FormerIndex,
    report: Callable[[Finding], None],
    *,
    threads: int,
    progress: Progress | None,
) -> int:
    builder = _Builder(writer, directory, former, report)
    number = 0
    work = partial(examine, directory.root)
    for number, found in enumerate(in_parallel(work, files_by_arrival(directory, former), threads=threads), start=1):
        builder.add(found)
        if progress is not None and number % _ROWS_AT_ONCE == 0:
            progress(number, None)
    builder.flush()
    if progress is not None:
        progress(number, number)
    return builder.count


def examine(root: Path, path: str) -> Found | Finding:
    """The row that a file of the store deserves, or what is wrong with it."""
    name = ObjectName.parse(path)
    if name is None:
        return Finding(FindingKind.FOREIGN_FILE, path, "not a name that the archive gives to a file")
    try:
        modified = stat_stored_file(root / path).st_mtime_ns
        file = read_stored_file(root / path, scan=True)
    except (OSError, WireError) as error:
        return Finding(FindingKind.UNREADABLE, path, what_is_wrong(error))
    assert file.scanned is not None  # it was asked for
    record = instance_record(file.scanned)
    if (problem := _contradiction(name, file.meta, record)) is not None:
        return Finding(FindingKind.UIDS_DIFFER, path, problem)
    row = NewRow(
        record=record,
        generation=name.generation,
        header_size=file.header_size,
        data_set_size=file.data_set_size,
        checksum=file.checksum,
        received_at=modified // 1000,
        received_from=file.meta.source_application_entity_title or "",
    )
    return Found(name, modified, row)


def _contradiction(name: ObjectName, meta: FileMeta, record: InstanceRecord) -> str | None:
    """In what the file is not what its name says, or its header not what its data set says."""
    pairs = (
        ("Study Instance UID", name.study_instance_uid, record.study.study_instance_uid),
        ("Series Instance UID", name.series_instance_uid, record.series.series_instance_uid),
        ("SOP Instance UID", name.sop_instance_uid, record.instance.sop_instance_uid),
        ("Media Storage SOP Instance UID", name.sop_instance_uid, meta.media_storage_sop_instance_uid),
        ("Media Storage SOP Class UID", record.instance.sop_class_uid, meta.media_storage_sop_class_uid),
    )
    for what, expected, found in pairs:
        if expected != found:
            return f"{what} is {found!r}, and ought to be {expected}"
    return None


def _path(row: NewRow) -> str:
    record = row.record
    study, series, instance = record.study, record.series, record.instance
    name = ObjectName(study.study_instance_uid, series.series_instance_uid, instance.sop_instance_uid, row.generation)
    return name.path
