"""Numbers as data elements hold them (PS3.5 6.2): as text (IS, DS) or as binary integers (US, and what is sent instead)."""

from __future__ import annotations

from math import isfinite
from typing import Final, Literal

_BINARY: Final = {
    "US": (2, False),
    "SS": (2, True),
    "UL": (4, False),
    "SL": (4, True),
    "UV": (8, False),
    "SV": (8, True),
}
_MAXIMUM: Final = 2**31 - 1  # PS3.5 6.2, IS; US is within it


def number(raw: bytes, vr: str, usual: str, order: Literal["little", "big"]) -> int | float | None:
    """The first value, as an int; as a float if `usual`, the VR of the dictionary, is DS. None if it is not to be read.

    `vr` is the VR that stands in the data set, `order` the byte order there.
    """
    if vr == "UN":  # PS3.5 6.2.2: as in implicit VR little endian
        vr, order = usual, "little"
    value = _binary(raw, vr, order) if vr in _BINARY else _decimal(raw)
    if value is None or usual == "DS":
        return value if value is None else float(value)
    return int(value) if -_MAXIMUM - 1 <= value <= _MAXIMUM and value == int(value) else None


def _binary(raw: bytes, vr: str, order: Literal["little", "big"]) -> int | None:
    size, signed = _BINARY[vr]
    return int.from_bytes(raw[:size], order, signed=signed) if len(raw) >= size else None


def _decimal(raw: bytes) -> int | float | None:
    text = raw.partition(b"\\")[0].strip(b" \0")
    if b"_" in text:  # Python's way to group digits, not DICOM's
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None
