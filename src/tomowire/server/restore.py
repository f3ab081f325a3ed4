"""`tomowire restore`: an archive made again, in a new data directory, from a point of a backup.

    1. marker    which point is being restored: until it is gone no program takes the directory for an archive    (durable)
                 The directory is locked by then: who comes meanwhile is told that it is in use.
    2. objects   copied, checked, synced                                                                          (durable)
    3. marker    which index they go to                                                                           (durable)
    4. index     loaded, in one step; where it is                                                                 (durable)
    5. audit     whoever keeps account of it is told                                                              (durable)
    6. marker    removed

What is interrupted is gone on with by the same command. An index that is there then is the one that this restore has loaded, or
the tables that it has made for it; in any other case the database must be empty.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from tomowire.errors import IndexUnavailable, InvalidUid, UsageError
from tomowire.server.backup import CopyFailed, check_file, copy_checked, file_checksum, keep_anchor
from tomowire.server.backup_folder import BackupFolder, Point, Problem, blob_path
from tomowire.server.belonging import archive_id_of, mark_objects
from tomowire.server.files import DIRECTORY_MODE, INCOMING, LOCK, OBJECTS, RESTORING, RESTORING_NEW, DataDirectory
from tomowire.server.findings import Progress
from tomowire.server.index.backend import IndexBackend
from tomowire.server.index.dumping import current_copy
from tomowire.server.index.location import note_location
from tomowire.server.index.rows import IndexedObject
from tomowire.server.index.sqlite_reader import SqliteReader
from tomowire.server.parallel import in_parallel
from tomowire.server.posix import sync_directory, sync_file
from tomowire.server.room import told_where
from tomowire.server.swap import remove_logs

_THREADS: Final = 4
_EVERY: Final = 100
_NO_OBSTACLES: Final = frozenset({"lost+found", LOCK, RESTORING_NEW})
"""What a new disk has, and what an earlier run leaves that was ended at its first step."""


def restore(
    folder: Path | str,
    root: Path | str,
    backend: IndexBackend,
    *,
    point: str | None = None,
    threads: int = _THREADS,
    report: Callable[[Problem], None] = lambda problem: None,
    loaded: Callable[[Point], object] = lambda point: None,
    progress: Progress | None = None,
) -> Point:
    """Make the archive of a point (the newest, if none is named) in `root`, which must be new or empty; its index is put into
    `backend`, which must be empty too. Each object is checked against its checksum while it is copied.

    `report` gets the objects that the backup does not have, or not as they were received: the index has them all the same, as it
    had them then, so that `db check` names them and a sender may send them again. It is told too when the index is not what was
    written: then it is restored as far as it can be read. `loaded` is called when all is there, before it is an archive: if it
    raises it is none, and the next run calls it again.
    Raises `UsageError`, `IndexUnavailable`, `OSError`.
    """
    with BackupFolder.open(folder, create=False, shared=True) as source:
        found = source.point(point)
        target = Path(root).absolute()
        if target.resolve().is_relative_to(source.root.resolve()):
            raise UsageError(f"{root} is inside the folder of backups: what destroys the one destroys the other")
        _require_new(target, found)
        _require_room(backend, _begun(target, backend))

        def begin() -> None:
            _require_new(target, found)  # somebody may have been here before it was locked
            if not _begun(target, backend):
                _note(target, found.name)

        with told_where(target), DataDirectory.open_empty(target, begin=begin) as directory:
            begun = _begun(target, backend)
            name = found.index.name
            is_changed = file_checksum(found.index) != found.checksums.get(name)
            if is_changed:
                report(Problem(f"{found.name}/{name}", "the checksum of the file is not that of what was written"))
            for left in list(directory.parts()):  # by an earlier run
                left.unlink()
            dump = target / INCOMING / "index.restoring"
            dump.unlink(missing_ok=True)
            remove_logs(dump)
            with _told_of_damage(found, backend, is_changed=is_changed):
                current_copy(found.index, dump)
                with SqliteReader.open(dump) as reader:
                    archive_id = archive_id_of(reader)
            if not (begun and _is_loaded(backend, archive_id)):
                with _told_of_damage(found, backend):
                    _restore_objects(source, directory, dump, threads, report, progress)
                    keep_anchor(found.folder, target)
                    _note(target, found.name, _place_of(backend))
                    backend.load(dump, directory)
            mark_objects(directory, archive_id)
            note_location(directory, backend.place)
            loaded(found)
            dump.unlink()
            (target / RESTORING).unlink()
            sync_directory(target)
        return found


@contextmanager
def _told_of_damage(point: Point, backend: IndexBackend, *, is_changed: bool = False) -> Iterator[None]:
    """`is_changed`: whatever cannot be done comes of it."""
    try:
        yield
    except IndexUnavailable as error:
        if not (is_changed or error.is_damage):
            raise
        where = "another folder" if backend.place is None else "another folder and an empty database"
        raise IndexUnavailable(
            f"the index of the point {point.name} is damaged: restore another one (--point), to {where}", is_damage=True
        ) from error


def _place_of(backend: IndexBackend) -> str:
    """The same for one database, whoever uses it and however the folder is named."""
    return backend.place or backend.short_name


def _note(target: Path, point: str, index: str = "") -> None:
    """Write the marker, durably: the point and, before its index is loaded, where to. Raises `OSError`."""
    new = target / RESTORING_NEW
    with new.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(f"{point}\n{index}\n" if index else point)
        file.flush()
        sync_file(file.fileno())
    os.replace(new, target / RESTORING)
    for folder in (target, target.parent):
        sync_directory(folder)


def _read_note(target: Path) -> list[str]:
    """What `_note` wrote, a line each; nothing if it is not there. Raises `OSError`."""
    try:
        return (target / RESTORING).read_text("utf-8", "surrogateescape").split("\n")
    except FileNotFoundError:
        return []


def _begun(target: Path, backend: IndexBackend) -> bool:
    """Whether an earlier run was about to load the index, into this database."""
    return _read_note(target)[1:2] == [_place_of(backend)]


def _require_room(backend: IndexBackend, begun: bool) -> None:
    """Raises `UsageError` if there is an index that no earlier run of this restore has put there."""
    if not (begun or backend.is_empty()):
        raise UsageError(
            f"{backend.name} holds an index already: name an empty database. (If that is the index of an archive whose disk is "
            "not mounted, mount the disk: nothing has to be restored.)"
        )


def _is_loaded(backend: IndexBackend, archive_id: str) -> bool:
    """Whether an earlier run came as far as the index; its objects are all there then.

    It may have come as far as empty tables: `load` fills those. Raises `UsageError` if there is another index.
    """
    if backend.is_empty():
        return False
    with backend.open_reader() as reader:
        if archive_id_of(reader) == archive_id:
            return True
        if reader.page(size=1):
            raise UsageError(f"{backend.name} holds another index: name an empty database")
    return False


def _require_new(root: Path, point: Point) -> None:
    if not root.exists():
        return
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder")
    others = set(os.listdir(root)) - _NO_OBSTACLES
    if RESTORING not in others:
        if others:
            done = "; if a restore has made what is there, that is finished: 'tomowire db check' looks at it"
            raise UsageError(
                f"{root} is not empty: an archive is restored to a new folder only{done if OBJECTS in others else ''}"
            )
        return
    begun = "".join(_read_note(root)[:1])
    if begun not in (point.name, ""):
        raise UsageError(f"{root} holds what a restore of {begun!r} has begun: finish that one, or name another folder")


def _restore_objects(
    source: BackupFolder,
    directory: DataDirectory,
    dump: Path,
    threads: int,
    report: Callable[[Problem], None],
    progress: Progress | None,
) -> None:
    restorer = _Restorer(source, directory.root)
    with SqliteReader.open(dump) as reader:
        total = reader.counts().instances
        done = in_parallel(lambda row: (row, restorer.restore(row)), reader.objects(), threads=threads)
        for number, (row, problem) in enumerate(done, start=1):
            if problem:
                report(Problem(row.name.sop_instance_uid, problem))
            if progress is not None and (number % _EVERY == 0 or number == total):
                progress(number, total)
    restorer.sync()


class _Restorer:
    """Copies objects into a data directory, in several threads."""

    def __init__(self, source: BackupFolder, root: Path) -> None:
        self._source = source
        self._root = root
        self._lock = Lock()
        self._number = 0
        self._folders: set[Path] = set()

    def restore(self, row: IndexedObject) -> str:
        """Gives what is wrong, or nothing. Raises `OSError`: where the disk of the backup has gone the rest is restored later."""
        try:
            blob, target = self._source.root / blob_path(row.name, row.checksum), self._root / row.name.path
        except InvalidUid as error:
            return str(error)
        try:
            if not _is_there(target, row):
                self._copy(blob, target, row)
        except FileNotFoundError:
            self._source.require_there()
            if os.path.lexists(blob):  # it is the copy that could not be made: the folder has gone
                raise
            return "it is not in the backup"
        except CopyFailed as error:
            self._source.require_there()
            return f"the backup's copy is damaged: {error}"
        return ""

    def _copy(self, blob: Path, target: Path, row: IndexedObject) -> None:
        with self._lock:
            self._number += 1
            part = self._root / INCOMING / f"{self._number}.part"
        part.unlink(missing_ok=True)
        try:
            copy_checked(blob, part, row)
            self._make(target.parent)
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        with self._lock:
            self._folders.add(target.parent)

    def _make(self, folder: Path) -> None:
        """`Path.mkdir` would make the folders above with a mode of its own."""
        if folder.name != OBJECTS and not folder.exists():
            self._make(folder.parent)
            folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)

    def sync(self) -> None:
        """Make the names of all files durable."""
        above = {parent for folder in self._folders for parent in folder.parents if parent.is_relative_to(self._root)}
        for folder in sorted(self._folders | above, reverse=True):
            sync_directory(folder)


def _is_there(target: Path, row: IndexedObject) -> bool:
    """Whether an earlier run has brought the object, whole."""
    try:
        check_file(target, row)
    except (FileNotFoundError, NotADirectoryError, CopyFailed):
        return False
    return True
