"""What lies in a folder, to see whether anything has changed where nothing should."""

from __future__ import annotations

import os
from pathlib import Path

# Type, size and time of the last change of what is there, by path.
Tree = dict[str, tuple[int, int, int]]


def tree_of(root: Path, *, without: Path) -> Tree:
    """All that is in `root`, except what is in `without`."""
    found: Tree = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if Path(folder, name) != without]
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            is_folder = name in folders
            found[path] = (status.st_mode, 0 if is_folder else status.st_size, 0 if is_folder else status.st_mtime_ns)
    return found
