"""The jobs of an archive, from a command: it may be running at the same time, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.index.backend import backend_for
from tomowire.server.jobs.jobs import Jobs
from tomowire.server.records import Records

if TYPE_CHECKING:
    from tomowire.server.settings import Settings


@contextmanager
def open_jobs(settings: Settings, *, knows_nodes: bool = True) -> Iterator[Jobs]:
    """Jobs to be made, looked at and changed; nobody works on them here.

    `knows_nodes` says that the nodes in `settings` are all that the archive has.
    Raises `UsageError` when there is no archive, or its index is not current; `IndexUnavailable`.
    """
    backend = backend_for(settings.index_url, settings.data_dir)
    try:
        is_empty = backend.is_empty()
        if not is_empty:
            backend.open_reader().close()
    except UsageError as error:
        raise UsageError(f"{backend.name}: {error}") from error
    except IndexUnavailable as error:
        raise error.said(f"{backend.name}: {error}") from error
    if is_empty:
        raise UsageError(f"there is no archive yet at {backend.name}: 'tomowire serve' makes one")
    records = Records(backend.engine)
    try:
        yield Jobs(records, settings.jobs, nodes=(lambda: settings.nodes) if knows_nodes else None)
    finally:
        records.close()
