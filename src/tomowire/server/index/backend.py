"""Where an index is kept: in a file of the data directory (SQLite), or in a database of its own (PostgreSQL).

All that differs between the two is behind `IndexBackend` and what it gives out; nobody else asks which of them it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from tomowire.server.index.connect import BUSY_TIMEOUT
from tomowire.server.index.index_url import parameters_of
from tomowire.server.index.location import require_here

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Engine

    from tomowire.server.files import DataDirectory
    from tomowire.server.index.reader import IndexReader
    from tomowire.server.index.rows import IndexWriter
    from tomowire.server.index.versions import OnUpgrade


class Rebuild(Protocol):
    """A new index, beside the one that is in use."""

    @property
    def writer(self) -> IndexWriter:
        """Fills it. What is written is durable only after `finish`."""

    @property
    def archive_id(self) -> str:
        """The name that the index has after `finish`."""

    def finish(self, directory: DataDirectory) -> Sequence[str]:
        """Put it in the place of the old one, in one step: killed at any moment, there is the one or the other.

        What the old one holds besides objects (`administration`) is in the new one, as far as it was to be kept. Gives what of that
        could not be.
        """


class IndexBackend(Protocol):
    """One index. All methods block, may be called by any thread, and raise `IndexUnavailable` for what the database cannot do, and
    `UsageError` for what is no index of this program's."""

    @property
    def name(self) -> str:
        """Where it is, for people; no password is in it."""

    @property
    def short_name(self) -> str:
        """Where it is, for people who know the data directory."""

    @property
    def place(self) -> str | None:
        """Which database it is, to be written down: HOST:PORT/DATABASE. None is the data directory."""

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]:
        """What SQLAlchemy calls it."""

    def settle(self, directory: DataDirectory) -> None:
        """Finish, or clear away, what a rebuild left that was killed. Nobody else may use the index meanwhile. Raises `OSError`."""

    def exists(self) -> bool:
        """Whether there is a database, be it without tables."""

    def is_empty(self) -> bool:
        """Whether there is no index: no database file, or one without tables."""

    def version(self) -> str | None:
        """That of its schema: this program's, or an older one; None without tables."""

    def open_writer(self) -> IndexWriter:
        """The writer, of an index that is made if there is none, and upgraded if it is old. Raises `OSError` too."""

    def open_reader(self, *, older: bool = False) -> IndexReader:
        """A reader of an index that is there, and current. `older`: or of an older schema, to ask for objects only."""

    def engine(self) -> Engine:
        """For `Records`, on an index whose schema is current. Imports SQLAlchemy."""

    def upgrade(self) -> tuple[str | None, str | None]:
        """Bring the schema up to date; gives the version before and after. An index that cannot be changed stays as it was."""

    def require_no_newer(self) -> None:
        """Raises `UsageError` if a later tomowire has made the index. Whether it can be read otherwise does not matter."""

    def damage(self) -> Iterator[str]:
        """What the database finds wrong with itself; nothing, if all is well."""

    def lonely_rows(self) -> Iterator[str]:
        """Rows without a row above or below them: no transaction of the archive leaves one."""

    def dump(self, path: Path) -> None:
        """Copy the index, as it is at this moment, to a new file: see `dumping`. Whoever stores goes on. Raises `OSError`."""

    def load(self, dump: Path, directory: DataDirectory) -> None:
        """Take the place of an index that is empty, in one step, from a dump with this program's schema. Raises `OSError`."""

    def rebuild(self, *, of_before: bool = False) -> AbstractContextManager[Rebuild]:
        """Begin a new index; what is not finished at the end is cleared away.

        `of_before`: another index has come after the one that is there, whose users and jobs (`statements.OF_ITS_TIME`) go.
        """


def backend_for(
    url: str | None,
    data_dir: Path | str,
    *,
    fsync: bool = True,
    busy_timeout: float = BUSY_TIMEOUT,
    on_upgrade: OnUpgrade | None = None,
    wherever: bool = False,
) -> IndexBackend:
    """The index at `url`, `postgresql://...`, or, for None, the file in `data_dir`. Nothing is opened yet.

    `fsync=False` gives up the promise that what is committed survives a power cut. `busy_timeout` (seconds) is how long to wait for
    another process that holds the index. `on_upgrade` is told when one of the methods brings the index to another schema. Raises
    `UsageError` for another kind of URL, and without the driver; and, unless it may be `wherever` it is, for None where the archive
    in `data_dir` is known to have its index elsewhere.
    """
    if url is None:
        if not wherever:
            require_here(data_dir)
        from tomowire.server.index.sqlite_backend import SqliteBackend

        path = Path(data_dir).absolute() / "index.sqlite"
        return SqliteBackend(path, fsync=fsync, busy_timeout=busy_timeout, on_upgrade=on_upgrade)
    parameters_of(url)  # that they are right, and that there is a driver
    from tomowire.server.index.postgres_backend import PostgresBackend

    return PostgresBackend(url, fsync=fsync, busy_timeout=busy_timeout, on_upgrade=on_upgrade)
