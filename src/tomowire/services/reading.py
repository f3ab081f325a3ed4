"""Reading a file piece by piece off the loop, always one piece ahead of the network."""

from __future__ import annotations

import asyncio
import os
from io import FileIO
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_PIECE: Final = 1 << 20


def read_pieces(path: Path, offset: int, size: int, payload: int, *, to_end: bool = False) -> FilePieces:
    """`async with read_pieces(...) as pieces: async for piece, is_last in pieces: ...` over `size` bytes of a file from `offset`.

    A piece is valid until the next is asked for. Pieces are about 1 MiB, a multiple of `payload` bytes where that is possible, so
    that no PDU is cut short between two of them. A data set of odd length gets the null byte that it lacks (see `even`).

    With `to_end` the file must end there: it is being written to if it does not, and what has been read of it is no whole.

    Raises `OSError`, also if the file has become shorter, or longer; if it has when it is opened, before the first piece.
    """
    return FilePieces(path, offset, size, max(_PIECE // payload, 1) * payload, to_end=to_end)


class FilePieces:
    """What `read_pieces` gives."""

    def __init__(self, path: Path, offset: int, size: int, length: int, *, to_end: bool = False) -> None:
        self._path = path
        self._offset = offset
        self._left = size
        self._length = min(length, size)
        self._to_end = to_end
        self._ended = False
        self._pending: asyncio.Future[int] | None = None
        self._wanted = 0
        self._file: FileIO
        # Two are in turn sent and filled; made when the first piece is asked for, since whoever asks may wait long for the
        # association to be free.
        self._buffers: list[memoryview] = []

    async def __aenter__(self) -> FilePieces:
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(None, self._open)
        try:
            self._file = await asyncio.shield(opening)
        except BaseException:
            opening.add_done_callback(_close_opened)  # cancelled: nobody else would
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        # A read that is under way in its thread must not meet a closed file, whose descriptor may be another's by then.
        if self._pending is None or self._pending.done():
            self._close(self._pending)
        else:
            self._pending.add_done_callback(self._close)

    def __aiter__(self) -> FilePieces:
        return self

    async def __anext__(self) -> tuple[memoryview, bool]:
        if self._ended:
            raise StopAsyncIteration
        if not self._buffers:
            self._buffers = [memoryview(bytearray(self._length + 1)) for _ in range(2)]
            self._read()
        assert self._pending is not None
        got = await asyncio.shield(self._pending)
        if got < self._wanted:
            raise OSError(f"{self._path} ended {self._left - got} bytes early")
        self._left -= got
        filled = self._buffers[0]
        if self._left:
            self._buffers.reverse()
            self._read()
            return filled[:got], False
        self._ended = True
        filled[got] = 0
        return filled[: got + got % 2], True

    def _read(self) -> None:
        self._wanted = min(self._length, self._left)
        buffer = self._buffers[0][: self._wanted]
        self._pending = asyncio.get_running_loop().run_in_executor(None, self._fill, buffer)

    def _open(self) -> FileIO:
        file = FileIO(self._path)
        try:
            self._check_end(file, self._offset + self._left)
            file.seek(self._offset)
        except BaseException:
            file.close()
            raise
        return file

    def _fill(self, buffer: memoryview) -> int:
        got = fill(self._file, buffer)
        if self._to_end and len(buffer) == self._left:
            self._check_end(self._file, self._file.tell())
        return got

    def _check_end(self, file: FileIO, end: int) -> None:
        size = os.fstat(file.fileno()).st_size
        if size < end or (self._to_end and size > end):
            raise OSError(f"{self._path} has become {'shorter' if size < end else 'longer'} while it was sent")

    def _close(self, pending: asyncio.Future[int] | None) -> None:
        if pending is not None and not pending.cancelled():
            pending.exception()  # of a piece that nobody has asked for
        self._file.close()


def even(data: bytes | memoryview) -> bytes | memoryview:
    """`data` with a null byte more if its length is odd: a fragment has an even length (PS3.8 E.1), and so has a data set.

    Deflated ones are padded in this way when they are sent (PS3.5 A.5), and not by everyone who writes files.
    """
    return b"".join((data, b"\0")) if len(data) % 2 else data


def _close_opened(opening: asyncio.Future[FileIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def fill(file: FileIO, buffer: memoryview) -> int:
    """Read until `buffer` is full or the file ends; return the number of bytes."""
    done = 0
    while done < len(buffer):
        got = file.readinto(buffer[done:])
        if not got:
            break
        done += got
    return done
