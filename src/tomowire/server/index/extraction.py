"""From the raw values of a scanned data set to an `InstanceRecord`. Nothing here raises for what a value contains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, Final

from tomowire.server.index.attributes import (
    NUMBER_VRS,
    InstanceAttributes,
    InstanceRecord,
    PatientAttributes,
    SeriesAttributes,
    StudyAttributes,
    attributes_of,
)
from tomowire.server.index.layout import SAID_TO_BE_IMPLICIT
from tomowire.server.index.numbers import number
from tomowire.server.index.scanner import ScannedHeader
from tomowire.server.index.sequences import read_items
from tomowire.server.index.text import decode, is_extended, normalize_person_name, without_padding
from tomowire.server.index.wanted import ATTRIBUTES, SPECIFIC_CHARACTER_SET, WANTED_IN_ITEMS

_PATIENT_NAME: Final = 0x00100010

LONGEST_KEY: Final = 256
"""Characters that are kept of a text by which the database finds rows; no valid value has as many (PS3.5 6.2). The rows of a
database's index have to share a page with others: PostgreSQL refuses more than 2700 bytes."""

_KEYS: Final = frozenset(
    {
        0x00080020,  # Study Date
        0x00080030,  # Study Time
        0x00080050,  # Accession Number
        0x00080060,  # Modality
        0x00100020,  # Patient ID
        0x00100021,  # Issuer of Patient ID: in the patient's identity
        0x00100030,  # Patient's Birth Date
        0x00200010,  # Study ID
        0x00400244,  # Performed Procedure Step Start Date
    }
)
_EMPTY: Final[dict[int, Any]] = {
    tag: () if declared.item else None if declared.vr in NUMBER_VRS else "" for tag, declared in ATTRIBUTES.items()
}


def _tags_of(level: type[Any]) -> Callable[[dict[int, Any]], tuple[Any, ...]]:
    return itemgetter(*[declared.tag for declared in attributes_of(level).values()])


_TAGS_OF_ITEM: Final = {
    declared.item: [attribute.tag for attribute in attributes_of(declared.item).values()]
    for declared in ATTRIBUTES.values()
    if declared.item is not None
}
_of_patient: Final = _tags_of(PatientAttributes)
_of_study: Final = _tags_of(StudyAttributes)
_of_series: Final = _tags_of(SeriesAttributes)
_of_instance: Final = _tags_of(InstanceAttributes)


def instance_record(header: ScannedHeader) -> InstanceRecord:
    """What the index keeps of the object with this header."""
    reader = _Reader(header, header.values.get(SPECIFIC_CHARACTER_SET, b""))
    convert = _CONVERTERS
    found = _EMPTY.copy()
    for tag, raw in header.values.items():
        found[tag] = convert[tag](reader, tag, raw)
        if len(raw) > LONGEST_KEY and tag in _KEYS:
            found[tag] = found[tag][:LONGEST_KEY]
    return InstanceRecord(
        header.transfer_syntax,
        PatientAttributes(*(*_of_patient(found), normalize_person_name(found[_PATIENT_NAME])[:LONGEST_KEY])),
        StudyAttributes(*_of_study(found)),
        SeriesAttributes(*_of_series(found)),
        InstanceAttributes(*_of_instance(found)),
    )


class _Reader:
    """Converts raw values of one data set, with its character set. One method per kind of VR."""

    __slots__ = ("_character_set", "_extended", "_header")

    def __init__(self, header: ScannedHeader, character_set: bytes) -> None:
        self._header = header
        self._character_set = without_padding(character_set.decode("ascii", "replace"))
        self._extended = is_extended(self._character_set)

    def text(self, _tag: int, raw: bytes) -> str:
        if self._extended or not raw.isascii():
            return without_padding(decode(raw, self._character_set))
        text = raw.decode("ascii").strip(" \0")
        return without_padding(text) if "\\" in text or "\0" in text else text

    def uid(self, tag: int, raw: bytes) -> str:
        """UI; a NUL within it is made visible and not left out, which would make another UID of it."""
        if b"\0" in (kept := raw.strip(b"\0 ")):
            return kept.decode("ascii", "replace").replace("\0", "\ufffd")
        return self.text(tag, kept)

    def name(self, tag: int, raw: bytes) -> str:
        """PN; empty component groups at the end are left out, as they may be in the data set (PS3.5 6.2.1.1)."""
        if self._extended or not raw.isascii():
            text = without_padding(decode(raw, self._character_set, is_name=True))
        else:
            text = self.text(tag, raw)
        return "\\".join([name.rstrip("=") for name in text.split("\\")]) if "=" in text else text

    def long_text(self, _tag: int, raw: bytes) -> str:
        """LT has one value, in which backslashes and leading spaces are text (PS3.5 6.2)."""
        return decode(raw, self._character_set).replace("\0", "").rstrip(" ")

    def date(self, tag: int, raw: bytes) -> str:
        """DA; the form 2024.01.31 of ACR-NEMA as 20240131 (PS3.5 6.2, note to DA)."""
        text = self.text(tag, raw)
        return text.replace(".", "") if len(text) == 10 and text[4] == text[7] == "." else text

    def time(self, tag: int, raw: bytes) -> str:
        """TM; the form 10:11:12 of ACR-NEMA as 101112 (PS3.5 6.2, note to TM)."""
        text = self.text(tag, raw)
        return text.replace(":", "") if text[2:3] == ":" else text

    def number(self, tag: int, raw: bytes) -> int | float | None:
        usual = ATTRIBUTES[tag].vr
        return number(raw, self._header.odd_vrs.get(tag, usual), usual, self._header.layout.order)

    def items(self, tag: int, raw: bytes) -> tuple[Any, ...]:
        item = ATTRIBUTES[tag].item
        assert item is not None
        # PS3.5 6.2.2: within UN all is implicit VR little endian.
        layout = SAID_TO_BE_IMPLICIT if self._header.odd_vrs.get(tag) == "UN" else self._header.layout
        return tuple([self._item(item, values) for values in read_items(raw, layout, WANTED_IN_ITEMS[item])])

    def _item(self, item: type[Any], values: Mapping[int, bytes]) -> Any:
        reader = self
        if SPECIFIC_CHARACTER_SET in values:  # that of the item holds in the item (PS3.5 7.5.3)
            reader = _Reader(self._header, values[SPECIFIC_CHARACTER_SET])
        return item(*[reader.text(tag, values.get(tag, b"")) for tag in _TAGS_OF_ITEM[item]])


_Converter = Callable[[_Reader, int, bytes], Any]
_BY_VR: Final[Mapping[str, _Converter]] = {
    "UI": _Reader.uid,
    "PN": _Reader.name,
    "LT": _Reader.long_text,
    "DA": _Reader.date,
    "TM": _Reader.time,
    "SQ": _Reader.items,
} | dict.fromkeys(NUMBER_VRS, _Reader.number)
_CONVERTERS: Final[Mapping[int, _Converter]] = {
    tag: _BY_VR.get(declared.vr, _Reader.text) for tag, declared in ATTRIBUTES.items()
}
