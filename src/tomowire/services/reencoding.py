"""Writing a data set in another of the layouts of PS3.5 Annex A: implicit or explicit VR, little or big endian, deflated or not.

pydicom takes the data set apart and knows the VR of every element. The values stay the bytes that they are (in the other byte
order, where that changes), so that what a strict reader would not understand comes through unchanged.
"""

from __future__ import annotations

from array import array
from io import BytesIO
from struct import pack
from typing import TYPE_CHECKING, Final, TypeAlias
from zlib import MAX_WBITS, compressobj, decompressobj

from tomowire.errors import DataSetError
from tomowire.services.reading import even
from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tomowire.wire.vrs import LONG_VRS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydicom import DataElement, Dataset
    from pydicom.dataelem import RawDataElement

    Replaced: TypeAlias = "dict[int, RawDataElement | None]"
    Decode: TypeAlias = Callable[[Dataset], Replaced]

UNCOMPRESSED: Final = frozenset(
    {
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    }
)
PIXEL_DATA: Final = 0x7FE00010
LARGEST: Final = 1 << 30
"""Bytes that a data set may have when it is inflated, or its pixel data when they are decoded: a small file may claim any size."""
UNDEFINED: Final = 0xFFFFFFFF

_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_END_LENGTH: Final = 8
_SEQUENCE_ENDS: Final = (b"\xfe\xff\xdd\xe0\0\0\0\0", b"\xff\xfe\xe0\xdd\0\0\0\0")
_MOST_IN_SHORT: Final = 0xFFFF
_LONG_VRS: Final = frozenset(LONG_VRS)
_TEXT: Final = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"}
)
WORDS: Final = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), "H"),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), "I"),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), "Q"),
}
"""The type of `array` whose bytes are in the other order in the other byte order, by VR (PS3.5 7.3)."""


def reencode(
    data: bytes, source: str, target: str, decode: Decode | None = None, replaced: Replaced | None = None
) -> bytes:
    """A data set of the transfer syntax `source` in the uncompressed transfer syntax `target`.

    `decode` is called with each data set in it (the whole, or an item such as an icon) whose pixel data is encapsulated, and gives
    the elements to put in place of those with the same tag, None to leave one out. `replaced` does that for the whole. Group
    lengths, which are retired (PS3.5 7.2), are left out. The result is padded to even length (see `even`).

    Raises `DataSetError` for a data set that is cut short, that has encapsulated pixel data where there is no `decode`, or that has
    other pixel data where there is one (PS3.5 A.4; an icon in it may have); what pydicom raises for one that it cannot read.
    """
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.filereader import read_dataset

    if source == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        data = _inflated(data)
    implicit, little = source == IMPLICIT_VR_LITTLE_ENDIAN, source != EXPLICIT_VR_BIG_ENDIAN
    writer = _Writer(target == IMPLICIT_VR_LITTLE_ENDIAN, target != EXPLICIT_VR_BIG_ENDIAN, decode)
    data_set = read_dataset(BytesIO(data), implicit, little)
    _check_end(data_set, data)
    writer.data_set(data_set, (), replaced or {})
    if target == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        compressor = compressobj(wbits=-MAX_WBITS)
        writer.parts = [*map(compressor.compress, writer.parts), compressor.flush()]
    return bytes(even(b"".join(writer.parts)))


def swapped(content: bytes | bytearray | memoryview, vr: str) -> bytes:
    """Values of one of `WORDS` in the other byte order."""
    words = array(WORDS[vr], content)
    words.byteswap()
    return words.tobytes()


def raw_element(tag: int, vr: str, content: bytes) -> RawDataElement:
    """An element as `decode` gives it: the value in little endian."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    return RawDataElement(Tag(tag), vr, len(content), content, 0, False, True)


def _inflated(data: bytes) -> bytes:
    inflater = decompressobj(-MAX_WBITS)  # a null byte after the stream is padding (PS3.5 A.5)
    inflated = inflater.decompress(data, LARGEST)
    if inflater.unconsumed_tail and not inflater.eof:
        raise DataSetError(f"the deflated data set has more than {LARGEST >> 20} MB")
    if not inflater.eof:
        raise DataSetError("the deflated data set is cut short")
    return inflated


def _check_end(data_set: Dataset, data: bytes) -> None:
    """pydicom takes what is left of a data set that is cut short for the whole."""
    if not data_set:
        raise DataSetError("there is no element in the data set")
    end = _end_of(data_set.get_item(max(data_set.keys()), keep_deferred=True), data)
    if data[end:] not in (b"", b"\0") or end > len(data):  # a null byte may be the padding of an odd length
        raise DataSetError("the data set is cut short, or its elements are not in order")


def _end_of(last: DataElement | RawDataElement, data: bytes) -> int:
    """Where the last element ends, or should."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.dataelem import RawDataElement

    if not isinstance(last, RawDataElement):  # a sequence of undefined length
        return len(data) if data.endswith(_SEQUENCE_ENDS) else len(data) + 1
    return last.value_tell + (len(last.value or b"") + _END_LENGTH if last.length == UNDEFINED else last.length)


class _Writer:
    """Collects the bytes of data sets in one layout."""

    def __init__(self, implicit: bool, little: bool, decode: Decode | None) -> None:
        self.parts: list[bytes] = []
        self._implicit = implicit
        self._little = little
        self._mark = "<" if little else ">"
        self._decode = decode

    def data_set(self, data_set: Dataset, ancestors: tuple[Dataset, ...], replaced: Replaced | None = None) -> None:
        """Add the elements of `data_set`, an item of the nearest of `ancestors`."""
        import pydicom  # noqa: F401 - whole, before its parts
        from pydicom.dataelem import RawDataElement

        # Whoever asks a Dataset for a value has it replaced by one that has been decoded.
        elements: dict[int, DataElement | RawDataElement | None]
        elements = {tag: data_set.get_item(tag, keep_deferred=True) for tag in data_set.keys()}  # noqa: SIM118 (iterating gives values)
        pixels = elements.get(PIXEL_DATA)
        if isinstance(pixels, RawDataElement) and pixels.length == UNDEFINED:
            if self._decode is None:
                raise DataSetError("its pixel data is compressed, against its transfer syntax")
            elements |= self._decode(data_set)
        elif isinstance(pixels, RawDataElement) and self._decode is not None and not ancestors:
            raise DataSetError("its pixel data is not encapsulated, against its transfer syntax")
        elements |= replaced or {}
        for tag in sorted(elements):
            element = elements[tag]
            if element is not None and tag & 0xFFFF:
                self._element(element, data_set, (data_set, *ancestors))

    def _element(self, element: DataElement | RawDataElement, data_set: Dataset, near: tuple[Dataset, ...]) -> None:
        import pydicom  # noqa: F401 - whole, before its parts
        from pydicom.dataelem import RawDataElement

        if not isinstance(element, RawDataElement):
            self._sequence(element.tag, element.value, near)  # nothing else has been decoded
            return
        vr = element.VR or vr_of(element, near)
        content = element.value or b""
        if element.length == UNDEFINED or element.length != len(content):
            raise DataSetError(f"element {element.tag} is cut short, or its length is undefined and must not be")
        if vr == "SQ":
            self._sequence(element.tag, data_set[element.tag].value or (), near)
            return
        if element.is_little_endian != self._little and vr in WORDS:
            content = swapped(content, vr)
        if len(content) % 2:  # not allowed (PS3.5 7.1.1), but there are some
            content += b" " if vr in _TEXT else b"\0"
        self._head(element.tag, vr, len(content))
        self.parts.append(content)

    def _sequence(self, tag: int, items: Iterable[Dataset], near: tuple[Dataset, ...]) -> None:
        self._head(tag, "SQ", UNDEFINED)
        for item in items:
            self._delimiter(_ITEM, UNDEFINED)
            self.data_set(item, near)
            self._delimiter(_ITEM_END, 0)
        self._delimiter(_SEQUENCE_END, 0)

    def _head(self, tag: int, vr: str, length: int) -> None:
        if self._implicit:
            self._delimiter(tag, length)
            return
        if length > _MOST_IN_SHORT and vr not in _LONG_VRS:
            vr = "UN"  # PS3.5 6.2.2
        head = pack(self._mark + "HH2s", tag >> 16, tag & 0xFFFF, vr.encode("ascii"))
        self.parts.append(head + pack(self._mark + ("HI" if vr in _LONG_VRS else "H"), *_lengths(vr, length)))

    def _delimiter(self, tag: int, length: int) -> None:
        """What has no VR in any layout (PS3.5 7.5), or any element in implicit VR."""
        self.parts.append(pack(self._mark + "HHI", tag >> 16, tag & 0xFFFF, length))


def _lengths(vr: str, length: int) -> tuple[int, ...]:
    return (0, length) if vr in _LONG_VRS else (length,)


def vr_of(element: RawDataElement, near: tuple[Dataset, ...]) -> str:
    """The VR of an element that came without; UN where nobody can say (PS3.5 6.2.2)."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import dictionary_VR, private_dictionary_VR
    from pydicom.dataelem import DataElement
    from pydicom.filewriter import correct_ambiguous_vr_element

    tag = element.tag
    try:
        if tag.is_private_creator:
            return "LO"
        if tag.is_private:
            return private_dictionary_VR(tag, str(near[0][tag.group, tag.element >> 8].value))
        vr = dictionary_VR(tag)
        if len(vr) > 2:  # "OB or OW" and the like
            probe = DataElement(tag, vr, element.value or b"", already_converted=True)
            vr = str(correct_ambiguous_vr_element(probe, near[0], element.is_little_endian, list(near)).VR)
    except (AttributeError, KeyError, TypeError, ValueError):
        return "UN"
    return "UN" if " or " in vr else vr
