"""An index as one file, whatever database it is in: a dump is an SQLite database with the schema of its time.

So a backup can be looked into with SQLite's own tools, compared with its manifest, and restored to either backend. All tables are
in it, also those that no file of an object says anything about: users, jobs, the audit trail, protected studies.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.errors import IndexUnavailable
from tomowire.server.files import FILE_MODE
from tomowire.server.index import integrity, versions
from tomowire.server.index.connect import connect_reader
from tomowire.server.index.sqlite_errors import sqlite_errors
from tomowire.server.posix import sync_file

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData

_ROWS_AT_ONCE: Final = 1000


def dump_sqlite(index: Path, path: Path) -> None:
    """Copy an index as it is at this moment to the new file `path`; what is stored meanwhile goes on (PRAGMA journal_mode = WAL).

    In one step: in several, each change by another process would begin the copy anew. Raises `IndexUnavailable`, `OSError`.
    """
    _create(path)
    with sqlite_errors(), closing(connect_reader(index)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # one file, that can be read from a read-only disk
    _sync(path)


def dump_tables(engine: Engine, path: Path) -> None:
    """Copy all tables of another database, as they are at this moment, to the new file `path`. Imports SQLAlchemy.

    Raises `IndexUnavailable`, `OSError`.
    """
    from sqlalchemy import MetaData

    from tomowire.server.index.engines import database_errors

    _create(path)
    target = _engine(path)
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ")
    try:
        with database_errors(), snapshot.connect() as source:
            _make_tables(path, str(source.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()))
            with target.begin() as into:
                (tables := MetaData()).reflect(into)
                tables.remove(tables.tables["alembic_version"])
                copy_tables(source, into, tables)
    finally:
        target.dispose()
    _sync(path)


def load_tables(path: Path, engine: Engine) -> None:
    """Fill the tables of a database, whose schema is current and which holds nothing, from a dump; all or nothing.

    Raises `IndexUnavailable`.
    """
    from tomowire.server.index.engines import database_errors

    source = _engine(path)
    try:
        with database_errors(), source.connect() as dump, engine.begin() as into:
            copy_tables(dump, into, _current_tables())
            _go_on_counting(into)
    finally:
        source.dispose()


def copy_tables(source: Connection, target: Connection, tables: MetaData) -> None:
    """All rows of all `tables`, in an order that foreign keys allow, to tables that are empty but for what names the index."""
    from sqlalchemy import delete, insert, select

    target.execute(delete(tables.tables["archive"]))
    for table in tables.sorted_tables:
        rows = source.execution_options(stream_results=True, yield_per=_ROWS_AT_ONCE).execute(select(table))
        for part in rows.mappings().partitions(_ROWS_AT_ONCE):
            target.execute(insert(table), [dict(row) for row in part])


def current_copy(dump: Path, path: Path) -> None:
    """Copy a dump to the new file `path`, and bring it to this program's schema.

    Raises `UsageError` if a later tomowire has made it, `IndexUnavailable`, `OSError`.
    """
    _create(path)
    shutil.copyfile(dump, path)
    versions.upgrade(path)
    with sqlite_errors(), closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    _sync(path)


def damage_of(dump: Path) -> str:
    """The first that SQLite finds wrong with a dump, of whatever version; nothing, if it is whole. Raises `IndexUnavailable`."""
    try:
        with sqlite_errors(), closing(connect_reader(dump)) as connection:
            return next(integrity.damage(connection), "")
    except IndexUnavailable as error:
        if not error.is_damage:
            raise
        return str(error)


def _make_tables(path: Path, version: str) -> None:
    """Make those of a version in an empty database. Raises `IndexUnavailable`."""
    with sqlite_errors():
        if version != versions.CURRENT:
            versions.create_former_schema(path, version)
        with closing(sqlite3.connect(path, isolation_level=None)) as made:
            if version == versions.CURRENT:
                versions.create_schema(made)
            made.execute("PRAGMA journal_mode = DELETE")  # as above


def _current_tables() -> MetaData:
    from tomowire.server.index import administration, schema  # noqa: F401 - they declare the tables
    from tomowire.server.index.metadata import metadata

    return metadata


def _go_on_counting(connection: Connection) -> None:
    """Keys that a sequence gives out begin after those that were copied; SQLite looks at the table itself."""
    if connection.dialect.name == "sqlite":
        return
    from sqlalchemy import func, select, text

    for table in _current_tables().sorted_tables:
        key = table.autoincrement_column
        if key is None:
            continue
        sequence = connection.execute(
            text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": key.name}
        ).scalar()
        greatest = connection.execute(select(func.max(key))).scalar()
        if sequence is not None and greatest is not None:
            connection.execute(
                text("SELECT setval(:sequence, :greatest)"), {"sequence": sequence, "greatest": greatest}
            )


def _engine(path: Path) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA synchronous = OFF")  # it is synced as a whole, or thrown away
        return connection

    # An error is shown, and names patients otherwise.
    return create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)


def _create(path: Path) -> None:
    """SQLite would let everybody read it."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        sync_file(file.fileno())
