"""The folders of series: made when they are first needed, kept open, made durable, removed when they are empty again.

Only the writer thread uses them. An open folder saves the kernel from walking a path of 200 characters for every file, and is
what `fsync` needs anyway.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

from tomowire.server.files import DIRECTORY_MODE, FILE_MODE, OBJECTS
from tomowire.server.posix import sync_directory, sync_file

_OPEN_FOLDERS: Final = 64

_NO_LINKS: Final = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK))
"""What file systems without hard links say (FAT, SMB, FUSE), or with links in one folder only (AFS: EXDEV)."""


class SeriesFolders:
    """The folders below `objects/`. `folder` is always a path relative to the data directory."""

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self._root = root
        self._fsync = fsync
        self._open: OrderedDict[str, int] = OrderedDict()

    def create(self, folder: str, file_name: str) -> int:
        """Open a new file for writing, making its folder if need be. Raises `FileExistsError` and other `OSError`s."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(file_name, flags, FILE_MODE, dir_fd=self._descriptor(folder))
        except FileNotFoundError:  # somebody removed the folder behind our back
            self._forget(folder)
            return os.open(file_name, flags, FILE_MODE, dir_fd=self._descriptor(folder))

    def exists(self, folder: str, file_name: str) -> bool:
        """Whether there is such a file; makes the folder if need be. Raises `OSError`."""
        return os.access(file_name, os.F_OK, dir_fd=self._descriptor(folder))

    def size(self, path: str) -> int | None:
        """Of a file in bytes; None if there is none. Raises `OSError`."""
        try:
            return os.stat(self._root / path).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def adopt(self, part: Path, folder: str, file_name: str) -> None:
        """Give a part file its name in the store. Raises `FileExistsError` and other `OSError`s; never replaces a file."""
        try:
            self._link(part, folder, file_name)
        except FileNotFoundError:
            self._forget(folder)
            self._link(part, folder, file_name)

    def sync(self, folder: str) -> None:
        """Make the entries of `folder` durable."""
        if self._fsync:
            sync_file(self._descriptor(folder))

    def remove(self, path: str) -> None:
        """Remove a file, if it is there, and the folders above it that this leaves empty. Raises `OSError`."""
        folder = path.rpartition("/")[0]
        try:
            os.unlink(self._root / path)
        except FileNotFoundError:
            pass
        self._prune(folder)

    def sync_removed(self, folder: str) -> None:
        """Make it durable that files of `folder` are gone, or the folder itself, or those above it. Raises `OSError`."""
        while self._fsync:
            try:
                sync_directory(self._root / folder)
            except FileNotFoundError:
                if folder == OBJECTS:
                    raise
                folder = folder.rpartition("/")[0]
            else:
                return

    def trim(self) -> None:
        """Close the folders not used for longest; to be called between batches only."""
        while len(self._open) > _OPEN_FOLDERS:
            os.close(self._open.popitem(last=False)[1])

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def _link(self, part: Path, folder: str, file_name: str) -> None:
        try:
            os.link(part, file_name, dst_dir_fd=self._descriptor(folder))
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A rename would replace a file. Nobody but this thread makes files here, so that asking first is enough; and a
            # crash leaves nothing that recovery does not know: the journal names the file by now.
            if self.exists(folder, file_name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), file_name) from error
            os.rename(part, file_name, dst_dir_fd=self._descriptor(folder))

    def _descriptor(self, folder: str) -> int:
        descriptor = self._open.get(folder)
        if descriptor is None:
            self._make(folder)
            self._sync_parents(folder)
            descriptor = os.open(self._root / folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._open[folder] = descriptor
        else:
            self._open.move_to_end(folder)
        return descriptor

    def _make(self, folder: str) -> None:
        """Make a folder and those above it. Not `objects/` itself: without it the disk is not the one that it ought to be.

        (`os.makedirs` would make the folders above with a mode of its own, and let everybody list the studies.)
        """
        path = self._root / folder
        try:
            os.mkdir(path, DIRECTORY_MODE)
        except FileExistsError:
            pass
        except FileNotFoundError:
            above = folder.rpartition("/")[0]
            if above == OBJECTS:
                raise
            self._make(above)
            os.mkdir(path, DIRECTORY_MODE)

    def _sync_parents(self, folder: str) -> None:
        """Make the folder's own entry durable, whoever made it: a process that was killed before this line may have."""
        while self._fsync and folder != OBJECTS:
            folder = folder.rpartition("/")[0]
            sync_directory(self._root / folder)

    def prune(self, folder: str) -> None:
        """Remove a folder that is empty, and those above it that this leaves empty."""
        self._prune(folder)

    def _prune(self, folder: str) -> None:
        while folder != OBJECTS:
            try:
                os.rmdir(self._root / folder)
            except OSError:  # not empty, in nearly all cases; an empty folder does no harm in the others
                return
            self._forget(folder)
            folder = folder.rpartition("/")[0]

    def _forget(self, folder: str) -> None:
        descriptor = self._open.pop(folder, None)
        if descriptor is not None:
            os.close(descriptor)
