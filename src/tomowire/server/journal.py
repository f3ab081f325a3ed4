"""The journal: which files the batch at work may leave behind, made durable before the first of them exists.

One small file, overwritten in place by each batch: one write and one sync for the whole batch, no entry made or removed in any
directory. (Tried first: each object in a file of `incoming/`, synced, linked to its name, and unlinked after the commit; two
more system calls for each object, 17 µs against 11 µs on a RAM disk.)

What it says is "these files belong in the store only if the index says so". `recovery` acts on it after a crash.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final
from zlib import crc32

from tomowire.server.files import FILE_MODE
from tomowire.server.posix import sync_data, sync_directory
from tomowire.wire.value import value

_HEADER: Final = struct.Struct(">8sII")
"""Magic number, length and CRC-32 of what follows."""

_MAGIC: Final = b"TMWJRNL1"


@value()
class Intent:
    """One batch, before it begins."""

    archive_id: str
    """The index that the batch goes to: a journal says nothing about the files of another index."""

    batch: int
    """Its number, one more than that of the last batch in the index. A batch that failed is not counted."""

    paths: tuple[str, ...]
    """Files that the batch makes or supersedes, relative to the data directory."""


class Journal:
    """The journal file, open for writing."""

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        self._fsync = fsync
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        if fsync:
            sync_directory(path.parent)  # a journal that the power cut makes nameless says nothing

    def write(self, intent: Intent) -> None:
        """Make `intent` durable in place of the one before. Raises `OSError`; then no file may be made."""
        payload = "\n".join((intent.archive_id, str(intent.batch), *intent.paths)).encode("ascii")
        record = _HEADER.pack(_MAGIC, len(payload), crc32(payload)) + payload
        if os.pwrite(self._file, record, 0) != len(record):
            raise OSError("the journal was not written whole")
        if self._fsync:
            sync_data(self._file)

    def close(self) -> None:
        os.close(self._file)


def read_journal(path: Path) -> Intent | None:
    """The last intent, or None if there is none, or if the power failed while it was written: its batch never began."""
    try:
        record = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(record) < _HEADER.size:
        return None
    magic, length, checksum = _HEADER.unpack_from(record)
    payload = record[_HEADER.size : _HEADER.size + length]
    if magic != _MAGIC or len(payload) != length or crc32(payload) != checksum:
        return None
    archive_id, batch, *paths = payload.decode("ascii").split("\n")
    return Intent(archive_id, int(batch), tuple(paths))
