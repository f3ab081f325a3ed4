"""Reading back what was stored: a whole file, in blocks, for those who verify it or index it again."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

from tomowire.errors import FileFormatError, IncompleteFileMeta, WireError
from tomowire.server.checksum import new_checksum
from tomowire.server.index.scanner import HeaderScanner, ScannedHeader
from tomowire.wire.part10 import FileMeta, decode_file_meta
from tomowire.wire.value import value

_BLOCK: Final = 1 << 20
_FIRST: Final = 4096


@value()
class StoredFile:
    """What is in a Part 10 file."""

    meta: FileMeta
    header_size: int
    """Bytes before the data set."""

    data_set_size: int
    checksum: bytes
    """Of the data set."""

    scanned: ScannedHeader | None
    """The attributes, if they were asked for."""


def stat_stored_file(path: Path) -> os.stat_result:
    """Raises `OSError`, also for what is no file: whoever opened a pipe would wait for ever."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no file", os.fspath(path))
    return found


def what_is_wrong(error: OSError | WireError) -> str:
    """Of a file that has been named already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def read_stored_file(path: Path, *, scan: bool) -> StoredFile:
    """Read a file to its end, a block at a time, hash it, and `scan` it for attributes if asked to.

    Raises `OSError`; `FileFormatError` if it is no DICOM file; `DataSetError` if it is scanned and broken.
    """
    with path.open("rb", buffering=0) as file:
        prefix = file.read(_FIRST)
        meta, header_size, prefix = _decode_meta(file, prefix)
        scanner = HeaderScanner(meta.transfer_syntax_uid) if scan else None
        checksum = new_checksum()
        size = 0
        block = memoryview(bytearray(_BLOCK))
        data = memoryview(prefix)[header_size:]
        while True:
            checksum.update(data)
            if scanner is not None:
                scanner.feed(data)
            size += len(data)
            count = file.readinto(block)
            if not count:
                break
            data = block[:count]
    return StoredFile(meta, header_size, size, checksum.digest(), scanner.finish() if scanner is not None else None)


def _decode_meta(file: BinaryIO, prefix: bytes) -> tuple[FileMeta, int, bytes]:
    while True:
        try:
            return *decode_file_meta(prefix), prefix
        except IncompleteFileMeta as error:
            more = file.read(max(error.needed - len(prefix), _FIRST))
            if not more:
                raise FileFormatError("the file ends within its file meta information") from error
            prefix += more
