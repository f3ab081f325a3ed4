"""How the elements of a data set are laid out in bytes: PS3.5 7.1, for the three encodings of PS3.5 Annex A.

Tags and VRs are compared as the integers that one `struct` call reads, in the byte order of the data: for little endian
data (0008,0018) is the number 0x00180008. That saves a conversion per element, and elements are read by the million.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tomowire import uids
from tomowire.wire.vrs import LONG_VRS, SHORT_VRS

UNDEFINED_LENGTH: Final = 0xFFFFFFFF
NO_VR: Final = 0  # of an element whose VR field is blank or missing


def _code(vr: str, order: Literal["little", "big"]) -> int:
    return int.from_bytes(vr.encode("ascii"), order)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """One encoding. `header` reads tag, VR and 16 bit length; with implicit VR, tag and 32 bit length.

    `uncertain` is what the transfer syntax or a VR of UN says, before the first element has shown whether it is true.
    """

    name: str
    implicit: bool
    uncertain: bool
    order: Literal["little", "big"]
    header: Callable[[bytes, int], tuple[Any, ...]]
    tag_and_length: Callable[[bytes, int], tuple[Any, ...]]
    length: Callable[[bytes, int], tuple[Any, ...]]
    short_vrs: frozenset[int]
    long_vrs: frozenset[int]
    fragment_vrs: frozenset[int]
    unknown_vr: int
    item: int
    item_delimiter: int
    sequence_delimiter: int
    delimiters: frozenset[int]

    def tag(self, number: int) -> int:
        """The tag as PS3.6 writes it, from the number that `header` has read (and the other way round)."""
        return number if self.order == "big" else (number & 0xFFFF) << 16 | number >> 16

    def vr_code(self, vr: str) -> int:
        """The number that `header` reads for this VR."""
        return _code(vr, self.order)

    def vr_name(self, code: int) -> str:
        """The VR as text, from the number that `header` has read."""
        return code.to_bytes(2, self.order).decode("latin-1")


def _layout(name: str, *, implicit: bool, order: Literal["little", "big"], uncertain: bool = False) -> Layout:
    mark = "<" if order == "little" else ">"
    item, item_delimiter, sequence_delimiter = (
        int.from_bytes(group.to_bytes(2, order) + element.to_bytes(2, order), order)
        for group, element in ((0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD))
    )
    return Layout(
        name=name,
        implicit=implicit,
        uncertain=uncertain,
        order=order,
        header=struct.Struct(mark + ("II" if implicit else "IHH")).unpack_from,
        tag_and_length=struct.Struct(mark + "II").unpack_from,
        length=struct.Struct(mark + "I").unpack_from,
        short_vrs=frozenset(_code(vr, order) for vr in SHORT_VRS),
        long_vrs=frozenset(_code(vr, order) for vr in LONG_VRS),
        fragment_vrs=frozenset(_code(vr, order) for vr in ("OB", "OW")),
        unknown_vr=_code("UN", order),
        item=item,
        item_delimiter=item_delimiter,
        sequence_delimiter=sequence_delimiter,
        delimiters=frozenset((item, item_delimiter, sequence_delimiter)),
    )


IMPLICIT_LITTLE: Final = _layout("Implicit VR Little Endian", implicit=True, order="little")
EXPLICIT_LITTLE: Final = _layout("Explicit VR Little Endian", implicit=False, order="little")
EXPLICIT_BIG: Final = _layout("Explicit VR Big Endian", implicit=False, order="big")
# Some writers name the one transfer syntax and use the other, or use explicit VR in a value of VR UN.
SAID_TO_BE_IMPLICIT: Final = _layout("Implicit VR, it is said", implicit=True, order="little", uncertain=True)
SAID_TO_BE_EXPLICIT: Final = _layout("Explicit VR, it is said", implicit=False, order="little", uncertain=True)

_IMPLICIT_TRANSFER_SYNTAXES: Final = frozenset({
    uids.IMPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.20",  # Papyrus 3, retired
    "1.2.840.113619.5.2",  # GE's private one: big endian pixels, all else as implicit VR little endian
})  # fmt: skip
_DEFLATED_TRANSFER_SYNTAXES: Final = frozenset({
    uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
    "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
})  # fmt: skip


def layout_of(transfer_syntax: str) -> Layout:
    """The layout of a transfer syntax; explicit VR little endian for all that are not named (PS3.5 A.4, and private ones)."""
    if transfer_syntax in _IMPLICIT_TRANSFER_SYNTAXES:
        return SAID_TO_BE_IMPLICIT
    return EXPLICIT_BIG if transfer_syntax == uids.EXPLICIT_VR_BIG_ENDIAN else SAID_TO_BE_EXPLICIT


def is_deflated(transfer_syntax: str) -> bool:
    """Whether the whole data set is one deflate stream (PS3.5 A.5)."""
    return transfer_syntax in _DEFLATED_TRANSFER_SYNTAXES


@dataclass(frozen=True, slots=True, eq=False)
class WantedTags:
    """The elements whose values are kept: number that `header` reads -> (tag, number of the VR in the dictionary)."""

    little: Mapping[int, tuple[int, int]]
    big: Mapping[int, tuple[int, int]]

    @classmethod
    def of(cls, vrs: Mapping[int, str]) -> WantedTags:
        """From tag -> VR."""
        little, big = (
            {layout.tag(tag): (tag, layout.vr_code(vr)) for tag, vr in vrs.items()}
            for layout in (EXPLICIT_LITTLE, EXPLICIT_BIG)
        )
        return cls(little, big)
