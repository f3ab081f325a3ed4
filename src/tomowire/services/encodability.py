"""Writing the elements of a pydicom `Dataset`, and what is wrong with one that cannot be written, said of the element that it is.

pydicom's own `write_dataset` is not asked: it puts the text of an exception, with that of all its causes, into the text of the next
at every sequence on the way up. For a wrong number five sequences deep that takes a minute and gigabytes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import DataSetError
from tomowire.services.character_sets import TEXT_VRS, can_hold
from tomowire.services.reencoding import UNDEFINED

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.filebase import DicomBytesIO

_DEEPEST: Final = 64
# PS3.5 6.2. Not DS and IS: what is a number is ASCII, and contours have a million of them.
_ASCII: Final = frozenset({"AE", "AS", "CS", "DA", "DT", "TM", "UI", "UR"})
_ITEM_END: Final = 0xFFFEE00D
_ITEM: Final = 0xFFFEE000


class ElementWriter:
    """Writes data sets in one layout. Of those that were read, what pydicom took for Latin-1 goes out as it came in."""

    def __init__(self, *, implicit: bool, little: bool, was_read: bool) -> None:
        self._layout = implicit, little
        self._was_read = was_read

    def encoded(self, dataset: Dataset, character_set: Any, depth: int = 0) -> bytes:
        """The elements of `dataset`, which is `depth` sequences deep, where `character_set` is in force unless it has its own.

        Elements that were read and not looked at go out as the bytes that came in. Raises `DataSetError`, which names the element
        and not its value, for what cannot be encoded and for text that its character set cannot hold, for which pydicom would
        write question marks: where none is named, other than ASCII.
        """
        import pydicom  # noqa: F401 - whole, before its parts
        from pydicom.filewriter import correct_ambiguous_vr

        if depth > _DEEPEST:
            raise DataSetError(f"sequences in sequences, more than {_DEEPEST} deep")
        target = self._target()
        get: Any = dataset.get_item
        if not self._is_as_read(dataset):
            with suppress(Exception):  # that a VR is not clear is told of the element
                correct_ambiguous_vr(dataset, self._layout[1])
            get = dataset.__getitem__
        named = dataset.get("SpecificCharacterSet", character_set)
        for tag in sorted(dataset.keys()):
            if tag.element or tag.group <= 6:  # group lengths are retired (PS3.5 7.2)
                self._write(target, tag, get, named, depth)
        return target.getvalue()

    def _is_as_read(self, dataset: Dataset) -> bool:
        """Whether what was not looked at can go out as it came in, as pydicom decides it."""
        return bool(
            dataset.original_encoding == self._layout and dataset.original_character_set == dataset._character_set
        )

    def _write(self, target: DicomBytesIO, tag: Any, get: Any, named: Any, depth: int) -> None:
        import pydicom  # noqa: F401 - whole, before its parts
        from pydicom.dataelem import RawDataElement
        from pydicom.filewriter import write_data_element

        vr = "its VR"
        try:
            element = get(tag)
            vr = element.VR
            if not isinstance(element, RawDataElement):
                self._check_text(element, named)
                if vr == "SQ":
                    content = self._items(element, named, depth)
                    length = UNDEFINED if element.is_undefined_length else len(content)
                    element = RawDataElement(tag, "SQ", length, content, 0, *self._layout)
            write_data_element(target, element, named or "iso8859")
        except DataSetError as error:
            raise DataSetError(f"{shown(tag)}: {error}") from error.__cause__
        except Exception as error:  # whatever pydicom meets: TypeError, ValueError, AttributeError, struct.error, ...
            raise DataSetError(f"{shown(tag)}: its value cannot be encoded as {vr}") from error

    def _items(self, sequence: Any, named: Any, depth: int) -> bytes:
        target = self._target()
        for item in sequence.value or ():
            content = self.encoded(item, named, depth + 1)
            is_open = getattr(item, "is_undefined_length_sequence_item", False)
            target.write_tag(_ITEM)
            target.write_UL(UNDEFINED if is_open else len(content))
            target.write(content)
            if is_open:
                target.write_tag(_ITEM_END)
                target.write_UL(0)
        return target.getvalue()

    def _check_text(self, element: Any, named: Any) -> None:
        """Raise `DataSetError` for text that cannot be written as it is."""
        if element.VR not in TEXT_VRS | _ASCII or element.is_empty:
            return
        default = "latin-1" if self._was_read else "ascii"
        is_text = element.VR in TEXT_VRS
        for each in [element.value] if element.VM == 1 else element.value:
            text = str(each)
            if not text.isascii() and not can_hold(named if is_text else None, text, default=default):
                who = f"Specific Character Set {named}" if named else "a data set without Specific Character Set"
                raise DataSetError(f"{who if is_text else element.VR} cannot hold its text")

    def _target(self) -> DicomBytesIO:
        import pydicom  # noqa: F401 - whole, before its parts
        from pydicom.filebase import DicomBytesIO

        target = DicomBytesIO()
        target.is_implicit_VR, target.is_little_endian = self._layout
        return target


def check_whole(element: Any) -> None:
    """Raise `DataSetError` for a value that was cut short when it was read: pydicom would write what is left as the whole."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.dataelem import RawDataElement

    if isinstance(element, RawDataElement) and isinstance(element.value, bytes) and element.length != UNDEFINED:
        length = len(element.value)
        if length != element.length:
            raise DataSetError(f"{shown(element.tag)}: it was cut short, {length} of {element.length} bytes are there")


def shown(tag: Any) -> str:
    """A tag in words: (0028,0010) Rows."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import keyword_for_tag

    keyword = keyword_for_tag(tag)
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})" + (f" {keyword}" if keyword else "")
