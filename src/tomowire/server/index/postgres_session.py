"""The one connection that writes to an index in PostgreSQL: held exclusively, and made again when it is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from tomowire.errors import IndexUnavailable
from tomowire.server.index.hangup import Hangup
from tomowire.server.index.postgres_connect import Connection, first_line, is_lost, postgres_errors

logger: Final = logging.getLogger(__name__)

_WRITING: Final = 0x746F6D6F_77697201
"""The advisory lock of the writer: "tomowir" and 1."""

_LOCK: Final = f"SELECT pg_advisory_lock({_WRITING})".encode()
_HELD: Final = (
    " FROM pg_locks WHERE locktype = 'advisory' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    f" AND classid = {_WRITING >> 32} AND objid = {_WRITING & 0xFFFFFFFF}"
)
_HOLDER: Final = f"{_HELD} AND pid <> pg_backend_pid()"
_WHO: Final = f"SELECT pid, client_addr FROM pg_stat_activity WHERE pid IN (SELECT pid{_HOLDER})".encode()
_END: Final = f"SELECT pg_terminate_backend(pid){_HOLDER} AND pid = %s".encode()

# The server notices by itself, and lets go of the lock, when this program is gone without a word. A transaction that is to
# survive a power cut is not left to `synchronous_commit = off`; whatever else is set there is the operator's choice.
#
# The writer looks up rows by keys, and nothing else: a plan is made once, and is the same for an empty table and a full one.
_PREPARE: Final = (
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;"
    " SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;"
    " SET statement_timeout = {statement}; SET lock_timeout = {lock}; SET synchronous_commit = {commit}"
)
# A pooler before the server may have given the lock to another of its connections; a standby takes no rows.
_ABLE: Final = (
    f"SELECT EXISTS (SELECT 1{_HELD} AND pid = pg_backend_pid()), current_setting('transaction_read_only') = 'off'"
).encode()
_STATE: Final = b"SELECT archive_id, last_batch FROM archive WHERE id = 1"


def is_free(connection: Connection) -> bool:
    """Whether nobody writes to the index. If so, this connection keeps others from it until it is closed."""
    return connection.execute(f"SELECT pg_try_advisory_lock({_WRITING})".encode()).fetchone() == (True,)


class PostgresSession:
    """`with session.working() as connection`: a connection that no other writer of this index has.

    When it is lost, whatever was being done with it fails with `IndexUnavailable`, and the next `working` makes a new one. That
    waits until the server has let go of the old one: then all that was on its way is either committed or never will be.
    """

    def __init__(self, name: str, make: Callable[[], Connection], *, fsync: bool, busy_timeout: float) -> None:
        """Raises `IndexUnavailable`, also if another writer has not gone after `busy_timeout` seconds."""
        self.archive_id = ""
        self.last_batch = 0
        self.on_open: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self.hangup: Final = Hangup()
        self._name = name
        self._make = make
        self._fsync = fsync
        self._busy_timeout = busy_timeout
        self._connection: Connection | None = None
        self._last_pid = 0
        self._is_gone = False
        self._is_taken = False
        try:
            self._connection = self._open()
        except BaseException:
            self.hangup.close()
            raise

    def close(self) -> None:
        self.hangup.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    def require_writable(self) -> None:
        """Raises `IndexUnavailable` if others could write to the index, or this connection cannot."""
        with self.working() as connection:
            row = connection.execute(_ABLE).fetchone()
        if row is None or not row[0]:
            raise IndexUnavailable("the lock on the index is not held: is there a pooler before the server?")
        if not row[1]:
            raise IndexUnavailable("the database is read-only (a standby?)")

    @contextmanager
    def working(self) -> Iterator[Connection]:
        """The connection. If the block fails, the transaction that it has begun is rolled back."""
        connection = self._connected()
        try:
            with postgres_errors():
                yield connection
        except BaseException as error:
            self._recover(connection, error)
            raise

    def _connected(self) -> Connection:
        if self._connection is None:
            try:
                self._connection = self._open()
                self.on_open()
            except IndexUnavailable as error:
                self._tell_of_loss(error)
                if error.is_taken:
                    self._tell_of_other(error)
                raise
            self._is_taken = False
            if self._is_gone:
                self._is_gone = False
                logger.warning("the index %s is back", self._name)  # whoever read of the loss reads of its end
        return self._connection

    def _open(self) -> Connection:
        connection = self._make()
        try:
            with postgres_errors():
                self._prepare(connection)
                self._take_lock(connection)
                row = connection.execute(_STATE).fetchone()
            if row is None or self.archive_id not in ("", row[0]):
                raise IndexUnavailable("the index is not the one that was opened: start the archive again")
            if row[1] < self.last_batch:
                logger.error(
                    "the index %s has lost %d batches that were committed (a failover to a standby that was behind?): their "
                    "objects are not found until the archive is stopped and 'tomowire db check --repair' has indexed them",
                    self._name,
                    self.last_batch - row[1],
                )
            if self.archive_id and row[1] > self.last_batch + 1:  # of the one more nobody knew whether it was committed
                logger.error(
                    "another archive has written to the index %s meanwhile: 'tomowire db check' finds what has no file here",
                    self._name,
                )
            self.archive_id, self.last_batch = row
        except BaseException:
            connection.close()
            raise
        self._last_pid = connection.info.backend_pid
        self.hangup.watch(connection.fileno())
        return connection

    def _prepare(self, connection: Connection) -> None:
        setting = connection.execute(b"SHOW synchronous_commit").fetchone()
        assert setting is not None
        commit = "off" if not self._fsync else "on" if setting[0] == "off" else setting[0]
        # The server gives up before this program does: its answer says why, and the connection stays.
        statement = int(min(connection.patience, 86_400) * 800)
        sql = _PREPARE.format(statement=statement, lock=max(1, int(self._busy_timeout * 1000)), commit=commit)
        connection.execute(sql.encode())

    def _take_lock(self, connection: Connection) -> None:
        if self._last_pid:
            connection.execute(_END, (self._last_pid,))
        try:
            connection.execute(_LOCK)
        except psycopg.errors.LockNotAvailable as error:
            pid, address = connection.execute(_WHO).fetchone() or ("?", None)
            where = f"{pid} from {address}" if address else str(pid)
            raise IndexUnavailable(f"another archive uses the index (server process {where})", is_taken=True) from error

    def _recover(self, connection: Connection, error: BaseException) -> None:
        """After a failure: end the transaction, or give up the connection."""
        try:
            if not is_lost(connection):
                connection.rollback()
        except psycopg.Error:
            pass
        if is_lost(connection):
            connection.close()
            self._connection = None
            self._tell_of_loss(error)
            self.on_lost()

    def _tell_of_other(self, error: IndexUnavailable) -> None:
        if not self._is_taken:
            self._is_taken = True
            logger.error(
                "%s: %s, since this one had lost it, and nothing is stored here. Only one of the two may run: stop the other, and "
                "this one goes on by itself within seconds; or stop this one, and have its senders use the other",
                self._name,
                error,
            )

    def _tell_of_loss(self, error: BaseException) -> None:
        if not self._is_gone:
            self._is_gone = True
            reason = first_line(error) if isinstance(error, psycopg.Error) else error
            logger.warning("the index %s is lost, and nothing is stored until it is back: %s", self._name, reason)
