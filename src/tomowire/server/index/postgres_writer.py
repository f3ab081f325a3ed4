"""The writer of an index in PostgreSQL: one transaction for each batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar

import psycopg

from tomowire.errors import IndexUnavailable
from tomowire.server.files import ObjectName
from tomowire.server.index import deleting, statements
from tomowire.server.index.deleting import Deleted, Doomed, Removal
from tomowire.server.index.hangup import Hangup
from tomowire.server.index.postgres_connect import Connection, array_of, first_line, is_lost, is_of_a_value, numbered
from tomowire.server.index.postgres_series import SeriesKeys
from tomowire.server.index.postgres_session import PostgresSession
from tomowire.server.index.rows import IndexedObject, NewRow

T = TypeVar("T")

_FEW: Final = 32
"""Rows up to which one INSERT, which commits by itself if there is nothing else to do, is quicker than COPY in a transaction."""

_ATTEMPTS: Final = 3
"""At a transaction in whose way another writer was."""


def _postgres(sql: str) -> bytes:
    """A statement of `statements` or `deleting` as psycopg writes its parameters."""
    return re.sub(r":(\w+)", r"%(\1)s", sql.replace("?", "%s")).encode()


_FIND: Final = numbered(statements.FIND_OBJECT + " WHERE sop_instance_uid = ANY(?)")
_COUNT: Final = "UPDATE archive SET last_batch = {} WHERE id = 1"
_INSERT, _, _VALUES = statements.INSERT_INSTANCE.partition(" VALUES ")
_COPY: Final = (_INSERT.replace("INSERT INTO", "COPY") + " FROM STDIN").encode()
_DELETE_UPWARDS: Final = tuple(map(_postgres, statements.DELETE_UPWARDS))


class PostgresWriter:
    """The `IndexWriter` of an index in PostgreSQL. Raises `IndexUnavailable` for whatever the database cannot do now.

    After a failure the next call tries with a new connection.
    """

    is_elsewhere: Final = True

    def __init__(self, session: PostgresSession) -> None:
        self._session = session
        self._series = SeriesKeys()
        session.on_open = self._series.forget  # what was remembered may be lost with the old connection
        self.on_lost: Callable[[], None] = lambda: None
        session.on_lost = lambda: self.on_lost()  # noqa: PLW0108 - whatever it is by then

    @property
    def archive_id(self) -> str:
        return self._session.archive_id

    @property
    def last_batch(self) -> int:
        return self._session.last_batch

    @property
    def hangup(self) -> Hangup:
        return self._session.hangup

    def require_writable(self) -> None:
        self.find(())  # what was lost is taken again
        self._session.require_writable()

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

    def delete_lonely(self) -> None:
        self._transact(deleting.delete_lonely)

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
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._transact_once(work)
            except IndexUnavailable as error:
                if not _is_worth_another_try(error):
                    raise
        return self._transact_once(work)

    def _transact_once(self, work: Callable[[deleting.Execute], T]) -> T:
        with self._session.working() as connection:

            def execute(sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
                cursor = connection.execute(_postgres(sql), parameters)
                return cursor.fetchall() if cursor.description is not None else []

            connection.execute(b"BEGIN")
            result = work(execute)
            _commit(connection, b"COMMIT")
        return result

    def _find(self, sop_instance_uids: Sequence[str]) -> dict[str, IndexedObject]:
        with self._session.working() as connection:
            rows = _quick(connection, _FIND, [array_of(sop_instance_uids)]).fetchall()
        return {row.name.sop_instance_uid: row for row in map(indexed_object, rows)}

    def _insert(self, batch: int, rows: Sequence[NewRow]) -> None:
        records = [row.record for row in rows]
        with self._session.working() as connection:
            if not rows:
                _commit(connection, _COUNT.format(int(batch)).encode())
                return
            if (
                (keys := self._series.known(records)) is not None
                and len(rows) <= _FEW
                and not any(row.replaces for row in rows)
            ):
                _commit(connection, *_insertion(batch, keys, rows))
                return
            connection.execute(b"BEGIN")
            for row in rows:
                if row.replaces is not None:
                    self._series.forget()
                    _delete(connection, row.replaces.instance_id)
            keys = self._series.of(connection, records)
            if len(rows) <= _FEW:
                _quick(connection, *_insertion(batch, keys, rows))
                _commit(connection, b"COMMIT")
            else:
                _copy(connection, keys, rows)
                _commit(connection, f"{_COUNT.format(int(batch))}; COMMIT".encode())


def indexed_object(row: Sequence[Any]) -> IndexedObject:
    """From the columns of `statements.FIND_OBJECT`."""
    key, study, series, instance, generation, *rest = row
    return IndexedObject(key, ObjectName(study, series, instance, generation), *rest)


def _quick(connection: Connection, sql: bytes, parameters: Sequence[Any]) -> psycopg.RawCursor[tuple[Any, ...]]:
    """Run a statement whose parameters are $1, $2, ...: prepared, and not searched for them each time, however long it is."""
    return psycopg.RawCursor(connection).execute(sql, parameters, prepare=True)


def _insertion(batch: int, keys: Sequence[int], rows: Sequence[NewRow]) -> tuple[bytes, list[Any]]:
    """A statement that inserts all rows and counts the batch, and its parameters."""
    parameters: list[Any] = [str(batch)]
    for key, row in zip(keys, rows, strict=True):
        # Numbers as text: psycopg would take the smallest type that holds each, and prepare anew for each combination of types.
        values = statements.instance_row(key, row)
        parameters.extend([str(value) if type(value) is int else value for value in values])
    return _insert_statement(len(rows)), parameters


@cache
def _insert_statement(rows: int) -> bytes:
    return numbered(f"WITH counted AS ({_COUNT.format('?')}) {_INSERT} VALUES {', '.join([_VALUES] * rows)}")


def _copy(connection: Connection, keys: Sequence[int], rows: Sequence[NewRow]) -> None:
    with connection.cursor().copy(_COPY) as copy:
        for key, row in zip(keys, rows, strict=True):
            copy.write_row(statements.instance_row(key, row))


def _commit(connection: Connection, sql: bytes, parameters: Sequence[Any] | None = None) -> None:
    """Run the statement that commits."""
    try:
        if parameters is None:
            connection.execute(sql)
        else:
            _quick(connection, sql, parameters)
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
    """Whether another writer was in the way, with whom we met in a circle, or who removed the series that was to be added to."""
    return isinstance(error, psycopg.errors.ForeignKeyViolation) or isinstance(
        error.__cause__, (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
    )
