"""The writer of an index in PostgreSQL: one connection, made again when it is lost; one transaction for each batch."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import psycopg

from tomowire.errors import IndexUnavailable
from tomowire.server.files import ObjectName
from tomowire.server.index import statements
from tomowire.server.index.attributes import InstanceRecord
from tomowire.server.index.postgres_connect import Connection, is_lost, is_of_a_value, postgres_errors
from tomowire.server.index.rows import IndexedObject, NewRow

logger: Final = logging.getLogger(__name__)

_KNOWN_SERIES: Final = 10_000


def _postgres(sql: str) -> bytes:
    """A statement of `statements` as psycopg writes its parameters."""
    return re.sub(r":(\w+)", r"%(\1)s", sql.replace("?", "%s")).encode()


_FIND: Final = _postgres(statements.FIND_OBJECT) + b" WHERE sop_instance_uid = ANY(%s)"
_FIND_PATIENT: Final = _postgres(statements.FIND_PATIENT)
_FIND_STUDY: Final = _postgres(statements.FIND_STUDY)
_FIND_SERIES: Final = _postgres(statements.FIND_SERIES)
_INSERT_PATIENT: Final = _postgres(statements.INSERT_PATIENT) + b" ON CONFLICT DO NOTHING RETURNING patient_key"
_INSERT_STUDY: Final = _postgres(statements.INSERT_STUDY) + b" ON CONFLICT DO NOTHING RETURNING study_key"
_INSERT_SERIES: Final = _postgres(statements.INSERT_SERIES) + b" ON CONFLICT DO NOTHING RETURNING series_key"
_INSERT_INSTANCE: Final = _postgres(statements.INSERT_INSTANCE)
_DELETE_UPWARDS: Final = tuple(map(_postgres, statements.DELETE_UPWARDS))


class PostgresWriter:
    """The `IndexWriter` of an index in PostgreSQL. Raises `IndexUnavailable` for whatever the database cannot do now.

    After a failure the next call tries with a new connection.
    """

    def __init__(self, make: Callable[[], Connection]) -> None:
        """`make` gives a connection to an index whose schema is current."""
        self._make = make
        self._connection: Connection | None = None
        self._known_series: dict[tuple[str, str, str], int] = {}
        self._told_studies: dict[str, None] = {}
        self.archive_id = ""
        self.last_batch = 0
        self._connected()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def find(self, sop_instance_uids: Sequence[str]) -> dict[str, IndexedObject]:
        with self._working() as connection:
            rows = connection.execute(_FIND, (list(sop_instance_uids),)).fetchall()
        return {row.name.sop_instance_uid: row for row in map(indexed_object, rows)}

    def insert(self, batch: int, rows: Sequence[NewRow]) -> None:
        with self._working() as connection:
            connection.execute(b"BEGIN")
            for row in rows:
                if row.replaces is not None:
                    self._delete(connection, row.replaces.instance_id)
            values = [statements.instance_row(self._series_key(connection, row.record), row) for row in rows]
            connection.cursor().executemany(_INSERT_INSTANCE, values)
            connection.execute(b"UPDATE archive SET last_batch = %s WHERE id = 1", (batch,))
            self._commit(connection)
        self.last_batch = batch

    def _commit(self, connection: Connection) -> None:
        try:
            connection.execute(b"COMMIT")
        except psycopg.Error as error:
            if is_of_a_value(error):
                raise
            # The answer is lost, and with it whether the transaction is.
            raise IndexUnavailable(str(error).partition("\n")[0], in_doubt=is_lost(connection)) from error

    @contextmanager
    def _working(self) -> Iterator[Connection]:
        connection = self._connected()
        try:
            with postgres_errors():
                yield connection
        except BaseException:
            self._known_series.clear()
            self._recover(connection)
            raise

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = self._make()
            try:
                with postgres_errors():
                    row = connection.execute(b"SELECT archive_id, last_batch FROM archive WHERE id = 1").fetchone()
                assert row is not None  # the schema has been looked at
                self.archive_id, self.last_batch = row
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _recover(self, connection: Connection) -> None:
        """After a failure: end the transaction, or give up the connection."""
        try:
            if not is_lost(connection):
                connection.rollback()
                return
        except psycopg.Error:
            pass
        connection.close()
        self._connection = None

    def _series_key(self, connection: Connection, record: InstanceRecord) -> int:
        """The series of an object, with what is above it; made if it is new."""
        identity = statements.patient_identity(record.patient)
        known = (record.series.series_instance_uid, record.study.study_instance_uid, identity)
        key = self._known_series.get(known)
        if key is None:
            study_key = self._study_key(connection, record, identity)
            key = _key(
                connection,
                (_FIND_SERIES, (record.series.series_instance_uid, study_key)),
                (_INSERT_SERIES, (study_key, *statements.series_values(record.series))),
            )
            if len(self._known_series) >= _KNOWN_SERIES:
                self._known_series.pop(next(iter(self._known_series)))
            self._known_series[known] = key
        return key

    def _study_key(self, connection: Connection, record: InstanceRecord, identity: str) -> int:
        uid = record.study.study_instance_uid
        row = connection.execute(_FIND_STUDY, (uid,)).fetchone()
        if row is not None:
            if row[1] != identity:
                self._tell_of_another_patient(uid)
            return int(row[0])
        patient_key = _key(
            connection,
            (_FIND_PATIENT, (identity,)),
            (_INSERT_PATIENT, (identity, *statements.patient_values(record.patient))),
        )
        return _key(
            connection, (_FIND_STUDY, (uid,)), (_INSERT_STUDY, (patient_key, *statements.study_values(record.study)))
        )

    def _tell_of_another_patient(self, study_uid: str) -> None:
        if study_uid not in self._told_studies:
            self._told_studies[study_uid] = None
            logger.warning("study %s has come under another patient before, and stays there", study_uid)

    def _delete(self, connection: Connection, instance_key: int) -> None:
        """Remove an instance, and the series, the study and the patient that this leaves empty."""
        self._known_series.clear()
        key = instance_key
        for statement in _DELETE_UPWARDS:
            row = connection.execute(statement, {"key": key}).fetchone()
            if row is None:  # it has other children
                break
            key = row[0]


def indexed_object(row: Sequence[object]) -> IndexedObject:
    """From the columns of `statements.FIND_OBJECT`."""
    key, study, series, instance, generation, *rest = row
    return IndexedObject(key, ObjectName(study, series, instance, generation), *rest)  # type: ignore[arg-type]


def _key(
    connection: Connection, find: tuple[bytes, tuple[object, ...]], insert: tuple[bytes, tuple[object, ...]]
) -> int:
    for statement, parameters in (find, insert, find):
        row = connection.execute(statement, parameters).fetchone()
        if row is not None:
            return int(row[0])
    raise IndexUnavailable("another program has removed what this one needs")
