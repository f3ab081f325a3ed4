"""The reading side of an index in SQLite, as far as files are concerned: one connection, for one thread at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tomowire.errors import UsageError
from tomowire.server.files import ObjectName
from tomowire.server.index import statements
from tomowire.server.index.connect import BUSY_TIMEOUT, connect_reader
from tomowire.server.index.rows import IndexedObject
from tomowire.server.index.sqlite_errors import indexed_object, sqlite_errors
from tomowire.server.index.versions import CURRENT, require_current
from tomowire.wire.value import value

Row = tuple[Any, ...]

_PAGE: Final = 1000

_INSTANCE: Final = statements.FIND_OBJECT + " WHERE sop_instance_uid = ?"
_REMOVALS: Final = "SELECT study_instance_uid, series_instance_uid, sop_instance_uid, generation FROM removals WHERE sop_instance_uid = ?"
_OBJECTS: Final = statements.FIND_OBJECT + " WHERE instance_key > ? ORDER BY instance_key LIMIT ?"


@value()
class Counts:
    """How many rows there are at each level."""

    patients: int
    studies: int
    series: int
    instances: int


@value()
class Statistics:
    """What the archive holds."""

    counts: Counts
    data_set_bytes: int
    """All data sets together, without the headers of the files."""


@value()
class Statement:
    """A statement that gives rows, what stands for its named parameters, and what gives a connection the functions it uses."""

    sql: str
    parameters: Mapping[str, Any]
    prepare: Callable[[sqlite3.Connection], None] | None = None


class SqliteReader:
    """Answers questions. Raises `IndexUnavailable` for whatever the database says it cannot do."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._cursor: sqlite3.Cursor | None = None

    @classmethod
    def open(cls, path: Path, *, busy_timeout: float = BUSY_TIMEOUT) -> Self:
        """Open the index at `path`. Raises `UsageError` if it is not of this program's version, `IndexUnavailable`."""
        with sqlite_errors():
            connection = connect_reader(path, busy_timeout=busy_timeout)
            try:
                version = require_current(connection)
                if version is None:  # killed at its very first start
                    raise UsageError("the index is empty: run 'tomowire db reindex'")
                if version != CURRENT:
                    raise UsageError(f"the index has schema {version}: run 'tomowire db upgrade'")
            except BaseException:
                connection.close()
                raise
        return cls(connection)

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, statement: Statement) -> None:
        """Begin to work on `statement`: `read` gives its rows. The index is seen as it is now, until `stop`."""
        with sqlite_errors():
            if statement.prepare is not None:
                statement.prepare(self.connection)
            self._cursor = self.connection.execute(statement.sql, statement.parameters)

    def read(self, size: int) -> list[Row]:
        """Up to `size` of the rows to come; fewer only at the end."""
        assert self._cursor is not None
        with sqlite_errors():
            return self._cursor.fetchmany(size)

    def stop(self) -> None:
        """Let go of what `start` began."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def instance(self, sop_instance_uid: str) -> IndexedObject | None:
        """The object with this UID."""
        with sqlite_errors():
            row = self.connection.execute(_INSTANCE, (sop_instance_uid,)).fetchone()
        return None if row is None else indexed_object(row)

    def is_to_be_removed(self, name: ObjectName) -> bool:
        """Whether this is the file of an object that was deleted or replaced, which has not been removed yet."""
        with sqlite_errors():
            rows = self.connection.execute(_REMOVALS, (name.sop_instance_uid,)).fetchall()
        return any(ObjectName(*row) == name for row in rows)

    def page(self, after: int = 0, size: int = _PAGE) -> list[IndexedObject]:
        """Up to `size` objects whose `instance_id` is greater than `after`, in the order of those."""
        with sqlite_errors():
            return [indexed_object(row) for row in self.connection.execute(_OBJECTS, (after, size))]

    def objects(self) -> Iterator[IndexedObject]:
        """All objects, a page at a time: no transaction is held open meanwhile, and what comes later is included."""
        page = self.page()
        while page:
            yield from page
            page = self.page(after=page[-1].instance_id)

    def counts(self) -> Counts:
        """Rows at each level. Takes a walk over an index of each table: a second or so for ten million instances."""
        tables = ("patients", "studies", "series", "instances")
        with sqlite_errors():
            select = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
            return Counts(*self.connection.execute(f"SELECT {select}").fetchone())

    def statistics(self) -> Statistics:
        """Counts, and bytes. Walks over all instances."""
        with sqlite_errors():
            (size,) = self.connection.execute("SELECT coalesce(sum(data_set_size), 0) FROM instances").fetchone()
        return Statistics(self.counts(), size)
