"""The frames of encapsulated pixel data (PS3.5 A.4) as they come, one at a time."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from tomowire.errors import DataSetError
from tomowire.services.byte_readers import read_up_to
from tomowire.services.decoding import RLE_LOSSLESS
from tomowire.services.reencoding import LARGEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tomowire.services.byte_readers import ByteReader

_ITEM_HEAD: Final = Struct("<II")
_ITEM: Final = 0xE000FFFE  # as two numbers of 16 bits in little endian are read as one
_SEQUENCE_END: Final = 0xE0DDFFFE
_END_OF_IMAGE: Final = b"\xff\xd9"  # of JPEG, JPEG-LS (EOI) and JPEG 2000 (EOC)
_NEAR_THE_END: Final = 10


async def frames_of(
    reader: ByteReader, count: int, transfer_syntax_uid: str, *, one_each: bool
) -> AsyncIterator[bytes]:
    """The `count` frames whose items `reader` gives, from the offset table to the delimiter of the sequence, which is read too.

    Where a frame ends is said by the Basic Offset Table; without one, by what the standard demands (of RLE, and of Extended Offset
    Tables, which is `one_each`: a fragment is a frame), or by the marker at the end of an image. Raises `DataSetError` if there are
    not `count` of them, for what is no item, and for a frame of more than 1 GiB.
    """
    table = await _item(reader)
    if table is None:
        raise DataSetError("its pixel data has no items")
    starts = {int.from_bytes(table[at : at + 4], "little") for at in range(0, len(table), 4)}
    one_each = one_each or transfer_syntax_uid == RLE_LOSSLESS
    found = position = 0
    frame = bytearray()
    while (fragment := await _item(reader, LARGEST - len(frame))) is not None:
        frame += fragment
        position += _ITEM_HEAD.size + len(fragment)
        if count == 1 and not one_each:
            continue  # one frame in several fragments
        ends = position in starts if len(starts) == count else _END_OF_IMAGE in frame[-_NEAR_THE_END:]
        if one_each or ends:
            found += 1
            yield bytes(frame)
            frame.clear()
        if found > count:
            break
    if frame:
        found += 1
        yield bytes(frame)
    if found != count:
        raise DataSetError(f"it has {found if found < count else 'more'} frames of pixel data and should have {count}")


async def _item(reader: ByteReader, most: int = LARGEST) -> bytes | None:
    """The next item; None for the delimiter of the sequence."""
    head = await read_up_to(reader, _ITEM_HEAD.size)
    if len(head) < _ITEM_HEAD.size:
        raise DataSetError("it ends inside its pixel data")
    tag, length = _ITEM_HEAD.unpack(head)
    if tag == _SEQUENCE_END:
        return None
    if tag != _ITEM:
        raise DataSetError(f"({tag & 0xFFFF:04X},{tag >> 16:04X}) is where an item of its pixel data belongs")
    if length > most:
        raise DataSetError(f"a frame of its pixel data has more than {LARGEST >> 20} MB")
    content = bytearray()
    while len(content) < length:
        data = await reader.read(length - len(content))
        if not len(data):
            raise DataSetError("it ends inside its pixel data")
        content += data
    return bytes(content)
