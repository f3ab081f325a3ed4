"""The jobs of an archive, from a command: it may be running at the same time, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from tomowire.server.index.sqlite_reader import SqliteReader
from tomowire.server.jobs.jobs import Jobs
from tomowire.server.records import Records, sqlite_engine

if TYPE_CHECKING:
    from tomowire.server.settings import Settings


@contextmanager
def open_jobs(settings: Settings) -> Iterator[Jobs]:
    """Jobs to be made, looked at and changed; nobody works on them here.

    Raises `UsageError` when there is no archive, or its index is not current; `IndexUnavailable`.
    """
    path = settings.data_dir.absolute() / "index.sqlite"
    SqliteReader.open(path).close()
    records = Records(partial(sqlite_engine, path))
    try:
        yield Jobs(records, settings.jobs)
    finally:
        records.close()
