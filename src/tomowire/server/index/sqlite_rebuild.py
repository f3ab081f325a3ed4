"""A new SQLite index, beside the one that is in use."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.errors import IndexUnavailable
from tomowire.server.index import statements
from tomowire.server.index.connect import connect_reader
from tomowire.server.index.sqlite_errors import sqlite_errors
from tomowire.server.index.sqlite_writer import SqliteWriter
from tomowire.server.posix import sync_file
from tomowire.server.room import is_of_room
from tomowire.server.swap import finish_swap, ready_path, remove_logs

if TYPE_CHECKING:
    from tomowire.server.files import DataDirectory

_MADE_NEW: Final = frozenset({*statements.OBJECT_TABLES, "archive", "alembic_version"})


class SqliteRebuild:
    """The new file, `building`, for the one at `path`."""

    def __init__(self, path: Path, building: Path, writer: SqliteWriter, made_new: frozenset[str]) -> None:
        self.writer: Final = writer
        self._made_new = made_new
        self._path = path
        self._building = building

    @property
    def archive_id(self) -> str:
        return self.writer.archive_id

    def finish(self, directory: DataDirectory) -> Sequence[str]:
        self.writer.fold()
        self.writer.close()
        problems: list[str] = []
        if self._path.exists():
            with sqlite_errors():
                _keep_records(self._path, self._building, self._made_new, problems)
        with self._building.open("rb") as file:
            sync_file(file.fileno())
        os.replace(self._building, ready_path(directory))
        finish_swap(directory)
        return problems


@contextmanager
def rebuild_sqlite(path: Path, *, of_before: bool = False) -> Iterator[SqliteRebuild]:
    """A new index, to take the place of the one at `path`. Raises `OSError`, `IndexUnavailable`."""
    made_new = _MADE_NEW.union(statements.OF_ITS_TIME if of_before else ())
    building = path.with_name("index.sqlite.building")
    _remove(building)
    try:
        # Nothing to lose before the end: the file is synced as a whole.
        with (
            _telling_of_room(building),
            closing(SqliteWriter.open(building, fsync=False)) as writer,
            _telling_of_room(building),  # before the log goes, and makes room
        ):
            yield SqliteRebuild(path, building, writer, made_new)
    except BaseException:
        _remove(building)
        raise


@contextmanager
def _telling_of_room(building: Path) -> Iterator[None]:
    try:
        yield
    except IndexUnavailable as error:
        if not is_of_room(error, building.parent):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(building)) from error


def _remove(building: Path) -> None:
    building.unlink(missing_ok=True)
    remove_logs(building)


def _keep_records(old: Path, new: Path, made_new: frozenset[str], problems: list[str]) -> None:
    """Copy what no file of an object says: all tables but those that are `made_new`. Of a damaged one, what can be read."""
    with closing(sqlite3.connect(new, isolation_level=None)) as target:
        target.execute("PRAGMA synchronous = OFF")
        tables = [name for name in _tables(target) if name not in made_new]
        target.execute("BEGIN")
        try:
            with closing(connect_reader(old)) as source:
                there = set(_tables(source))
                for table in tables:
                    if table in there:
                        _copy(source, target, table, problems, new.parent)
        except sqlite3.DatabaseError as error:  # it is no database, or not one that tells what is in it
            if is_of_room(error, new.parent):
                raise
            problems.append(f"nothing but the objects could be kept: {error}")
        target.execute("COMMIT")


def _copy(
    source: sqlite3.Connection, target: sqlite3.Connection, table: str, problems: list[str], folder: Path
) -> None:
    names = ", ".join(f'"{name}"' for name in _columns(target, table) if name in _columns(source, table))
    marks = ", ".join("?" * (names.count(",") + 1))
    count = 0
    try:
        for row in source.execute(f"SELECT {names} FROM {table}"):
            target.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", row)
            count += 1
    except sqlite3.DatabaseError as error:
        if is_of_room(error, folder):  # the old index has it all
            raise
        problems.append(f"of the table {table} only {count} rows could be kept: {error}")


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    return [name for (name,) in found]


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
