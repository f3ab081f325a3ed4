"""The storage folder of an Orthanc: which of its files are DICOM objects, and what is in them.

`<folder>/<ab>/<cd>/<UUID>`, where `abcd` are the first digits of the UUID, holds one attachment: an object, its header alone (kept
beside objects that are compressed), a summary in JSON, or anything that a user has attached. Which it is stands in Orthanc's index,
the SQLite database `index`, normally in the same folder. With an index elsewhere (PostgreSQL, MySQL) the files have to say it.

A compressed attachment begins with the size of its content (64 bits, little-endian), and goes on with that content as zlib writes
it.

See "How does Orthanc store its database?" in the Orthanc Book; what it leaves open was looked at in the files of version 1.10.1.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from tomowire.errors import FileFormatError, UsageError
from tomowire.server.files import FILE_MODE
from tomowire.services.file_writing import write_all
from tomowire.wire.value import value

_UUID: Final = re.compile(r"([0-9a-f]{2})([0-9a-f]{2})[0-9a-f]{4}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INDEX: Final = "index"
_SQLITE: Final = b"SQLite format 3\0"
_SIZE: Final = 8
_BLOCK: Final = 1 << 20
_ZLIB_METHOD: Final = 0x08
"""RFC 1950 2.2: the lower half of the first byte, for deflate; the first two bytes are a multiple of 31."""
_MOST_EXPANSION: Final = 1032
"""Deflate makes a byte out of no less: what claims more is no attachment."""
_LOOK_AT_FILE: Final = 0
_NOT_COMPRESSED: Final = 1
_COMPRESSED: Final = 2

_OBJECTS: Final = (
    "SELECT rowid, uuid, compressionType, uncompressedSize, uncompressedMD5 FROM AttachedFiles"
    " WHERE fileType = 1 AND rowid > ? ORDER BY rowid LIMIT 1000"
)


@value()
class Attachment:
    """A file that is an object, or may be one."""

    path: Path
    compression: int = _LOOK_AT_FILE
    size: int | None = None
    """Of the content in bytes, if the index says it."""

    md5: str = ""
    is_certain: bool = False
    """The index says that it is an object; otherwise it may be the header of one."""


def is_storage(folder: Path) -> bool:
    """Whether this is, or looks like, the storage folder of an Orthanc."""
    return has_index(folder) or any(_UUID.fullmatch(path.name) for path in _first_files(folder))


def has_index(folder: Path) -> bool:
    """Whether the index of an Orthanc lies in the folder."""
    try:
        with (folder / _INDEX).open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def is_attachment(path: Path) -> bool:
    """Whether a file has the name and the place of an attachment."""
    match = _UUID.fullmatch(path.name)
    return match is not None and (path.parent.parent.name, path.parent.name) == match.groups()


def indexed_objects(folder: Path) -> Iterator[Attachment]:
    """The objects that the index in the folder names. Raises `UsageError` if it cannot be read: Orthanc may be running."""
    try:
        with closing(sqlite3.connect(f"{(folder / _INDEX).absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as index:
            after = 0
            while rows := index.execute(_OBJECTS, (after,)).fetchall():
                for row, uuid, compression, size, md5 in rows:
                    after = row
                    if _UUID.fullmatch(str(uuid)):
                        path = folder / uuid[:2] / uuid[2:4] / uuid
                        yield Attachment(path, int(compression), int(size), str(md5 or ""), is_certain=True)
    except sqlite3.Error as error:
        raise UsageError(
            f"{folder / _INDEX} cannot be read ({error}): stop the Orthanc that uses it, or move it away to import without it"
        ) from error


def is_compressed(attachment: Attachment) -> bool:
    """Whether what is in the file has to be inflated. Raises `OSError`."""
    if attachment.compression != _LOOK_AT_FILE:
        return attachment.compression == _COMPRESSED
    with attachment.path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_SIZE + 2)
    if len(head) < _SIZE + 2 or head[_SIZE] & 0x0F != _ZLIB_METHOD or int.from_bytes(head[_SIZE:]) % 31:
        return False
    return 0 < int.from_bytes(head[:_SIZE], "little") <= size * _MOST_EXPANSION


def inflate(attachment: Attachment, target: Path) -> None:
    """Write the content of a compressed attachment to the new file `target`, a block at a time.

    Raises `FileFormatError` if it is not what it ought to be, `OSError`; then `target` is to be removed.
    """
    inflater = zlib.decompressobj()
    checksum = hashlib.md5(usedforsecurity=False)
    written = 0
    with attachment.path.open("rb") as file:
        expected = int.from_bytes(file.read(_SIZE), "little")
        into = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            while not inflater.eof and written <= expected:
                block = inflater.unconsumed_tail or file.read(_BLOCK)
                if not block:
                    break
                content = inflater.decompress(block, _BLOCK)
                checksum.update(content)
                write_all(into, (content,))
                written += len(content)
        except zlib.error as error:
            raise FileFormatError(f"the attachment cannot be inflated: {error}") from error
        finally:
            os.close(into)
    if not inflater.eof or written != expected or written != (attachment.size or written):
        raise FileFormatError(f"the attachment holds {written} bytes, and not the {expected} that it says")
    _require_md5(attachment, checksum.hexdigest())


def check_plain(attachment: Attachment) -> None:
    """Compare a file that is not compressed with what the index says. Raises `FileFormatError`, `OSError`."""
    if not attachment.md5:
        return
    with attachment.path.open("rb") as file:
        _require_md5(attachment, hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest())


def _require_md5(attachment: Attachment, found: str) -> None:
    if attachment.md5 and found != attachment.md5.lower():
        raise FileFormatError("the file is not what Orthanc has stored: its MD5 is another one")


def _first_files(folder: Path) -> Iterator[Path]:
    """The files in the first place where attachments would be."""
    for first in sorted(folder.glob("[0-9a-f][0-9a-f]"))[:16]:
        for second in sorted(first.glob("[0-9a-f][0-9a-f]"))[:4]:
            with suppress(OSError):
                yield from sorted(path for path in second.iterdir() if is_attachment(path))[:4]
