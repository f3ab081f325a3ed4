"""The identifiers of C-FIND answers (PS3.4 C.4.1.1.3.2), encoded from rows of the index.

A query may have as many answers as the archive has instances, all with the same elements. What each of these takes is worked out
once; a row then costs some microseconds, where building and writing a pydicom data set would cost hundreds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from tomowire.server.index.attributes import LEVELS, attributes_of
from tomowire.server.index.keys import (
    INSTANCE_AVAILABILITY,
    QUERY_RETRIEVE_LEVEL,
    RETRIEVE_AE_TITLE,
    SPECIFIC_CHARACTER_SET,
)
from tomowire.services.character_sets import TEXT_VRS
from tomowire.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.vrs import LONG_VRS

if TYPE_CHECKING:
    from tomowire.server.index.keys import Key, Keys
    from tomowire.server.index.select import Selected

Row = Sequence[Any]
# From the value of a column and the codec for text, the whole element.
Cell = Callable[[Any, str], bytes]

_LONG: Final = frozenset(LONG_VRS)
_LONGEST: Final = 0xFFFE
_ITEM_TAG: Final = b"\xfe\xff\x00\xe0"
_GREATEST_US: Final = 0xFFFF
_DIGITS_OF_DS: Final = 16  # PS3.5 6.2

ASCII: Final = "ascii"
_UTF_8: Final = "utf-8"
# PS3.3 Table C.12-2. Whoever asks in one of these gets his answers in it where it will do; it may be all that he can show.
_CODECS: Final = {
    "ISO_IR 100": "iso8859-1",
    "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4",
    "ISO_IR 144": "iso8859-5",
    "ISO_IR 127": "iso8859-6",
    "ISO_IR 126": "iso8859-7",
    "ISO_IR 138": "iso8859-8",
    "ISO_IR 148": "iso8859-9",
    "ISO_IR 166": "tis-620",
}

_ITEMS: Final = {
    declared.tag: declared.item
    for level in LEVELS
    for declared in attributes_of(level).values()
    if declared.item is not None
}


class AnswerEncoder:
    """Encodes answers to one query: the keys that were asked for, in the order of their tags, with the values of a row.

    What the index does not have is there without a value. Besides: the level, the AE title to retrieve from, that the objects
    are on line, and the character set if there is text that is not ASCII. `transfer_syntax_uid` is Implicit or Explicit VR Little
    Endian.
    """

    def __init__(self, keys: Keys, selected: Selected, *, retrieve_ae_title: str, transfer_syntax_uid: str) -> None:
        self._elements = _Elements(implicit=transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN)
        self._codecs: list[tuple[str, bytes]] = [(ASCII, b"")]
        for name, codec in ((keys.character_set, _CODECS.get(keys.character_set)), ("ISO_IR 192", _UTF_8)):
            if codec is not None:
                self._codecs.append((codec, self._elements.text(SPECIFIC_CHARACTER_SET, "CS")(name, ASCII)))
        self._before, self._after = self._parts(keys, selected, retrieve_ae_title)

    def encode(self, row: Row) -> bytes:
        """The identifier for one row."""
        for codec, declaration in self._codecs:
            try:
                return _join(self._before, row, codec) + declaration + _join(self._after, row, codec)
            except UnicodeEncodeError:
                continue
        raise AssertionError("UTF-8 encodes whatever was decoded")

    def encode_all(self, rows: Iterable[Row]) -> list[bytes]:
        """The identifiers for some rows."""
        encode = self.encode
        return [encode(row) for row in rows]

    def _parts(self, keys: Keys, selected: Selected, ae_title: str) -> tuple[list[_Part], list[_Part]]:
        """What comes before Specific Character Set, and what comes after it."""
        elements = self._elements
        places = {tag: (place, vr) for place, (tag, vr) in enumerate(selected.columns)}
        parts: dict[int, _Part] = {}
        for key in keys.entries:
            place, vr = places.get(key.tag, (-1, key.vr))
            parts[key.tag] = (
                elements.empty(key.tag, vr) if place < 0 else (place, elements.cell(key.tag, vr, key.items))
            )
        for tag, vr, text in (
            (QUERY_RETRIEVE_LEVEL, "CS", keys.level.value),
            (RETRIEVE_AE_TITLE, "AE", ae_title),
            (INSTANCE_AVAILABILITY, "CS", "ONLINE"),
        ):
            parts[tag] = elements.text(tag, vr)(text, ASCII)
        ordered = sorted(parts.items())
        return (
            _merged(part for tag, part in ordered if tag < SPECIFIC_CHARACTER_SET),
            _merged(part for tag, part in ordered if tag > SPECIFIC_CHARACTER_SET),
        )


# Bytes that are the same in all answers; or the place of a column and what to make of its value.
_Part = bytes | tuple[int, Cell]


def _merged(parts: Iterable[_Part]) -> list[_Part]:
    """With neighbours that are the same in all answers put together."""
    merged: list[_Part] = []
    for part in parts:
        if merged and isinstance(part, bytes) and isinstance(merged[-1], bytes):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def _join(parts: list[_Part], row: Row, codec: str) -> bytes:
    return b"".join([part if isinstance(part, bytes) else part[1](row[part[0]], codec) for part in parts])


class _Elements:
    """Makes the functions that encode elements, in little endian, with or without their VR (PS3.5 7.1)."""

    def __init__(self, *, implicit: bool) -> None:
        self._implicit = implicit

    def empty(self, tag: int, vr: str) -> bytes:
        """An element without a value; of several VRs that the dictionary allows ("US or SS") with the first."""
        return self._framed(tag, vr[:2])(b"")

    def cell(self, tag: int, vr: str, asked: Sequence[Sequence[Key]] = ()) -> Cell:
        """What encodes the values of a column; of a sequence, `asked` are the keys of each item of the query's."""
        if vr == "SQ":
            return self._sequence(tag, asked)
        if vr == "US":
            framed = self._framed(tag, vr)
            return lambda value, _: framed(b"" if value is None else _unsigned_short(value))
        text = self.text(tag, vr)
        if vr == "IS":
            return lambda value, _: text("" if value is None else str(value), ASCII)
        if vr == "DS":
            return lambda value, _: text("" if value is None else decimal_string(value), ASCII)
        return text

    def text(self, tag: int, vr: str) -> Cell:
        """What encodes text, padded to even length (PS3.5 6.2)."""
        framed = self._framed(tag, vr)
        padding = b"\0" if vr == "UI" else b" "
        if vr in TEXT_VRS:

            def cell(value: str | None, codec: str) -> bytes:
                raw = value.encode(codec) if value else b""
                return framed(raw + padding if len(raw) & 1 else raw)
        else:
            # Only text has a character set. What stands here and is not ASCII is a mistake of whoever made the object.
            def cell(value: str | None, codec: str) -> bytes:
                raw = value.encode(ASCII, "replace") if value else b""
                return framed(raw + padding if len(raw) & 1 else raw)

        return cell

    def _sequence(self, tag: int, asked: Sequence[Sequence[Key]]) -> Cell:
        """What encodes a column with items in JSON (`statements.items_as_json`): what was asked for, or all there is."""
        framed = self._framed(tag, "SQ")
        known = {declared.tag: (name, declared.vr) for name, declared in attributes_of(_ITEMS[tag]).items()}
        wanted = {key.tag: key.vr for keys in asked for key in keys} or {each: vr for each, (_, vr) in known.items()}
        cells = []
        for each, vr in sorted(wanted.items()):
            name, vr_known = known.get(each, ("", vr))
            cells.append((name, self.cell(each, vr_known) if name else _always(self.empty(each, vr))))

        def cell(value: str | None, codec: str) -> bytes:
            if not value or value == "[]":
                return framed(b"")
            items = [b"".join([each(item.get(name), codec) for name, each in cells]) for item in json.loads(value)]
            return framed(b"".join(map(_item, items)))

        return cell

    def _framed(self, tag: int, vr: str) -> Callable[[bytes], bytes]:
        """What puts tag, VR and length before a value."""
        head = _tag(tag)
        if self._implicit:
            return lambda raw: head + len(raw).to_bytes(4, "little") + raw
        unknown = head + b"UN\0\0"
        if vr in _LONG:
            long = head + vr.encode(ASCII) + b"\0\0"
            return lambda raw: long + len(raw).to_bytes(4, "little") + raw
        short = head + vr.encode(ASCII)

        def framed(raw: bytes) -> bytes:
            length = len(raw)
            if length <= _LONGEST:
                return short + length.to_bytes(2, "little") + raw
            return unknown + length.to_bytes(4, "little") + raw  # PS3.5 6.2.2: too long for its VR

        return framed


def _unsigned_short(number: int) -> bytes:
    """Nothing if it cannot be one: the object had another VR there, and a greater number."""
    return number.to_bytes(2, "little") if 0 <= number <= _GREATEST_US else b""


def _tag(tag: int) -> bytes:
    return (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")


def _item(content: bytes) -> bytes:
    return _ITEM_TAG + len(content).to_bytes(4, "little") + content


def _always(element: bytes) -> Cell:
    return lambda _value, _codec: element


def decimal_string(number: float) -> str:
    """As precise as 16 characters can be (PS3.5 6.2, DS)."""
    for digits in range(15, 0, -1):
        text = f"{number:.{digits}g}"
        if len(text) <= _DIGITS_OF_DS:
            return text
    raise AssertionError("one digit fits: -1e+308")
