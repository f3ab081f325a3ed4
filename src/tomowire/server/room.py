"""Room on the disk that objects are not given.

Where the index is on the disk of the objects, deleting takes room: SQLite writes down what it is about to remove. A disk that
objects have filled to the last byte could be freed by nobody, neither a quota nor a person, and the audit trail could not grow.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tomowire.errors import IndexUnavailable

KEPT: Final = 512 << 20
"""Bytes that are kept free, or the twentieth part of a disk that is small."""


_LEAST: Final = 1 << 20
"""Bytes with which SQLite can still work: where it cannot make its log longer it says no more than "disk I/O error"."""


def is_full(root: Path) -> bool:
    """Whether no more objects are taken on the disk with `root`. Raises `OSError`."""
    figures = os.statvfs(root)
    # A file system may know nothing of its size (some in user space): then it is never full.
    return figures.f_bavail * 20 < min(20 * KEPT // max(figures.f_frsize, 1), figures.f_blocks)


def require_room(root: Path) -> None:
    """Raises `OSError` if the disk is full. One call of the system: for worker threads."""
    if is_full(root):
        raise OSError(
            errno.ENOSPC, "the disk is full: what is left is kept for the index, for deleting and for the audit trail"
        )


def is_of_room(error: Exception, root: Path) -> bool:
    """Whether `error` came of it that the disk with `root` is full; to be asked before anything is removed there."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    cause = error.__cause__ if isinstance(error, IndexUnavailable) else error
    cause = getattr(cause, "orig", cause)  # SQLAlchemy's errors have the driver's
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code != sqlite3.SQLITE_IOERR:
        return code == sqlite3.SQLITE_FULL
    try:
        figures = os.statvfs(root)
    except OSError:  # it has gone
        return False
    return figures.f_blocks > 0 and figures.f_bavail * figures.f_frsize < _LEAST


@contextmanager
def told_where(place: Path) -> Iterator[None]:
    """For an error that came of a full disk, and does not say which, `OSError` is raised that does: it is the one with `place`."""
    try:
        yield
    except (IndexUnavailable, OSError) as error:
        if getattr(error, "filename", None) is not None or not is_of_room(error, place):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(place)) from error


@contextmanager
def told_of_room(root: Path, what_to_do: str) -> Iterator[None]:
    """For an error that came of a full disk `IndexUnavailable` is raised that says so, where, and `what_to_do`."""
    try:
        yield
    except (IndexUnavailable, OSError) as error:
        if not is_of_room(error, root):
            raise
        raise IndexUnavailable(f"the disk with {root} is full: {what_to_do}") from error
