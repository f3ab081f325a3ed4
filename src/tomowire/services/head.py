"""The attributes of a data set that stand before its pixel data, while the rest of it still comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import DataSetError, StoreFailed
from tomowire.protocol.status import OUT_OF_RESOURCES
from tomowire.services.data_sets import DataSetFile, Inflater, NotYet, is_deflated, read_data_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset

    from tomowire.aio.held import HeldData
    from tomowire.aio.streams import Chunk, DataStream

# Nearly all objects have their attributes within the first of these; if not, it is tried again with so many times as much.
_FIRST_TRY: Final = 64 * 1024
_MORE: Final = 4
_PIECE: Final = 64 * 1024
_FIRST_PIXEL_GROUP: Final = 0x7FE0
_LAST_PIXEL_GROUP: Final = 0x7FFF


class Head:
    """The beginning of one data set, copied to memory of its own until the place is found where its pixel data begin."""

    def __init__(self, transfer_syntax_uid: str, held: HeldData, limit: int) -> None:
        self._transfer_syntax_uid = transfer_syntax_uid
        self._held = held
        self._limit = limit
        self._inflater = Inflater() if is_deflated(transfer_syntax_uid) else None
        self._data = bytearray()  # inflated, if it was deflated
        self._try_at = _FIRST_TRY
        self.encoded = b""
        """The bytes of the data set that were taken from the stream, as they came."""

    async def read(self, stream: DataStream) -> Dataset:
        """Take the attributes from `stream`, and leave it where they end.

        Raises `StoreFailed` when there are too many, `MemoryShort`, `DataSetError`, and what the stream raises.
        """
        deflated = bytearray()
        async for chunk in stream:
            used = 0
            for piece in _pieces(chunk):
                used += len(piece)
                await self._held.reserve(len(piece))
                if self._inflater is not None:
                    deflated += piece
                    await self._inflate(self._inflater, bytes(piece))
                else:
                    self._data += piece
                found = await self._look(is_whole=chunk.last and used == chunk.nbytes)
                if found is not None:
                    dataset, end = found
                    surplus = memoryview(b"" if self._inflater is not None else bytes(self._data[end:]))
                    self.encoded = bytes(deflated or self._data[:end])
                    self._data = bytearray()
                    stream.put_back(used, surplus)
                    return dataset
        raise DataSetError("the data set ends early")

    async def _inflate(self, inflater: Inflater, piece: bytes) -> None:
        inflater.feed(piece)
        while inflated := await asyncio.to_thread(inflater.step):
            await self._held.reserve(len(inflated))
            self._data += inflated
            if len(self._data) > self._limit:
                return  # that is found out by who looks at it

    async def _look(self, *, is_whole: bool) -> tuple[Dataset, int] | None:
        """The attributes and the place where they end, if that has come."""
        is_too_much = len(self._data) > self._limit
        if not (is_whole or is_too_much or len(self._data) >= self._try_at):
            return None
        if is_whole and self._inflater is not None and not (is_too_much or self._inflater.is_over):
            raise DataSetError("the deflated data set is cut short")
        found = await asyncio.to_thread(parse_head, bytes(self._data), self._transfer_syntax_uid, is_whole)
        if is_too_much and (found is None or found[1] > self._limit):
            raise StoreFailed(OUT_OF_RESOURCES, f"more than {self._limit} bytes of attributes before the pixel data")
        self._try_at = _MORE * len(self._data)
        return found


def _pieces(chunk: Chunk) -> Iterator[memoryview]:
    if not chunk.nbytes:
        yield memoryview(b"")
    for buffer in chunk.buffers:
        for start in range(0, len(buffer), _PIECE):
            yield buffer[start : start + _PIECE]


def _is_pixel_data(tag: Any, vr: str | None, length: int) -> bool:
    return bool(_FIRST_PIXEL_GROUP <= tag >> 16 <= _LAST_PIXEL_GROUP)


def parse_head(data: bytes, transfer_syntax_uid: str, is_whole: bool) -> tuple[Dataset, int] | None:
    """The attributes before the pixel data of a data set (not deflated) that begins with `data`, and where they end.

    None if they do not end in it, unless it `is_whole`. Raises `DataSetError`.
    """
    file = DataSetFile(data, is_whole=is_whole)
    try:
        dataset = read_data_set(file, transfer_syntax_uid, _is_pixel_data)
    except NotYet:
        return None
    return dataset, file.tell()
