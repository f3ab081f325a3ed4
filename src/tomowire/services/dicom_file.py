"""DICOM files as an SCU needs them: which object is in a file, and where its data set begins. The data set itself stays unread."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import FileIO
from struct import Struct
from typing import TYPE_CHECKING, Final

from tomowire.errors import FileFormatError, IncompleteFileMeta
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.part10 import PREAMBLE_LENGTH, PREFIX, decode_file_meta

if TYPE_CHECKING:
    from pathlib import Path

    from tomowire.wire.part10 import FileMeta

_FIRST_READ: Final = 1024
_MOST_READ: Final = 1 << 20
_IMPLICIT: Final = Struct("<HHI")
_EXPLICIT: Final = Struct("<HH2sH")
_FILE_META_GROUP: Final = b"\x02\x00"
_IDENTIFYING_GROUP: Final = 0x0008
_SOP_CLASS: Final = 0x0016
_SOP_INSTANCE: Final = 0x0018


@dataclass(frozen=True, slots=True)
class DicomFile:
    """One object in a file: its identity (UIDs as text), and where its data set lies (bytes)."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int
    size: int


def inspect(path: Path) -> DicomFile:
    """Read the file meta information of one file; for a file without it, the first elements of a bare data set.

    Raises `FileFormatError` for what is not DICOM, `OSError` for what cannot be read.
    """
    with FileIO(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_FIRST_READ)
        # Some files have the file meta information without the preamble before it.
        if head[PREAMBLE_LENGTH : PREAMBLE_LENGTH + len(PREFIX)] != PREFIX and head[:2] != _FILE_META_GROUP:
            return _bare_data_set(path, head, size)
        meta, offset = _read_meta(file, head)
    found = DicomFile(
        path,
        meta.media_storage_sop_class_uid,
        meta.media_storage_sop_instance_uid,
        meta.transfer_syntax_uid,
        offset,
        size - offset,
    )
    if not found.transfer_syntax_uid:
        raise FileFormatError("the file meta information names no transfer syntax")
    if not (found.sop_class_uid and found.sop_instance_uid):
        raise FileFormatError("the file meta information names no SOP class or no SOP instance")
    return found


def _read_meta(file: FileIO, head: bytes) -> tuple[FileMeta, int]:
    """The file meta information and the offset of the data set, reading on from `head` as far as needed."""
    while True:
        try:
            return decode_file_meta(head)
        except IncompleteFileMeta as error:
            more = file.read(max(error.needed - len(head), _FIRST_READ))
            if not more or len(head) > _MOST_READ:
                raise FileFormatError("the file ends inside its file meta information") from None
            head += more


def _bare_data_set(path: Path, head: bytes, size: int) -> DicomFile:
    """A data set without preamble and meta information, as old programs wrote them: it must begin with group 0008H.

    Which of the two uncompressed little endian syntaxes it is shows in the first element: a VR is two capital letters.
    """
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    uids: dict[int, str] = {}
    position = 0
    while position + 8 <= len(head):
        if explicit:
            group, element, _, length = _EXPLICIT.unpack_from(head, position)
        else:
            group, element, length = _IMPLICIT.unpack_from(head, position)
        if group != _IDENTIFYING_GROUP or (explicit and not head[position + 4 : position + 6].isalpha()):
            break
        value = head[position + 8 : position + 8 + length]
        if element in (_SOP_CLASS, _SOP_INSTANCE):
            uids[element] = value.rstrip(b"\0 ").decode("ascii", "replace")
        position += 8 + length
    if not (uids.get(_SOP_CLASS) and uids.get(_SOP_INSTANCE)):
        raise FileFormatError("not a DICOM file: no DICM prefix, and no data set at its beginning")
    syntax = EXPLICIT_VR_LITTLE_ENDIAN if explicit else IMPLICIT_VR_LITTLE_ENDIAN
    return DicomFile(path, uids[_SOP_CLASS], uids[_SOP_INSTANCE], syntax, 0, size)
