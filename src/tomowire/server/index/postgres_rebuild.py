"""A new index in PostgreSQL, in a schema beside the one that is in use.

Its tables take the place of the old ones in one transaction. The tables that are not about objects stay where they are; those of an
index of before are emptied then, as far as they are of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from psycopg import sql

from tomowire.errors import IndexUnavailable
from tomowire.server.index import statements
from tomowire.server.index.postgres_connect import Connection, postgres_errors
from tomowire.server.index.postgres_session import PostgresSession, is_free
from tomowire.server.index.postgres_versions import make_tables
from tomowire.server.index.postgres_writer import PostgresWriter
from tomowire.server.posix import sync_directory

if TYPE_CHECKING:
    from tomowire.server.files import DataDirectory

_SUFFIX: Final = "_building"


class PostgresRebuild:
    """The new tables, in the schema `building`."""

    def __init__(self, session: PostgresSession, main: str, building: str, emptied: Sequence[str]) -> None:
        self.writer: Final = PostgresWriter(session)
        self._emptied = emptied
        self._session = session
        self._main = sql.Identifier(main)
        self._building = sql.Identifier(building)

    @property
    def archive_id(self) -> str:
        """Not the writer's: it has taken its lock before there was a table."""
        with self._session.working() as connection:
            ((archive_id,),) = connection.execute(self._compose("SELECT archive_id FROM {building}.archive")).fetchall()
        return str(archive_id)

    def finish(self, directory: DataDirectory) -> Sequence[str]:
        if directory.journal_path.exists():  # it is about the old index
            directory.journal_path.unlink()
            sync_directory(directory.journal_path.parent)
        with self._session.working() as connection:
            for table in statements.OBJECT_TABLES:  # or the first queries would be planned for empty ones
                connection.execute(self._compose("ANALYZE {building}.{table}", table))
            connection.execute(b"BEGIN")
            # What was built was not waited for to reach the disk: with this commit, all before it does.
            connection.execute(b"SET LOCAL synchronous_commit = on")
            for table in reversed(statements.OBJECT_TABLES):
                connection.execute(self._compose("DROP TABLE {main}.{table}", table))
            for table in statements.OBJECT_TABLES:
                connection.execute(self._compose("ALTER TABLE {building}.{table} SET SCHEMA {main}", table))
            for table in self._emptied:
                connection.execute(self._compose("DELETE FROM {main}.{table}", table))
            connection.execute(
                self._compose(
                    "UPDATE {main}.archive SET (archive_id, last_batch) ="
                    " (SELECT archive_id, last_batch FROM {building}.archive)"
                )
            )
            connection.execute(self._compose("DROP SCHEMA {building} CASCADE"))
            connection.execute(b"COMMIT")
        return ()

    def _compose(self, statement: str, table: str = "") -> sql.Composed:
        # Only words of ours are in `statement`.
        names = {"main": self._main, "building": self._building, "table": sql.Identifier(table or "archive")}
        return sql.SQL(statement).format(**names)


@contextmanager
def rebuild_postgres(
    name: str, make: Callable[[], Connection], *, busy_timeout: float, of_before: bool = False
) -> Iterator[PostgresRebuild]:
    """A new index, to take the place of the one that connections of `make` find, whose schema is current."""
    main = _schema_of(make)
    building = main + _SUFFIX
    made: list[Connection] = []

    def make_once() -> Connection:
        """What is built is not durable before the end: a server that was lost for a moment may have lost some of it."""
        if made:
            raise IndexUnavailable("the connection was lost while the index was built: start again")
        made.append(make())
        with postgres_errors():
            made[0].execute(_search_path(building, main))
        return made[0]

    session = PostgresSession(name, make_once, fsync=False, busy_timeout=busy_timeout)
    try:
        _drop(make, building)
        with make() as connection, postgres_errors():
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(building)))
        make_tables(lambda: _with_path(make(), building, main), building)
        yield PostgresRebuild(session, main, building, statements.OF_ITS_TIME if of_before else ())
    finally:
        session.close()
        with suppress(IndexUnavailable):
            _drop(make, building)


def forget_rebuild(make: Callable[[], Connection]) -> None:
    """Clear away what a rebuild left that was killed. One that another program is about is left alone."""
    building = _schema_of(make) + _SUFFIX
    with make() as connection, postgres_errors():
        found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (building,)).fetchone()
        if found is not None and is_free(connection):
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(building)))


def _schema_of(make: Callable[[], Connection]) -> str:
    with make() as connection, postgres_errors():
        ((schema,),) = connection.execute("SELECT current_schema()").fetchall()
    if schema is None:
        raise IndexUnavailable("the database has no schema in which this role may look for tables")
    return str(schema)


def _drop(make: Callable[[], Connection], schema: str) -> None:
    with make() as connection, postgres_errors():
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


def _with_path(connection: Connection, *schemas: str) -> Connection:
    with postgres_errors():
        connection.execute(_search_path(*schemas))
    return connection


def _search_path(*schemas: str) -> sql.Composed:
    return sql.SQL("SET search_path = ") + sql.SQL(", ").join(map(sql.Identifier, schemas))
