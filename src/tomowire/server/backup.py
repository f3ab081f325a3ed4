"""`tomowire backup`: what the archive holds at one moment, copied while it runs.

    1. hold      no file of an object is removed any more: see `hold`
    2. index     dumped, as it is at this moment                           (from here on nothing that comes matters)
    3. objects   those that the dump names and the folder has not: copied, checked against the index's checksum, synced
    4. manifest  written as they are done; then the point gets its name, in one step

Copies, and not hard links, unless that is asked for: a link is the same bytes on the same disk, which is no second copy of them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from threading import Lock
from typing import Final

from tomowire._version import __version__
from tomowire.errors import IndexUnavailable, InvalidUid, UsageError
from tomowire.server.audit.anchor import ANCHOR
from tomowire.server.backup_folder import BackupFolder, Point, Problem, blob_path, manifest_line
from tomowire.server.belonging import archive_id_of, require_some_objects
from tomowire.server.checksum import new_checksum
from tomowire.server.files import DIRECTORY_MODE, FILE_MODE, DataDirectory
from tomowire.server.findings import Progress
from tomowire.server.hold import files_held
from tomowire.server.index.backend import IndexBackend
from tomowire.server.index.dumping import damage_of
from tomowire.server.index.location import OR_NAMED
from tomowire.server.index.rows import IndexedObject
from tomowire.server.index.sqlite_reader import SqliteReader
from tomowire.server.parallel import in_parallel
from tomowire.server.posix import sync_directory, sync_file
from tomowire.server.room import told_where
from tomowire.server.stored_file import stat_stored_file
from tomowire.services.file_writing import write_all
from tomowire.wire.value import value

_THREADS: Final = 4
_BLOCK: Final = 1 << 20
_EVERY: Final = 100
_MOST_PROBLEMS: Final = 1000
"""That a point remembers; all are told."""
_FOLDERS_AT_ONCE: Final = 1000
_OF_ONE_FILE: Final = frozenset(
    {errno.EIO, errno.EBADMSG, errno.ENODATA, getattr(errno, "EUCLEAN", errno.EIO), errno.EINVAL}
)
"""What is said of a file on a bad spot and, the last, of what is no file. That one is lost, and must not keep all others from being
copied."""


class CopyFailed(Exception):
    """A file is not what it ought to be; the text says in what."""


@value()
class _Done:
    row: IndexedObject
    was_copied: bool = False
    problem: str = ""


def backup(
    root: Path | str,
    folder: Path | str,
    backend: IndexBackend,
    *,
    link: bool = False,
    threads: int = _THREADS,
    report: Callable[[Problem], None] = lambda problem: None,
    copied: Callable[[IndexedObject], None] = lambda row: None,
    progress: Progress | None = None,
) -> Point:
    """Add a point to the backups in `folder` of the archive in `root`, which may be running; its index is that of `backend`.

    `link` makes hard links where the two are on one file system. `report` gets what is not as the index says; the rest is copied
    all the same, and `copied` gets each object that the folder had not. An interrupted run is gone on with by the next one. Memory
    does not grow with the number of objects.
    Raises `UsageError` if there is no archive, its objects are not there at all, or something else is in the folder;
    `IndexUnavailable`; `OSError`.
    """
    directory = DataDirectory.look(root)
    directory.require_restored()
    with _told_of_damage(backend):
        if backend.is_empty() or backend.version() is None:
            raise UsageError(f"{directory.root} has no index in {backend.name}: run 'tomowire db reindex'{OR_NAMED}")
    require_some_objects(directory, backend)
    inside = Path(folder).absolute().resolve()
    if inside.is_relative_to(directory.root.resolve()):
        raise UsageError(f"{folder} is inside the data directory: what destroys the one destroys the other")
    with (
        told_where(Path(folder).absolute()),  # all that is written from here on
        BackupFolder.open(folder, create=True) as into,
        files_held(directory.hold_path),
    ):
        unfinished = into.begin_point()
        made_at = datetime.now(UTC).isoformat()
        anchor = keep_anchor(directory.root, unfinished)  # before the trail, which it is never ahead of
        dump = unfinished / "index.sqlite"
        _dump(backend, dump)
        sums = _Sums(report, copied)
        copier = _Copier(directory.root, into, link=link)
        # Before an upgrade is when a backup is wanted most: a dump has the schema that the index has, and a restore brings it up.
        with _told_of_bad_copy(dump), SqliteReader.open(dump, older=True) as reader:
            archive_id = archive_id_of(reader)
            total = reader.counts().instances
            with closing(in_parallel(copier.copy, reader.objects(), threads=threads)) as done:
                _write_manifest(unfinished / "manifest", sums.each(done, total, progress))
        copier.sync()
        facts = {
            "format": 1,
            "made_at": made_at,
            "finished_at": datetime.now(UTC).isoformat(),
            "tomowire": __version__,
            "archive_id": archive_id,
            "data_dir": f"{gethostname()}:{directory.root.resolve()}",
            "objects": sums.objects,
            "bytes": sums.bytes,
            "copied": sums.copied,
            "checksums": {name: file_checksum(unfinished / name) for name in ("index.sqlite", "manifest", *anchor)},
            "problem_count": sums.problem_count,
            "problems": [{"path": each.path, "explanation": each.explanation} for each in sums.problems],
        }
        return into.finish_point(unfinished, facts)


def _dump(backend: IndexBackend, path: Path) -> None:
    """Dump an index, whole: older points may be given up for this one. Raises `IndexUnavailable`."""
    with _told_of_damage(backend):
        backend.dump(path)
        found = damage_of(path)
        if found and backend.dialect == "sqlite":  # its pages were copied as they are
            for message in backend.damage():
                raise IndexUnavailable(message, is_damage=True)
    with _told_of_bad_copy(path):
        if found:
            raise IndexUnavailable(found, is_damage=True)


@contextmanager
def _told_of_bad_copy(dump: Path) -> Iterator[None]:
    try:
        yield
    except IndexUnavailable as error:
        if not error.is_damage:
            raise
        advice = "the archive's index is whole, and its copy is not: look at the disk of the backup"
        raise IndexUnavailable(f"{dump}: {error}; {advice}", is_damage=True) from error


@contextmanager
def _told_of_damage(backend: IndexBackend) -> Iterator[None]:
    try:
        yield
    except IndexUnavailable as error:
        if not error.is_damage:
            raise
        advice = "'tomowire db reindex' makes it again from the files, and then there can be a backup"
        raise IndexUnavailable(f"{backend.name}: {error}; {advice}", is_damage=True) from error


def keep_anchor(source: Path, target: Path) -> tuple[str, ...]:
    """Copy the file with the end of the audit trail, if there is one; gives its name. Raises `OSError`."""
    try:
        content = (source / ANCHOR).read_bytes()
    except FileNotFoundError:
        return ()
    with open(os.open(target / ANCHOR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "wb") as file:
        file.write(content)
        file.flush()
        sync_file(file.fileno())
    return (ANCHOR,)


def file_checksum(path: Path) -> str:
    """Of a whole file."""
    checksum = new_checksum()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            checksum.update(block)
    return checksum.hexdigest()


def copy_checked(source: Path, target: Path, row: IndexedObject) -> None:
    """Copy the file of an object to the new file `target`, which is durable then, and what the index says. Its time is when the
    object was received: who makes the index from files alone has nothing else to go by.

    Raises `CopyFailed` if it is not what was received, or the disk does not give it, `OSError`; then `target` is to be removed.
    """
    into = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        for block in _checked_blocks(source, row):
            write_all(into, (block,))
        with suppress(OSError):  # a share that keeps times of its own
            os.utime(into, ns=(row.received_at * 1000, row.received_at * 1000))
        sync_file(into)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # which the system says without a name
            error.filename = os.fspath(target)
        raise
    finally:
        os.close(into)


def check_file(path: Path, row: IndexedObject) -> None:
    """Read the file of an object. Raises `CopyFailed` as `copy_checked` does, `OSError`."""
    for _ in _checked_blocks(path, row):
        pass


def _checked_blocks(path: Path, row: IndexedObject) -> Iterator[bytes]:
    """The file of an object in blocks. Raises `CopyFailed`, at the end too, and `OSError`."""
    checksum, size = new_checksum(), 0
    try:
        stat_stored_file(path)
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                checksum.update(memoryview(block)[max(row.header_size - size, 0) :])
                size += len(block)
                yield block
    except OSError as error:
        if error.errno not in _OF_ONE_FILE:
            raise
        raise CopyFailed(f"it cannot be read: {error.strerror}") from error
    _require(row, size, checksum.digest())


def _require(row: IndexedObject, size: int, checksum: bytes) -> None:
    if size != row.header_size + row.data_set_size:
        raise CopyFailed(f"{size} bytes, and not {row.header_size + row.data_set_size}")
    if checksum != row.checksum:
        raise CopyFailed("the checksum of the data set is not that of what was received")


class _Copier:
    """Brings objects into a folder of backups, in several threads."""

    def __init__(self, root: Path, into: BackupFolder, *, link: bool) -> None:
        self._root = root
        self._into = into
        self._link = link
        self._lock = Lock()
        self._folders: set[Path] = set()

    def copy(self, row: IndexedObject) -> _Done:
        """An object that the folder has already is not looked at again: `--verify` does that."""
        try:
            target = self._into.root / blob_path(row.name, row.checksum)
            if _size(target) == row.header_size + row.data_set_size:
                return _Done(row)
            self._bring(self._root / row.name.path, target, row)
        except InvalidUid as error:
            return _Done(row, problem=str(error))
        except CopyFailed as error:
            return _Done(row, problem=f"not copied: {error}")
        except FileNotFoundError:
            if os.path.lexists(
                self._root / row.name.path
            ):  # it is the copy that could not be made: the folder has gone
                raise
            return _Done(row, problem="the index has it, but there is no such file")
        return _Done(row, was_copied=True)

    def _bring(self, source: Path, target: Path, row: IndexedObject) -> None:
        with self._lock:
            part = self._into.new_part()
        try:
            if self._link and _linked(source, part):
                check_file(part, row)
            else:
                copy_checked(source, part, row)
            target.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self._note(target.parent)

    def _note(self, folder: Path) -> None:
        with self._lock:
            self._folders.add(folder)
            if len(self._folders) < _FOLDERS_AT_ONCE:
                return
        self.sync()

    def sync(self) -> None:
        """Make the names of all files durable that came since the last time."""
        with self._lock:
            folders, self._folders = self._folders, set()
        above = {parent for folder in folders for parent in folder.parents if parent.is_relative_to(self._into.root)}
        for folder in sorted(folders | above, reverse=True):
            sync_directory(folder)


class _Sums:
    """Counts what is done."""

    def __init__(self, report: Callable[[Problem], None], copied: Callable[[IndexedObject], None]) -> None:
        self.objects = self.bytes = self.copied = self.problem_count = 0
        self.problems: list[Problem] = []
        self._report = report
        self._tell_copied = copied

    def each(self, done: Iterator[_Done], total: int, progress: Progress | None) -> Iterator[IndexedObject]:
        for each in done:
            self.objects += 1
            self.bytes += each.row.header_size + each.row.data_set_size
            self.copied += each.was_copied
            if each.was_copied:
                self._tell_copied(each.row)
            if each.problem:
                problem = Problem(_shown_path(each.row), each.problem)
                self.problem_count += 1
                if self.problem_count <= _MOST_PROBLEMS:
                    self.problems.append(problem)
                self._report(problem)
            if progress is not None and self.objects % _EVERY == 0:
                progress(self.objects, total)
            yield each.row
        if progress is not None:
            progress(self.objects, total)


def _write_manifest(path: Path, rows: Iterator[IndexedObject]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "w", encoding="ascii") as file:
        for row in rows:
            try:
                file.write(manifest_line(row))
            except InvalidUid:  # no file can have such a name; it is among the problems
                continue
        file.flush()
        sync_file(file.fileno())


def _shown_path(row: IndexedObject) -> str:
    try:
        return row.name.path
    except InvalidUid:
        return row.name.sop_instance_uid


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        return False
    return True


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
