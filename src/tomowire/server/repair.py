"""`tomowire db check --repair`: what the check finds is mended as far as it can be, and nothing is destroyed.

    index     rows without a row above or below them: deleted            (files that had one are found, and indexed, below)
    rows      the file is not there: the row goes, the object is lost
              the file is damaged, or another one: put aside, the row goes, the object is lost until somebody sends it again
    files     not indexed, whole, and of an object that the index has not: indexed
              anything else: put aside

What is put aside keeps its path, in `lost+found/` of the data directory: a person may want to look at it. An object that is lost
can be stored again, by its sender or from a backup, which it could not be while the index said that it was there.

A damaged database is not mended here (`db reindex`), and the audit trail neither: that it was changed is what it is to show.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final

from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.arrival import files_by_arrival
from tomowire.server.audit.checking import check_audit
from tomowire.server.belonging import Belonging, belonging, refuse
from tomowire.server.check import check_files, check_index, check_rows
from tomowire.server.files import DIRECTORY_MODE, DataDirectory, ObjectName
from tomowire.server.findings import Finding, FindingKind, Progress
from tomowire.server.folders import SeriesFolders
from tomowire.server.former import FormerIndex
from tomowire.server.index.backend import backend_for
from tomowire.server.index.deleting import Deleted, Doomed
from tomowire.server.index.location import OR_NAMED
from tomowire.server.index.reader import IndexReader
from tomowire.server.index.rows import IndexWriter
from tomowire.server.index.versions import OnUpgrade
from tomowire.server.posix import sync_directory
from tomowire.server.recovery import recover
from tomowire.server.reindex import Found, examine
from tomowire.server.removal import FilesHeld, finish_removals
from tomowire.server.stored_file import stat_stored_file, what_is_wrong
from tomowire.services.models import Level
from tomowire.wire.value import value

_THREADS: Final = 4
_PLACES: Final = ("lost+found", "lost-and-found")
"""The first may be there already and be the system's, where the data directory is a disk of its own."""

_REINDEX: Final = "not mended: run 'tomowire db reindex', and this again"


@value()
class Mended:
    """Something that was wrong, and what became of it."""

    finding: Finding
    what: str
    is_mended: bool = True
    is_lost: bool = False
    """The index has given up an object whose file is gone or damaged."""
    gone: tuple[Deleted, ...] = ()
    """What the index does not have any more."""
    came: Found | None = None
    """What it has now."""


def repair(
    root: Path | str,
    *,
    index_url: str | None = None,
    content: bool = True,
    threads: int = _THREADS,
    progress: Progress | None = None,
    on_upgrade: OnUpgrade | None = None,
) -> Generator[Mended, None, None]:
    """Mend the archive in `root`, which nobody uses; gives what was wrong, each when it is mended. May be killed and begun again.

    `content=False` looks at names and sizes only. Memory grows as that of `reindex`. `on_upgrade` is told if the index gets another
    schema.
    Raises `UsageError` if there is no archive, a process uses it, or the files are another's; `IndexUnavailable`, `OSError`.
    """
    with DataDirectory.inspect(root) as directory, ExitStack() as stack:
        directory.require_lock()
        directory.require_restored()
        backend = backend_for(index_url, directory.root, on_upgrade=on_upgrade)
        backend.settle(directory)
        if backend.is_empty():
            raise UsageError(f"{directory.root} has no index: run 'tomowire db reindex'{OR_NAMED}")
        try:
            damage = list(check_index(backend))
            writer = stack.enter_context(closing(backend.open_writer()))
        except IndexUnavailable as error:
            if not error.is_damage:
                raise
            finding = Finding(FindingKind.INDEX_DAMAGED, backend.short_name, str(error))
            yield Mended(finding, _REINDEX, is_mended=False)
            return
        if any(finding.kind is FindingKind.INDEX_DAMAGED for finding in damage):
            yield from (Mended(finding, _REINDEX, is_mended=False) for finding in damage)
            return
        found = belonging(directory, writer.archive_id, backend.open_reader)
        if found is not Belonging.ABSENT:  # it is for the person who says this to know that they are lost
            refuse(directory, found)
        _settle(directory, writer, has_lost_rows=bool(damage))
        if damage:
            writer.delete_lonely()
            yield from (Mended(finding, "the row was deleted") for finding in damage)
        reader = stack.enter_context(backend.open_reader())
        mender = _Mender(directory, writer, reader)
        stack.callback(mender.close)
        for finding in check_rows(directory, reader, content=content, threads=threads, progress=progress):
            yield mender.mend_row(finding)
        files = files_by_arrival(directory, FormerIndex(directory, reader))
        for finding in check_files(directory, reader, files, is_elsewhere=writer.is_elsewhere):
            yield mender.mend_file(finding)
        with suppress(FilesHeld):
            finish_removals(directory, writer)
        yield from (
            Mended(finding, "not mended: the trail shows what was done to it", is_mended=False)
            for finding in check_audit(reader, directory.root)
        )


def _settle(directory: DataDirectory, writer: IndexWriter, *, has_lost_rows: bool) -> None:
    """Finish what a killed process has begun. Raises `OSError`, `IndexUnavailable`, `FilesHeld`.

    The journal says which files go if the index does not know them. An index that has lost rows is not asked, and one that is
    about to give up rows is not asked again by the next start: their files may come back.
    """
    if has_lost_rows:
        directory.journal_path.unlink(missing_ok=True)
    recover(directory, writer)
    directory.journal_path.unlink(missing_ok=True)
    sync_directory(directory.journal_path.parent)
    finish_removals(directory, writer)


class _Mender:
    """Mends one finding after the other."""

    def __init__(self, directory: DataDirectory, writer: IndexWriter, reader: IndexReader) -> None:
        self._root = directory.root
        self._writer = writer
        self._reader = reader
        self._folders = SeriesFolders(directory.root, fsync=directory.fsync)
        self._gone: tuple[Deleted, ...] = ()
        self._came: Found | None = None

    def close(self) -> None:
        self._folders.close()

    def mend_row(self, finding: Finding) -> Mended:
        """The index has an object whose file is not what it ought to be."""
        name = ObjectName.parse(finding.path)
        if name is None:
            return Mended(finding, "not mended: its UIDs make no path; run 'tomowire db reindex'", is_mended=False)
        return self._tried(finding, lambda: self._give_up(name, finding), is_lost=True)

    def mend_file(self, finding: Finding) -> Mended:
        """There is a file of which the index knows nothing."""
        return self._tried(finding, lambda: self._take_in(finding))

    def _tried(self, finding: Finding, mend: Callable[[], str], *, is_lost: bool = False) -> Mended:
        self._gone, self._came = (), None
        try:
            what = mend()
            return Mended(finding, what, is_lost=is_lost, gone=self._gone, came=self._came)
        except OSError as error:
            return Mended(finding, f"not mended: {what_is_wrong(error)}", is_mended=False)

    def _give_up(self, name: ObjectName, finding: Finding) -> str:
        """Raises `OSError`, `IndexUnavailable`."""
        if finding.kind is not FindingKind.FILE_MISSING:
            _require_readable(self._root / finding.path)
        aside = None if finding.kind is FindingKind.FILE_MISSING else self._put_aside(finding.path)
        self._gone = tuple(self._writer.delete(Doomed(Level.IMAGE, name.sop_instance_uid, lost=True)))
        lost = f"{name.sop_instance_uid} is lost: not in the index any more"
        return lost if aside is None else f"{lost}; the file is {aside}"

    def _take_in(self, finding: Finding) -> str:
        """Raises `OSError`, `IndexUnavailable`."""
        if finding.kind is FindingKind.UNFINISHED:
            (self._root / finding.path).unlink(missing_ok=True)
            return "removed"
        if finding.kind is FindingKind.NOT_INDEXED:
            _require_readable(self._root / finding.path)
            found = examine(self._root, finding.path)
            why = found.explanation if isinstance(found, Finding) else self._index(found)
            if not why:
                return "indexed"
            return f"{why}; the file is {self._put_aside(finding.path)}"
        return f"the file is {self._put_aside(finding.path)}"

    def _index(self, found: Found) -> str:
        """Why the object of a file is not indexed; nothing if it is now."""
        uid = found.name.sop_instance_uid
        if uid in self._writer.find([uid]):
            return "the index has this object with another file"
        try:
            self._writer.insert(self._writer.last_batch, [found.row])
        except IndexUnavailable:
            raise
        except Exception as error:  # a row that the database does not take
            return f"cannot be indexed: {error}"
        self._came = found
        return ""

    def _put_aside(self, path: str) -> str:
        """Move a file out of the store; gives its new path. Raises `OSError`."""
        place = self._place()
        target = self._root / place / path
        target.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        number = 0
        while os.path.lexists(target):
            number += 1
            target = target.with_name(f"{os.path.basename(path)}.{number}")
        os.rename(self._root / path, target)
        folder = os.path.dirname(path)
        sync_directory(target.parent)
        self._folders.prune(folder)
        self._folders.sync_removed(folder)
        return os.path.relpath(target, self._root)

    def _place(self) -> str:
        for place in _PLACES:
            folder = self._root / place
            folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return place
        raise PermissionError(13, "cannot write to it", str(self._root / _PLACES[-1]))


def _require_readable(path: Path) -> None:
    """Raises `PermissionError`: a file that is not shown to us is not damaged by that. What the disk does not give back is."""
    try:
        stat_stored_file(path)
        path.open("rb").close()
    except PermissionError:
        raise
    except OSError:
        pass
