"""An index in a database of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal

from tomowire.errors import UsageError
from tomowire.server.index import integrity
from tomowire.server.index.index_url import place_of, shown

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import Engine

    from tomowire.server.files import DataDirectory
    from tomowire.server.index.backend import Rebuild
    from tomowire.server.index.postgres_connect import Connection
    from tomowire.server.index.postgres_writer import PostgresWriter
    from tomowire.server.index.reader import IndexReader
    from tomowire.server.index.versions import OnUpgrade

# As of `PostgresSession`: users and jobs would be lost with the power, and audit events that `audit.anchor` says were there.
_DURABLE: Final = (
    b"SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
_INVALID: Final = (
    "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
    " WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace"
)


class PostgresBackend:
    """The `IndexBackend` of the database at `url`. psycopg is imported when it is first used."""

    dialect: Final[Literal["sqlite", "postgresql"]] = "postgresql"

    def __init__(self, url: str, *, fsync: bool, busy_timeout: float, on_upgrade: OnUpgrade | None = None) -> None:
        self._url = url
        self._fsync = fsync
        self._busy_timeout = busy_timeout
        self._on_upgrade = on_upgrade

    def __repr__(self) -> str:
        return f"PostgresBackend({self.name!r})"

    @property
    def name(self) -> str:
        return shown(self._url)

    @property
    def short_name(self) -> str:
        return self.name

    @property
    def place(self) -> str:
        return place_of(self._url)

    def settle(self, directory: DataDirectory) -> None:
        from tomowire.server.index.postgres_rebuild import forget_rebuild

        forget_rebuild(self._connect)

    def exists(self) -> bool:
        with self._connect():
            return True

    def is_empty(self) -> bool:
        return self.version() is None

    def version(self) -> str | None:
        from tomowire.server.index.postgres_versions import schema_version

        with self._connect() as connection:
            return schema_version(connection)

    def open_writer(self) -> PostgresWriter:
        from tomowire.server.index.postgres_session import PostgresSession
        from tomowire.server.index.postgres_writer import PostgresWriter

        self.upgrade()
        session = PostgresSession(self.name, self._connect, fsync=self._fsync, busy_timeout=self._busy_timeout)
        return PostgresWriter(session)

    def open_reader(self, *, older: bool = False) -> IndexReader:
        from tomowire.server.index.postgres_reader import PostgresReader
        from tomowire.server.index.postgres_versions import schema_version
        from tomowire.server.index.versions import CURRENT

        connection = self._connect()
        try:
            version = schema_version(connection)
            if version is None:
                raise UsageError("the index is empty: run 'tomowire db reindex'")
            if version != CURRENT and not older:
                raise UsageError(f"the index has schema {version}: run 'tomowire db upgrade'")
            return PostgresReader(connection)
        except BaseException:
            connection.close()
            raise

    def engine(self) -> Engine:
        from tomowire.server.index.engines import postgres_engine

        return postgres_engine(self._connect_for_records)

    def upgrade(self) -> tuple[str | None, str | None]:
        from tomowire.server.index import postgres_versions

        return postgres_versions.upgrade(self._url, on_upgrade=self._on_upgrade)

    def require_no_newer(self) -> None:
        self.version()

    def damage(self) -> Iterator[str]:
        from tomowire.server.index.postgres_connect import postgres_errors

        with self._connect() as connection, postgres_errors():
            for (name,) in connection.execute(_INVALID).fetchall():
                yield f"{name} is not valid: run REINDEX INDEX {name}"

    def lonely_rows(self) -> Iterator[str]:
        from tomowire.server.index.postgres_connect import postgres_errors

        with self._connect() as connection, postgres_errors():
            yield from integrity.lonely_rows(lambda sql: connection.execute(sql.encode()).fetchall())

    def dump(self, path: Path) -> None:
        from tomowire.server.index.dumping import dump_tables

        engine = self.engine()
        try:
            dump_tables(engine, path)
        finally:
            engine.dispose()

    def load(self, dump: Path, directory: DataDirectory) -> None:
        from tomowire.server.index.dumping import load_tables

        self.upgrade()
        engine = self.engine()
        try:
            load_tables(dump, engine)
        finally:
            engine.dispose()

    def rebuild(self, *, of_before: bool = False) -> AbstractContextManager[Rebuild]:
        from tomowire.server.index.postgres_rebuild import rebuild_postgres

        self.upgrade()
        return rebuild_postgres(self.name, self._connect, busy_timeout=self._busy_timeout, of_before=of_before)

    def _connect_for_records(self) -> Connection:
        """One that says in time, and by itself, that others are in the way or that a statement takes for ever."""
        from tomowire.server.index.postgres_connect import postgres_errors

        connection = self._connect()
        lock, statement = max(1, int(self._busy_timeout * 1000)), int(connection.patience * 800)
        try:
            with postgres_errors():
                connection.execute(f"SET lock_timeout = {lock}; SET statement_timeout = {statement}".encode())
                if self._fsync:
                    connection.execute(_DURABLE)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> Connection:
        from tomowire.server.index.postgres_connect import connect

        return connect(self._url)
