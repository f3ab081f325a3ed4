"""Where the bytes of stored objects live on disk.

    <data directory>/
        lock                                                   held (flock) for as long as a process uses the directory
        hold                                                   held (flock) while no file may be removed: see `hold`
        index.sqlite                                           what is known about the objects
        index.location                                         instead: which database knows it, see `index.location`
        incoming/journal, incoming/committed, incoming/<n>.part    what is not stored yet: see `journal` and `recovery`
        objects/<ab>/<study>/<series>/<instance>[-<n>].dcm     the objects: Part 10 files (PS3.10 7.1)
        objects/.archive-<id>/                                 empty: of which index they are, see `belonging`

`<ab>` are the first two hexadecimal digits of the SHA-256 of the Study Instance UID: 256 folders, so that none of them gets
too many entries. The names are made of UIDs that PS3.5 9.1 allows and of nothing else: digits and dots cannot leave the folder.
`<n>` is the generation, written from 1 on: an object that replaces another one gets a name of its own, so that a file never
changes once it has its name. (A dash, since `1.2.3.dcm` could be 1.2.3 as well as the third of 1.2.)
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tomowire.errors import InUse, InvalidUid, UsageError
from tomowire.server.lock_file import holder_of, let_go, lock_file, lock_unwritten
from tomowire.server.posix import require_posix, sync_directory
from tomowire.uids import is_tolerable_uid
from tomowire.wire.value import value

OBJECTS: Final = "objects"
INCOMING: Final = "incoming"
LOCK: Final = "lock"
RESTORING: Final = "restoring"
"""A file that says which point of a backup is being restored; there until that is done."""
RESTORING_NEW: Final = "restoring.new"
"""The same, while it is written."""
BACKUPS: Final = "tomowire-backup.json"
"""A file that is in each folder of backups. Such a folder has objects too, and is no data directory."""

DIRECTORY_MODE: Final = 0o750
FILE_MODE: Final = 0o640
"""For all that is made in a data directory: what is in it is about patients, and not for everybody on the machine. (The umask may
take away more.)"""

_OBJECT_PATH: Final = re.compile(r"objects/[0-9a-f]{2}/([0-9.]+)/([0-9.]+)/([0-9.]+)(?:-([1-9][0-9]*))?\.dcm")
_INDEX: Final = "index.sqlite"
LOCATION: Final = "index.location"
_HOLD: Final = "hold"
_NO_OBSTACLES: Final = frozenset({INCOMING, LOCK, _HOLD, RESTORING, RESTORING_NEW, "lost+found"})
"""What may be in a folder that becomes a data directory: what a start or a restore leaves that was killed at once, and what a new
disk has."""
_NO_OBJECTS: Final = frozenset({"lost+found"})
"""What may be in `objects/` and is not ours: it may be a disk of its own."""
_PART_SUFFIX: Final = ".part"


@value()
class ObjectName:
    """What the name of an object's file is made of."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    generation: int = 0

    @property
    def path(self) -> str:
        """The path of the file, relative to the data directory. Raises `InvalidUid`."""
        return f"{self.folder}/{object_file_name(self.sop_instance_uid, self.generation)}"

    @property
    def folder(self) -> str:
        """The folder of the file, relative to the data directory. Raises `InvalidUid`."""
        return series_folder(self.study_instance_uid, self.series_instance_uid)

    @classmethod
    def parse(cls, path: str) -> ObjectName | None:
        """The name whose `path` this is, or None if the archive would never write such a path."""
        match = _OBJECT_PATH.fullmatch(path)
        if match is None:
            return None
        study, series, instance, generation = match.groups()
        name = cls(study, series, instance, int(generation or 0))
        try:
            return name if name.path == path else None
        except InvalidUid:
            return None


@lru_cache(maxsize=4096)
def series_folder(study_instance_uid: str, series_instance_uid: str) -> str:
    """The folder of a series, relative to the data directory. Raises `InvalidUid`."""
    for uid in (study_instance_uid, series_instance_uid):
        if not is_tolerable_uid(uid):
            raise InvalidUid(f"{uid!r} is not a UID: no folder is made of it")
    fan_out = sha256(study_instance_uid.encode("ascii")).hexdigest()[:2]
    return f"{OBJECTS}/{fan_out}/{study_instance_uid}/{series_instance_uid}"


def object_file_name(sop_instance_uid: str, generation: int = 0) -> str:
    """The name of an object's file in the folder of its series. Raises `InvalidUid`."""
    if not is_tolerable_uid(sop_instance_uid):
        raise InvalidUid(f"{sop_instance_uid!r} is not a UID: no file name is made of it")
    return f"{sop_instance_uid}-{generation}.dcm" if generation else f"{sop_instance_uid}.dcm"


class DataDirectory:
    """The directory that one archive lives in, locked for this process.

    `fsync=False` gives up the promise that an object which got Success survives a power cut (a killed process does not matter):
    for tests and throw-away archives. Nothing in the package sets it by itself.
    """

    def __init__(self, root: Path, lock: int | None, *, fsync: bool = True) -> None:
        self.root = root
        self.fsync = fsync
        self.why_unlocked = ""
        """Why it is not known whether another process uses it; empty if that is known."""
        self._lock = lock
        self._made: list[Path] = []
        self._next_part = 0

    @classmethod
    def open(cls, root: Path | str, *, fsync: bool = True) -> Self:
        """Make the directory if there is none, and lock it.

        Raises `InUse` if another process uses it, `UsageError` if it is a folder with other things in it, `OSError` if it cannot be
        made or written to.
        """
        require_posix()
        root = Path(root).absolute()
        _require_no_backups(root)
        if _is_foreign(root):
            raise UsageError(
                f"{root} is not empty, and not the data directory of an archive: name one with --data-dir that is, "
                "or an empty or new folder"
            )
        return cls.open_empty(root, fsync=fsync)

    @classmethod
    def open_empty(cls, root: Path, *, fsync: bool = True, begin: Callable[[], None] = lambda: None) -> Self:
        """The same, whatever is in it: the caller has looked. `root` is absolute. `begin` is called once it is locked, before there
        is anything else in it."""
        made = [] if root.exists() else [root]
        root.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        held = lock_file(root / LOCK, FILE_MODE)
        if held is None:
            raise InUse(f"the data directory {root} is in use by another process (PID {holder_of(root / LOCK)})")
        opened = cls(root, held, fsync=fsync)
        try:
            begin()
            for folder in (root / OBJECTS, root / INCOMING):
                made += [] if folder.exists() else [folder]
                folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            if fsync:
                for folder in (root.parent, root):
                    sync_directory(folder)
        except BaseException:
            opened.close()
            raise
        opened._made = made
        return opened

    @classmethod
    def inspect(cls, root: Path | str) -> Self:
        """Open a directory that is there, to look at it; locked if no other process has locked it (see `is_locked`).

        One that is read-only is locked as far as that can be done (`why_unlocked`). Raises `UsageError` if there is no archive in
        it, or the system is not POSIX; `OSError`.
        """
        found = cls.look(root)
        try:
            found._lock = lock_file(found.root / LOCK, FILE_MODE)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            found._lock, is_known = lock_unwritten(found.root / LOCK)
            found.why_unlocked = "" if is_known else os.strerror(error.errno)
        return found

    @classmethod
    def look(cls, root: Path | str) -> Self:
        """A directory that is there, without locking it: whoever runs the archive, or is about to, does not mind.

        Raises `UsageError` if there is no archive in it, or the system is not POSIX.
        """
        require_posix()
        root = Path(root).absolute()
        _require_no_backups(root)
        if not ((root / OBJECTS).is_dir() or (root / RESTORING).exists()):
            raise UsageError(f"{root} is not the data directory of an archive: it has no folder '{OBJECTS}'")
        return cls(root, None)

    @property
    def is_locked(self) -> bool:
        """Whether this process is the only one to use the directory."""
        return self._lock is not None

    def require_lock(self) -> None:
        """Raises `InUse` if another process uses the directory, `UsageError` if that cannot be known."""
        if self.why_unlocked:
            raise UsageError(f"the data directory {self.root} cannot be locked: {self.why_unlocked}")
        if not self.is_locked:
            raise InUse(f"the data directory {self.root} is in use by another process: stop it first")

    def unmake(self) -> None:
        """Remove again what `open` made, as far as nothing else is in it: the archive could not begin here."""
        if self.root / OBJECTS not in self._made:
            return
        try:
            for folder in self._made:
                if folder != self.root:
                    folder.rmdir()
            (self.root / LOCK).unlink()
            if self.root in self._made:
                self.root.rmdir()
        except OSError:  # there is something in it
            pass

    def close(self) -> None:
        """Let go of the lock; the file stays, empty (removing it would let two processes lock two files of one name)."""
        if self._lock is not None:
            let_go(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def index_path(self) -> Path:
        return self.root / _INDEX

    @property
    def hold_path(self) -> Path:
        return self.root / _HOLD

    def require_restored(self) -> None:
        """Raises `UsageError` if a restore was interrupted: what there is is not the archive, and no index is made of it."""
        if (marker := self.root / RESTORING).exists():
            what = "was interrupted" if self.is_locked else "is going on, or was interrupted"
            raise UsageError(
                f"a restore to {self.root} {what}: run 'tomowire restore' again (if the backup is lost: remove "
                f"{marker}, and 'tomowire db reindex' makes an archive of what has come)"
            )

    @property
    def journal_path(self) -> Path:
        return self.root / INCOMING / "journal"

    @property
    def committed_path(self) -> Path:
        return self.root / INCOMING / "committed"

    def create_part(self) -> tuple[int, Path]:
        """Open a new part file for writing; gives its file descriptor and its path. Raises `OSError`."""
        while True:
            self._next_part += 1
            path = self.root / INCOMING / f"{self._next_part}{_PART_SUFFIX}"
            try:
                return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE), path
            except FileExistsError:  # left by a process whose recovery could not remove it
                continue

    def parts(self) -> Iterator[Path]:
        """The part files that are there: those being received, and at the start what a killed process left."""
        return (self.root / INCOMING).glob(f"*{_PART_SUFFIX}")

    def object_files(self, folder: str = OBJECTS) -> Iterator[str]:
        """The paths, relative to the data directory, of all files below `objects/`, whatever their names; never all in memory.

        `folder` names one of those in it, in the same way.
        """
        return _walk(self.root, folder, besides=_NO_OBJECTS if folder == OBJECTS else frozenset())


def is_archive(root: Path | str) -> bool:
    """Whether an archive has begun in this folder."""
    return (Path(root) / OBJECTS).is_dir()


def _require_no_backups(root: Path) -> None:
    if (root / BACKUPS).exists():
        raise UsageError(
            f"{root} is a folder of backups, and not the data directory of an archive: 'tomowire restore {shlex.quote(str(root))}"
            " --data-dir FOLDER' makes one of them"
        )


def _is_foreign(root: Path) -> bool:
    """Whether `root` is a folder that holds something, and no archive."""
    if (root / OBJECTS).is_dir() or not root.exists() or any((root / name).exists() for name in (_INDEX, LOCATION)):
        return False
    return any(name not in _NO_OBSTACLES and not name.startswith(".") for name in os.listdir(root))


def _walk(root: Path, folder: str, besides: frozenset[str] = frozenset()) -> Iterator[str]:
    with os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.name in besides:
                continue
            path = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, path)
            else:
                yield path
