"""Where the index of a test's data directory is: in it, or in a PostgreSQL database of its own.

A test that uses the fixture `each_index` runs on both. What it needs of the package it takes from here, where each data directory
finds its index; `support.stored` and `support.crashes` do so too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomowire.server import archive
from tomowire.server import check as checking
from tomowire.server import reindex as reindexing
from tomowire.server import upgrade as upgrading
from tomowire.server.findings import Finding

if TYPE_CHECKING:
    from support.postgres import Cluster

_make: Callable[[], str] | None = None
_urls: dict[Path, str] = {}


@contextmanager
def databases(postgres: Cluster | None) -> Iterator[None]:
    """In the block each data directory has a database in `postgres`; or none, as always."""
    global _make
    made: list[str] = []

    def make() -> str:
        assert postgres is not None
        made.append(postgres.create())
        return postgres.url(made[-1])

    _make = None if postgres is None else make
    try:
        yield
    finally:
        _make = None
        _urls.clear()
        for name in made:
            assert postgres is not None
            postgres.drop(name)


def index_url_of(root: Path | str) -> str | None:
    """Where the index of the data directory `root` is; a new database if it has none yet."""
    if _make is None:
        return None
    root = Path(root).absolute()
    if root not in _urls:
        _urls[root] = _make()
    return _urls[root]


def share_index(root: Path, other: Path) -> None:
    """The data directory `other` is to have the database of `root`."""
    url = index_url_of(root)
    assert url is not None
    _urls[other.absolute()] = url


def lose_index(root: Path) -> None:
    """As if there had never been one."""
    if (url := index_url_of(root)) is None:
        (root / "index.sqlite").unlink()
    else:
        _execute(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def change_index(root: Path, sql: str) -> None:
    """Do something to it behind the archive's back, whatever other rows refer to."""
    if (url := index_url_of(root)) is not None:
        _execute(url, f"SET session_replication_role = replica; {sql}")
        return
    with closing(sqlite3.connect(root / "index.sqlite")) as connection:
        connection.execute(sql)
        connection.commit()


def select(root: Path, sql: str) -> list[tuple[Any, ...]]:
    """What the index says."""
    if (url := index_url_of(root)) is not None:
        return _execute(url, sql)
    with closing(sqlite3.connect(root / "index.sqlite")) as connection:
        return connection.execute(sql).fetchall()


def columns(root: Path, table: str) -> list[str]:
    """The names of a table's columns, in order."""
    if index_url_of(root) is None:
        return [row[1] for row in select(root, f"PRAGMA table_info({table})")]
    found = select(root, f"SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0")
    return [name for (name,) in found]


def open_storage(root: Path, **options: Any) -> archive.ArchiveStorage:
    return archive.ArchiveStorage(root, **({"index_url": index_url_of(root)} | options))


def check(root: Path, **options: Any) -> Iterator[Finding]:
    return checking.check(root, index_url=index_url_of(root), **options)


def reindex(root: Path, **options: Any) -> int:
    return reindexing.reindex(root, index_url=index_url_of(root), **options)


def upgrade(root: Path) -> tuple[str | None, str | None]:
    return upgrading.upgrade(root, index_url=index_url_of(root))


def _execute(url: str, sql: str) -> list[tuple[Any, ...]]:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description is not None else []
