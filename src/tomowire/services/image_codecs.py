"""The decoders of imagecodecs as a plugin for pydicom, which has none for them: JPEG (lossless too), JPEG-LS, JPEG 2000, HTJ2K.

What is here beside `decode_frame` is what pydicom asks of a plugin. It is added to decoders of our own, not to pydicom's.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

_JPEG: Final = "1.2.840.10008.1.2.4."
_DECODE: Final = {
    **dict.fromkeys((f"{_JPEG}50", f"{_JPEG}51", f"{_JPEG}57", f"{_JPEG}70"), "jpeg8_decode"),
    **dict.fromkeys((f"{_JPEG}80", f"{_JPEG}81"), "jpegls_decode"),
    **dict.fromkeys((f"{_JPEG}90", f"{_JPEG}91", f"{_JPEG}201", f"{_JPEG}202", f"{_JPEG}203"), "jpeg2k_decode"),
}
DECODER_DEPENDENCIES: Final = dict.fromkeys(_DECODE, ("imagecodecs", "numpy"))

# The names that libjpeg gives to colours: the same in as out keeps it from transforming them.
_AS_THEY_ARE: Final = {"colorspace": "RGB", "outcolorspace": "RGB"}


def is_available(uid: str) -> bool:
    """Whether pixel data of this transfer syntax can be decoded."""
    return uid in _DECODE and find_spec("imagecodecs") is not None and find_spec("numpy") is not None


def is_missing(uid: str) -> bool:
    """Whether pixel data of this transfer syntax could be decoded, if only imagecodecs were installed."""
    return uid in _DECODE and not is_available(uid)


def decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """One frame: its samples pixel by pixel, in little endian. Raises what imagecodecs raises."""
    import imagecodecs

    name = _DECODE[runner.transfer_syntax]
    colours = runner.samples_per_pixel > 1
    options: dict[str, Any] = _AS_THEY_ARE if colours and name == "jpeg8_decode" else {}
    samples = getattr(imagecodecs, name)(src, **options)
    runner.set_option("bits_allocated", samples.dtype.itemsize * 8)
    if colours:
        runner.set_option("planar_configuration", 0)
    if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
        runner.set_option(
            "photometric_interpretation", "RGB"
        )  # PS3.5 8.2.4: the codestream says how to undo the transform
    return bytearray(samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes())
