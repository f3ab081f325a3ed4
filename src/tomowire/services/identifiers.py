"""Identifiers: the data sets of queries and their answers (PS3.4 C.4.1.1.3), to bytes and back.

pydicom does it, and is imported when it is first needed.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import DataSetError
from tomowire.services.character_sets import TEXT_VRS, can_hold
from tomowire.services.damage import what_is_wrong
from tomowire.services.encodability import ElementWriter
from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import DataElement, Dataset

UTF_8: Final = "ISO_IR 192"
TRANSFER_SYNTAXES: Final = frozenset(
    {
        EXPLICIT_VR_LITTLE_ENDIAN,
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    }
)
"""Those that a data set without pixels can have."""

_CHARACTER_SET: Final = "SpecificCharacterSet"
_LAST_GROUP_THAT_IS_NO_DATA: Final = 0x0007  # commands, file meta information, and what PS3.5 7.8 forbids
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_INFLATED_CAP: Final = 16 << 20
_LARGE: Final = 64 << 10
_MOST_ELEMENTS: Final = 10_000
"""Of more than `_LARGE` bytes, which are a list of many UIDs as a rule. pydicom takes 20 µs for each, and more for an item."""


def encode(dataset: Dataset, transfer_syntax_uid: str) -> bytes:
    """The bytes of an identifier. `dataset` is not changed.

    Specific Character Set becomes such that all its text can be written: none for ASCII; what `dataset` names, if that will do;
    else UTF-8. Group 0002 and group lengths are left out. Raises `DataSetError` for what cannot be encoded. In what was read some
    devices have letters where only ASCII may be, in a code string for instance: there they remain.
    """
    _check(transfer_syntax_uid)
    writer = ElementWriter(
        implicit=transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN,
        little=transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN,
        was_read=None not in dataset.original_encoding,
    )
    try:
        encoded = writer.encoded(_with_character_set(dataset), None)
    except DataSetError as error:
        raise DataSetError(f"the identifier cannot be encoded: {error}") from error.__cause__
    except Exception as error:  # whatever pydicom meets: TypeError, ValueError, AttributeError, struct.error, ...
        raise DataSetError(f"the identifier cannot be encoded: {_first_line(error)}") from error
    return _deflate(encoded) if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN else encoded


def decode(data: bytes, transfer_syntax_uid: str) -> Dataset:
    """The data set of an identifier. Raises `DataSetError` when it is not made as its transfer syntax says, and when it is large
    and has more than 10,000 elements and items: nobody asks for so many, and a peer could keep this program busy with them.

    Its values are converted when they are asked for, as always with pydicom; the text of each by the character set in force there.
    """
    from pydicom import Dataset as NewDataset
    from pydicom.charset import convert_encodings

    _check(transfer_syntax_uid)
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        data = _inflate(data)
    is_implicit = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    is_little = transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
    if len(data) > _LARGE:
        found = what_is_wrong(data, is_implicit=is_implicit, is_little=is_little, most=_MOST_ELEMENTS)
        if found is not None:
            raise DataSetError(f"the identifier: {found}")
    try:
        dataset = NewDataset({element.tag: element for element in _elements(data, is_implicit, is_little)})
        named = dataset.get(_CHARACTER_SET)
        dataset.set_original_encoding(is_implicit, is_little, convert_encodings(named))
    except DataSetError:
        raise
    except Exception as error:  # as above; too deep a nesting is one of them
        # Where the lengths fit, Specific Character Set is all that has been looked at.
        raise unreadable(data, transfer_syntax_uid, "(0008,0005) names no character set") from error
    return dataset


def unreadable(data: bytes, transfer_syntax_uid: str, otherwise: str = "it cannot be decoded") -> DataSetError:
    """What to raise for an identifier (inflated) at which pydicom has failed, in our words: 64 characters at most.

    They become the Error Comment of a response, and pydicom's are neither short nor stable. `otherwise` is said if the elements
    and their lengths are well.
    """
    is_implicit = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    found = what_is_wrong(data, is_implicit=is_implicit, is_little=transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN)
    return DataSetError(f"the identifier: {found or otherwise}")


def _elements(data: bytes, is_implicit: bool, is_little: bool) -> Iterator[Any]:
    """The elements at the top, of which all must be there whole: pydicom itself passes over what is cut short."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.filereader import data_element_generator

    file, end, last = BytesIO(data), 0, ""
    for element in data_element_generator(file, is_implicit, is_little):
        length = getattr(element, "length", _UNDEFINED_LENGTH)
        value: Any = element.value
        if length not in (0, _UNDEFINED_LENGTH) and len(value) != length:
            raise DataSetError(f"the identifier ends inside {element.tag}", offset=len(data))
        yield element if length else _unambiguous(element)
        end, last = file.tell(), f" after {element.tag}"
    if end != len(data):
        raise DataSetError(f"the identifier: {len(data) - end} bytes are left over{last}")


def _unambiguous(element: Any) -> Any:
    """An empty element read without its VR: where that would depend on other elements pydicom looks for them, and raises."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    if element.VR is None and dictionary_has_tag(element.tag):
        return element._replace(VR=dictionary_VR(element.tag).partition(" or ")[0])
    return element


def _first_line(error: Exception) -> str:
    """pydicom puts whole tracebacks into the texts of its exceptions."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _check(transfer_syntax_uid: str) -> None:
    if transfer_syntax_uid not in TRANSFER_SYNTAXES:
        raise DataSetError(f"an identifier cannot be in transfer syntax {transfer_syntax_uid}")


# Encoding


def _with_character_set(dataset: Dataset) -> Dataset:
    """A copy in which every item uses the one character set that the top names."""
    text = {character for string in _strings(dataset) for character in string}
    prepared = _copy(dataset)
    if any(character > "\x7f" for character in text):
        named = dataset.get(_CHARACTER_SET)
        prepared.SpecificCharacterSet = named if can_hold(named, text) else UTF_8
    return prepared


def _strings(dataset: Dataset) -> Iterator[str]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _strings(item)
        elif element.VR in TEXT_VRS and not element.is_empty:
            for each in [element.value] if element.VM == 1 else element.value:
                yield str(each)


def _copy(dataset: Dataset) -> Dataset:
    from pydicom import Dataset as NewDataset

    made = NewDataset()
    for element in dataset:
        if (
            element.keyword != _CHARACTER_SET
            and element.tag.group > _LAST_GROUP_THAT_IS_NO_DATA
            and element.tag.element
        ):
            made.add(_copy_element(element))
    return made


def _copy_element(element: DataElement) -> DataElement:
    from pydicom import DataElement as NewElement
    from pydicom import Sequence, config
    from pydicom.valuerep import PersonName

    made = element.value
    if element.VR == "SQ":
        made = Sequence([_copy(item) for item in element.value])
    elif element.VR == "PN" and not element.is_empty:
        # A PersonName may remember the bytes of its first encoding, and then has no others: one that has not been encoded yet.
        names = [PersonName(str(each)) for each in ([element.value] if element.VM == 1 else element.value)]
        made = names[0] if len(names) == 1 else names
    # "US or SS" and the like depend on other elements, which a query need not have; for no value any of them will do.
    vr = element.VR.partition(" or ")[0] if element.is_empty else element.VR
    return NewElement(element.tag, vr, made, already_converted=True, validation_mode=config.IGNORE)


# Deflated Explicit VR Little Endian (PS3.5 A.5)


def _deflate(data: bytes) -> bytes:
    import zlib

    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = compressor.compress(data) + compressor.flush()
    return deflated + b"\0" * (len(deflated) % 2)


def _inflate(data: bytes) -> bytes:
    import zlib

    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, _INFLATED_CAP)
    except zlib.error as error:
        raise DataSetError(f"the identifier cannot be inflated: {error}") from error
    if not inflater.eof:
        raise DataSetError(f"the identifier is cut short, or holds more than {_INFLATED_CAP} bytes")
    return inflated
