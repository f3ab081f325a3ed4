"""DICOM files as an SCU needs them: which object is in a file, and where its data set begins. The data set itself stays unread."""

from __future__ import annotations

import os
from io import FileIO
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import MAX_WBITS, decompressobj
from zlib import error as ZlibError

from tomowire.errors import FileFormatError, IncompleteFileMeta
from tomowire.services.reading import read_pieces
from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tomowire.wire.part10 import PREAMBLE_LENGTH, PREFIX, FileMeta, decode_file_meta
from tomowire.wire.value import value
from tomowire.wire.vrs import LONG_VRS

if TYPE_CHECKING:
    from pathlib import Path

    from tomowire.services.reading import FilePieces

FIRST_READ: Final = 1024
"""Bytes that say nearly always which object it is."""
NO_DATA_SET: Final = "it ends with its file meta information: there is no data set"
MOST_READ: Final = 1 << 20
"""Bytes that are read at most to find out."""
_IMPLICIT: Final = Struct("<HHI")
_SHORT: Final = Struct("<HH2sH")
_SHORT_BIG: Final = Struct(">HH2sH")
_LONG: Final = Struct("<HH2sHI")
_LONG_BIG: Final = Struct(">HH2sHI")
_LONG_VRS: Final = frozenset(vr.encode("ascii") for vr in LONG_VRS)
_FILE_META_GROUP: Final = b"\x02\x00"
_IDENTIFYING_GROUP: Final = 0x0008
_SOP_CLASS: Final = 0x0016
_SOP_INSTANCE: Final = 0x0018
_UID_LENGTH: Final = 64
_NO_META: Final = FileMeta("", "", "")


@value()
class DicomFile:
    """One object in a file: its identity (UIDs as text), and where its data set lies (bytes)."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int
    size: int

    def __hash__(self) -> int:
        # The path says nearly all. The hash of all fields took 12 calls, three times for each file that is sent.
        return hash(self.path)

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path)

    @property
    def repeatable(self) -> bool:
        return True

    def pieces(self, payload: int) -> FilePieces:
        """The data set as it is in the file; see `Source`."""
        return read_pieces(self.path, self.offset, self.size, payload, to_end=True)

    @classmethod
    def unread(cls, path: Path) -> DicomFile:
        """What stands for a file that could not be read: nothing but its path."""
        return cls(path, "", "", "", 0, 0)


def inspect(path: Path) -> DicomFile:
    """Find out which object is in a file, from its file meta information and the first elements of its data set.

    The SOP Class and Instance UID of the data set count more than those of the file meta information: what edits files often
    changes one of the two, and an SCP compares the command with the data set (PS3.4 B.2.3). Without file meta information all
    comes from the data set.

    Raises `FileFormatError` for what is not DICOM, `OSError` for what cannot be read.
    """
    with FileIO(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(FIRST_READ)
        while True:
            try:
                found = identify(head)
            except IncompleteFileMeta as error:
                more = file.read(max(error.needed - len(head), FIRST_READ))
                if not more or len(head) > MOST_READ:
                    raise FileFormatError("the file ends inside its file meta information") from None
                head += more
            else:
                return DicomFile(path, *found, size - found.offset)


class Identity(NamedTuple):
    """Which object it is, in which transfer syntax, and where its data set begins."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int


def identify(head: bytes) -> Identity:
    """What the first bytes of a DICOM file say, as `inspect` describes it.

    Raises `IncompleteFileMeta` if they are too few, `FileFormatError` for what is not DICOM.
    """
    if head[PREAMBLE_LENGTH : PREAMBLE_LENGTH + len(PREFIX)] == PREFIX or head[:2] == _FILE_META_GROUP:
        meta, offset = decode_file_meta(head)
    else:
        meta, offset = _NO_META, 0
    syntax = meta.transfer_syntax_uid or _guessed_syntax(head, offset)
    uids = _first_uids(head, offset, syntax)
    sop_class = uids.get(_SOP_CLASS) or meta.media_storage_sop_class_uid
    sop_instance = uids.get(_SOP_INSTANCE) or meta.media_storage_sop_instance_uid
    if not (sop_class and sop_instance):
        raise FileFormatError("neither file meta information nor data set names a SOP class and a SOP instance")
    return Identity(sop_class, sop_instance, syntax, offset)


def is_marked(path: Path) -> bool:
    """Whether a file shows that it was meant to be DICOM, readable or not. Raises `OSError`.

    It has the prefix (PS3.10 7.1), or begins with an element of the file meta information or of the identifying group, as a data
    set does that was written without it.
    """
    with FileIO(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(PREAMBLE_LENGTH + len(PREFIX))
    return head[PREAMBLE_LENGTH:] == PREFIX or _begins_with_element(head, size)


def _begins_with_element(head: bytes, size: int) -> bool:
    group, vr = head[:2], head[4:6]
    if vr.isalpha() and vr.isupper():
        return group in (_FILE_META_GROUP, b"\x08\x00", b"\x00\x08")
    # Implicit VR: two bytes are no evidence, but with a small element number and a length that the file has room for they are.
    if group != b"\x08\x00" or len(head) < _IMPLICIT.size:
        return False
    number: int
    length: int
    _, number, length = _IMPLICIT.unpack_from(head)
    return number <= _SOP_INSTANCE and length % 2 == 0 and _IMPLICIT.size + length <= size


def _guessed_syntax(head: bytes, offset: int) -> str:
    """The uncompressed transfer syntax of a data set that nothing names, as old programs wrote them.

    The first element shows it: it must be of group 0008H, and a VR is two capital letters.
    """
    group, vr = head[offset : offset + 2], head[offset + 4 : offset + 6]
    has_vr = vr.isalpha() and vr.isupper()
    if group == b"\x08\x00":
        return EXPLICIT_VR_LITTLE_ENDIAN if has_vr else IMPLICIT_VR_LITTLE_ENDIAN
    if group == b"\x00\x08" and has_vr:
        return EXPLICIT_VR_BIG_ENDIAN
    if offset:
        raise FileFormatError("the file meta information names no transfer syntax, and the data set does not show it")
    raise FileFormatError("not a DICOM file: no DICM prefix, and no data set at its beginning")


def _first_uids(head: bytes, offset: int, syntax: str) -> dict[int, str]:
    """SOP Class and Instance UID by element number, as far as they stand in `head`, in which the data set begins at `offset`."""
    if syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        try:
            head, offset = decompressobj(-MAX_WBITS).decompress(head[offset:], FIRST_READ), 0
        except ZlibError:
            return {}
    uids: dict[int, str] = {}
    while offset + 12 <= len(head):
        group, number, start, length = _element(head, offset, syntax)
        if group != _IDENTIFYING_GROUP or number > _SOP_INSTANCE:
            break
        offset = start + length
        # What is longer than a UID can be would make a command set that peers refuse to read.
        if number >= _SOP_CLASS and offset <= len(head) and length <= _UID_LENGTH:
            uids[number] = head[start:offset].decode("latin-1").strip("\0 ")
    return uids


def _element(head: bytes, position: int, syntax: str) -> tuple[int, int, int, int]:
    """Group, number, start of the value and its length."""
    if syntax == IMPLICIT_VR_LITTLE_ENDIAN:
        group, number, length = _IMPLICIT.unpack_from(head, position)
        return group, number, position + 8, length
    short, long = (_SHORT_BIG, _LONG_BIG) if syntax == EXPLICIT_VR_BIG_ENDIAN else (_SHORT, _LONG)
    group, number, vr, length = short.unpack_from(head, position)
    if vr in _LONG_VRS:
        return group, number, position + 12, long.unpack_from(head, position)[4]
    return group, number, position + 8, length
