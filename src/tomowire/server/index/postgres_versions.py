"""The version of an index in PostgreSQL: made new, found current, or brought up to date; always by Alembic, in one transaction.

Two programs that start at once take turns: the second finds done what the first did. One that is killed in the middle leaves the
database as it was. SQLAlchemy and Alembic are imported only when there is something to migrate.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.index.postgres_connect import Connection, connect, postgres_errors
from tomowire.server.index.versions import CURRENT, MIGRATIONS, check_known, is_of_the_database, run_migrations

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.server.index.versions import OnUpgrade

_MIGRATING: Final = 0x746F6D6F_77697200
"""The advisory lock of whoever changes the schema: "tomowir" and 0."""

_TABLES: Final = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"


def schema_version(connection: Connection) -> str | None:
    """The schema of a database; None if it is empty.

    Raises `UsageError` if it is no index, or that of a later tomowire; `IndexUnavailable`.
    """
    with postgres_errors():
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise UsageError(f"the database keeps text as {encoding}: make one with ENCODING 'UTF8'")
        tables = {name for (name,) in connection.execute(_TABLES)}
        if not tables:
            return None
        if not {"alembic_version", "archive", "instances"} <= tables:
            raise UsageError("the database holds other tables, and no index of tomowire: use one of its own")
        row = connection.execute("SELECT version_num, (SELECT count(*) FROM archive) FROM alembic_version").fetchone()
    if row is None or row[1] != 1:
        raise UsageError("the index does not say what it is of: run 'tomowire db reindex'")
    check_known(row[0])
    return str(row[0])


def upgrade(
    url: str, *, migrations: Path = MIGRATIONS, on_upgrade: OnUpgrade | None = None
) -> tuple[str | None, str | None]:
    """Bring the database to the current schema, in one transaction; gives the version before and the one after.

    Raises `UsageError` if it is newer than this program or no index; `IndexUnavailable` if it cannot be changed: then it is as it
    was.
    """
    with connect(url) as connection:
        before = schema_version(connection)
    if before == CURRENT and migrations == MIGRATIONS:
        return before, before
    # However long it takes: an index on ten million rows takes minutes.
    make_tables(lambda: connect(url, patience=float("inf")), migrations=migrations, on_upgrade=on_upgrade)
    with connect(url) as connection:
        return before, schema_version(connection)


def make_tables(
    make: Callable[[], Connection],
    schema: str | None = None,
    *,
    migrations: Path = MIGRATIONS,
    on_upgrade: OnUpgrade | None = None,
) -> None:
    """Apply what `migrations` has and the database has not, in one transaction of a connection that `make` gives.

    `schema` is the first one of its search path, if that is not all there is. Raises `IndexUnavailable`.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    def creator() -> Connection:
        connection = make()
        connection.autocommit = False
        return connection

    engine = create_engine("postgresql+psycopg://", creator=creator, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            # Who comes second finds done what the first did.
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
            connection.exec_driver_sql("SET LOCAL synchronous_commit = on")  # as whoever stores has it
            is_news = run_migrations(connection, migrations, schema=schema, on_upgrade=on_upgrade)
    except Exception as error:
        if not is_of_the_database(error):
            raise
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise IndexUnavailable(f"the index cannot be upgraded, and is as it was: {reason}") from error
    if is_news and on_upgrade is not None:
        on_upgrade.committed()
