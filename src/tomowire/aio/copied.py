"""Responses that nobody has read yet, taken out of the memory into which the connection receives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.aio.streams import Chunk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tomowire.aio.streams import DataStream


class Copied:
    """The data set of a response, of which what has come is held in memory of its own. To be read as the `DataStream` that it was.

    Whoever is cancelled in `fill` loses nothing: it can be read, and filled further.
    """

    __slots__ = ("_data", "_is_whole", "_stream")

    def __init__(self, stream: DataStream) -> None:
        self._stream = stream
        self._data = bytearray()
        self._is_whole = False

    def __len__(self) -> int:
        return len(self._data)

    async def fill(self, most: int) -> None:
        """Copy what comes until it is whole, or larger than `most`. Raises the `AssociationError` that kept it from becoming so."""
        while not self._is_whole and len(self._data) <= most:
            chunk = await anext(self._stream)
            for buffer in chunk.buffers:
                self._data += buffer
            self._is_whole = chunk.last
        if self._is_whole:
            self._stream.close()

    async def __aiter__(self) -> AsyncGenerator[Chunk, None]:
        if self._data or self._is_whole:
            yield Chunk((memoryview(self._data),), self._is_whole, len(self._data))
        if not self._is_whole:
            async for chunk in self._stream:
                yield chunk

    def close(self) -> None:
        """Give back the memory; what still comes is passed over."""
        self._data = bytearray()
        self._stream.close()
