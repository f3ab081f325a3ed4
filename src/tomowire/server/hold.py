"""While a backup copies files none of them is removed: a lock that ends with the process, as that of the data directory does.

Objects do not change and what comes is not of the backup's moment, so what is deleted or replaced is all that could disturb it. Its
rows go at once, and its files when nobody holds them any more: they wait in the table `removals`.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tomowire.server.posix import lock, lock_shared, unlock

logger: Final = logging.getLogger(__name__)

_MODE: Final = 0o660
"""Nothing is in it; the archive and who makes its backups may be two users of one group."""


@contextmanager
def files_held(path: Path) -> Iterator[None]:
    """While the block lasts no file of an object is removed, in any process.

    `path` is `DataDirectory.hold_path`. On a file system that is read-only nothing is removed anyway; where it is so for this
    process only (a container), the file has to be there to be locked, and a warning says if it is not. Raises `OSError`.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        with _held_unwritten(path):
            yield
        return
    try:
        _give_to_owner(descriptor, path)
        lock_shared(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _held_unwritten(path: Path) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        logger.warning(
            "%s is read-only, and no file can be held there: if an archive can write to it all the same, what it deletes "
            "meanwhile is missing from this backup, and is named",
            path.parent,
        )
        yield
        return
    try:
        try:
            lock_shared(descriptor)
        except OSError as error:  # a network share
            logger.warning("the files in %s cannot be held: %s", path.parent, error)
        yield
    finally:
        os.close(descriptor)


def _give_to_owner(descriptor: int, path: Path) -> None:
    """Whoever makes backups may be another user (root), and the archive has to open the file as well."""
    owner, found = path.parent.stat(), os.fstat(descriptor)
    with suppress(PermissionError):  # it is somebody else's already
        if found.st_uid != owner.st_uid and os.geteuid() == 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        if found.st_mode & _MODE != _MODE:
            os.fchmod(descriptor, _MODE)


class Hold:
    """The other side, for the one thread that removes files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    @contextmanager
    def let_go(self) -> Iterator[bool]:
        """Whether nobody holds the files, so that they may be removed while the block lasts. Raises `OSError`.

        Somebody who makes the file a moment later reads the index after that, which does not name these files any more.
        """
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                yield True
                return
        if not lock(self._descriptor):
            yield False
            return
        try:
            yield True
        finally:
            unlock(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
