"""Deleting, in the thread that stores: rows first, in one transaction; then the files that they named, a few at a time.

    1. index     the rows go, and the names of their files come into the table `removals`     (durable: now it is deleted)
    2. files     removed in slices, between the batches of objects that are being stored; each folder synced
    3. index     the names of a slice go from `removals`                                      (durable)

Killed before the end of 1 everything is there; after it everything is gone, and the next start goes on with 2. A slice may be
removed twice, which does no harm: a file that the index knows (stored anew under a name that was free again) is never touched.

A table, and not the journal: the journal is one record that each batch overwrites, synced every time. 50,000 names would have to be
in all of them until the last file is gone, while a row of a table is written once. Nor is the folder of a study renamed and then
emptied at leisure: a backup that is at work, and whoever is about to send an object, know the files by their names.

What this cannot give is a deletion that outlives the index: who loses the index in the seconds until the files are gone, and
rebuilds it from them, finds what was not removed yet.

One thread, so that a name which becomes free cannot be given to a new object while it is looked at here. Whoever has opened a file
goes on reading it (POSIX); whoever has not learns that the object has been removed, which is true.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tomowire.errors import InUse, InvalidUid
from tomowire.server.files import DataDirectory, ObjectName
from tomowire.server.folders import SeriesFolders
from tomowire.server.hold import Hold
from tomowire.server.index.deleting import Deleted, Doomed, Removal
from tomowire.server.index.rows import IndexWriter

logger: Final = logging.getLogger(__name__)

_SLICE: Final = 256
_QUICKLY: Final = 0.02
"""Seconds in which nothing is stored, because files are being removed: after that the slice is over."""


class Swept(Enum):
    """What a slice has left to be done."""

    NOTHING = "nothing"
    MORE = "more"
    HELD = "held"
    """Somebody holds the files, or some cannot be removed now."""


@dataclass(slots=True)
class Round:
    """One going through what is to be removed: whoever sweeps has a round of his own, however many sweep at the same time."""

    after: int = 0
    """Files with keys up to this could not be removed when their turn was; 0 when none has failed."""


@contextmanager
def removing(directory: DataDirectory, index: IndexWriter) -> Iterator[Removing]:
    """For who has the directory and its index to himself, and stores nothing."""
    folders = SeriesFolders(directory.root, fsync=directory.fsync)
    remover = Removing(directory, index, folders)
    try:
        yield remover
    finally:
        remover.close()
        folders.close()


class FilesHeld(InUse):
    """Files of objects that were deleted cannot be removed now, and without that what was asked for cannot be done."""


def finish_removals(directory: DataDirectory, index: IndexWriter) -> None:
    """Remove all that is to be removed: for who could not tell these files from others afterwards.

    Raises `FilesHeld`, `IndexUnavailable`, `OSError`.
    """
    with removing(directory, index) as remover:
        swept = remover.sweep_all()
    if swept is Swept.HELD:
        raise FilesHeld(
            "files of objects that were deleted are held by a backup, or cannot be removed: wait for it to end"
        )


class Removing:
    """For the one thread that stores; shares its `folders`, which knows the open ones."""

    def __init__(self, directory: DataDirectory, index: IndexWriter, folders: SeriesFolders) -> None:
        self._index = index
        self._folders = folders
        self._hold = Hold(directory.hold_path)
        self.on_deferred: Callable[[], object] = lambda: None
        """Called when there is something to be removed that nobody has asked to delete."""

    def delete(self, doomed: Doomed) -> list[Deleted]:
        """Take objects out of the archive; what is left of their files goes with `sweep`. See `IndexWriter.delete`."""
        return self._index.delete(doomed)

    def supersede(self, names: Sequence[ObjectName]) -> None:
        """Remove the files of objects that were replaced a moment ago; later, if somebody holds them. Raises `OSError`."""
        with self._hold.let_go() as free:
            if free:
                for name in names:
                    self._folders.remove(name.path)
                return
        self._index.defer(names)
        self.on_deferred()

    def sweep(self, this_round: Round) -> Swept:
        """Remove a slice of what is to be removed. Raises `IndexUnavailable`, `OSError`."""
        with self._hold.let_go() as free:
            if not free:
                return Swept.HELD
            waiting = self._index.removals(this_round.after, _SLICE)
            if not waiting:
                has_failed, this_round.after = this_round.after > 0, 0
                return Swept.HELD if has_failed else Swept.NOTHING
            gone = self._remove(waiting, this_round)
        self._index.forget(gone)
        return Swept.MORE

    def sweep_all(self) -> Swept:
        """Remove everything that is to be removed and can be. Raises `IndexUnavailable`, `OSError`."""
        this_round = Round()
        while (swept := self.sweep(this_round)) is Swept.MORE:
            pass
        return swept

    def close(self) -> None:
        self._hold.close()

    def _remove(self, waiting: Sequence[Removal], this_round: Round) -> list[Removal]:
        """Gives those that are durably gone; stops after a while."""
        known = self._index.find([removal.name.sop_instance_uid for removal in waiting])
        deadline = time.monotonic() + _QUICKLY
        gone: list[Removal] = []
        folders: set[str] = set()
        for removal in waiting:
            name = removal.name
            indexed = known.get(name.sop_instance_uid)
            try:
                if indexed is None or indexed.name != name:
                    self._folders.remove(name.path)
                    folders.add(name.folder)
            except InvalidUid:  # no file ever had such a name
                pass
            except OSError as error:
                logger.warning("a file of an object that was deleted cannot be removed now: %s", error)
                this_round.after = removal.key
                continue
            gone.append(removal)
            if time.monotonic() > deadline:
                break
        for folder in folders:
            self._folders.sync_removed(folder)
        return gone
