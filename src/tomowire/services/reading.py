"""Reading a file piece by piece off the loop, always one piece ahead of the network."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from io import FileIO
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_PIECE: Final = 1 << 20


@asynccontextmanager
async def read_pieces(
    path: Path, offset: int, size: int, payload: int
) -> AsyncIterator[AsyncIterator[tuple[memoryview, bool]]]:
    """Iterate over `(piece, is_last)` of a file from `offset`; a piece is valid until the next is asked for.

    Pieces are about 1 MiB, a multiple of `payload` bytes where that is possible, so that no PDU is cut short between two of them.
    A data set of odd length gets the null byte that it lacks (see `even`). Raises `OSError`, also if the file has become shorter
    than `size`.
    """
    length = max(_PIECE // payload, 1) * payload
    loop = asyncio.get_running_loop()
    file = await loop.run_in_executor(None, FileIO, path)
    pending: asyncio.Future[int] | None = None
    try:
        if offset:
            file.seek(offset)
        buffers = [memoryview(bytearray(min(length, size) + 1)) for _ in range(2)]

        async def pieces() -> AsyncIterator[tuple[memoryview, bool]]:
            nonlocal pending
            left, turn = size, 0
            pending = loop.run_in_executor(None, _fill, file, buffers[0][: min(length, left)])
            while True:
                got = await pending
                left -= got
                if not got and left:
                    raise OSError(f"{path} ended {left} bytes early")
                buffers[turn][got] = 0
                piece = buffers[turn][: got if left else got + got % 2]
                turn = 1 - turn
                if left:
                    pending = loop.run_in_executor(None, _fill, file, buffers[turn][: min(length, left)])
                yield piece, not left
                if not left:
                    return

        yield pieces()
    finally:
        # A read that is under way in its thread must not meet a closed file.
        if pending is not None and not pending.done():
            await asyncio.wait([pending])
        file.close()


def even(data: bytes) -> bytes:
    """`data` with a null byte more if its length is odd: a fragment has an even length (PS3.8 E.1), and so has a data set.

    Deflated ones are padded in this way when they are sent (PS3.5 A.5), and not by everyone who writes files.
    """
    return data + b"\0" if len(data) % 2 else data


def _fill(file: FileIO, buffer: memoryview) -> int:
    """Read until `buffer` is full or the file ends; return the number of bytes."""
    done = 0
    while done < len(buffer):
        got = file.readinto(buffer[done:])
        if not got:
            break
        done += got
    return done
