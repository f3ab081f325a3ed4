"""A part file: a large object on its way to disk, hashed and scanned as it is written. For worker threads, one at a time."""

from __future__ import annotations

import os
from pathlib import Path

from tomowire.server.checksum import new_checksum
from tomowire.server.files import DataDirectory
from tomowire.server.index.scanner import HeaderScanner, ScannedHeader
from tomowire.server.posix import sync_file
from tomowire.server.room import require_room
from tomowire.services.file_writing import write_all


class PartFile:
    """Begins with the file's `header`, and takes the data set in pieces. Whatever is not stored in the end is to be discarded."""

    def __init__(self, directory: DataDirectory, header: bytes, transfer_syntax_uid: str) -> None:
        self._directory = directory
        self._header = header
        self._checksum = new_checksum()
        self._scanner = HeaderScanner(transfer_syntax_uid)
        self._descriptor = -1
        self.path: Path | None = None
        """Of the file; None before the first `write`."""
        self.size = 0
        """Bytes of the data set so far."""

    def write(self, buffers: tuple[memoryview, ...], *, last: bool) -> ScannedHeader | None:
        """Add to the data set; with the last piece the file becomes durable, and what the index needs is returned.

        Raises `OSError`; `DataSetError` as soon as the data set is seen to be broken or cut short.
        """
        if self.path is None:
            require_room(self._directory.root)
            self._descriptor, self.path = self._directory.create_part()
            write_all(self._descriptor, (self._header, *buffers))
        else:
            write_all(self._descriptor, buffers)
        for buffer in buffers:
            self._checksum.update(buffer)
            self._scanner.feed(buffer)
            self.size += len(buffer)
        return self._finish() if last else None

    @property
    def checksum(self) -> bytes:
        """Of the data set."""
        return self._checksum.digest()

    def discard(self) -> None:
        """Remove the file. Raises `OSError`."""
        self._close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _finish(self) -> ScannedHeader:
        header = self._scanner.finish()
        if self._directory.fsync:
            sync_file(self._descriptor)
        self._close()
        return header

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
