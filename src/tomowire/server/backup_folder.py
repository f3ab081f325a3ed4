"""A folder with backups of one archive: the objects once, and for each point in time what the archive held then.

    <folder>/
        tomowire-backup.json                   which archive it is of
        lock                                   held (flock) while a backup is made or looked at
        incoming/                              files that are not complete yet
        objects/<ab>/<study>/<series>/<instance>[-<n>].<checksum>.dcm
        points/<time>/point.json               when, how much, and what was wrong
        points/<time>/manifest                 a line for each object: checksum, size in bytes, path in the data directory
        points/<time>/index.sqlite             the index, whatever database it was in: see `index.dumping`
        damaged/                               what `--verify` found to be wrong

A file among the objects is that of the archive, to the byte. The checksum in its name is that of its data set, which the index has
too (XXH3, 128 bits): a name says exactly which object it is, also when one with the same UID was deleted and another one stored. It
is there whole or not at all, so that a run which was interrupted is gone on with by the next, and objects that did not change are
copied once, however many points hold them.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tomowire.errors import InUse, UsageError
from tomowire.server.files import BACKUPS, DIRECTORY_MODE, FILE_MODE, OBJECTS, ObjectName
from tomowire.server.index.rows import IndexedObject
from tomowire.server.posix import lock, require_posix, sync_directory, sync_file, try_lock_shared
from tomowire.wire.value import value

FORMAT: Final = 1
DAMAGED: Final = "damaged"
_LOCK: Final = "lock"
_INCOMING: Final = "incoming"
_POINTS: Final = "points"
_POINT: Final = "point.json"
_MANIFEST: Final = "manifest"
_INDEX: Final = "index.sqlite"
_UNFINISHED: Final = ".unfinished"
_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z")
_BLOB: Final = re.compile(r"(objects/.+)\.([0-9a-f]{32})\.dcm")
_PART: Final = ".part"
_NO_OBSTACLES: Final = frozenset({_LOCK, BACKUPS + _PART, "lost+found"})
"""What a run leaves that ended at its first step, and what a new disk has."""


@value()
class Problem:
    """An object that is not in the backup as the index has it."""

    path: str
    """In the data directory."""

    explanation: str


@value()
class Point:
    """What the archive held at one moment, complete."""

    name: str
    folder: Path
    made_at: str
    """ISO 8601, UTC: the moment."""

    objects: int
    bytes: int
    copied: int
    """Objects that no earlier point had."""

    problems: tuple[Problem, ...]
    """The first of them."""

    problem_count: int
    checksums: Mapping[str, str]
    """Of the files of the point, by name."""

    archive_id: str
    data_dir: str
    """With the host's name before it. It and the id tell whose point it is; both are empty in one of a former version."""

    @property
    def index(self) -> Path:
        return self.folder / _INDEX

    def may_be_of_the_archive_of(self, other: Point) -> bool:
        """The id of an archive changes when its index is made again, and its place when it is moved: hardly both between two
        points."""
        return not (self.archive_id and other.archive_id) or (
            self.archive_id == other.archive_id or self.data_dir == other.data_dir
        )

    @property
    def manifest(self) -> Path:
        return self.folder / _MANIFEST


class BackupFolder:
    """`with BackupFolder.open(path) as folder`: nobody else changes it meanwhile."""

    def __init__(self, root: Path, held: int) -> None:
        self.root = root
        self._held = held
        self._next = 0

    @classmethod
    def open(cls, root: Path | str, *, create: bool, shared: bool = False) -> Self:
        """Open a folder, made and marked as one of backups if `create`. `shared`: to read only, with others who do.

        Raises `UsageError` if it holds other things or nothing, `InUse` if another process uses it; `OSError`.
        """
        require_posix()
        root = Path(root).absolute()
        if not (root / BACKUPS).exists():
            _require_empty(root, create=create)
        _require_known(root)
        for folder in (root, root / OBJECTS, root / _POINTS, root / _INCOMING) if create else ():
            folder.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        opened = cls(root, _locked(root / _LOCK, shared=shared))
        try:
            if create and not (root / BACKUPS).exists():
                opened.write_whole(root / BACKUPS, json.dumps({"format": FORMAT}).encode("ascii"))
        except BaseException:
            opened.close()
            raise
        return opened

    def close(self) -> None:
        """Let others have it."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def require_there(self) -> None:
        """To be asked when an object is not there as it should be: that it is not all of them. Raises `OSError`."""
        (self.root / BACKUPS).read_bytes()

    def points(self) -> list[Point]:
        """All complete points, the oldest first. Raises `UsageError` if one of them cannot be read."""
        return [self.point(name) for name in self.names()]

    def names(self) -> list[str]:
        """Those of all complete points, the oldest first. What else lies there, such as what a network disk keeps, is no point."""
        found = []
        with suppress(FileNotFoundError), os.scandir(self.root / _POINTS) as entries:
            found = [entry.name for entry in entries if _NAME.fullmatch(entry.name)]
        return sorted(found)

    def require_no_renamed(self) -> None:
        """Raises `UsageError` if there is a point with another name, or in another folder: what it holds is to be kept."""
        points = self.root / _POINTS
        # Not deeper: there a network disk keeps former versions of all points.
        for pattern in (f"{above}/{name}" for above in ("*", "*/*") for name in (_POINT, _MANIFEST, _INDEX)):
            for path in points.glob(pattern):
                name = str(path.parent.relative_to(points))
                if _NAME.fullmatch(name) or name.endswith(_UNFINISHED) or not path.is_file():
                    continue
                raise UsageError(
                    f"{path.parent} is in the way, which has the files of a point and not the name: rename it back, or move it out "
                    f"of {points} if what only it has may be given up"
                )

    def point(self, name: str | None) -> Point:
        """The point of this name; the newest if none is named. Raises `UsageError` if there is none, or it cannot be read."""
        names = self.names()
        if not names:
            raise UsageError(f"{self.root} holds no complete backup")
        if name is None:
            name = names[-1]
        elif name not in names:
            raise UsageError(f"{self.root} has no point {name!r}; the newest is {names[-1]}")
        return _read_point(self.root / _POINTS / name)

    def begin_point(self) -> Path:
        """The folder of a new point, not complete yet; those that were never completed are removed."""
        for leftover in (self.root / _POINTS).glob(f"*{_UNFINISHED}"):
            remove_tree(leftover)
        for part in (self.root / _INCOMING).iterdir():
            if not part.is_dir():
                part.unlink()
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        folder = self.root / _POINTS / f"{name}{_UNFINISHED}"
        folder.mkdir(mode=DIRECTORY_MODE)
        return folder

    def finish_point(self, folder: Path, facts: dict[str, Any]) -> Point:
        """Make it complete, in one step. All it names is durable by now."""
        self.write_whole(folder / _POINT, json.dumps(facts, indent=1).encode("utf-8"))
        sync_directory(folder)
        final = folder.with_name(folder.name.removesuffix(_UNFINISHED))
        folder.rename(final)
        sync_directory(final.parent)
        return _read_point(final)

    def remove_point(self, point: Point) -> None:
        """Forget a point; the objects that only it had stay."""
        leftover = point.folder.with_name(point.name + _UNFINISHED)
        point.folder.rename(leftover)
        remove_tree(leftover)

    def new_part(self) -> Path:
        """The path of a file that is to be made."""
        self._next += 1
        return self.root / _INCOMING / f"{os.getpid()}-{self._next}"

    def blobs(self) -> Iterator[tuple[Path, ObjectName, bytes]]:
        """All objects: file, name in the archive and checksum. What has another kind of name is passed over."""
        for above, _, names in os.walk(self.root / OBJECTS):
            for name in names:
                path = Path(above, name)
                match = _BLOB.fullmatch(os.path.relpath(path, self.root))
                parsed = ObjectName.parse(f"{match[1]}.dcm") if match is not None else None
                if match is not None and parsed is not None:
                    yield path, parsed, bytes.fromhex(match[2])

    def write_whole(self, path: Path, content: bytes) -> None:
        """Make a small file, or replace it, in one step."""
        part = path.with_name(path.name + _PART)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE), "wb") as file:
            file.write(content)
            file.flush()
            sync_file(file.fileno())
        os.replace(part, path)
        sync_directory(path.parent)


def blob_path(name: ObjectName, checksum: bytes) -> str:
    """Where an object is in a folder of backups, relative to it. Raises `InvalidUid`."""
    return f"{name.path.removesuffix('.dcm')}.{checksum.hex()}.dcm"


def manifest_line(row: IndexedObject) -> str:
    """What the manifest says of an object. Raises `InvalidUid`."""
    return f"{row.checksum.hex()} {row.header_size + row.data_set_size} {row.name.path}\n"


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours and what is in it."""
    for above, folders, names in os.walk(folder, topdown=False):
        for name in names:
            os.unlink(os.path.join(above, name))
        for name in folders:
            os.rmdir(os.path.join(above, name))
    os.rmdir(folder)


def _locked(path: Path, *, shared: bool) -> int:
    """The descriptor that keeps the folder locked; -1 for one on a disk that is read-only, which nobody changes."""
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        if shared and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return -1
        raise
    if not (try_lock_shared(held) if shared else lock(held)):
        os.close(held)
        raise InUse(f"the backup {path.parent} is in use by another process: a backup, or somebody who verifies it")
    return held


def points_of(root: Path | str, report: Callable[[Problem], None] | None = None) -> list[Point]:
    """All complete points in a folder, the oldest first, also while it is in use. Raises `UsageError` if it holds no backup.

    `report` gets those that cannot be read; without it that raises `UsageError` too.
    """
    root = Path(root).absolute()
    if not (root / BACKUPS).exists():
        raise UsageError(f"{root} holds no backup")
    _require_known(root)
    folder, found = BackupFolder(root, -1), []
    for name in folder.names():
        try:
            found.append(folder.point(name))
        except UsageError as error:
            if report is None:
                raise
            report(Problem(name, str(error)))
    return found


def _require_empty(root: Path, *, create: bool) -> None:
    if not create:
        raise UsageError(f"{root} holds no backup")
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is not a folder")
    if root.exists() and (others := set(os.listdir(root)) - _NO_OBSTACLES - {OBJECTS, _POINTS, _INCOMING}):
        raise UsageError(f"{root} is not empty ({min(others)!r}), and no folder of backups: name another one")


def _require_known(root: Path) -> None:
    try:
        about = json.loads((root / BACKUPS).read_bytes())
        known = about["format"] == FORMAT
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UsageError(f"{root / BACKUPS} is not of this version of tomowire")


def _read_point(folder: Path) -> Point:
    """Raises `UsageError`."""
    try:
        facts = json.loads((folder / _POINT).read_bytes())
        problems = tuple(Problem(each["path"], each["explanation"]) for each in facts["problems"])
        return Point(
            folder.name,
            folder,
            facts["made_at"],
            facts["objects"],
            facts["bytes"],
            facts["copied"],
            problems,
            facts["problem_count"],
            dict(facts["checksums"]),
            str(facts.get("archive_id", "")),
            str(facts.get("data_dir", "")),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UsageError(
            f"{folder / _POINT} cannot be read ({why}): name another point, or rename {folder} (nothing is given up "
            f"while it is in {folder.parent})"
        ) from error
