"""Objects that are not in memory, in another transfer syntax: as they come, with their attributes and one frame in memory."""

from __future__ import annotations

from asyncio import to_thread
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tomowire.errors import DataSetError, TranscodingFailed
from tomowire.services.byte_readers import ChainedReader, IteratorReader, LimitedReader, MemoryReader, read_up_to
from tomowire.services.compressing import PLANAR_CONFIGURATION, FrameCompressor
from tomowire.services.dataset_encoding import layout_of
from tomowire.services.decoding import decoded, decoders_of, frame_of
from tomowire.services.head import parse_head
from tomowire.services.pixel_element import EMPTY_OFFSET_TABLE, SEQUENCE_END, head_of_pixels
from tomowire.services.reencoding import PIXEL_DATA, UNCOMPRESSED, UNDEFINED, WORDS, raw_element, reencode, swapped
from tomowire.services.stream_frames import frames_of
from tomowire.services.stream_pieces import PIECE, StreamPieces
from tomowire.services.stream_readers import (
    DeflatingReader,
    ElementHead,
    InflatingReader,
    PiecesReader,
    SwappingReader,
    element_in,
)
from tomowire.services.transcoding import why_not
from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pydicom import Dataset
    from pydicom.pixels.decoders.base import Decoder

    from tomowire.services.byte_readers import ByteReader
    from tomowire.services.sources import Source

T = TypeVar("T")

MOST_ATTRIBUTES: Final = 64 << 20
"""Bytes of attributes before the pixel data, and again behind them, that are held in memory."""
_FIRST_TRY: Final = 64 << 10
_MORE: Final = 4
_GROUP_LENGTH: Final = 0x7FE00000
_OFFSET_TABLES: Final = (0x7FE00001, 0x7FE00002, 0x7FE00003)  # of no use where nothing is encapsulated
_PIXELS: Final = {0x7FE00008: "OF", 0x7FE00009: "OD", PIXEL_DATA: "OW"}
_HEAD: Final = 12
_NO_WHOLE_BYTES: Final = "its frames do not fill bytes: that is not done with streams; send a file or a data set"


class TranscodedSource:
    """The object of `source` in the transfer syntax `to_ts`: a `Source`. Both are UIDs of which `can_transcode` is true.

    Its attributes, as far as they stand before the pixel data, and the first frame are read and transcoded before anything is sent;
    what is wrong further on ends the transfer in the middle. Raises `TranscodingFailed`, and what the source raises.
    """

    size: int | None = None

    def __init__(self, source: Source, to_ts: str) -> None:
        self.sop_class_uid = source.sop_class_uid
        self.sop_instance_uid = source.sop_instance_uid
        self.transfer_syntax_uid = to_ts
        self.name = source.name
        self.repeatable = source.repeatable
        # Compressed is what is uncompressed, in the layout that is compressed.
        is_step = to_ts in UNCOMPRESSED or source.transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN
        self._source: Source = source if is_step else TranscodedSource(source, EXPLICIT_VR_LITTLE_ENDIAN)

    @asynccontextmanager
    async def pieces(self, payload: int) -> AsyncIterator[StreamPieces]:
        """The data set; see `Source`."""
        async with self._source.pieces(PIECE) as pieces:
            work = _Transcoding(self._source, self.transfer_syntax_uid, PiecesReader(pieces))
            async with StreamPieces(await work.begun(), None, payload, self.name) as made:
                yield made


class _Transcoding:
    """One object on its way: the readers that make it, one behind the other."""

    def __init__(self, source: Source, to_ts: str, reader: ByteReader) -> None:
        from_ts = source.transfer_syntax_uid
        self._failed = f"cannot transcode {source.sop_instance_uid} from {name_of(from_ts)} to {name_of(to_ts)}: "
        self._name = source.name
        self._is_compressed = from_ts not in UNCOMPRESSED
        self._is_deflated = to_ts == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
        is_inflated = from_ts == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
        self._source_ts, self._target_ts = from_ts, to_ts
        # What the data set is in within a deflate stream, and what pixels are written as before they are deflated.
        self._from = EXPLICIT_VR_LITTLE_ENDIAN if is_inflated or self._is_compressed else from_ts
        self._to = to_ts if to_ts in UNCOMPRESSED and not self._is_deflated else EXPLICIT_VR_LITTLE_ENDIAN
        self._compressed_in = to_ts if to_ts not in UNCOMPRESSED else None
        self._reader = InflatingReader(reader) if is_inflated else reader
        self._decoders: tuple[Decoder, ...] = ()

    async def begun(self) -> ByteReader:
        """What gives the data set. The attributes have been read, and what can be known to be wrong has been told."""
        if problem := await to_thread(why_not, self._source_ts, self._target_ts):
            raise self._failure(problem)
        try:
            if self._is_compressed:
                self._decoders = await to_thread(decoders_of, self._source_ts)
            head, dataset, rest = await self._attributes()
            reader = ChainedReader([MemoryReader(rest), self._reader])
            made = await self._body(head, dataset, reader)
        except DataSetError as error:
            raise self._failure(error) from error
        return DeflatingReader(made) if self._is_deflated else made

    async def _attributes(self) -> tuple[bytes, Dataset, bytes]:
        """The bytes of what stands before the pixel data, that as a data set, and what has been read beyond."""
        data, wanted, is_whole = b"", _FIRST_TRY, False
        while True:
            data = await read_up_to(self._reader, wanted, data)
            is_whole = len(data) < wanted
            found = await to_thread(parse_head, data, self._from, is_whole)
            if found is not None:
                dataset, end = found
                if dataset.original_encoding[0]:  # some writers name explicit VR and use implicit
                    self._from = IMPLICIT_VR_LITTLE_ENDIAN
                return data[:end], dataset, data[end:]
            if len(data) > MOST_ATTRIBUTES:
                raise DataSetError(
                    f"it has more than {MOST_ATTRIBUTES >> 20} MB of attributes before its pixel data, "
                    "too many for a stream; send a file or a data set"
                )
            wanted *= _MORE

    async def _body(self, head: bytes, dataset: Dataset, reader: ByteReader) -> ByteReader:
        """Behind the attributes: pixels, if there are any, and what follows them."""
        has_offsets = False
        while True:
            header = await read_up_to(reader, _HEAD)
            element = element_in(header, self._from)
            if element is None or element.tag not in (_GROUP_LENGTH, *_OFFSET_TABLES, *_PIXELS):
                first = await self._encoded(head, None)
                return ChainedReader([MemoryReader(first), self._tail(ChainedReader([MemoryReader(header), reader]))])
            reader = ChainedReader([MemoryReader(header[element.size :]), reader])
            if element.tag in _PIXELS:
                break
            has_offsets |= element.tag in _OFFSET_TABLES
            await read_up_to(reader, min(element.length, MOST_ATTRIBUTES))
        if self._is_compressed:
            return await self._decoded_pixels(head, dataset, element, reader, one_each=has_offsets)
        if self._compressed_in is not None:
            return await self._compressed_pixels(head, dataset, element, reader, self._compressed_in)
        return await self._native_pixels(head, element, reader)

    async def _native_pixels(self, head: bytes, element: ElementHead, reader: ByteReader) -> ByteReader:
        if element.length == UNDEFINED:
            raise DataSetError("its pixel data is compressed, against its transfer syntax")
        vr = element.vr or _PIXELS[element.tag]  # PS3.5 A.1: in implicit VR it is OW always
        pixels: ByteReader = LimitedReader(reader, element.length, f"the pixel data of {self._name}")
        is_swapped = layout_of(self._from)[1] != layout_of(self._to)[1]
        if is_swapped and vr in WORDS:
            pixels = SwappingReader(pixels, vr, element.length)
        written = element.length + element.length % 2
        parts = await self._encoded(head, None) + head_of_pixels(self._to, vr, written, element.tag)
        padding = MemoryReader(bytes(element.length % 2))
        return ChainedReader([MemoryReader(parts), pixels, padding, self._tail(reader)])

    async def _compressed_pixels(
        self, head: bytes, dataset: Dataset, element: ElementHead, reader: ByteReader, transfer_syntax_uid: str
    ) -> ByteReader:
        if element.tag != PIXEL_DATA:
            raise DataSetError("its pixels are floating point numbers, which are not compressed")
        compressor = await self._done(FrameCompressor, dataset, transfer_syntax_uid)
        size, rest = divmod(compressor.size_in_bits, 8)
        if rest:
            raise DataSetError(_NO_WHOLE_BYTES)
        padding = element.length - size * compressor.count
        if padding not in (0, 1):
            raise DataSetError(
                f"it has {element.length} bytes of pixel data and should have {element.length - padding}"
            )
        pixels = LimitedReader(reader, element.length, f"the pixel data of {self._name}")
        first = await self._done(compressor.item, await read_up_to(pixels, size))

        async def items() -> AsyncIterator[bytes]:
            yield first
            for _ in range(1, compressor.count):
                yield await self._done(compressor.item, await read_up_to(pixels, size))
            await read_up_to(pixels, padding)
            yield SEQUENCE_END

        by_pixel = {PLANAR_CONFIGURATION: raw_element(PLANAR_CONFIGURATION, "US", bytes(2))}
        parts = await self._encoded(head, by_pixel if compressor.is_planar_changed else None)
        parts += head_of_pixels(transfer_syntax_uid, "OB", UNDEFINED) + EMPTY_OFFSET_TABLE
        return ChainedReader([MemoryReader(parts), IteratorReader(items()), self._tail(reader)])

    async def _decoded_pixels(
        self, head: bytes, dataset: Dataset, element: ElementHead, reader: ByteReader, *, one_each: bool
    ) -> ByteReader:
        if element.length != UNDEFINED:
            raise DataSetError("its pixel data is not encapsulated, against its transfer syntax")
        count, is_whole = await self._done(_counted, dataset)
        frames = frames_of(reader, count, self._source_ts, one_each=one_each)
        if not is_whole:
            raise DataSetError(_NO_WHOLE_BYTES)
        first = await self._frame(dataset, await anext(frames))  # none is an error of its own
        pixels = first[PIXEL_DATA]
        length = len(pixels.value) * count
        vr, first[PIXEL_DATA] = pixels.VR, None
        parts = await self._encoded(head, first) + head_of_pixels(self._to, vr, length + length % 2)
        rest = self._frames(dataset, pixels.value, frames, vr)
        padding = MemoryReader(bytes(length % 2))
        return ChainedReader([MemoryReader(parts), IteratorReader(rest), padding, self._tail(reader)])

    async def _frames(
        self, dataset: Dataset, first: bytes, frames: AsyncIterator[bytes], vr: str
    ) -> AsyncIterator[bytes]:
        """All samples, frame by frame, in the byte order that is wanted."""
        is_swapped = vr in WORDS and not layout_of(self._to)[1]
        yield swapped(first, vr) if is_swapped else first
        size = len(first)
        try:
            async for frame in frames:
                samples = (await self._frame(dataset, frame))[PIXEL_DATA].value
                if len(samples) != size:
                    raise DataSetError("its pixel data is of another size than it says")
                yield swapped(samples, vr) if is_swapped else samples
        except DataSetError as error:
            raise self._failure(error) from error

    async def _frame(self, dataset: Dataset, frame: bytes) -> dict[int, Any]:
        """The elements that a single frame becomes."""
        return await self._done(decoded, frame_of(dataset, frame), self._decoders)

    async def _encoded(self, data: bytes, replaced: dict[int, Any] | None) -> bytes:
        decode = partial(decoded, decoders=self._decoders) if self._is_compressed else None
        return await self._done(reencode, data, self._from, self._to, decode, replaced)

    def _tail(self, reader: ByteReader) -> ByteReader:
        """What follows the pixel data."""

        async def made() -> AsyncIterator[bytes]:
            data = await read_up_to(reader, MOST_ATTRIBUTES + 1)
            if len(data) > MOST_ATTRIBUTES:
                raise self._failure(f"more than {MOST_ATTRIBUTES >> 20} MB of attributes follow its pixel data")
            if data not in (b"", b"\0"):  # a null byte may be the padding of an odd length
                yield await self._encoded(data, None)

        return IteratorReader(made())

    async def _done(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return await to_thread(work, *arguments)
        except Exception as error:  # pydicom and the codecs raise whatever they stumble over
            raise self._failure(error) from error

    def _failure(self, reason: Exception | str) -> TranscodingFailed:
        return TranscodingFailed(self._failed + " ".join(str(reason).split()))


def _counted(dataset: Dataset) -> tuple[int, bool]:
    """How many frames there should be, and whether each begins with a byte."""
    count = int(dataset.get("NumberOfFrames") or 1)
    bits = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated)
    return count, count == 1 or bits % 8 == 0
