"""SQLAlchemy engines for `server.records`. SQLAlchemy is imported when the first is made."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.errors import IndexUnavailable
from tomowire.server.index.connect import BUSY_TIMEOUT, connect_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from tomowire.server.index import postgres_connect

WRITES: Final = "tomowire_writes"
"""The execution option of a transaction that is going to write."""

_NO_RIGHT: Final = "42501"
"""insufficient_privilege: an account of the database that may only read, say."""

_CONNECTIONS: Final = 4
"""One that writes, two that read, and one for whoever asks outside of the event loop; more are made when they are needed."""


def sqlite_engine(path: Path, *, fsync: bool = True, busy_timeout: float | None = None) -> Engine:
    """An engine for `Records` on the SQLite index at `path`, whose schema is current."""
    from sqlalchemy import QueuePool, create_engine, event

    timeout = BUSY_TIMEOUT if busy_timeout is None else busy_timeout
    engine = create_engine(
        "sqlite://",
        creator=lambda: connect_writer(path, fsync=fsync, busy_timeout=timeout),
        # This URL alone would be a database in memory, with a connection for each of five threads: a sixth one has one of the
        # others closed, in the middle of what it is asked.
        poolclass=QueuePool,
        pool_size=_CONNECTIONS,
        hide_parameters=True,  # an error is shown and logged, and names patients otherwise
    )

    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    # Python's driver would begin a transaction with the first INSERT, and not for what is read before it.
    event.listen(engine, "begin", begin)
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
    return engine


def postgres_engine(make: Callable[[], postgres_connect.Connection]) -> Engine:
    """An engine for `Records` on a PostgreSQL index whose schema is current; `make` gives its connections.

    A connection that was lost while nobody used it is replaced before it is used.
    """
    from sqlalchemy import create_engine

    def creator() -> postgres_connect.Connection:
        connection = make()
        connection.autocommit = False
        return connection

    return create_engine(
        "postgresql+psycopg://",
        creator=creator,
        pool_size=_CONNECTIONS,
        pool_pre_ping=True,
        hide_parameters=True,  # as above
    )


@contextmanager
def database_errors() -> Iterator[None]:
    """What the database cannot do becomes `IndexUnavailable`; what is wrong with a value or a statement stays as it is."""
    from sqlalchemy import exc  # not `sqlalchemy.exc`: see `lazily`

    try:
        yield
    except (
        exc.OperationalError,
        exc.InterfaceError,
        exc.InternalError,
    ) as error:  # the last: a standby that only reads
        raise IndexUnavailable(str(error.orig)) from error
    except exc.TimeoutError as error:
        raise IndexUnavailable("no connection to the index is free") from error
    except exc.IntegrityError:
        raise
    except exc.DBAPIError as error:
        if type(error) is exc.DatabaseError:  # of no kind: SQLite's "database disk image is malformed"
            raise IndexUnavailable(str(error.orig), is_damage=True) from error
        if not error.connection_invalidated and getattr(error.orig, "sqlstate", None) != _NO_RIGHT:
            raise
        raise IndexUnavailable(str(error.orig)) from error
