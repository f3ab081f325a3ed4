"""The version of the index's schema: made new, found current, or brought up to date.

Alembic and SQLAlchemy are imported only when there is something to migrate: a start with a current or a new index takes
neither. That the shortcut for a new index gives what the migrations give is for the tests to show.
"""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.index.connect import connect_reader, connect_writer

if TYPE_CHECKING:
    from sqlalchemy import Connection

CURRENT: Final = "0003"
"""The last migration in `migrations/versions`."""

_SCHEMA: Final = Path(__file__).parent / "schema.sql"
MIGRATIONS: Final = Path(__file__).parent / "migrations"

_VERSION_TABLE: Final = (
    "CREATE TABLE alembic_version ("
    "version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)


class OnUpgrade(Protocol):
    """Told of an index that gets another schema."""

    def upgraded(self, connection: Connection, before: str | None, after: str | None) -> None:
        """In the transaction that does it: it fails if this raises. `before` is None where there was no index."""

    def committed(self) -> None:
        """It is done."""


def schema_version(connection: sqlite3.Connection) -> str | None:
    """The schema of a database; None if it is empty. Raises `UsageError` if it is no index, and `sqlite3.Error`."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return None
    if "alembic_version" not in tables or "archive" not in tables:
        raise UsageError("the database is not an index of tomowire")
    if not connection.execute("SELECT 1 FROM pragma_table_info('instances') WHERE name = 'checksum'").fetchone():
        raise UsageError("the index was made before version 0.1.0: run 'tomowire db reindex'")
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None or not connection.execute("SELECT 1 FROM archive WHERE id = 1").fetchone():
        raise UsageError("the index does not say what it is of: run 'tomowire db reindex'")
    return str(row[0])


def create_schema(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty database, in one transaction. Raises `sqlite3.Error`."""
    ddl = _SCHEMA.read_text("ascii")
    statements = [statement for statement in ddl.split(";\n") if statement.strip()]
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute(_VERSION_TABLE)
        connection.execute("INSERT INTO alembic_version VALUES (?)", (CURRENT,))
        connection.execute("INSERT INTO archive (id, archive_id, last_batch) VALUES (1, ?, 0)", (uuid.uuid4().hex,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def create_former_schema(path: Path, version: str) -> None:
    """Make the tables of an older version in the empty database at `path`. Raises what `is_of_the_database`."""
    _migrate(path, MIGRATIONS, None, version)


def upgrade(
    path: Path, *, migrations: Path = MIGRATIONS, on_upgrade: OnUpgrade | None = None
) -> tuple[str | None, str | None]:
    """Bring the database at `path` to the current schema, in one transaction; gives the version before and the one after.

    Raises `UsageError` if it is newer than this program or no index; `IndexUnavailable` if it cannot be changed: then it is as it
    was.
    """
    try:
        before = _version_at(path)
        if before != CURRENT or migrations != MIGRATIONS:
            _migrate(path, migrations, on_upgrade)
        return before, _version_at(path)
    except Exception as error:
        if not is_of_the_database(error):
            raise
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        # Of a version that no migration begins at it can only be made again.
        is_damage = any(kind.__module__.startswith("alembic") for kind in type(error).__mro__)
        text = f"the index cannot be upgraded, and is as it was: {reason}"
        raise IndexUnavailable(text, is_damage=is_damage) from error


def is_of_the_database(error: Exception) -> bool:
    """Whether a database's driver, SQLAlchemy or Alembic raised it: they are imported only where there is something to migrate."""
    return any(
        kind.__module__.partition(".")[0] in ("sqlite3", "psycopg", "sqlalchemy", "alembic")
        for kind in type(error).__mro__
    )


def require_current(connection: sqlite3.Connection) -> str | None:
    """The version found: current, older (to be upgraded), or None for an empty database.

    Raises `UsageError` for an index that a later tomowire has made.
    """
    version = schema_version(connection)
    if version is not None:
        check_known(version)
    return version


def require_no_newer(path: Path) -> None:
    """Raises `UsageError` if a later tomowire has made the database. Whether it can be read does not matter."""
    try:
        with closing(connect_reader(path)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return
    if row is not None:
        check_known(str(row[0]))


def check_known(version: str) -> None:
    """Raises `UsageError` for a schema that a later tomowire has made."""
    if version > CURRENT:
        raise UsageError(f"the index has schema {version}, and this program knows only {CURRENT}: use a newer tomowire")


def _version_at(path: Path) -> str | None:
    connection = connect_writer(path)
    try:
        return require_current(connection)
    finally:
        connection.close()


def _migrate(path: Path, migrations: Path, on_upgrade: OnUpgrade | None, version: str = "head") -> None:
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    engine = create_engine("sqlite://", creator=lambda: connect_writer(path), poolclass=NullPool)
    # Python's driver does not begin a transaction for DDL of its own accord, SQLAlchemy leaves that to it, and a migration
    # that fails half-way must leave nothing.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as connection:
        is_news = run_migrations(connection, migrations, on_upgrade=on_upgrade, version=version)
    if is_news and on_upgrade is not None:
        on_upgrade.committed()


def run_migrations(
    connection: Connection,
    migrations: Path = MIGRATIONS,
    *,
    schema: str | None = None,
    on_upgrade: OnUpgrade | None = None,
    version: str = "head",
) -> bool:
    """Apply what `migrations` has up to `version` and the database has not, in the transaction that `connection` is in; whether
    that was anything.

    `schema` is where the version stands, if not in the first place where a table of that name is found.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.migration import MigrationContext

    versions = MigrationContext.configure(connection, opts={"version_table_schema": schema})
    before = versions.get_current_revision()

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["schema"] = schema
    command.upgrade(config, version)
    after = versions.get_current_revision()
    if after != before and on_upgrade is not None:
        on_upgrade.upgraded(connection, before, after)
    return after != before
