"""Readers that change what another reads: inflated, deflated, in the other byte order; and the head of an element."""

from __future__ import annotations

import zlib
from asyncio import to_thread
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from tomowire.errors import DataSetError
from tomowire.services.data_sets import Inflater
from tomowire.services.reencoding import WORDS, swapped
from tomowire.uids import EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.vrs import LONG_VRS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tomowire.services.byte_readers import ByteReader, Bytes

_INPUT: Final = 64 << 10
_BLOCK: Final = 1 << 20
_WIDTHS: Final = {"H": 2, "I": 4, "Q": 8}
_LONG_VRS: Final = frozenset(vr.encode("ascii") for vr in LONG_VRS)


class ElementHead(NamedTuple):
    """Tag, VR (none where it is implicit) and length of an element, and how many bytes they take."""

    tag: int
    vr: str
    length: int
    size: int


def element_in(header: bytes, transfer_syntax_uid: str) -> ElementHead | None:
    """The element that begins with these 12 bytes; None where there are too few."""
    order = ">" if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "<"
    if len(header) < 12:
        return None
    group, number, length = Struct(f"{order}HHI").unpack_from(header)
    tag = group << 16 | number
    if transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
        return ElementHead(tag, "", length, 8)
    vr = header[4:6]
    if vr in _LONG_VRS:
        return ElementHead(tag, vr.decode("ascii"), Struct(f"{order}I").unpack_from(header, 8)[0], 12)
    return ElementHead(tag, vr.decode("latin-1"), Struct(f"{order}H").unpack_from(header, 6)[0], 8)


class PiecesReader:
    """What `Source.pieces` gives."""

    def __init__(self, pieces: AsyncIterator[tuple[memoryview, bool]]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")
        self._is_over = False

    async def read(self, limit: int) -> Bytes:
        while not self._left and not self._is_over:
            self._left, self._is_over = await anext(self._pieces)
        given, self._left = self._left[:limit], self._left[limit:]
        return given

    async def close(self) -> None:
        """Who has entered the context of the pieces leaves it."""


class _Changing:
    """Changed bytes that have not been read yet, and where more come from."""

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._ready = memoryview(b"")
        self._is_over = False

    async def read(self, limit: int) -> Bytes:
        while not self._ready and not self._is_over:
            self._ready = memoryview(await self._more())
        given, self._ready = self._ready[:limit], self._ready[limit:]
        return given

    async def close(self) -> None:
        await self._reader.close()

    async def _more(self) -> bytes:
        """Some of what follows, perhaps nothing; `_is_over` is set at the end."""
        raise NotImplementedError


class InflatingReader(_Changing):
    """A deflated data set, inflated in steps of at most 1 MiB. Raises `DataSetError` for one that is damaged or cut short."""

    def __init__(self, reader: ByteReader) -> None:
        super().__init__(reader)
        self._inflater = Inflater()

    async def _more(self) -> bytes:
        if piece := await to_thread(self._inflater.step):
            return piece
        if self._inflater.is_over:
            self._is_over = True
            return b""
        data = await self._reader.read(_INPUT)
        if not len(data):
            raise DataSetError("the deflated data set is cut short")
        self._inflater.feed(bytes(data))
        return b""


class DeflatingReader(_Changing):
    """A data set, deflated (PS3.5 A.5)."""

    def __init__(self, reader: ByteReader) -> None:
        super().__init__(reader)
        self._compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)

    async def _more(self) -> bytes:
        data = await self._reader.read(_BLOCK)
        if len(data):
            return await to_thread(self._compressor.compress, data)
        self._is_over = True
        return self._compressor.flush()


class SwappingReader(_Changing):
    """Words of the VR `vr` in the other byte order; `length` bytes. Raises `DataSetError` if those are no whole words."""

    def __init__(self, reader: ByteReader, vr: str, length: int) -> None:
        super().__init__(reader)
        self._vr = vr
        self._width = _WIDTHS[WORDS[vr]]
        self._part = b""
        if length % self._width:
            raise DataSetError(f"its pixel data has {length} bytes, which are no words of {self._width}")

    async def _more(self) -> bytes:
        data = await self._reader.read(_BLOCK)
        if not len(data):
            self._is_over = True
            return b""
        data = self._part + data if self._part else data
        whole = len(data) - len(data) % self._width
        self._part = bytes(data[whole:])
        return swapped(bytes(data[:whole]), self._vr)
