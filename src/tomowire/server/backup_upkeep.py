"""Looking after a folder of backups: reading all of it again, and giving up what is old."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Final

from tomowire.errors import IndexUnavailable, InvalidUid, UsageError
from tomowire.server.backup import CopyFailed, check_file, file_checksum
from tomowire.server.backup_folder import DAMAGED, BackupFolder, Point, Problem, blob_path, manifest_line
from tomowire.server.files import DIRECTORY_MODE, ObjectName
from tomowire.server.findings import Progress
from tomowire.server.index.dumping import damage_of
from tomowire.server.index.rows import IndexedObject
from tomowire.server.index.sqlite_reader import SqliteReader
from tomowire.server.parallel import in_parallel

_THREADS: Final = 4
_EVERY: Final = 100


def verify(
    folder: Path | str,
    point: str | None = None,
    *,
    threads: int = _THREADS,
    report: Callable[[Problem], None] = lambda problem: None,
    progress: Progress | None = None,
) -> Point:
    """Read all that a point (the newest, if none is named) consists of; gives the point, and `report` gets what is wrong.

    The index and the manifest must be what was written, whole, and say the same; each object must have its checksum. A file that
    has not is put into `damaged/`, so that the next backup copies it again. Raises `UsageError`, `OSError`.
    """
    with BackupFolder.open(folder, create=False) as opened:
        found = opened.point(point)
        for name, expected in found.checksums.items():
            if file_checksum(found.folder / name) != expected:
                report(Problem(f"{found.name}/{name}", "the checksum of the file is not that of what was written"))
        damage = ""
        try:
            damage = damage_of(found.index)
            _verify_objects(opened, found, report, progress, threads)
        except IndexUnavailable as error:
            damage = damage or str(error)
        if damage:
            report(Problem(f"{found.name}/{found.index.name}", damage))
        return found


def prune(folder: BackupFolder, keep: int) -> list[Point]:
    """Give up all points but the `keep` newest, and the objects that none of those has; gives the points that went.

    Raises `UsageError`, and nothing goes, if a point cannot be read or has another name, since it may be kept on purpose, or if
    one is of another archive.
    """
    points = folder.points()
    folder.require_no_renamed()
    for point, following in pairwise(points):
        if not point.may_be_of_the_archive_of(following):
            raise UsageError(
                f"the point {point.name} is of {point.data_dir}, and the next one of another archive, {following.data_dir}: have a "
                f"folder for each, and move {point.folder} out of this one if what only it has may be given up"
            )
    gone = points[:-keep] if keep else points
    for point in gone:
        folder.remove_point(point)
    if gone:
        _collect(folder)
    return gone


def _verify_objects(
    folder: BackupFolder, point: Point, report: Callable[[Problem], None], progress: Progress | None, threads: int
) -> None:
    known = {problem.path for problem in point.problems}
    with SqliteReader.open_file(point.index) as reader, point.manifest.open("r", encoding="ascii") as manifest:
        total = reader.counts().instances
        rows = in_parallel(lambda row: (row, _problem(folder, row)), reader.objects(), threads=threads)
        for number, (row, problem) in enumerate(rows, start=1):
            try:
                path, line = row.name.path, manifest_line(row)
            except InvalidUid:
                continue
            if manifest.readline() != line:
                report(Problem(path, "the manifest does not say what the index says"))
            if problem and path not in known:
                report(Problem(path, problem))
            if progress is not None and (number % _EVERY == 0 or number == total):
                progress(number, total)
        if manifest.readline():
            report(Problem(f"{point.name}/{point.manifest.name}", "it names objects that the index does not have"))


def _problem(folder: BackupFolder, row: IndexedObject) -> str:
    try:
        path = folder.root / blob_path(row.name, row.checksum)
    except InvalidUid as error:
        return str(error)
    try:
        check_file(path, row)
    except FileNotFoundError:
        folder.require_there()
        return "it is not in the backup"
    except CopyFailed as error:
        _set_aside(folder, path)
        return f"the backup's copy is damaged: {error}"
    except OSError as error:
        return str(error)
    return ""


def _set_aside(folder: BackupFolder, path: Path) -> None:
    aside = folder.root / DAMAGED
    aside.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    os.replace(path, aside / f"{path.name}.{time.time_ns()}")


def _collect(folder: BackupFolder) -> None:
    """Remove the objects that no point has any more. The points themselves are asked: one question for each object and point."""
    with ExitStack() as stack:
        readers = [stack.enter_context(SqliteReader.open_file(point.index)) for point in folder.points()]
        for path, name, checksum in folder.blobs():
            if not any(_has(reader, name, checksum) for reader in readers):
                path.unlink()
                _prune_folders(folder.root, path.parent)


def _has(reader: SqliteReader, name: ObjectName, checksum: bytes) -> bool:
    row = reader.instance(name.sop_instance_uid)
    return row is not None and row.name == name and row.checksum == checksum


def _prune_folders(root: Path, folder: Path) -> None:
    while folder.parent != root:
        try:
            folder.rmdir()
        except OSError:  # not empty
            return
        folder = folder.parent
