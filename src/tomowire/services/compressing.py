"""Writing pixel data compressed, always without loss: RLE Lossless, JPEG-LS Lossless, JPEG 2000 Lossless.

The samples are given to the codec as they are; colours are not transformed.
"""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from struct import pack
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import DataSetError
from tomowire.services.decoding import RLE_LOSSLESS
from tomowire.services.pixel_element import EMPTY_OFFSET_TABLE, SEQUENCE_END, head_of_pixels, item_head
from tomowire.services.reencoding import PIXEL_DATA, UNDEFINED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset

JPEG_LS_LOSSLESS: Final = "1.2.840.10008.1.2.4.80"
JPEG_2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
LOSSLESS: Final = frozenset({RLE_LOSSLESS, JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS})
"""Transfer syntaxes in which pixel data can be written, if the extra `images` is installed."""

PLANAR_CONFIGURATION: Final = 0x00280006
_FLOATS: Final = (0x7FE00008, 0x7FE00009)
_NEEDED: Final = ["SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored"]
_BITS: Final = {
    RLE_LOSSLESS: (8, 16, 32, 64),  # PS3.5 Annex G works for any bytes
    JPEG_LS_LOSSLESS: (8, 16),
    JPEG_2000_LOSSLESS: (1, 8, 16),  # more than some 26 bits the codec does not bring back
}
"""Bits Allocated that are compressed into each transfer syntax."""
_RLE_HEADER: Final = 64
_MOST_SEGMENTS: Final = 15  # PS3.5 G.3.1


def can_compress(transfer_syntax_uid: str) -> bool:
    """Whether pixel data can be written in this transfer syntax, with what is installed."""
    return transfer_syntax_uid in LOSSLESS and find_spec("imagecodecs") is not None and find_spec("numpy") is not None


def compressed(data: bytes, transfer_syntax_uid: str) -> bytes:
    """A data set in Explicit VR Little Endian in one of the transfer syntaxes of `LOSSLESS`.

    Everything but the pixel data stays the bytes that it is; Planar Configuration becomes what the codec makes of it. Raises
    `DataSetError` for pixel data that this codec does not take, or that is not as long as it should be.
    """
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.filereader import read_dataset

    data_set = read_dataset(BytesIO(data), False, True)
    if any(tag in data_set for tag in _FLOATS):
        raise DataSetError("its pixels are floating point numbers, which are not compressed")
    if PIXEL_DATA not in data_set:
        return data  # nothing in it is compressed then
    pixels: Any = data_set.get_item(PIXEL_DATA, keep_deferred=True)
    planar: Any = data_set.get_item(PLANAR_CONFIGURATION) if PLANAR_CONFIGURATION in data_set else None
    compressor = FrameCompressor(data_set, transfer_syntax_uid)
    head = bytearray(data[: pixels.value_tell - 12])
    if compressor.is_planar_changed:
        head[planar.value_tell : planar.value_tell + 2] = bytes(2)
    parts = [bytes(head), head_of_pixels(transfer_syntax_uid, "OB", UNDEFINED), EMPTY_OFFSET_TABLE]
    parts += map(compressor.item, compressor.frames(memoryview(pixels.value or b"")))
    return b"".join((*parts, SEQUENCE_END, data[pixels.value_tell + pixels.length :]))


class FrameCompressor:
    """Compresses frames that are described by the attributes of `data_set`. Raises `DataSetError` for what is not done here."""

    def __init__(self, data_set: Dataset, transfer_syntax_uid: str) -> None:
        missing = [keyword for keyword in _NEEDED if data_set.get(keyword) is None]
        if missing:
            raise DataSetError(f"it has pixel data and no {', '.join(missing)}")
        self.samples = int(data_set.SamplesPerPixel)
        self.count = int(data_set.get("NumberOfFrames") or 1)
        self._rows, self._columns = int(data_set.Rows), int(data_set.Columns)
        self._bits = int(data_set.BitsAllocated)
        self._stored = int(data_set.BitsStored)
        self._signed = bool(int(data_set.get("PixelRepresentation") or 0))
        self._by_plane = self.samples > 1 and bool(int(data_set.get("PlanarConfiguration") or 0))
        self._is_rle = transfer_syntax_uid == RLE_LOSSLESS
        self.is_planar_changed = self._by_plane and not self._is_rle
        self._encode = {
            RLE_LOSSLESS: self._rle,
            JPEG_LS_LOSSLESS: self._jpeg_ls,
            JPEG_2000_LOSSLESS: self._jpeg_2000,
        }[transfer_syntax_uid]
        self._check(str(data_set.PhotometricInterpretation), transfer_syntax_uid)
        self.size_in_bits = self._rows * self._columns * self.samples * self._bits

    def frames(self, content: memoryview) -> Iterator[bytes | memoryview]:
        """The frames of uncompressed pixel data. Raises `DataSetError` where they are not as long as they should be."""
        length = (self.size_in_bits * self.count + 7) // 8
        if len(content) not in (length, length + length % 2):
            raise DataSetError(f"it has {len(content)} bytes of pixel data and should have {length}")
        if self.size_in_bits % 8:
            yield from _frames_of_bits(content, self.size_in_bits, self.count)
            return
        size = self.size_in_bits // 8
        for number in range(self.count):
            yield content[number * size : (number + 1) * size]

    def item(self, frame: bytes | memoryview) -> bytes:
        """One frame, compressed, as an item (PS3.5 A.4)."""
        import numpy

        if self._bits == 1:
            bits = numpy.unpackbits(numpy.frombuffer(frame, numpy.uint8), bitorder="little")
            samples = bits[: self.size_in_bits]
        else:
            samples = numpy.frombuffer(frame, f"<u{self._bits // 8}")
        if self._by_plane:
            samples = samples.reshape(self.samples, self._rows, self._columns).transpose(1, 2, 0)
        shape = (self._rows, self._columns, self.samples) if self.samples > 1 else (self._rows, self._columns)
        made = bytes(self._encode(numpy.ascontiguousarray(samples.reshape(shape))))
        return b"".join((item_head(len(made) + len(made) % 2), made, bytes(len(made) % 2)))

    def _check(self, interpretation: str, transfer_syntax_uid: str) -> None:
        possible = _BITS[transfer_syntax_uid]
        is_possible = self.samples in (1, 3) and self._bits in possible and (self._bits > 1 or self.samples == 1)
        if not is_possible or (self._is_rle and self.samples * self._bits // 8 > _MOST_SEGMENTS):
            raise DataSetError(f"{self.samples} samples of {self._bits} bits are not compressed here")
        if interpretation in ("YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"):
            raise DataSetError(f"{interpretation} is not compressed here: not every pixel has a colour of its own")

    def _rle(self, samples: Any) -> bytes:
        """PS3.5 Annex G: a segment for each byte of a sample, the most significant first; each row by itself."""
        import imagecodecs
        import numpy

        width = self._bits // 8
        planes = samples.reshape(self._rows, self._columns, self.samples).view(numpy.uint8)
        planes = planes.reshape(self._rows, self._columns, self.samples, width)
        segments = []
        for sample in range(self.samples):
            for byte in reversed(range(width)):
                plane = numpy.ascontiguousarray(planes[:, :, sample, byte])
                segment = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in plane)
                segments.append(segment + bytes(len(segment) % 2))
        offsets, position = [], _RLE_HEADER
        for segment in segments:
            offsets.append(position)
            position += len(segment)
        offsets += [0] * (_MOST_SEGMENTS - len(offsets))
        return b"".join((pack(f"<{_MOST_SEGMENTS + 1}I", len(segments), *offsets), *segments))

    def _jpeg_ls(self, samples: Any) -> Any:
        import imagecodecs

        return imagecodecs.jpegls_encode(samples, level=0)

    def _jpeg_2000(self, samples: Any) -> Any:
        import imagecodecs

        if self._signed:
            samples = samples.view(samples.dtype.str.replace("u", "i"))
        return imagecodecs.jpeg2k_encode(
            samples, level=0, codecformat="j2k", reversible=True, mct=False, bitspersample=self._precision(samples)
        )

    def _precision(self, samples: Any) -> int:
        """Bits Stored (PS3.5 8.2.4), unless there is something in the bits above."""
        top = 1 << (self._stored - self._signed)
        low = -top if self._signed else 0
        return self._stored if low <= int(samples.min()) and int(samples.max()) < top else self._bits


def _frames_of_bits(content: memoryview, size: int, count: int) -> Iterator[bytes]:
    """Frames of `size` bits, which follow one another within bytes (PS3.5 8.1.1), each from the beginning of a byte."""
    import numpy

    bits = numpy.unpackbits(numpy.frombuffer(content, numpy.uint8), bitorder="little")
    for number in range(count):
        yield numpy.packbits(bits[number * size : (number + 1) * size], bitorder="little").tobytes()
