"""`tomowire db upgrade`: the index of an archive that is not running, brought to this program's schema."""

from __future__ import annotations

from pathlib import Path

from tomowire.errors import UsageError
from tomowire.server.files import DataDirectory
from tomowire.server.index.backend import backend_for
from tomowire.server.index.location import OR_NAMED
from tomowire.server.index.versions import OnUpgrade


def upgrade(
    root: Path | str, *, index_url: str | None = None, on_upgrade: OnUpgrade | None = None
) -> tuple[str | None, str | None]:
    """Migrate the index of the archive in `root`; gives the version of its schema before and after.

    `index_url` is where the index is, if not in `root`; `on_upgrade` is told if there was something to do. Raises `UsageError` if
    there is no archive or index, a process uses it, or a newer program has made it; `OSError`; `IndexUnavailable` if the database
    cannot be changed: then it is as it was.
    """
    with DataDirectory.inspect(root) as directory:
        directory.require_lock()
        directory.require_restored()
        backend = backend_for(index_url, directory.root, on_upgrade=on_upgrade)
        backend.settle(directory)
        if not backend.exists():
            raise UsageError(f"{directory.root} has no index: run 'tomowire db reindex'{OR_NAMED}")
        if backend.is_empty() and next(directory.object_files(), None) is not None:
            raise UsageError(
                f"{directory.root} holds objects, and {backend.name} no index: run 'tomowire db reindex'{OR_NAMED}"
            )
        return backend.upgrade()
