"""Inflates a deflated data set (PS3.5 A.5) in steps of bounded size: what comes out is looked at and thrown away."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from tomowire.errors import DataSetError

STEP: Final = 256 * 1024  # bytes of output held at a time
_INPUT_STEP: Final = 64 * 1024  # zlib copies what it leaves over of its input, after each step of output

# The ceiling is on the size and not on the ratio: a segmentation that is nearly empty deflates honestly by 1000 to 1, which
# is all that deflate can do. One value can have 4 GiB (PS3.5 7.1.1) and what surrounds it is small, so that no real data
# set is above 5 GiB, and a bomb costs a few seconds of one thread and STEP bytes of memory.
MAXIMUM_INFLATED: Final = 5 * 1024**3


class Inflater:
    """One deflate stream without zlib header. `ceiling` bounds the output, in bytes.

    What follows the end of the stream is ignored: a NUL after an odd length (PS3.5 A.5), or the checksum and length of gzip
    that old writers appended.
    """

    __slots__ = ("_ceiling", "_stream", "_total")

    def __init__(self, ceiling: int = MAXIMUM_INFLATED) -> None:
        self._ceiling = ceiling
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._total = 0

    def inflate(self, data: memoryview) -> Iterator[bytes]:
        """The output for the next bytes of the stream, in pieces of at most STEP bytes. Raises `DataSetError`."""
        for start in range(0, len(data), _INPUT_STEP):
            yield from self._inflate(data[start : start + _INPUT_STEP])

    def finish(self) -> None:
        """Raises `DataSetError` if the stream has not come to its end."""
        if not self._stream.eof:
            raise DataSetError("the deflated data set is cut short", offset=self._total)

    def _inflate(self, data: bytes | memoryview) -> Iterator[bytes]:
        stream = self._stream
        piece = b""
        while not stream.eof and (data or len(piece) == STEP):  # a full step: there may be more without any input
            try:
                piece = stream.decompress(data, STEP)
            except zlib.error as error:
                raise DataSetError(f"the deflated data set is damaged: {error}", offset=self._total) from error
            data = stream.unconsumed_tail
            self._total += len(piece)
            if self._total > self._ceiling:
                raise DataSetError(f"it inflates to more than {self._ceiling} bytes", offset=self._total)
            yield piece
