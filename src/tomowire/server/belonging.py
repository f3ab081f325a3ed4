"""Whether the files below `objects/` are those that the index is of.

The index may be in a database of its own, and the objects on a disk of their own. If that disk is not mounted, an archive that
began all the same would write new objects below the mount point, where nobody sees them again; and what looks after missing files
would find that all of them are. So `objects/` holds a mark, an empty folder named for the `archive_id` of its index. Nothing begins
when that says otherwise; when it is not there, the files tell whether it is the same archive, of before there was a mark. (A
folder, and not a file: any program may be given all that is in `objects/`, and finds DICOM files in it and nothing else.)

An archive may have had two indexes one after the other, in SQLite and in PostgreSQL, and both know some of the files. The mark is
that of the one in use: with the other, what was stored since would be unknown, and what was protected since would be deleted. Only
`db reindex` gives the files to another index. It marks them for that one before it takes its place, and takes the old mark away
afterwards: killed in between, there are two marks, and either will do until one of them has begun.

    mark        index            files
    its own     -                -                             begin (some files, or all, may be lost: `db check` says so)
    none        has objects      some of those of the index    begin, and make the mark
    another     has objects      some of those of the index    an index of before, or one that was put back
    none, or    has objects      others                        another archive's disk
    another     has objects      none                          the disk is not mounted
    another     has no objects   some                          an index that was lost, or another archive's
    otherwise                                                  begin, and make the mark: a new archive, or one that was emptied
"""

from __future__ import annotations

import logging
import os
from enum import Enum
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from tomowire.errors import IndexUnavailable, InvalidUid, UsageError
from tomowire.server.files import DIRECTORY_MODE, OBJECTS, DataDirectory, ObjectName
from tomowire.server.posix import sync_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tomowire.server.index.backend import IndexBackend
    from tomowire.server.index.reader import IndexReader
    from tomowire.server.index.rows import IndexedObject

logger: Final = logging.getLogger(__name__)

_MARK: Final = ".archive-"

_LOOKED_AT: Final = 1000
"""Rows whose files are looked for, and files that are looked up, before they are said to have nothing in common."""


class ObjectsElsewhere(UsageError):
    """The files that are there are not those of the index."""


class Belonging(Enum):
    """What the files are to the index."""

    MARKED = "the mark says so"
    SAME = "the mark is to be made"
    FOREIGN = "the files are those of another index"
    SUPERSEDED = "another index was the last to use the files"
    LOST_INDEX = "the index has no objects, and there are files of another"
    ABSENT = "there are no files"


def belonging(directory: DataDirectory, archive_id: str, open_reader: Callable[[], IndexReader]) -> Belonging:
    """What the files in `directory` are to the index `archive_id`, which is asked only if the mark does not say it.

    Raises `IndexUnavailable`, `OSError`.
    """
    marks = marks_of(directory)
    if archive_id in marks:
        return Belonging.MARKED
    with open_reader() as reader:
        rows = reader.page(size=_LOOKED_AT)
        paths = list(islice(directory.object_files(), _LOOKED_AT))
        if not rows:
            return Belonging.LOST_INDEX if paths and marks else Belonging.SAME
        if not paths:
            return Belonging.ABSENT
        if any(os.path.exists(directory.root / path) for path in _paths_of(rows)) or _knows_one(reader, paths):
            return Belonging.SUPERSEDED if marks else Belonging.SAME
    return Belonging.FOREIGN


def require_own_objects(directory: DataDirectory, archive_id: str, open_reader: Callable[[], IndexReader]) -> None:
    """To be called before anything is changed. Files that are those of the index are marked as such, and as no
    other's: a `db reindex` that was killed may have left two marks, and from now on only one of the two indexes is current.

    Raises `ObjectsElsewhere` if they are not; `IndexUnavailable`, `OSError`.
    """
    refuse(directory, belonging(directory, archive_id, open_reader))
    if marks_of(directory) != {archive_id}:
        mark_objects(directory, archive_id)


def require_some_objects(directory: DataDirectory, backend: IndexBackend) -> None:
    """For a backup: a point without objects is none, and older ones may go for it. The archive may be running.

    Raises `ObjectsElsewhere` if the objects are not there, `OSError`.
    """
    try:
        reader = backend.open_reader(older=True)
    except (UsageError, IndexUnavailable):  # of a later version, or damaged: whoever reads it will say so
        return
    with reader:
        archive_id = archive_id_of(reader)
    refuse(directory, belonging(directory, archive_id, partial(backend.open_reader, older=True)))


def refuse(directory: DataDirectory, found: Belonging) -> None:
    """Raises `ObjectsElsewhere`, which says what to do, if an index is not to be used with such files."""
    objects = directory.root / OBJECTS
    match found:
        case Belonging.ABSENT:
            raise ObjectsElsewhere(
                f"the index has objects, and there is no file below {objects}: is the disk mounted? If they are lost, "
                "'tomowire restore' makes the archive again from a backup, in a new data directory, and "
                "'tomowire db check --repair' takes what is lost out of the index"
            )
        case Belonging.FOREIGN:
            raise ObjectsElsewhere(
                f"the files below {objects} are not those of this index: is another archive's disk mounted there, or "
                "another archive's index named? For an index of these files name an empty database, and run "
                "'tomowire db reindex'"
            )
        case Belonging.SUPERSEDED:
            raise ObjectsElsewhere(
                f"the files below {objects} are of another index than this one, which was the last to use them: was --index-url or "
                "--config left out, or an index of before put in place? If this one is to be used, 'tomowire db reindex' makes it "
                "anew from the files, without its users, tokens and jobs"
            )
        case Belonging.LOST_INDEX:
            raise ObjectsElsewhere(
                f"the index has no objects, and the files below {objects} are of another one: is it the right index, and the "
                "right disk? If so, 'tomowire db reindex' makes the index again from the files"
            )


def archive_id_of(reader: IndexReader) -> str:
    """The name of an index. Raises `IndexUnavailable`."""
    from tomowire.server.index.reader import Statement

    ((archive_id,),) = reader.rows(Statement("SELECT archive_id FROM archive WHERE id = 1", {}))
    return str(archive_id)


def marks_of(directory: DataDirectory) -> set[str]:
    """The `archive_id` of the index that the files are of; several if somebody has put two disks together. Raises `OSError`."""
    names = os.listdir(directory.root / OBJECTS)
    return {name.removeprefix(_MARK) for name in names if name.startswith(_MARK)}


def mark_objects(directory: DataDirectory, archive_id: str) -> None:
    """Mark, durably, that the files are of this index, and of no other. Raises `OSError` as `mark_too`."""
    mark_too(directory, archive_id)
    objects = directory.root / OBJECTS
    try:
        for other in marks_of(directory) - {archive_id}:
            (objects / f"{_MARK}{other}").rmdir()
            _sync(directory)
    except OSError as error:
        logger.warning("the objects in %s are still marked as those of another index: %s", objects, error)


def mark_too(directory: DataDirectory, archive_id: str) -> None:
    """Mark, durably, that the files are of this index, whichever others they are of.

    Where that cannot be done it is done another time, if there is no other mark. Else it raises `OSError`: the index would not be
    taken for that of the files.
    """
    objects = directory.root / OBJECTS
    try:
        (objects / f"{_MARK}{archive_id}").mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        _sync(directory)
    except OSError as error:
        if marks_of(directory) - {archive_id}:
            raise
        logger.warning("the objects in %s cannot be marked as those of this index: %s", objects, error)


def _sync(directory: DataDirectory) -> None:
    if directory.fsync:
        sync_directory(directory.root / OBJECTS)


def _paths_of(rows: list[IndexedObject]) -> Iterator[str]:
    for row in rows:
        try:
            yield row.name.path
        except InvalidUid:  # no file ever had such a name
            continue


def _knows_one(reader: IndexReader, paths: list[str]) -> bool:
    """Whether the index has an object with one of these files."""
    names = [name for path in paths if (name := ObjectName.parse(path)) is not None]
    known = reader.find_objects([name.sop_instance_uid for name in names])
    return any(known[name.sop_instance_uid].name == name for name in names if name.sop_instance_uid in known)
