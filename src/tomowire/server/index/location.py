"""The file `index.location` of a data directory: in which database its index is, when that is not in the directory.

Who gives a command the directory, and forgets the URL or the configuration, would else find no index there, or one of before, and
make or use that. It is a note for people: whether an index is the one of the files says the mark (`tomowire.server.belonging`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tomowire.errors import UsageError
from tomowire.server.files import FILE_MODE, LOCATION, DataDirectory
from tomowire.server.posix import sync_directory, sync_file

_NEW: Final = f"{LOCATION}.new"
OR_NAMED: Final = ", or, if there is one in PostgreSQL, name it with --index-url or --config"
"""What to do where there is no index, and nothing says where it is."""


def location_of(root: Path | str) -> str | None:
    """Where the index of the archive in `root` is said to be; None if nothing is said. Raises `OSError`."""
    try:
        return (Path(root) / LOCATION).read_text("utf-8", "replace").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None


def require_here(root: Path | str) -> None:
    """Raises `UsageError` if the index of the archive in `root` is in a database of its own; `OSError`."""
    if (there := location_of(root)) is not None:
        raise UsageError(
            f"the index of the archive in {root} is in PostgreSQL, at {there}: name it with --index-url, or with --config the "
            "configuration that does. (If that database is lost, 'tomowire db reindex --move' makes an index from the files: "
            "without users, jobs, audit trail and protected studies.)"
        )


def note_location(directory: DataDirectory, place: str | None) -> None:
    """Say, durably, where the index is; None: in the directory. Whose lock that is must be held. Raises `OSError`."""
    if location_of(directory.root) == place:
        return
    path, new = directory.root / LOCATION, directory.root / _NEW
    if place is None:
        path.unlink(missing_ok=True)
    else:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE), "wb") as file:
            file.write(f"{place}\n".encode())
            file.flush()
            if directory.fsync:
                sync_file(file.fileno())
        os.replace(new, path)
    if directory.fsync:
        sync_directory(directory.root)
