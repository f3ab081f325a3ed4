"""The reading side of an index in PostgreSQL: one connection, for one thread at a time."""

from __future__ import annotations

import select
from collections.abc import Iterator, Sequence
from contextlib import suppress
from threading import Lock, Thread
from typing import Any, Final, Self

import psycopg
from psycopg.pq import TransactionStatus

from tomowire.server.files import ObjectName
from tomowire.server.index import statements
from tomowire.server.index.paging import each_of_pages
from tomowire.server.index.postgres_connect import Connection, postgres_errors
from tomowire.server.index.postgres_writer import indexed_object
from tomowire.server.index.reader import PAGE, Counts, Row, Statement, Statistics
from tomowire.server.index.rows import IndexedObject

LONGEST_STATEMENT: Final = 660.0
"""Seconds, a little more than `readers` gives a question. The server ends what takes longer, or what nobody goes on with: a program
whose machine has died must not hold the state of the database as it was when it asked."""

_CANCEL_TIMEOUT: Final = 5.0

_INSTANCE: Final = (statements.FIND_OBJECT + " WHERE sop_instance_uid = %s").encode()
_INSTANCES: Final = (statements.FIND_OBJECT + " WHERE sop_instance_uid = ANY(%s)").encode()
_REMOVALS: Final = (
    b"SELECT study_instance_uid, series_instance_uid, sop_instance_uid, generation FROM removals"
    b" WHERE sop_instance_uid = %s"
)
_OBJECTS: Final = (statements.FIND_OBJECT + " WHERE instance_key > %s ORDER BY instance_key LIMIT %s").encode()
_COUNTS: Final = (
    b"SELECT (SELECT count(*) FROM patients), (SELECT count(*) FROM studies), (SELECT count(*) FROM series),"
    b" (SELECT count(*) FROM instances)"
)
_BEGIN: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_DECLARE: Final = "DECLARE found NO SCROLL CURSOR FOR "
_FETCH: Final = "FETCH FORWARD {} FROM found"


class PostgresReader:
    """The `IndexReader` of an index in PostgreSQL.

    Rows come from a cursor of the server in a transaction that only reads, so that they take no memory before they are asked for,
    and are of one moment. A connection on which something was interrupted is not used again: the word to end it may come late, and
    would end the next question.
    """

    stops_at_once: Final = False

    def __init__(self, connection: Connection) -> None:
        """Raises `IndexUnavailable`."""
        self.connection = connection
        self._interrupting = Lock()
        self._interruption: Thread | None = None
        self._first: list[Row] | None = None
        self._prepare()

    def _prepare(self) -> None:
        milliseconds = round(LONGEST_STATEMENT * 1000)
        self.connection.patience = LONGEST_STATEMENT
        # Each question has a plan for what it asks for: of a plan for any letters no index could be part.
        self.connection.prepare_threshold = None
        with postgres_errors():
            # With a cursor PostgreSQL would plan for who takes but the tenth part of the rows.
            self.connection.execute(
                f"SET statement_timeout = {milliseconds}; SET idle_in_transaction_session_timeout = {milliseconds};"
                " SET default_transaction_read_only = on; SET cursor_tuple_fraction = 1.0; SET jit = off".encode()
            )

    @property
    def is_usable(self) -> bool:
        """Not if the server has closed it: what there is to read on a connection that was asked nothing is its end."""
        connection = self.connection
        if connection.closed or self._interruption is not None:
            return False
        if connection.pgconn.transaction_status != TransactionStatus.IDLE:
            return False
        poll = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        if self._interruption is not None:
            self._interruption.join()
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, statement: Statement) -> None:
        self._first = None
        with postgres_errors(), self.connection.pipeline():  # one way there and back for all three
            self.connection.execute(_BEGIN)
            self.connection.execute((_DECLARE + statement.sql).encode(), statement.parameters)
            first = self.connection.execute(_FETCH.format(1).encode())
        self._first = first.fetchall()

    def read(self, size: int) -> list[Row]:
        first, self._first = self._first, None
        if first is not None and (size == 1 or not first):
            return first
        with postgres_errors():
            found = self.connection.execute(_FETCH.format(size - len(first or ())).encode()).fetchall()
        return [*first, *found] if first else found

    def stop(self) -> None:
        with suppress(psycopg.Error):
            if self.connection.pgconn.transaction_status != TransactionStatus.IDLE:
                self.connection.rollback()

    def interrupt(self) -> None:
        with self._interrupting:
            if self._interruption is None or not self._interruption.is_alive():
                self._interruption = Thread(target=self._cancel, name="tomowire-cancel", daemon=True)
                self._interruption.start()

    def _cancel(self) -> None:
        """Takes a connection of its own, which may have to be waited for."""
        with suppress(psycopg.Error):
            self.connection.cancel_safe(timeout=_CANCEL_TIMEOUT)

    def rows(self, statement: Statement) -> list[Row]:
        return self._rows(statement.sql.encode(), statement.parameters)

    def instance(self, sop_instance_uid: str) -> IndexedObject | None:
        rows = self._rows(_INSTANCE, (sop_instance_uid,))
        return indexed_object(rows[0]) if rows else None

    def is_to_be_removed(self, name: ObjectName) -> bool:
        return any(ObjectName(*row) == name for row in self._rows(_REMOVALS, (name.sop_instance_uid,)))

    def find_objects(self, sop_instance_uids: Sequence[str]) -> dict[str, IndexedObject]:
        found = map(indexed_object, self._rows(_INSTANCES, (list(sop_instance_uids),)))
        return {each.name.sop_instance_uid: each for each in found}

    def page(self, after: int = 0, size: int = PAGE) -> list[IndexedObject]:
        return [indexed_object(row) for row in self._rows(_OBJECTS, (after, size))]

    def objects(self) -> Iterator[IndexedObject]:
        return each_of_pages(self.page, lambda each: each.instance_id, 0)

    def counts(self) -> Counts:
        return Counts(*self._rows(_COUNTS)[0])

    def statistics(self) -> Statistics:
        ((size,),) = self._rows(b"SELECT coalesce(sum(data_set_size), 0)::bigint FROM instances")
        return Statistics(self.counts(), size)

    def _rows(self, sql: bytes, parameters: Any = ()) -> list[Row]:
        with postgres_errors():
            return self.connection.execute(sql, parameters).fetchall()
