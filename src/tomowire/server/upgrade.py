"""`tomowire db upgrade`: the index of an archive that is not running, brought to this program's schema."""

from __future__ import annotations

from pathlib import Path

from tomowire.errors import UsageError
from tomowire.server.files import DataDirectory
from tomowire.server.index import versions
from tomowire.server.swap import finish_swap


def upgrade(root: Path | str) -> tuple[str | None, str | None]:
    """Migrate the index of the archive in `root`; gives the version of its schema before and after.

    Raises `UsageError` if there is no archive or index, a process uses it, or a newer program has made it; `OSError`;
    `IndexUnavailable` if the database cannot be changed: then it is as it was.
    """
    with DataDirectory.inspect(root) as directory:
        if not directory.is_locked:
            raise UsageError(f"the data directory {directory.root} is in use by another process: stop it first")
        finish_swap(directory)
        if not directory.index_path.exists():
            raise UsageError(f"{directory.root} has no index: run 'tomowire db reindex'")
        return versions.upgrade(directory.index_path)
