"""The writer of an index in SQLite: one connection, one transaction for each batch."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from tomowire.errors import IndexUnavailable
from tomowire.server.files import FILE_MODE, ObjectName
from tomowire.server.index import deleting, statements
from tomowire.server.index.attributes import InstanceRecord
from tomowire.server.index.connect import BUSY_TIMEOUT, connect_writer
from tomowire.server.index.deleting import Deleted, Doomed, Removal
from tomowire.server.index.rows import IndexedObject, NewRow
from tomowire.server.index.sqlite_errors import indexed_object, sqlite_errors
from tomowire.server.index.versions import CURRENT, OnUpgrade, create_schema, require_current, upgrade
from tomowire.server.posix import sync_directory

logger: Final = logging.getLogger(__name__)

_KNOWN_SERIES: Final = 10_000
_TOLD_STUDIES: Final = 10_000


class SqliteWriter:
    """The `IndexWriter` of an SQLite index. Raises `IndexUnavailable` for whatever the database says it cannot do."""

    is_elsewhere: Final = False
    hangup: Final = None

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.on_lost: Callable[[], None] = lambda: None
        self._connection = connection
        row = connection.execute("SELECT archive_id, last_batch FROM archive WHERE id = 1").fetchone()
        self.archive_id: str = row[0]
        self.last_batch: int = row[1]
        # Nearly all objects belong to a series that was there a moment ago. With the patient in the key, an object that names
        # another patient than its study has is noticed once for each series, and told once for each study.
        self._known_series: dict[tuple[str, str, str], int] = {}
        self._told_studies: dict[str, None] = {}

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        fsync: bool = True,
        busy_timeout: float = BUSY_TIMEOUT,
        on_upgrade: OnUpgrade | None = None,
    ) -> SqliteWriter:
        """Open the index at `path`, made if there is none and upgraded if it is old, which is told to `on_upgrade`.

        Raises `UsageError` if it is no index or one of a newer program, `IndexUnavailable`, `OSError`.
        """
        _create(path, fsync=fsync)
        _require_writable(path)
        with sqlite_errors():
            connection = connect_writer(path, fsync=fsync, busy_timeout=busy_timeout)
            try:
                version = require_current(connection)
                if version is None:
                    create_schema(connection)
                elif version != CURRENT:
                    logger.info("the index has schema %s, and is upgraded to %s", version, CURRENT)
                    upgrade(path, on_upgrade=on_upgrade)
                return cls(connection)
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        self._connection.close()

    def require_writable(self) -> None:
        with sqlite_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("ROLLBACK")

    def find(self, sop_instance_uids: Sequence[str]) -> dict[str, IndexedObject]:
        with sqlite_errors():
            rows = self._connection.execute(_find(len(sop_instance_uids)), sop_instance_uids).fetchall()
        return {row.name.sop_instance_uid: row for row in map(indexed_object, rows)}

    def insert(self, batch: int, rows: Sequence[NewRow]) -> None:
        with self._transaction():
            for row in rows:
                if row.replaces is not None:
                    self._delete(row.replaces.instance_id)
            values = [statements.instance_row(self._series_key(row.record), row) for row in rows]
            self._connection.executemany(statements.INSERT_INSTANCE, values)
            self._connection.execute("UPDATE archive SET last_batch = ? WHERE id = 1", (batch,))
        self.last_batch = batch

    def delete(self, doomed: Doomed) -> list[Deleted]:
        self._known_series.clear()
        with self._transaction():
            return deleting.delete(self._execute, doomed)

    def delete_lonely(self) -> None:
        self._known_series.clear()
        with self._transaction():
            deleting.delete_lonely(self._execute)

    def removals(self, after: int, limit: int) -> list[Removal]:
        with sqlite_errors():
            return deleting.removals(self._execute, after, limit)

    def defer(self, names: Sequence[ObjectName]) -> None:
        with self._transaction():
            deleting.defer(self._execute, names)

    def forget(self, removals: Sequence[Removal]) -> None:
        with self._transaction():
            deleting.forget(self._execute, [removal.key for removal in removals])

    def fold(self) -> None:
        """Put the write-ahead log into the database file, which is then all there is."""
        with sqlite_errors():
            self._connection.execute("PRAGMA journal_mode = DELETE")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of what the block does is durable afterwards, or none of it."""
        with sqlite_errors():
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._known_series.clear()
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _execute(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, parameters).fetchall()

    def _series_key(self, record: InstanceRecord) -> int:
        """The series of an object, with what is above it; made if it is new."""
        identity = statements.patient_identity(record.patient)
        known = (record.series.series_instance_uid, record.study.study_instance_uid, identity)
        key = self._known_series.get(known)
        if key is None:
            study_key = self._study_key(record, identity)
            key = self._key(
                (statements.FIND_SERIES, (record.series.series_instance_uid, study_key)),
                (statements.INSERT_SERIES, (study_key, *statements.series_values(record.series))),
            )
            if len(self._known_series) >= _KNOWN_SERIES:
                self._known_series.pop(next(iter(self._known_series)))
            self._known_series[known] = key
        return key

    def _study_key(self, record: InstanceRecord, identity: str) -> int:
        uid = record.study.study_instance_uid
        row = self._connection.execute(statements.FIND_STUDY, (uid,)).fetchone()
        if row is not None:
            if row[1] != identity:
                self._tell_of_another_patient(uid)
            return int(row[0])
        patient_key = self._key(
            (statements.FIND_PATIENT, (identity,)),
            (statements.INSERT_PATIENT, (identity, *statements.patient_values(record.patient))),
        )
        return self._key(None, (statements.INSERT_STUDY, (patient_key, *statements.study_values(record.study))))

    def _tell_of_another_patient(self, study_uid: str) -> None:
        if study_uid in self._told_studies:
            return
        if len(self._told_studies) >= _TOLD_STUDIES:
            self._told_studies.pop(next(iter(self._told_studies)))
        self._told_studies[study_uid] = None
        logger.warning("study %s has come under another patient before, and stays there", study_uid)

    def _key(self, find: tuple[str, statements.Row] | None, insert: tuple[str, statements.Row]) -> int:
        if find is not None and (row := self._connection.execute(*find).fetchone()) is not None:
            return int(row[0])
        key = self._connection.execute(*insert).lastrowid
        assert key is not None  # after an INSERT of one row
        return key

    def _delete(self, instance_key: int) -> None:
        """Remove an instance, and the series, the study and the patient that this leaves empty."""
        self._known_series.clear()
        key = instance_key
        for statement in statements.DELETE_UPWARDS:
            row = self._connection.execute(statement, {"key": key}).fetchone()
            if row is None:  # it has other children
                break
            key = row[0]


def _create(path: Path, *, fsync: bool) -> None:
    """Make the file if there is none: SQLite would let everybody read it. Its log and its shared memory get the same mode."""
    if not path.exists():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
        if fsync:  # a power cut must not take the name of what SQLite finds there, and does not know to be new
            sync_directory(path.parent)


def _require_writable(path: Path) -> None:
    """SQLite would open what is read-only all the same, and say so with the first object."""
    if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise IndexUnavailable("the index is read-only: give this program's user the right to write to it")


@cache
def _find(count: int) -> str:
    return f"{statements.FIND_OBJECT} WHERE sop_instance_uid IN ({', '.join('?' * count)})"
