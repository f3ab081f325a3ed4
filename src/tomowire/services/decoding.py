"""Decoding compressed pixel data, with the codecs that are installed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Literal, cast

from tomowire.errors import DataSetError
from tomowire.services import image_codecs
from tomowire.services.reencoding import LARGEST, PIXEL_DATA, raw_element

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from pydicom import Dataset
    from pydicom.dataelem import RawDataElement
    from pydicom.pixels.decoders.base import Decoder

    Frame = tuple[bytes, dict[str, Any]]

logger: Final = logging.getLogger(__name__)

RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"

_WIDTHS: Final[dict[int, Literal["B", "H", "I", "Q"]]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
_OFFSET_TABLES: Final = (0x7FE00001, 0x7FE00002, 0x7FE00003)
# Samples per Pixel, Rows, Columns, Bits Stored, High Bit, Pixel Representation and what else a decoder asks for.
_DESCRIPTION: Final = (
    *(0x00280002, 0x00280004, 0x00280006, 0x00280010, 0x00280011),
    *(0x00280100, 0x00280101, 0x00280102, 0x00280103),
)
_PHOTOMETRIC_INTERPRETATION: Final = 0x00280004
_PLANAR_CONFIGURATION: Final = 0x00280006
_BITS_ALLOCATED: Final = 0x00280100


def decoders_of(transfer_syntax_uid: str) -> tuple[Decoder, ...]:
    """What decodes pixel data of this transfer syntax, the best first; nothing if that is not installed, or does not exist.

    The first call imports pydicom, if nobody else has: some 100 ms.
    """
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.pixels.decoders.base import Decoder, get_decoder
    from pydicom.uid import UID

    decoders = []
    if image_codecs.is_available(transfer_syntax_uid):
        decoders.append(Decoder(UID(transfer_syntax_uid)))
        decoders[0].add_plugin("imagecodecs", (image_codecs.__name__, image_codecs.decode_frame.__name__))
    try:
        decoder = get_decoder(transfer_syntax_uid)
    except NotImplementedError:
        return tuple(decoders)
    return (*decoders, decoder) if decoder.is_available else tuple(decoders)


def decoded(data_set: Dataset, decoders: Sequence[Decoder]) -> dict[int, RawDataElement | None]:
    """The elements to put in place of those that describe and hold the compressed pixel data of `data_set`.

    The samples are those that the codec gives: colours are not transformed, since that would round them. If one of the decoders
    fails, the next is tried.

    Raises `DataSetError` if there are not as many frames as the data set says, or not as large; what the last decoder raises for
    those that it cannot decode.
    """
    for decoder in decoders[:-1]:
        try:
            return _decoded(data_set, decoder)
        except Exception as error:  # codecs raise whatever they stumble over
            logger.debug("tried with another codec: %s", error)
    return _decoded(data_set, decoders[-1])


def frame_of(data_set: Dataset, frame: bytes) -> Dataset:
    """What describes an image of one frame, like those of `data_set`, and `frame`, which is compressed: for `decoded`."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom import Dataset as NewDataset
    from pydicom.encaps import encapsulate
    from pydicom.tag import Tag

    single = NewDataset({tag: data_set.get_item(tag) for tag in map(Tag, _DESCRIPTION) if tag in data_set})
    single.PixelData = encapsulate([frame], has_bot=False)
    single["PixelData"].is_undefined_length = True
    return single


def _decoded(data_set: Dataset, decoder: Decoder) -> dict[int, RawDataElement | None]:
    expected = int(data_set.get("NumberOfFrames") or 1)
    bits_of_a_pixel = int(data_set.BitsAllocated) * int(data_set.SamplesPerPixel)
    if int(data_set.Rows) * int(data_set.Columns) * bits_of_a_pixel * expected > LARGEST * 8:
        raise DataSetError(f"decoded, its pixel data would have more than {LARGEST >> 20} MB")
    found = list(_frames(data_set, decoder))
    frames = [frame for frame, _ in found]
    if len(frames) != expected:
        raise DataSetError(f"it has {len(frames)} frames of pixel data and should have {expected}")
    properties = found[0][1]
    bits = properties["bits_allocated"]
    size = properties["rows"] * properties["columns"] * properties["samples_per_pixel"] * bits // 8
    if any(len(frame) != size for frame in frames):
        raise DataSetError("its pixel data is of another size than it says")
    pixels = b"".join(frames)
    if data_set.BitsAllocated == 1 and bits == 8:
        pixels, bits = _packed(pixels), 1
    interpretation = str(properties["photometric_interpretation"])
    if interpretation == "YBR_FULL_422":
        interpretation = "YBR_FULL"  # every decoder gives each pixel its own colour
    elements: dict[int, RawDataElement | None] = dict.fromkeys(_OFFSET_TABLES)
    elements[PIXEL_DATA] = raw_element(PIXEL_DATA, "OW" if bits > 8 else "OB", pixels)
    elements[_BITS_ALLOCATED] = _number(_BITS_ALLOCATED, bits)
    elements[_PHOTOMETRIC_INTERPRETATION] = _code_string(_PHOTOMETRIC_INTERPRETATION, interpretation)
    if properties["samples_per_pixel"] > 1 and decoder.UID != RLE_LOSSLESS:
        elements[_PLANAR_CONFIGURATION] = _number(_PLANAR_CONFIGURATION, properties["planar_configuration"])
    return elements


def _frames(data_set: Dataset, decoder: Decoder) -> Iterator[Frame]:
    """The decoded frames, one after the other, and what they are."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes

    if decoder.UID == RLE_LOSSLESS:
        for planes, properties in cast("Iterator[Frame]", decoder.iter_buffer(data_set)):
            by_pixel = properties["samples_per_pixel"] > 1 and not data_set.PlanarConfiguration
            yield (_interleaved(planes, properties["bits_allocated"] // 8) if by_pixel else planes), properties
        return
    # These codecs do not say for themselves whether a sample has a sign; pydicom knows how to find out, in arrays.
    if decoder.UID in (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes):
        for samples, properties in decoder.iter_array(data_set, raw=True):
            yield samples.tobytes(), properties
    else:
        yield from cast("Iterator[Frame]", decoder.iter_buffer(data_set))


def _interleaved(planes: bytes, width: int) -> bytes:
    """The samples of three colours that come one colour after the other, as the data set says they do: pixel after pixel."""
    samples = memoryview(planes).cast(_WIDTHS[width])
    pixels = bytearray(len(planes))
    target, size = memoryview(pixels).cast(_WIDTHS[width]), len(samples) // 3
    for colour in range(3):
        target[colour::3] = samples[colour * size : (colour + 1) * size]
    return bytes(pixels)


def _packed(samples: bytes) -> bytes:
    """Samples of one bit, eight in a byte (PS3.5 8.1.1): codecs give a byte for each."""
    import numpy
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.pixels.utils import pack_bits

    return bytes(pack_bits(numpy.frombuffer(samples, numpy.uint8), pad=False))


def _number(tag: int, number: int) -> RawDataElement:
    return raw_element(tag, "US", number.to_bytes(2, "little"))


def _code_string(tag: int, text: str) -> RawDataElement:
    return raw_element(tag, "CS", (text + " " * (len(text) % 2)).encode("ascii"))
