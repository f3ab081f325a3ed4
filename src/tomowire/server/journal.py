"""The journal: which files the batch at work may leave behind, made durable before the first of them exists.

One small file, overwritten in place by each batch: one write and one sync for the whole batch, no entry made or removed in any
directory. (Tried first: each object in a file of `incoming/`, synced, linked to its name, and unlinked after the commit; two
more system calls for each object, 17 µs against 11 µs on a RAM disk.)

What it says is "these files belong in the store only if the index says so". `recovery` acts on it after a crash.

An index that does not know the batch has either not committed it, or has lost it: a database that failed over to a standby, or was
restored, is behind what its archive has answered with Success. The two must not be taken for each other, so `committed`, a file
beside the journal, says that the last batch was committed. It is written, and not synced, before anything is answered: that
outlives the process, which is what a kill is about, and costs next to nothing. What a power cut may have taken of it is told by the
system's boot id, which is in it too.
"""

from __future__ import annotations

import logging
import os
import struct
from enum import Enum
from pathlib import Path
from typing import Final
from zlib import crc32

from tomowire.server.files import FILE_MODE
from tomowire.server.posix import sync_data, sync_directory
from tomowire.wire.value import value

logger: Final = logging.getLogger(__name__)

_HEADER: Final = struct.Struct(">8sII")
"""Magic number, length and CRC-32 of what follows."""

_MAGIC: Final = b"TMWJRNL1"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@value()
class Intent:
    """One batch, before it begins."""

    archive_id: str
    """The index that the batch goes to: a journal says nothing about the files of another index."""

    batch: int
    """Its number, one more than that of the last batch in the index. A batch that failed is not counted."""

    paths: tuple[str, ...]
    """Files that the batch makes or supersedes, relative to the data directory."""

    @property
    def payload(self) -> bytes:
        return "\n".join((self.archive_id, str(self.batch), *self.paths)).encode("ascii")


class Commitment(Enum):
    """Whether the batch of the last intent was committed, as far as this side of the index knows."""

    COMMITTED = "committed"
    NOT_ANSWERED = "not answered with Success by anybody"
    UNKNOWN = "the system was started anew since"


class Journal:
    """The journal file, open for writing; `committed_path` is where `committed` is written."""

    def __init__(self, path: Path, committed_path: Path, *, fsync: bool = True) -> None:
        self._fsync = fsync
        self._boot_id = boot_id()
        self._last = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, FILE_MODE)
        try:
            self._committed = os.open(committed_path, flags | os.O_TRUNC, FILE_MODE)
        except BaseException:
            os.close(self._file)
            raise
        self._note(0)
        if fsync:
            sync_directory(path.parent)  # a journal that the power cut makes nameless says nothing

    def write(self, intent: Intent) -> None:
        """Make `intent` durable in place of the one before. Raises `OSError`; then no file may be made."""
        payload = intent.payload
        self._last = crc32(payload)
        record = _HEADER.pack(_MAGIC, len(payload), self._last) + payload
        if os.pwrite(self._file, record, 0) != len(record):
            raise OSError("the journal was not written whole")
        if self._fsync:
            sync_data(self._file)

    def committed(self) -> None:
        """The batch of the last intent is in the index; to be called before anybody gets Success."""
        self._note(self._last)

    def close(self) -> None:
        os.close(self._file)
        os.close(self._committed)

    def _note(self, checksum: int) -> None:
        note = f"{self._boot_id}\n{checksum:08x}\n".encode("ascii")
        try:
            os.pwrite(self._committed, note, 0)
        except OSError as error:  # it is in the index all the same
            logger.warning("that a batch was committed cannot be noted: %s", error)


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


def read_commitment(path: Path, intent: Intent) -> Commitment:
    """What the file `committed` at `path` says about the batch of the last intent."""
    try:
        noted_boot_id, checksum, _ = path.read_bytes().decode("ascii").split("\n")
        if int(checksum, 16) == crc32(intent.payload):
            return Commitment.COMMITTED
    except (FileNotFoundError, ValueError):
        return Commitment.UNKNOWN
    return Commitment.NOT_ANSWERED if noted_boot_id == boot_id() != "" else Commitment.UNKNOWN


def boot_id() -> str:
    """Another one each time that the system is started; "" where it does not say."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
