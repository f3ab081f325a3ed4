"""What the index that is to be replaced says of the objects, and no file can: the checksum of what was received, and when."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Self

from tomowire.errors import IndexUnavailable, InvalidUid, UsageError
from tomowire.server.files import DataDirectory, ObjectName
from tomowire.server.findings import Finding, FindingKind
from tomowire.server.index.backend import IndexBackend
from tomowire.server.index.reader import IndexReader
from tomowire.server.index.rows import IndexedObject, NewRow

logger: Final = logging.getLogger(__name__)


class FormerIndex:
    """The old index, as far as it can be read; without it a changed file cannot be told from one that is as it was received."""

    def __init__(self, directory: DataDirectory, reader: IndexReader | None) -> None:
        self._root = directory.root
        self._reader = reader

    @classmethod
    @contextmanager
    def open(cls, directory: DataDirectory, backend: IndexBackend | None) -> Iterator[Self]:
        """The old index of `directory`; one that knows nothing if there is none, or if it cannot be read."""
        reader = None
        try:
            if backend is not None and not backend.is_empty():
                reader = _open(backend)
        except (IndexUnavailable, UsageError) as error:
            _note(error)
        try:
            yield cls(directory, reader)
        finally:
            if reader is not None:
                reader.close()

    def numbers(self, names: Sequence[ObjectName]) -> dict[ObjectName, int]:
        """Those of the objects that the old index has with this file, numbered in the order in which they were stored."""
        if self._reader is None:
            return {}
        try:
            found = self._reader.find_objects([name.sop_instance_uid for name in names])
        except IndexUnavailable as error:
            self._give_up(error)
            return {}
        return {known.name: known.instance_id for known in found.values()}

    def compare(self, name: ObjectName, row: NewRow) -> tuple[NewRow, Finding | None]:
        """The row to be indexed for a file, and what is wrong with the file if it is not what was received.

        It was received when the old index says so: the time of the file may be that of a restore. The row of a file that is not
        what was received keeps what the old index says was, so that `db check` goes on finding it.
        """
        known = self._known(name)
        if known is None:
            return row, None
        row = replace(row, received_at=known.received_at)
        syntax, found = known.transfer_syntax_uid, row.record.transfer_syntax_uid
        if known.checksum != row.checksum:
            kind, problem = FindingKind.CONTENT_DIFFERS, "the checksum of the data set is not that of what was received"
        elif syntax != found:
            kind, problem = FindingKind.UIDS_DIFFER, f"the file says that its transfer syntax is {found}"
        else:
            return row, None
        kept = replace(row, checksum=known.checksum, record=replace(row.record, transfer_syntax_uid=syntax))
        return kept, Finding(kind, name.path, f"{problem}; indexed all the same")

    def missing(self) -> Iterator[Finding]:
        """The objects of the old index whose files are gone. The new index does not have them: this is the last word of them."""
        try:
            for known in self._reader.objects() if self._reader is not None else ():
                try:
                    path = known.name.path
                except InvalidUid:  # no file ever had such a name
                    continue
                if not (self._root / path).exists():
                    yield Finding(FindingKind.FILE_MISSING, path, "the old index had it, and the new one has not")
        except IndexUnavailable as error:
            self._give_up(error)

    def _known(self, name: ObjectName) -> IndexedObject | None:
        """The object that has its file there, if the old index knows it."""
        if self._reader is None:
            return None
        try:
            known = self._reader.instance(name.sop_instance_uid)
        except IndexUnavailable as error:
            self._give_up(error)
            return None
        return known if known is not None and known.name == name else None

    def _give_up(self, error: IndexUnavailable) -> None:
        _note(error)
        self._reader = None  # whoever opened it closes it


def _open(backend: IndexBackend) -> IndexReader:
    """Raises `IndexUnavailable` for a damaged index too: a wrong checksum would accuse a file that is as it was."""
    damage = next(backend.damage(), None)
    if damage is not None:
        raise IndexUnavailable(damage)
    return backend.open_reader()


def _note(error: Exception) -> None:
    logger.info("the old index cannot be read (%s): what has changed on the disk since cannot be told", error)
