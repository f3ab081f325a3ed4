"""The writer of an index in PostgreSQL: one transaction for each batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import psycopg

from tomowire.errors import IndexUnavailable
from tomowire.server.files import ObjectName
from tomowire.server.index import deleting, statements
from tomowire.server.index.deleting import Deleted, Doomed, Removal
from tomowire.server.index.postgres_connect import Connection, first_line, is_lost, is_of_a_value
from tomowire.server.index.postgres_series import SeriesKeys
from tomowire.server.index.postgres_session import PostgresSession
from tomowire.server.index.rows import IndexedObject, NewRow

T = TypeVar("T")

_FEW: Final = 3
"""Rows up to which single INSERTs, sent together, are quicker than COPY, which takes two exchanges more."""

_ATTEMPTS: Final = 3
"""At a transaction that the server has chosen as the victim of a deadlock. It takes another writer for that."""


def _postgres(sql: str) -> bytes:
    """A statement of `statements` as psycopg writes its parameters."""
    return re.sub(r":(\w+)", r"%(\1)s", sql.replace("?", "%s")).encode()


_FIND: Final = _postgres(statements.FIND_OBJECT) + b" WHERE sop_instance_uid = ANY(%s)"
_INSERT_INSTANCE: Final = _postgres(statements.INSERT_INSTANCE)
_COPY_INSTANCES: Final = statements.INSERT_INSTANCE.partition(" VALUES")[0].replace("INSERT INTO", "COPY").encode()
_DELETE_UPWARDS: Final = tuple(map(_postgres, statements.DELETE_UPWARDS))


class PostgresWriter:
    """The `IndexWriter` of an index in PostgreSQL. Raises `IndexUnavailable` for whatever the database cannot do now.

    After a failure the next call tries with a new connection.
    """

    def __init__(self, session: PostgresSession) -> None:
        self._session = session
        self._series = SeriesKeys()

    @property
    def archive_id(self) -> str:
        return self._session.archive_id

    @property
    def last_batch(self) -> int:
        return self._session.last_batch

    def close(self) -> None:
        self._session.close()

    def find(self, sop_instance_uids: Sequence[str]) -> dict[str, IndexedObject]:
        was_connected = self._session.is_connected
        try:
            return self._find(sop_instance_uids)
        except IndexUnavailable:
            if not was_connected or self._session.is_connected:
                raise
        return self._find(sop_instance_uids)  # the connection may have been lost long ago, unnoticed

    def insert(self, batch: int, rows: Sequence[NewRow]) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._insert(batch, rows)
            except BaseException as error:
                self._series.forget()
                if attempt == _ATTEMPTS or not _is_worth_another_try(error):
                    raise
            else:
                break
        self._session.last_batch = batch

    def delete(self, doomed: Doomed) -> list[Deleted]:
        return self._transact(lambda execute: deleting.delete(execute, doomed))

    def removals(self, after: int, limit: int) -> list[Removal]:
        return self._transact(lambda execute: deleting.removals(execute, after, limit))

    def defer(self, names: Sequence[ObjectName]) -> None:
        self._transact(lambda execute: deleting.defer(execute, names))

    def forget(self, removals: Sequence[Removal]) -> None:
        self._transact(lambda execute: deleting.forget(execute, [removal.key for removal in removals]))

    def _transact(self, work: Callable[[deleting.Execute], T]) -> T:
        """All of `work`, or none of it."""
        self.find(())  # a connection that was lost long ago is noticed now
        self._series.forget()
        with self._session.working() as connection:

            def execute(sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
                cursor = connection.execute(_postgres(sql), parameters)
                return cursor.fetchall() if cursor.description is not None else []

            connection.execute(b"BEGIN")
            result = work(execute)
            _commit(connection)
        return result

    def _find(self, sop_instance_uids: Sequence[str]) -> dict[str, IndexedObject]:
        with self._session.working() as connection:
            rows = connection.execute(_FIND, (list(sop_instance_uids),), prepare=True).fetchall()
        return {row.name.sop_instance_uid: row for row in map(indexed_object, rows)}

    def _insert(self, batch: int, rows: Sequence[NewRow]) -> None:
        with self._session.working() as connection:
            # Without parameters, so that both are one exchange.
            connection.execute(f"BEGIN; UPDATE archive SET last_batch = {batch:d} WHERE id = 1".encode())
            for row in rows:
                if row.replaces is not None:
                    self._series.forget()
                    _delete(connection, row.replaces.instance_id)
            keys = self._series.of(connection, [row.record for row in rows])
            values = [statements.instance_row(key, row) for key, row in zip(keys, rows, strict=True)]
            if len(values) > _FEW:
                _copy(connection, values)
                _commit(connection)
            else:
                _commit(connection, values)


def indexed_object(row: Sequence[Any]) -> IndexedObject:
    """From the columns of `statements.FIND_OBJECT`."""
    key, study, series, instance, generation, *rest = row
    return IndexedObject(key, ObjectName(study, series, instance, generation), *rest)


def _copy(connection: Connection, values: Sequence[statements.Row]) -> None:
    with connection.cursor().copy(_COPY_INSTANCES + b" FROM STDIN") as copy:
        for each in values:
            copy.write_row(each)


def _commit(connection: Connection, values: Sequence[statements.Row] = ()) -> None:
    """Insert these rows and commit, in one exchange."""
    try:
        if not values:
            connection.execute(b"COMMIT")
            return
        with connection.pipeline():
            cursor = connection.cursor()
            for each in values:
                cursor.execute(_INSERT_INSTANCE, each, prepare=True)
            cursor.execute(b"COMMIT")
    except psycopg.Error as error:
        if is_of_a_value(error):
            raise
        # Without an answer nobody knows whether it is committed.
        raise IndexUnavailable(first_line(error), in_doubt=is_lost(connection)) from error


def _delete(connection: Connection, instance_key: int) -> None:
    """Remove an instance, and the series, the study and the patient that this leaves empty."""
    key = instance_key
    for statement in _DELETE_UPWARDS:
        row = connection.execute(statement, {"key": key}).fetchone()
        if row is None:  # it has other children
            break
        key = row[0]


def _is_worth_another_try(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure))
