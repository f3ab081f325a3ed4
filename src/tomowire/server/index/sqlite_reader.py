"""The reading side of an index in SQLite, as far as files are concerned: one connection, for one thread at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from tomowire.errors import UsageError
from tomowire.server.files import ObjectName
from tomowire.server.index import statements
from tomowire.server.index.connect import BUSY_TIMEOUT, connect_reader
from tomowire.server.index.functions import prepare
from tomowire.server.index.paging import each_of_pages
from tomowire.server.index.reader import PAGE, Counts, Dialect, Row, Statement, Statistics
from tomowire.server.index.rows import IndexedObject
from tomowire.server.index.sqlite_errors import indexed_object, sqlite_errors
from tomowire.server.index.versions import CURRENT, require_current

_INSTANCE: Final = statements.FIND_OBJECT + " WHERE sop_instance_uid = ?"
_REMOVALS: Final = (
    "SELECT study_instance_uid, series_instance_uid, sop_instance_uid, generation FROM removals"
    " WHERE sop_instance_uid = ?"
)
_INSTANCES: Final = statements.FIND_OBJECT + " WHERE sop_instance_uid IN (SELECT value FROM json_each(?))"
_OBJECTS: Final = statements.FIND_OBJECT + " WHERE instance_key > ? ORDER BY instance_key LIMIT ?"


class SqliteReader:
    """The `IndexReader` of an SQLite index."""

    stops_at_once: Final = True

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._cursor: sqlite3.Cursor | None = None

    @classmethod
    def open(cls, path: Path, *, busy_timeout: float = BUSY_TIMEOUT, older: bool = False) -> Self:
        """Open the index at `path`. `older`: one of an older schema too, to ask for objects only.

        Raises `UsageError` if it is not of this program's version, `IndexUnavailable`.
        """
        with sqlite_errors():
            connection = connect_reader(path, busy_timeout=busy_timeout)
            try:
                version = require_current(connection)
                if version is None:  # killed at its very first start
                    raise UsageError("the index is empty: run 'tomowire db reindex'")
                if version != CURRENT and not older:
                    raise UsageError(f"the index has schema {version}: run 'tomowire db upgrade'")
                prepare(connection)
            except BaseException:
                connection.close()
                raise
        return cls(connection)

    @classmethod
    def open_file(cls, path: Path) -> Self:
        """Open a dump at `path`, of whatever version, to ask for objects. Raises `IndexUnavailable`."""
        with sqlite_errors():
            return cls(connect_reader(path))

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_usable(self) -> bool:
        return True

    def start(self, statement: Statement) -> None:
        with sqlite_errors():
            self._cursor = self.connection.execute(statement.sql, statement.parameters)

    def read(self, size: int) -> list[Row]:
        assert self._cursor is not None
        with sqlite_errors():
            return self._cursor.fetchmany(size)

    def stop(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def interrupt(self) -> None:
        self.connection.interrupt()

    def rows(self, statement: Statement) -> list[Row]:
        with sqlite_errors():
            return self.connection.execute(statement.sql, statement.parameters).fetchall()

    def instance(self, sop_instance_uid: str) -> IndexedObject | None:
        with sqlite_errors():
            row = self.connection.execute(_INSTANCE, (sop_instance_uid,)).fetchone()
        return None if row is None else indexed_object(row)

    def is_to_be_removed(self, name: ObjectName) -> bool:
        with sqlite_errors():
            rows = self.connection.execute(_REMOVALS, (name.sop_instance_uid,)).fetchall()
        return any(ObjectName(*row) == name for row in rows)

    def find_objects(self, sop_instance_uids: Sequence[str]) -> dict[str, IndexedObject]:
        with sqlite_errors():
            rows = self.connection.execute(_INSTANCES, (json.dumps(sop_instance_uids),))
            found = map(indexed_object, rows)
            return {each.name.sop_instance_uid: each for each in found}

    def page(self, after: int = 0, size: int = PAGE) -> list[IndexedObject]:
        with sqlite_errors():
            return [indexed_object(row) for row in self.connection.execute(_OBJECTS, (after, size))]

    def objects(self) -> Iterator[IndexedObject]:
        return each_of_pages(self.page, lambda each: each.instance_id, 0)

    def counts(self) -> Counts:
        tables = ("patients", "studies", "series", "instances")
        with sqlite_errors():
            select = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
            return Counts(*self.connection.execute(f"SELECT {select}").fetchone())

    def statistics(self) -> Statistics:
        with sqlite_errors():
            (size,) = self.connection.execute("SELECT coalesce(sum(data_set_size), 0) FROM instances").fetchone()
        return Statistics(self.counts(), size)


class SqliteSource:
    """The `ReaderSource` of the index at `path`."""

    dialect: Final[Dialect] = "sqlite"

    def __init__(self, path: Path, *, busy_timeout: float = BUSY_TIMEOUT) -> None:
        self._path = path
        self._busy_timeout = busy_timeout

    def open_reader(self) -> SqliteReader:
        return SqliteReader.open(self._path, busy_timeout=self._busy_timeout)
