"""One batch of objects made durable and indexed: all the steps, in an order that a crash at any point of them forgives.

    1. ask the index which of the objects it has          -> identical, kept first, rejected: nothing to write
    2. journal   the paths of the files to come, and of those to be superseded           (durable)
    3. files     write all, sync all, sync each folder once                              (durable)
    4. index     the rows of the batch in one transaction                                (durable: now the objects are stored)
    5. note      that they are, for a database that loses its last commits (`journal`)
    6. remove    the superseded files, and the part files

Killed before the end of 5, the next start finds the journal's files without rows and removes them; killed after it, the superseded
ones. Writing all files before syncing the first lets the file system put them into one of its own transactions.

An object that fails does not fail the others. When the transaction fails, none of the batch is stored, and its files go.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tomowire.errors import IndexUnavailable, StoreFailed
from tomowire.protocol.status import DUPLICATE_SOP_INSTANCE
from tomowire.server.checksum import new_checksum
from tomowire.server.failures import failure_of, store_failed
from tomowire.server.files import DataDirectory, ObjectName, object_file_name, series_folder
from tomowire.server.folders import SeriesFolders
from tomowire.server.incoming import DuplicatePolicy, NewObject, Outcome, Stored
from tomowire.server.index.rows import IndexedObject, IndexWriter, NewRow
from tomowire.server.journal import Intent, Journal
from tomowire.server.posix import sync_file
from tomowire.server.removal import Removing
from tomowire.server.room import require_room
from tomowire.services.file_writing import write_all

Result = Stored | StoreFailed

logger: Final = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Item:
    """An object of the batch, on its way through the steps. It is done when it has a result."""

    new: NewObject
    uid: str
    result: Result | None = None
    checksum: bytes = b""
    folder: str = ""
    file_name: str = ""
    generation: int = 0
    replaces: IndexedObject | None = None
    descriptor: int = -1

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.file_name}"


class BatchWriter:
    """Stores batches; for one thread. `policy` says what becomes of an object that the archive has with other content."""

    def __init__(self, directory: DataDirectory, index: IndexWriter, *, policy: DuplicatePolicy) -> None:
        self._index = index
        self._policy = policy
        self._root = directory.root
        self._fsync = directory.fsync
        self._folders = SeriesFolders(directory.root, fsync=directory.fsync)
        self._journal = Journal(directory.journal_path, directory.committed_path, fsync=directory.fsync)
        self.removing: Final = Removing(directory, index, self._folders)
        self.on_commit: Callable[[float], object] | None = None
        """Called after each transaction of the index, with the seconds that it took."""
        self._leftovers: list[str] = []
        """Files that could not be removed, or not yet: named in each journal until they are gone."""

    def write(self, batch: Sequence[NewObject]) -> list[Result]:
        """Store `batch`; gives what became of each object, in the same order."""
        waiting = [_Item(new, new.record.instance.sop_instance_uid) for new in batch]
        items = tuple(waiting)
        while waiting:
            # Of two objects with one UID the second waits until the first is stored, and meets it as any later duplicate does.
            turn: dict[str, _Item] = {}
            for item in waiting:
                turn.setdefault(item.uid, item)
            self._store(list(turn.values()))
            waiting = [item for item in waiting if item.result is None]
        self._folders.trim()
        return [item.result for item in items if item.result is not None]

    def close(self) -> None:
        self.removing.close()
        self._folders.close()
        self._journal.close()

    def _store(self, turn: list[_Item]) -> None:
        """All steps for objects of different UIDs; each has its result afterwards."""
        try:
            known = self._index.find([item.uid for item in turn])
            for item in turn:
                self._plan(item, known.get(item.uid))
            items = [item for item in turn if item.result is None]
            if not items:
                return
            if any(item.new.part is None for item in items):  # part files are on the disk already
                require_room(self._root)
            number = self._announce(items)
        except (OSError, IndexUnavailable) as error:
            for item in turn:
                item.result = item.result or failure_of(error, self._root)
            return
        for item in items:
            self._write(item)
        items = self._sync([item for item in items if item.result is None])
        if items:
            self._insert(items, number)
            if any(isinstance(item.result, Stored) for item in items):
                self._journal.committed()

    def _plan(self, item: _Item, known: IndexedObject | None) -> None:
        """Say where the object goes, or what becomes of it if it goes nowhere."""
        new = item.new
        item.checksum = new.checksum or _checksum(new)
        record = new.record
        try:
            if known is not None:
                item.result = self._meet_duplicate(item, known)
                if item.result is not None:
                    return
                item.replaces = known
            item.folder = series_folder(record.study.study_instance_uid, record.series.series_instance_uid)
            # A name is not used again: somebody may be about to read what it stood for.
            for item.generation in itertools.count(0 if known is None else known.name.generation + 1):
                item.file_name = object_file_name(item.uid, item.generation)
                # A file that is there all the same is one that the index does not know. It is not touched, and must not get into
                # the journal either: after a crash it would be taken for ours. (Trying to create it would tell as well, too late.)
                if not self._folders.exists(item.folder, item.file_name):
                    break
        except (OSError, ValueError) as error:
            item.result = failure_of(error, self._root)

    def _meet_duplicate(self, item: _Item, known: IndexedObject) -> Result | None:
        """What becomes of an object whose UID is stored already; None if it is to replace the one that is there."""
        # Success says that the object is kept: not of one whose file is lost. Sending it again is how an archive is mended.
        if self._folders.size(known.name.path) != known.header_size + known.data_set_size:
            logger.warning("the file of %s was missing or cut short: it is stored anew", item.uid)
            return None
        stored_syntax, syntax = known.transfer_syntax_uid, item.new.record.transfer_syntax_uid
        if known.checksum == item.checksum and stored_syntax == syntax:
            return Stored(item.uid, Outcome.IDENTICAL, known.name.path, known.name.study_instance_uid)
        logger.warning(
            "%s from %r is stored already with other content (policy: %s)",
            item.uid,
            item.new.received_from,
            self._policy.value,
        )
        match self._policy:
            case DuplicatePolicy.KEEP:
                return Stored(item.uid, Outcome.KEPT_FIRST, known.name.path, known.name.study_instance_uid)
            case DuplicatePolicy.REJECT:
                return store_failed(DUPLICATE_SOP_INSTANCE, "Duplicate SOP instance with other content")
            case DuplicatePolicy.REPLACE:
                return None

    def _announce(self, items: list[_Item]) -> int:
        """Write the journal; gives the number of the batch."""
        paths = [item.path for item in items]
        superseded = [item.replaces.name.path for item in items if item.replaces is not None]
        number = self._index.last_batch + 1
        self._journal.write(Intent(self._index.archive_id, number, (*paths, *superseded, *self._leftovers)))
        return number

    def _write(self, item: _Item) -> None:
        new = item.new
        try:
            if new.part is not None:
                self._folders.adopt(new.part, item.folder, item.file_name)
            else:
                item.descriptor = self._folders.create(item.folder, item.file_name)
                write_all(item.descriptor, (new.header, *new.data_set))
        except FileExistsError as error:  # somebody made it just now: it is not ours to remove
            item.result = failure_of(error, self._root)
        except OSError as error:
            self._undo(item, error)

    def _sync(self, items: list[_Item]) -> list[_Item]:
        """Make the files durable, and then their entries in the folders; gives the objects for which that worked."""
        for item in items:
            try:
                self._sync_file(item)
            except OSError as error:
                self._undo(item, error)
        for folder in {item.folder for item in items if item.result is None}:
            try:
                self._folders.sync(folder)
            except OSError as error:
                for item in items:
                    if item.folder == folder and item.result is None:
                        self._undo(item, error)
        return [item for item in items if item.result is None]

    def _sync_file(self, item: _Item) -> None:
        if item.descriptor >= 0:
            if self._fsync:
                sync_file(item.descriptor)
            descriptor, item.descriptor = item.descriptor, -1
            os.close(descriptor)

    def _insert(self, items: list[_Item], number: int) -> None:
        """Index the objects. All transactions of a batch have its `number`: by that recovery knows whose journal it reads."""
        now = time.time_ns() // 1000
        rows = [_row(item, now) for item in items]
        begun = time.perf_counter()
        try:
            self._index.insert(number, rows)
        except IndexUnavailable as error:
            for item in items:
                self._undo(item, error, keep_file=error.in_doubt)
        except Exception as error:  # one row that the database does not take: the others are tried alone
            if len(items) == 1:
                # The text of a database's error may have the values of the row, which are a patient's.
                logger.error("%s cannot be indexed: %s", items[0].uid, type(error).__name__)
                self._undo(items[0], error)
            else:
                for item in items:
                    self._insert([item], number)
        else:
            if self.on_commit is not None:
                self.on_commit(time.perf_counter() - begun)
            self._finish(items)

    def _finish(self, items: list[_Item]) -> None:
        for item in items:
            outcome = Outcome.STORED if item.replaces is None else Outcome.REPLACED
            item.result = Stored(item.uid, outcome, item.path, item.new.record.study.study_instance_uid)
            if item.replaces is not None:
                self._supersede(item.replaces.name)
            if item.new.part is not None:
                _unlink_part(item.new.part)
        if self._leftovers:
            self._sweep()

    def _undo(self, item: _Item, error: Exception, *, keep_file: bool = False) -> None:
        """Leave nothing of an object that failed. `keep_file`: not before it is certain that its row does not come back."""
        item.result = failure_of(error, self._root)
        if item.descriptor >= 0:
            os.close(item.descriptor)
            item.descriptor = -1
        if keep_file:
            self._leftovers.append(item.path)
        else:
            self._remove(item.path)

    def _supersede(self, name: ObjectName) -> None:
        try:
            self.removing.supersede([name])
        except (OSError, IndexUnavailable) as error:
            logger.warning("%s cannot be removed now: %s", name.path, error)
            self._leftovers.append(name.path)

    def _remove(self, path: str) -> None:
        try:
            self._folders.remove(path)
        except OSError as error:
            logger.warning("%s cannot be removed now: %s", path, error)
            self._leftovers.append(path)

    def _sweep(self) -> None:
        """Remove what could not be removed before, but for what turned out to be indexed."""
        leftovers, self._leftovers = self._leftovers, []
        for path in leftovers:
            name = ObjectName.parse(path)
            if name is None:
                continue
            try:
                known = self._index.find([name.sop_instance_uid]).get(name.sop_instance_uid)
            except IndexUnavailable:  # lost again in this moment: what has just been stored is stored all the same
                self._leftovers.append(path)
                continue
            if known is None or known.name != name:
                self._remove(path)


def _row(item: _Item, now: int) -> NewRow:
    new = item.new
    return NewRow(
        record=new.record,
        generation=item.generation,
        header_size=new.header_size,
        data_set_size=new.data_set_size,
        checksum=item.checksum,
        received_at=now,
        received_from=new.received_from,
        replaces=item.replaces,
    )


def _checksum(new: NewObject) -> bytes:
    checksum = new_checksum()
    for buffer in new.data_set:
        checksum.update(buffer)
    return checksum.digest()


def _unlink_part(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError as error:  # the object is stored all the same
        logger.warning("%s is left until the next start: %s", part, error)
