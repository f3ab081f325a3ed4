"""Encoding a pydicom `Dataset` that is to be sent: in its own transfer syntax as it is, or in another uncompressed one.

pydicom writes the elements. What it has read and nobody has looked at goes out as the bytes that came in.
"""

from __future__ import annotations

from io import BufferedIOBase
from typing import TYPE_CHECKING, Any, Final
from zlib import MAX_WBITS, compressobj

from tomowire.errors import DataSetError, UsageError
from tomowire.services.encodability import ElementWriter, check_whole, shown
from tomowire.services.pixel_element import SEQUENCE_END, has_items, head_of_pixels
from tomowire.services.reencoding import PIXEL_DATA, UNCOMPRESSED, UNDEFINED, reencode, swapped
from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydicom import DataElement, Dataset
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import BaseTag

    Part = bytes | memoryview | BufferedIOBase

_LAST_GROUP_THAT_IS_NO_DATA: Final = 0x0007  # commands, file meta information, and what PS3.5 7.8 forbids
_LAYOUTS: Final = {
    (True, True): IMPLICIT_VR_LITTLE_ENDIAN,
    (False, True): EXPLICIT_VR_LITTLE_ENDIAN,
    (False, False): EXPLICIT_VR_BIG_ENDIAN,
}
"""Transfer syntaxes by whether VRs are implicit, and whether little endian."""


def stated_transfer_syntax(dataset: Dataset) -> str | None:
    """The transfer syntax that a data set says it has, or was read in; None if it was made in memory and says nothing.

    Raises `UsageError` where its pixel data is encapsulated and nothing says how.
    """
    meta = getattr(dataset, "file_meta", None)
    stated = str(meta.get("TransferSyntaxUID") or "") if meta is not None else ""
    if stated:
        return stated
    if PIXEL_DATA in dataset and is_encapsulated(dataset.get_item(PIXEL_DATA)):
        raise UsageError("the pixel data is encapsulated, and file_meta.TransferSyntaxUID does not say how")
    implicit, little = dataset.original_encoding
    return None if implicit is None or little is None else _LAYOUTS.get((implicit, little))


def is_encapsulated(pixels: DataElement | RawDataElement) -> bool:
    """Whether pixel data was read as encapsulated, or made so."""
    undefined = getattr(pixels, "is_undefined_length", False) or getattr(pixels, "length", 0) == UNDEFINED
    return bool(undefined)


def encode_parts(dataset: Dataset, transfer_syntax_uid: str) -> list[Part]:
    """The data set in parts that follow one another. Pixel data is a part of its own, and not copied.

    File meta information, command elements and group lengths are left out. `dataset` is not changed; pydicom may settle VRs that
    depend on other elements. Raises `DataSetError`, which names the element, for what cannot be encoded, or not without a loss,
    and for what was cut short when it was read.
    """
    head = encode_elements(dataset, transfer_syntax_uid, lambda tag: tag < PIXEL_DATA)
    tail = encode_elements(dataset, transfer_syntax_uid, lambda tag: tag > PIXEL_DATA)
    parts: list[Part] = [head, *_pixel_parts(dataset, transfer_syntax_uid), tail]
    return [deflated(parts)] if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN else parts


def encode_elements(dataset: Dataset, transfer_syntax_uid: str, is_wanted: Callable[[int], bool]) -> bytes:
    """The elements of which `is_wanted` takes the tag; as `encode_parts` does, but never deflated."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom import Dataset as NewDataset

    tags = [tag for tag in sorted(dataset.keys()) if _is_data(tag) and is_wanted(tag)]
    if not tags:
        return b""
    elements = {tag: _element_of(dataset, tag) for tag in tags}
    for each in elements.values():
        check_whole(each)
    chosen = NewDataset(elements)
    target_layout = layout_of(transfer_syntax_uid)
    layout = _layout_of_values(dataset, target_layout)
    if all(_is_in(layout, each) for each in elements.values()):
        implicit, little = dataset.original_encoding
        chosen.set_original_encoding(implicit, little, dataset.original_character_set)
    writer = ElementWriter(implicit=layout[0], little=layout[1], was_read=None not in dataset.original_encoding)
    encoded = writer.encoded(chosen, dataset.get("SpecificCharacterSet"))
    return encoded if layout == target_layout else reencode(encoded, _LAYOUTS[layout], _LAYOUTS[target_layout])


def deflated(parts: Sequence[Part]) -> bytes:
    """The parts of a data set as one in Deflated Explicit VR Little Endian, padded (PS3.5 A.5)."""
    compressor = compressobj(wbits=-MAX_WBITS)
    made = [compressor.compress(bytes_of(part)) for part in parts]
    whole = b"".join((*made, compressor.flush()))
    return whole + b"\0" * (len(whole) % 2)


def layout_of(transfer_syntax_uid: str) -> tuple[bool, bool]:
    """Whether VRs are implicit, and whether it is little endian."""
    return transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN, transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN


def _element_of(dataset: Dataset, tag: BaseTag) -> DataElement | RawDataElement:
    try:
        return dataset.get_item(tag)
    except Exception as error:  # what was put off is read now, or is no element at all
        raise DataSetError(f"{shown(tag)}: it cannot be read") from error


def _is_data(tag: Any) -> bool:
    return tag.group > _LAST_GROUP_THAT_IS_NO_DATA and bool(tag.element)


def _layout_of_values(dataset: Dataset, otherwise: tuple[bool, bool]) -> tuple[bool, bool]:
    """That in which the data set was read: its values are as they were there. `otherwise` if it was made in memory."""
    implicit, little = dataset.original_encoding
    return otherwise if implicit is None or little is None else (implicit, little)


def _is_in(layout: tuple[bool, bool], element: DataElement | RawDataElement) -> bool:
    """Whether an element that is as it was read is so in this layout: some data sets have another than their transfer syntax's."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.dataelem import RawDataElement

    if not isinstance(element, RawDataElement):
        return True
    return (element.is_implicit_VR, element.is_little_endian) == layout


def _pixel_parts(dataset: Dataset, transfer_syntax_uid: str) -> list[Part]:
    if PIXEL_DATA not in dataset:
        return []
    element = dataset.get_item(PIXEL_DATA)
    check_whole(element)
    content: Part = element.value or b""
    if not isinstance(content, bytes | bytearray | memoryview | BufferedIOBase):
        raise DataSetError(f"{shown(PIXEL_DATA)}: its value is bytes, not {type(content).__name__}")
    size = size_of(content)
    implicit, little = layout_of(transfer_syntax_uid)
    if transfer_syntax_uid not in UNCOMPRESSED:
        if not has_items(content):
            raise DataSetError(f"(7FE0,0010) PixelData is not encapsulated, against {name_of(transfer_syntax_uid)}")
        return [head_of_pixels(transfer_syntax_uid, "OB", UNDEFINED), content, SEQUENCE_END]
    if is_encapsulated(element):
        raise DataSetError(f"(7FE0,0010) PixelData is encapsulated, against {name_of(transfer_syntax_uid)}")
    vr = _vr_of(element, dataset, implicit=implicit)
    if _layout_of_values(dataset, (implicit, little))[1] != little and vr == "OW":
        content = swapped(b"".join((bytes_of(content), bytes(size % 2))), vr)
        size += size % 2
    return [head_of_pixels(transfer_syntax_uid, vr, size + size % 2), content, bytes(size % 2)]


def _vr_of(element: DataElement | RawDataElement, dataset: Dataset, *, implicit: bool) -> str:
    if element.VR in ("OB", "OW"):
        return str(element.VR)
    return "OW" if implicit or int(dataset.get("BitsAllocated") or 16) > 8 else "OB"  # PS3.5 A.1, A.2


def bytes_of(content: Part) -> bytes | memoryview:
    """The bytes of a part, those that are left in a stream."""
    return content.read() if isinstance(content, BufferedIOBase) else content


def size_of(content: Part) -> int:
    """Bytes in a part; of a stream those from where it stands."""
    if not isinstance(content, BufferedIOBase):
        return len(content)
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.fileutil import buffer_remaining

    return buffer_remaining(content)
