"""The files below a folder, whatever is in it: links to nowhere and back, pipes, devices, folders that cannot be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tomowire.wire.value import value


@value()
class Passed:
    """Something that is not a file to be read, and why; `is_error` where it ought to have been."""

    path: Path
    reason: str
    is_error: bool


def files_below(path: Path) -> Iterator[Path | Passed]:
    """The file at `path`, or all files below the folder `path`, in the order of their names; nothing is raised.

    Links to files are followed, those to folders are not: they may lead back to where the search came from. Only the names of one
    folder, and of those above it, are in memory.
    """
    if path.is_dir():
        yield from _walk(path)
    else:
        yield _file_at(path)


def _walk(folder: Path) -> Iterator[Path | Passed]:
    waiting: list[list[tuple[str, bool]]] = []
    found = _listed(folder)
    while True:  # no recursion: a tree may be deeper than Python's stack
        if isinstance(found, Passed):
            yield found
        else:
            waiting.append(found)
        while waiting and not waiting[-1]:
            waiting.pop()
        if not waiting:
            return
        name, is_folder = waiting[-1].pop()
        path = Path(name)
        if is_folder:
            found = _listed(path)
        else:
            yield _file_at(path)
            found = []


def _listed(folder: Path) -> list[tuple[str, bool]] | Passed:
    """What is in a folder, the last name first."""
    try:
        with os.scandir(folder) as entries:
            return sorted(((entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries), reverse=True)
    except OSError as error:
        return Passed(folder, error.strerror or str(error), is_error=True)


def _file_at(path: Path) -> Path | Passed:
    """Opening a pipe would wait for its other end."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Passed(path, error.strerror or str(error), is_error=True)
    if stat.S_ISREG(mode):
        return path
    if stat.S_ISDIR(mode):
        return Passed(path, "a link to a folder: name the folder itself", is_error=False)
    return Passed(path, "neither a file nor a folder", is_error=False)
