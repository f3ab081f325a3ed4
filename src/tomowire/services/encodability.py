"""What is wrong with a pydicom `Dataset` that cannot be encoded, said of the element that it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import DataSetError
from tomowire.services.reencoding import UNDEFINED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom import Dataset

_TEXT: Final = frozenset({"SH", "LO", "UC", "ST", "LT", "UT", "PN"})  # PS3.5 6.1.2.3


def check_text(dataset: Dataset, character_set: Any, *, was_read: bool) -> None:
    """Raise `DataSetError` for text that its character set cannot hold: pydicom would write question marks.

    `character_set` is the Specific Character Set in force. Where there is none only ASCII can be written; in what `was_read` the
    bytes that pydicom took for Latin-1 go out as they came in. Elements that nobody has looked at are not looked at here either.
    """
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.dataelem import RawDataElement

    named = dataset.get("SpecificCharacterSet", character_set)
    for tag in sorted(dataset.keys()):
        element: Any = dataset.get_item(tag, keep_deferred=True)
        if isinstance(element, RawDataElement):
            continue
        if element.VR == "SQ":
            for item in element.value or ():
                check_text(item, named, was_read=was_read)
        elif element.VR in _TEXT and not element.is_empty:
            for each in [element.value] if element.VM == 1 else element.value:
                if not _can_hold(named, str(each), was_read=was_read):
                    raise DataSetError(f"{_shown(element)}: {_said_of(named)} cannot hold its text")


def check_whole(element: Any) -> None:
    """Raise `DataSetError` for a value that was cut short when it was read: pydicom would write what is left as the whole."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.dataelem import RawDataElement

    if isinstance(element, RawDataElement) and isinstance(element.value, bytes) and element.length != UNDEFINED:
        length = len(element.value)
        if length != element.length:
            raise DataSetError(f"{_shown(element)}: it was cut short, {length} of {element.length} bytes are there")


def cannot_be_encoded(dataset: Dataset, layout: tuple[bool, bool], character_set: Any) -> DataSetError:
    """What to raise when pydicom has failed: the text names the element, and not its value, which may be a patient's."""
    return DataSetError(_culprit(dataset, layout, character_set) or "it cannot be encoded")


def _culprit(dataset: Dataset, layout: tuple[bool, bool], character_set: Any) -> str | None:
    """The first element that cannot be written, those of items behind the sequences that they are in."""
    import pydicom
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_data_element

    for tag in sorted(dataset.keys()):
        target = DicomBytesIO()
        target.is_implicit_VR, target.is_little_endian = layout
        element: Any = dataset.get_item(tag)
        try:
            write_data_element(target, dataset[tag], character_set)
        except Exception:  # pydicom raises whatever it stumbles over
            items = element.value if isinstance(element.value, pydicom.Sequence) else ()
            inner = next(filter(None, (_culprit(item, layout, character_set) for item in items)), None)
            return f"{_shown(element)}: {inner or f'its value cannot be encoded as {element.VR}'}"
    return None


def _shown(element: Any) -> str:
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import keyword_for_tag

    shown = f"({element.tag.group:04X},{element.tag.element:04X})"
    keyword = keyword_for_tag(element.tag)
    return f"{shown} {keyword}" if keyword else shown


def _said_of(named: Any) -> str:
    return f"Specific Character Set {named}" if named else "a data set without Specific Character Set"


def _can_hold(named: Any, text: str, *, was_read: bool) -> bool:
    if text.isascii():
        return True
    if not named:
        return was_read and _fits(text, ["iso8859"])
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.charset import convert_encodings

    return _fits(text, convert_encodings(named if isinstance(named, str) else list(named)))


def _fits(text: str, encodings: Sequence[str]) -> bool:
    """Whether each character is in one of these repertoires: escape sequences lead from one to another."""
    return all(any(holds(each, character) for each in encodings) for character in set(text))


def holds(encoding: str, character: str) -> bool:
    """Whether a character can be written in an encoding, as pydicom names it."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.charset import custom_encoders

    try:
        if encoding in custom_encoders:
            custom_encoders[encoding](character)
        else:
            character.encode(encoding)
    except UnicodeError:
        return False
    return True
