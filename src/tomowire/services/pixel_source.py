"""The attributes of an object and, from elsewhere, its pixels: sent as one data set that is never in memory as a whole."""

from __future__ import annotations

from asyncio import to_thread
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import DataSetError, UsageError
from tomowire.services.arguments import checked_size
from tomowire.services.byte_readers import (
    ChainedReader,
    IteratorReader,
    LimitedReader,
    MemoryReader,
    reader_of,
)
from tomowire.services.dataset_encoding import encode_elements, layout_of, stated_transfer_syntax
from tomowire.services.dataset_source import required_uid
from tomowire.services.fragments import fragments, one_fragment
from tomowire.services.pixel_element import EMPTY_OFFSET_TABLE, SEQUENCE_END, head_of_pixels, is_video
from tomowire.services.reading import read_pieces
from tomowire.services.reencoding import PIXEL_DATA, UNCOMPRESSED, UNDEFINED
from tomowire.services.stream_pieces import PIECE, StreamPieces
from tomowire.services.stream_source import is_stream
from tomowire.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, name_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pydicom import Dataset

    from tomowire.services.byte_readers import ByteReader

_KINDS_OF_PIXELS: Final = (
    "bytes (of an array its `tobytes()`), a path, a binary stream, or an asynchronous iterator of bytes"
)
_KINDS_OF_FRAMES: Final = "compressed frames as an iterable of bytes, or one frame as bytes, a path or a stream"


class WithPixels:
    """A data set without pixel data, and the pixels that belong in it: a `Source`.

    `pixels` of an uncompressed transfer syntax: bytes, the path of a file, a binary stream, or an asynchronous iterator of bytes in
    any portions. They are samples as PS3.5 8.1 has them, in the byte order of the transfer syntax. `length` is how many bytes; if
    it is not given, the attributes say it (Rows, Columns, ...), or else what there is. More is not read; of bytes in memory there
    must not be more, if `length` is not given. `offset` is where in a file they begin.

    Of a compressed one: an iterable of frames, asynchronous or not, each as bytes; or one frame as bytes, path or stream. They are
    encapsulated (PS3.5 A.4) with an empty offset table, a frame as one fragment; one from a stream becomes as many as it needs,
    which RLE Lossless and video that is not "Fragmentable" do not allow. Of a video, all that it has is one frame.

    `transfer_syntax_uid` is by default what the data set says, or Explicit VR Little Endian. Raises `UsageError`.
    """

    def __init__(
        self,
        metadata: Dataset,
        pixels: Any,
        *,
        transfer_syntax_uid: str | None = None,
        offset: int = 0,
        length: int | None = None,
    ) -> None:
        self.sop_class_uid = required_uid(metadata, "SOPClassUID")
        self.sop_instance_uid = required_uid(metadata, "SOPInstanceUID")
        self.name = f"data set {self.sop_instance_uid}"
        self.transfer_syntax_uid = transfer_syntax_uid or stated_transfer_syntax(metadata) or EXPLICIT_VR_LITTLE_ENDIAN
        self.size: int | None = None
        self._metadata = metadata
        self._pixels = pixels
        self._path = Path(pixels) if isinstance(pixels, str | PathLike) else None
        self._offset = offset
        self._length = length
        self._is_used = False
        is_bytes = isinstance(pixels, bytes | bytearray | memoryview)
        self.repeatable = self._path is not None or is_bytes or _are_frames_in_memory(pixels)
        self._is_encapsulated = self.transfer_syntax_uid not in UNCOMPRESSED
        self._check(is_readable=self._path is not None or is_stream(pixels))

    def _check(self, *, is_readable: bool) -> None:
        if PIXEL_DATA in self._metadata:
            raise UsageError(f"{self.name} has pixel data of its own")
        if self.transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            raise UsageError(f"{name_of(self.transfer_syntax_uid)} is not for pixels that come from elsewhere")
        if self._is_encapsulated and (self._length is not None):
            raise UsageError("`length` is for uncompressed pixels; frames have their own")
        checked_size(self._length, "length")
        checked_size(self._offset, "offset")
        if self._offset and self._path is None:
            raise UsageError("`offset` is for a file; wind a stream to where the pixels begin")
        if not is_readable and not (self._is_encapsulated and hasattr(self._pixels, "__iter__")):
            kinds = _KINDS_OF_FRAMES if self._is_encapsulated else _KINDS_OF_PIXELS
            raise UsageError(f"{type(self._pixels).__name__} cannot be where pixels come from: give {kinds}")

    @asynccontextmanager
    async def pieces(self, payload: int) -> AsyncIterator[StreamPieces]:
        """The data set; see `Source`. Raises `DataSetError` for attributes that cannot be encoded or do not fit the pixels."""
        if self._is_used and not self.repeatable:
            raise UsageError(f"the pixels of {self.name} have been read already")
        self._is_used = True
        head, length, tail = await to_thread(self._prepared)
        if length is None:
            pixels: list[ByteReader] = [MemoryReader(EMPTY_OFFSET_TABLE), IteratorReader(self._fragments())]
            tail = SEQUENCE_END + tail
        else:
            pixels = [LimitedReader(self._native(length), length, f"the pixel data of {self.name}")]
            tail = bytes(length % 2) + tail
        size = len(head) + length + len(tail) if length is not None else None
        reader = ChainedReader([MemoryReader(head), *pixels, MemoryReader(tail)])
        async with StreamPieces(reader, size, payload, self.name) as pieces:
            yield pieces

    def _prepared(self) -> tuple[bytes, int | None, bytes]:
        """What stands before the pixels, how many bytes they are (None if they are encapsulated), and what follows."""
        try:
            before = encode_elements(self._metadata, self.transfer_syntax_uid, lambda tag: tag < PIXEL_DATA)
            after = encode_elements(self._metadata, self.transfer_syntax_uid, lambda tag: tag > PIXEL_DATA)
            length = None if self._is_encapsulated else self._native_length()
            if length is None:
                head = head_of_pixels(self.transfer_syntax_uid, "OB", UNDEFINED)
            else:
                head = head_of_pixels(self.transfer_syntax_uid, self._native_vr(), length + length % 2)
        except DataSetError as error:
            raise DataSetError(f"{self.name}: {error}") from error.__cause__
        return before + head, length, after

    def _native_length(self) -> int:
        expected = _length_said_by(self._metadata)
        if self._length is not None and expected is not None and self._length != expected:
            raise DataSetError(f"its attributes make {expected} bytes of pixel data, and `length` is {self._length}")
        length = self._length if self._length is not None else expected
        available = self._available()
        if length is None and available is None:
            raise DataSetError("nothing says how many bytes of pixel data there are: give `length`")
        if length is None or available is None:
            return length or available or 0
        # In a file something else may follow; bytes in memory are these pixels, with the null byte that makes them even or without.
        is_too_much = self._path is None and self._length is None and available > length + length % 2
        if available < length or is_too_much:
            raise DataSetError(f"there are {available} bytes of pixel data, and there should be {length}")
        return length

    def _available(self) -> int | None:
        """How many bytes there are; None for a stream."""
        if self._path is not None:
            return max(self._path.stat().st_size - self._offset, 0)
        return memoryview(self._pixels).nbytes if isinstance(self._pixels, bytes | bytearray | memoryview) else None

    def _native_vr(self) -> str:
        implicit, _ = layout_of(self.transfer_syntax_uid)
        return "OW" if implicit or int(self._metadata.get("BitsAllocated") or 16) > 8 else "OB"  # PS3.5 A.1, A.2

    def _native(self, length: int) -> ByteReader:
        if self._path is None:
            return reader_of(self._pixels)
        return IteratorReader(_bytes_of_file(self._path, self._offset, length))

    def _fragments(self) -> AsyncIterator[bytes | memoryview]:
        frames = 1 if is_video(self.transfer_syntax_uid) else int(self._metadata.get("NumberOfFrames") or 1)
        if self._path is None:
            return fragments(self._pixels, frames)
        size = self._available() or 0
        return one_fragment(_bytes_of_file(self._path, self._offset, size), size, frames)


def _are_frames_in_memory(pixels: Any) -> bool:
    return isinstance(pixels, list | tuple) and all(isinstance(each, bytes | bytearray | memoryview) for each in pixels)


async def _bytes_of_file(path: Path, offset: int, size: int) -> AsyncIterator[memoryview]:
    async with read_pieces(path, offset, size, PIECE) as pieces:
        async for piece, _ in pieces:
            yield piece[:size]  # without padding
            size -= len(piece)


def _length_said_by(metadata: Dataset) -> int | None:
    """The bytes of uncompressed pixel data that the attributes make; None if they are not all there."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.pixels.utils import get_expected_length

    try:
        return get_expected_length(metadata)
    except (AttributeError, KeyError, TypeError):
        return None
