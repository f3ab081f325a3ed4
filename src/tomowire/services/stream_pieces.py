"""The bytes of a reader in pieces of a useful size, read ahead of those who send them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tomowire.services.byte_readers import ByteReader

PIECE: Final = 1 << 20
_BUFFERS: Final = 3  # one is being sent, one waits to be known for the last or not, one is being filled
_PATIENCE: Final = 0.5
"""Seconds in which a piece should become full; then what is there is sent: bytes that come slowly are progress too."""


class StreamPieces:
    """`async with StreamPieces(...) as pieces: async for piece, is_last in pieces`, as `Source.pieces` describes it.

    `size` is the number of bytes that are read, None for all there are. Raises `OSError` when there are fewer, and what `reader`
    raises; `name` is what the text calls it.
    """

    def __init__(self, reader: ByteReader, size: int | None, payload: int, name: str) -> None:
        self._reader = reader
        self.size = size
        self._name = name
        length = max(PIECE // payload, 1) * payload
        length -= length % 2
        self._length = length if size is None else max(min(length, size + size % 2), 2)
        self._read_in_all = 0
        self._at_end = False
        self._free: asyncio.Queue[memoryview] = asyncio.Queue()
        self._filled: asyncio.Queue[memoryview | BaseException | None] = asyncio.Queue()
        self._next: memoryview | None = None
        self._given: memoryview | None = None
        self._over = False
        self._is_left = False
        # One task reads it all: a generator may hold what belongs to the task in which it began.
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> StreamPieces:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_left = True
        if self._reading is None:
            await self._reader.close()
            return
        self._reading.cancel()
        await asyncio.wait([self._reading])
        if not self._reading.cancelled():
            self._reading.exception()  # of closing; what went wrong before has been told

    def __aiter__(self) -> StreamPieces:
        return self

    async def __anext__(self) -> tuple[memoryview, bool]:
        if self._over:
            raise StopAsyncIteration
        if self._reading is None:
            self._begin()
            self._next = await self._take()
        elif self._given is not None:
            self._free.put_nowait(memoryview(self._given.obj))
        current = self._next
        if current is not None:
            self._next = await self._take()
        self._over = self._next is None
        self._given = current
        return (current if current is not None else memoryview(b"")), self._over

    def _begin(self) -> None:
        buffers = 2 if self.size is not None and self.size <= self._length else _BUFFERS
        for _ in range(buffers):
            self._free.put_nowait(memoryview(bytearray(self._length)))
        self._reading = asyncio.create_task(self._read())

    async def _take(self) -> memoryview | None:
        if self._over:
            return None
        filled = await self._filled.get()
        if isinstance(filled, BaseException):
            self._over = True
            raise filled
        return filled

    async def _read(self) -> None:
        """Fill buffers until the end."""
        try:
            while not (self._at_end or self._is_left):
                buffer = await self._free.get()
                count = await self._fill(buffer)
                if count:
                    self._filled.put_nowait(buffer[:count])
            self._filled.put_nowait(None)
        except BaseException as error:
            self._filled.put_nowait(error)
            if not isinstance(error, Exception):
                raise
        finally:
            await self._reader.close()

    async def _fill(self, buffer: memoryview) -> int:
        """Read until `buffer` is full, the end has come or patience is at its end; gives the number of bytes, an even one."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        count = 0
        while count < len(buffer) and not self._is_left:
            data = await self._read_some(len(buffer) - count)
            if not len(data):
                self._at_end = True
                buffer[count : count + count % 2] = bytes(count % 2)  # PS3.8 E.1
                return count + count % 2
            buffer[count : count + len(data)] = data
            count += len(data)
            self._read_in_all += len(data)
            if count % 2 == 0 and loop.time() - began > _PATIENCE:
                break
        return count

    async def _read_some(self, limit: int) -> bytes | bytearray | memoryview:
        if self.size is None:
            return await self._reader.read(limit)
        left = self.size - self._read_in_all
        if not left:
            return b""  # what may follow belongs to somebody else
        data = await self._reader.read(min(limit, left))
        if not len(data):
            raise OSError(f"{self._name} ended {left} bytes early")
        return data
