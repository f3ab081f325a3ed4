"""The reading side of an index in PostgreSQL: one connection, for one thread at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

from tomowire.server.index import statements
from tomowire.server.index.postgres_connect import Connection, postgres_errors
from tomowire.server.index.postgres_writer import indexed_object
from tomowire.server.index.reader import Counts, Row, Statement, Statistics
from tomowire.server.index.rows import IndexedObject

_PAGE: Final = 1000

_INSTANCE: Final = (statements.FIND_OBJECT + " WHERE sop_instance_uid = %s").encode()
_INSTANCES: Final = (statements.FIND_OBJECT + " WHERE sop_instance_uid = ANY(%s)").encode()
_OBJECTS: Final = (statements.FIND_OBJECT + " WHERE instance_key > %s ORDER BY instance_key LIMIT %s").encode()
_COUNTS: Final = (
    b"SELECT (SELECT count(*) FROM patients), (SELECT count(*) FROM studies), (SELECT count(*) FROM series),"
    b" (SELECT count(*) FROM instances)"
)


class PostgresReader:
    """Answers questions. Raises `IndexUnavailable` for whatever the database cannot do."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, statement: Statement) -> None:
        raise NotImplementedError

    def read(self, size: int) -> list[Row]:
        raise NotImplementedError

    def stop(self) -> None:
        """Let go of what `start` began."""

    def interrupt(self) -> None:
        self.connection.cancel()

    def instance(self, sop_instance_uid: str) -> IndexedObject | None:
        """The object with this UID."""
        rows = self._rows(_INSTANCE, (sop_instance_uid,))
        return indexed_object(rows[0]) if rows else None

    def find_objects(self, sop_instance_uids: Sequence[str]) -> dict[str, IndexedObject]:
        """Those of the objects that are indexed now, by SOP Instance UID."""
        found = map(indexed_object, self._rows(_INSTANCES, (list(sop_instance_uids),)))
        return {each.name.sop_instance_uid: each for each in found}

    def page(self, after: int = 0, size: int = _PAGE) -> list[IndexedObject]:
        """Up to `size` objects whose `instance_id` is greater than `after`, in the order of those."""
        return [indexed_object(row) for row in self._rows(_OBJECTS, (after, size))]

    def objects(self) -> Iterator[IndexedObject]:
        """All objects, a page at a time: no transaction is held open meanwhile, and what comes later is included."""
        page = self.page()
        while page:
            yield from page
            page = self.page(after=page[-1].instance_id)

    def counts(self) -> Counts:
        """Rows at each level."""
        return Counts(*self._rows(_COUNTS)[0])

    def statistics(self) -> Statistics:
        """Counts, and bytes. Walks over all instances."""
        ((size,),) = self._rows(b"SELECT coalesce(sum(data_set_size), 0)::bigint FROM instances")
        return Statistics(self.counts(), size)

    def _rows(self, sql: bytes, parameters: Sequence[Any] = ()) -> list[Row]:
        with postgres_errors():
            return self.connection.execute(sql, parameters).fetchall()
