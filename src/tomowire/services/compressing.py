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
    from pydicom.dataelem import RawDataElement

JPEG_LS_LOSSLESS: Final = "1.2.840.10008.1.2.4.80"
JPEG_2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
LOSSLESS: Final = frozenset({RLE_LOSSLESS, JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS})
"""Transfer syntaxes in which pixel data can be written, if the extra `images` is installed."""

_PLANAR_CONFIGURATION: Final = 0x00280006
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
    if PIXEL_DATA not in data_set:
        return data  # nothing in it is compressed then
    pixels: Any = data_set.get_item(PIXEL_DATA, keep_deferred=True)
    planar: Any = data_set.get_item(_PLANAR_CONFIGURATION) if _PLANAR_CONFIGURATION in data_set else None
    image = _Image(data_set, pixels, transfer_syntax_uid)
    head = bytearray(data[: pixels.value_tell - 12])
    if planar is not None and image.samples > 1 and transfer_syntax_uid != RLE_LOSSLESS:
        head[planar.value_tell : planar.value_tell + 2] = bytes(2)
    parts = [bytes(head), head_of_pixels(transfer_syntax_uid, "OB", UNDEFINED), EMPTY_OFFSET_TABLE]
    for frame in image.frames():
        parts += (item_head(len(frame) + len(frame) % 2), frame, bytes(len(frame) % 2))
    return b"".join((*parts, SEQUENCE_END, data[pixels.value_tell + pixels.length :]))


class _Image:
    """The frames of uncompressed pixel data, and how to compress one."""

    def __init__(self, data_set: Dataset, pixels: RawDataElement, transfer_syntax_uid: str) -> None:
        self.samples = int(data_set.SamplesPerPixel)
        self._rows, self._columns = int(data_set.Rows), int(data_set.Columns)
        self._bits = int(data_set.BitsAllocated)
        self._stored = int(data_set.BitsStored)
        self._signed = bool(int(data_set.get("PixelRepresentation") or 0))
        self._by_plane = self.samples > 1 and bool(int(data_set.get("PlanarConfiguration") or 0))
        self._encode = {
            RLE_LOSSLESS: self._rle,
            JPEG_LS_LOSSLESS: self._jpeg_ls,
            JPEG_2000_LOSSLESS: self._jpeg_2000,
        }[transfer_syntax_uid]
        self._content = memoryview(pixels.value or b"")
        self._count = int(data_set.get("NumberOfFrames") or 1)
        self._size = self._rows * self._columns * self.samples * self._bits // 8
        self._check(str(data_set.PhotometricInterpretation))

    def frames(self) -> Iterator[bytes]:
        """Each frame, compressed."""
        import numpy

        kind = numpy.dtype(f"<u{self._bits // 8}")
        for number in range(self._count):
            frame = numpy.frombuffer(self._content[number * self._size : (number + 1) * self._size], kind)
            if self._by_plane:
                frame = frame.reshape(self.samples, self._rows, self._columns).transpose(1, 2, 0)
            shape = (self._rows, self._columns, self.samples) if self.samples > 1 else (self._rows, self._columns)
            yield bytes(self._encode(numpy.ascontiguousarray(frame.reshape(shape))))

    def _check(self, interpretation: str) -> None:
        if self._bits not in (8, 16) or self.samples not in (1, 3):
            raise DataSetError(f"{self.samples} samples of {self._bits} bits are not compressed here")
        if interpretation in ("YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"):
            raise DataSetError(f"{interpretation} is not compressed here: not every pixel has a colour of its own")
        length = self._size * self._count
        if len(self._content) not in (length, length + length % 2):
            raise DataSetError(f"it has {len(self._content)} bytes of pixel data and should have {length}")

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
