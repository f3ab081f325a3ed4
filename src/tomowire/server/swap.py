"""Putting a rebuilt index in the place of the old one, so that a crash leaves either the one or the other.

The rebuilt index is `index.sqlite.ready` once it is complete and durable. What is left then can be done again at any time: the old
write-ahead log goes first, since SQLite would play it into the new database.
"""

from __future__ import annotations

import os
from pathlib import Path

from tomowire.server.files import DataDirectory
from tomowire.server.posix import sync_directory


def ready_path(directory: DataDirectory) -> Path:
    """Where a complete rebuilt index waits to take its place."""
    return directory.index_path.with_name("index.sqlite.ready")


def finish_swap(directory: DataDirectory) -> bool:
    """Put a rebuilt index that is ready in its place; False if there is none. Raises `OSError`."""
    ready = ready_path(directory)
    if not ready.exists():
        return False
    remove_logs(directory.index_path)
    directory.journal_path.unlink(missing_ok=True)  # it is about the old index
    sync_directory(directory.root)
    os.replace(ready, directory.index_path)
    sync_directory(directory.root)
    return True


def remove_logs(database: Path) -> None:
    """Remove what SQLite keeps beside a database; only for a database that is given up."""
    for suffix in ("-wal", "-shm", "-journal"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
