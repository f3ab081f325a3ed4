"""The bytes around pixel data: the head of its element, the items of encapsulated frames (PS3.5 A.4)."""

from __future__ import annotations

from io import BufferedIOBase
from struct import Struct
from typing import Final

from tomowire.errors import DataSetError
from tomowire.services.reencoding import PIXEL_DATA, UNDEFINED
from tomowire.uids import EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

_IMPLICIT: Final = Struct("<HHI")
_EXPLICIT: Final = Struct("<HH2sHI")
_EXPLICIT_BIG: Final = Struct(">HH2sHI")
_ITEM: Final = b"\xfe\xff\x00\xe0"

EMPTY_OFFSET_TABLE: Final = _ITEM + bytes(4)
"""The first item, with nothing in it: where frames begin is found by looking at them all."""
SEQUENCE_END: Final = b"\xfe\xff\xdd\xe0" + bytes(4)
"""What stands behind the last fragment."""

_VIDEO: Final = "1.2.840.10008.1.2.4.10"  # and a digit: MPEG-2, MPEG-4, HEVC


def is_video(transfer_syntax_uid: str) -> bool:
    """Whether all frames are one stream of bits (PS3.5 8.2.5 to 8.2.9)."""
    return transfer_syntax_uid.startswith(_VIDEO)


def head_of_pixels(transfer_syntax_uid: str, vr: str, length: int, tag: int = PIXEL_DATA) -> bytes:
    """Tag, VR and length of (7FE0,0010). Raises `DataSetError` for what is longer than can be said (PS3.5 7.1)."""
    if length > UNDEFINED:
        raise DataSetError(f"(7FE0,0010) PixelData has {length} bytes, more than an element can have")
    group, number = tag >> 16, tag & 0xFFFF
    if transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
        return _IMPLICIT.pack(group, number, length)
    layout = _EXPLICIT_BIG if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else _EXPLICIT
    return layout.pack(group, number, vr.encode("ascii"), 0, length)


def item_head(length: int) -> bytes:
    """What stands before a fragment of `length` bytes, an even number."""
    return _ITEM + length.to_bytes(4, "little")


def has_items(content: bytes | memoryview | BufferedIOBase) -> bool:
    """Whether a value begins as an encapsulated one does."""
    if isinstance(content, BufferedIOBase):
        start = content.tell()
        first = content.read(len(_ITEM))
        content.seek(start)
        return first == _ITEM
    return bytes(content[: len(_ITEM)]) == _ITEM
