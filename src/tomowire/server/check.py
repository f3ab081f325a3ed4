"""`tomowire db check`: does the index say what the files say? Nothing is changed.

An archive that is running may be checked: what is on its way in is passed over, and what looks wrong is looked at again.
Without a running one, what a killed process left is found too; the next start removes it. Nothing is written: a directory that is
read-only, on a disk that has failed, can be checked as well.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from tomowire.errors import IndexUnavailable, InvalidUid, UsageError, WireError
from tomowire.server.audit.checking import check_audit
from tomowire.server.files import DataDirectory, ObjectName
from tomowire.server.findings import Finding, FindingKind, Progress
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.index.location import OR_NAMED
from tomowire.server.index.reader import IndexReader, Statement
from tomowire.server.index.rows import IndexedObject
from tomowire.server.journal import Commitment, Intent, read_commitment, read_journal
from tomowire.server.parallel import in_parallel
from tomowire.server.recovery import is_of_index, is_superseded, may_be_answered
from tomowire.server.stored_file import read_stored_file, stat_stored_file, what_is_wrong

logger: Final = logging.getLogger(__name__)

_THREADS: Final = 4
_EVERY: Final = 100
_GOES: Final = "removed at the next start"
_LOST: Final = "the index had it, and has lost it"
_MAYBE: Final = "it was being stored when the system stopped, and its sender may have got Success: it stays"
_STATE: Final = Statement("SELECT archive_id, last_batch FROM archive WHERE id = 1", {})


def check(
    root: Path | str,
    *,
    index_url: str | None = None,
    content: bool = True,
    threads: int = _THREADS,
    progress: Progress | None = None,
) -> Iterator[Finding]:
    """Compare the index of the archive in `root` with its files, in memory that does not grow with them.

    `index_url` is where the index is, if not in `root`. `content=False` looks at names and sizes only; otherwise every byte is
    read, in `threads` threads.
    Raises `UsageError` if there is no archive, or one of another version; `IndexUnavailable`, `OSError`.
    """
    with DataDirectory.inspect(root) as directory:
        directory.require_restored()
        if directory.why_unlocked:
            logger.warning(
                "%s cannot be locked (%s): an archive may be running there, so what looks unfinished is passed over",
                directory.root,
                directory.why_unlocked,
            )
        backend = backend_for(index_url, directory.root)
        try:
            if backend.is_empty():
                raise UsageError(f"{directory.root} has no index: run 'tomowire db reindex'{OR_NAMED}")
            with backend.open_reader() as reader:
                yield from check_index(backend)
                yield from check_rows(directory, reader, content=content, threads=threads, progress=progress)
                files = directory.object_files()
                yield from check_files(directory, reader, files, is_elsewhere=backend.dialect != "sqlite")
                yield from check_audit(reader, directory.root)
        except IndexUnavailable as error:
            if not error.is_damage:
                raise error.said(f"{backend.name}: {error}") from error
            yield Finding(FindingKind.INDEX_DAMAGED, backend.short_name, str(error))


def check_index(backend: IndexBackend) -> Iterator[Finding]:
    """What is wrong within the index itself."""
    for message in backend.damage():
        yield Finding(FindingKind.INDEX_DAMAGED, backend.short_name, message)
    for message in backend.lonely_rows():
        yield Finding(FindingKind.LONELY_ROW, backend.short_name, message)


def check_rows(
    directory: DataDirectory, reader: IndexReader, *, content: bool, threads: int, progress: Progress | None
) -> Iterator[Finding]:
    """What the index says of the files, and is not so."""
    total = reader.counts().instances if progress is not None else 0
    work = partial(_check_object, directory.root, content=content)
    for number, (row, finding) in enumerate(in_parallel(work, reader.objects(), threads=threads), start=1):
        # The object may have been replaced since its row was read; its new row is read later on.
        if finding is not None and reader.instance(row.name.sop_instance_uid) == row:
            yield finding
        if progress is not None and number % _EVERY == 0:
            progress(number, total)
    if progress is not None:
        progress(total, total)


def _check_object(root: Path, row: IndexedObject, *, content: bool) -> tuple[IndexedObject, Finding | None]:
    try:
        path = row.name.path
    except InvalidUid as error:
        return row, Finding(FindingKind.UIDS_DIFFER, "", str(error))
    try:
        problem = _compare(root / path, row, content=content)
    except (FileNotFoundError, NotADirectoryError):
        problem = FindingKind.FILE_MISSING, "the index has it, but there is no such file"
    except (OSError, WireError) as error:
        problem = FindingKind.UNREADABLE, what_is_wrong(error)
    return row, None if problem is None else Finding(problem[0], path, problem[1])


def _compare(path: Path, row: IndexedObject, *, content: bool) -> tuple[FindingKind, str] | None:
    size, expected = stat_stored_file(path).st_size, row.header_size + row.data_set_size
    if size != expected:
        return FindingKind.SIZE_DIFFERS, f"{size} bytes, and not {expected}"
    if not content:
        return None
    file = read_stored_file(path, scan=False)
    meta = file.meta
    if (file.header_size, file.checksum) != (row.header_size, row.checksum):
        return FindingKind.CONTENT_DIFFERS, "the checksum of the data set is not that of what was received"
    if meta.media_storage_sop_instance_uid != row.name.sop_instance_uid:
        return FindingKind.UIDS_DIFFER, f"the file says that it is {meta.media_storage_sop_instance_uid}"
    if meta.transfer_syntax_uid != row.transfer_syntax_uid:
        return FindingKind.UIDS_DIFFER, f"the file says that its transfer syntax is {meta.transfer_syntax_uid}"
    return None


def check_files(
    directory: DataDirectory, reader: IndexReader, paths: Iterable[str], *, is_elsewhere: bool
) -> Iterator[Finding]:
    """Files of which the index says nothing, among those at `paths`. `is_elsewhere` as an `IndexWriter` has it."""
    for path in paths:
        name = ObjectName.parse(path)
        if name is None:
            yield Finding(FindingKind.FOREIGN_FILE, path, "not a name that the archive gives to a file")
        elif not _is_indexed(reader, name):
            yield from _unknown_file(directory, reader, name, is_elsewhere=is_elsewhere)
    if directory.is_locked:
        for part in directory.parts():
            path = os.path.relpath(part, directory.root)
            yield Finding(
                FindingKind.UNFINISHED, path, f"an object that was being received when the archive stopped; {_GOES}"
            )


def _unknown_file(
    directory: DataDirectory, reader: IndexReader, name: ObjectName, *, is_elsewhere: bool
) -> Iterator[Finding]:
    """A file that the index did not have a moment ago. It may be of the batch at work: those are named in the journal.

    If it is not, its batch is over, and then the index has it or never will. The order of the three questions matters.
    """
    intent = read_journal(directory.journal_path)
    is_doomed = reader.is_to_be_removed(name)
    if _is_indexed(reader, name) or not (directory.root / name.path).exists():
        return
    if is_doomed:
        if directory.is_locked:
            yield Finding(FindingKind.UNFINISHED, name.path, f"of an object that was deleted; {_GOES}")
        return
    if intent is None or name.path not in intent.paths:
        yield Finding(FindingKind.NOT_INDEXED, name.path, "the index does not have it")
    elif directory.is_locked:
        # What the next start will do with it: see `recovery`.
        ((archive_id, last_batch),) = reader.rows(_STATE)
        if not is_of_index(intent, archive_id, last_batch):
            yield Finding(FindingKind.NOT_INDEXED, name.path, "the index does not have it, or has lost it")
        elif may_be_answered(directory, intent, is_elsewhere=is_elsewhere) and not is_superseded(
            name, reader.instance(name.sop_instance_uid)
        ):
            yield Finding(FindingKind.NOT_INDEXED, name.path, _LOST if _was_committed(directory, intent) else _MAYBE)
        else:
            yield Finding(
                FindingKind.UNFINISHED, name.path, f"an object that was being stored when the archive stopped; {_GOES}"
            )


def _was_committed(directory: DataDirectory, intent: Intent) -> bool:
    return read_commitment(directory.committed_path, intent) is Commitment.COMMITTED


def _is_indexed(reader: IndexReader, name: ObjectName) -> bool:
    known = reader.instance(name.sop_instance_uid)
    return known is not None and known.name == name
