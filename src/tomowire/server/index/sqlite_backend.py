"""An index in a file of SQLite, in the data directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from tomowire.server.index import integrity, versions
from tomowire.server.index.connect import connect_reader
from tomowire.server.index.dumping import current_copy, dump_sqlite
from tomowire.server.index.sqlite_errors import sqlite_errors
from tomowire.server.index.sqlite_reader import SqliteReader
from tomowire.server.index.sqlite_rebuild import SqliteRebuild, rebuild_sqlite
from tomowire.server.index.sqlite_writer import SqliteWriter
from tomowire.server.swap import finish_swap, ready_path

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from tomowire.server.files import DataDirectory
    from tomowire.server.index.versions import OnUpgrade


class SqliteBackend:
    """The `IndexBackend` of the file at `path`."""

    dialect: Final[Literal["sqlite", "postgresql"]] = "sqlite"

    def __init__(self, path: Path, *, fsync: bool, busy_timeout: float, on_upgrade: OnUpgrade | None = None) -> None:
        self._path = path
        self._fsync = fsync
        self._busy_timeout = busy_timeout
        self._on_upgrade = on_upgrade

    @property
    def name(self) -> str:
        return str(self._path)

    @property
    def short_name(self) -> str:
        return self._path.name

    @property
    def place(self) -> None:
        return None

    def settle(self, directory: DataDirectory) -> None:
        finish_swap(directory)

    def exists(self) -> bool:
        return self._path.exists()

    def is_empty(self) -> bool:
        return not (self._path.exists() and self._path.stat().st_size)

    def open_writer(self) -> SqliteWriter:
        return SqliteWriter.open(
            self._path, fsync=self._fsync, busy_timeout=self._busy_timeout, on_upgrade=self._on_upgrade
        )

    def version(self) -> str | None:
        with sqlite_errors(), closing(connect_reader(self._path)) as connection:
            return versions.require_current(connection)

    def open_reader(self, *, older: bool = False) -> SqliteReader:
        return SqliteReader.open(self._path, busy_timeout=self._busy_timeout, older=older)

    def engine(self) -> Engine:
        from tomowire.server.index.engines import sqlite_engine

        return sqlite_engine(self._path, fsync=self._fsync, busy_timeout=self._busy_timeout)

    def upgrade(self) -> tuple[str | None, str | None]:
        return versions.upgrade(self._path, on_upgrade=self._on_upgrade)

    def require_no_newer(self) -> None:
        versions.require_no_newer(self._path)

    def damage(self) -> Iterator[str]:
        with sqlite_errors(), closing(connect_reader(self._path)) as connection:
            yield from integrity.damage(connection)

    def lonely_rows(self) -> Iterator[str]:
        with sqlite_errors(), closing(connect_reader(self._path)) as connection:
            yield from integrity.lonely_rows(connection.execute)

    def dump(self, path: Path) -> None:
        dump_sqlite(self._path, path)

    def load(self, dump: Path, directory: DataDirectory) -> None:
        building, ready = self._path.with_name("index.sqlite.building"), ready_path(directory)
        for left in (building, ready):  # by an earlier run
            left.unlink(missing_ok=True)
        current_copy(dump, building)
        os.replace(building, ready)
        finish_swap(directory)

    def rebuild(self, *, of_before: bool = False) -> AbstractContextManager[SqliteRebuild]:
        return rebuild_sqlite(self._path, of_before=of_before)
