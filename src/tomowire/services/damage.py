"""What is wrong with an identifier that cannot be read, in words short enough for an Error Comment (0000,0902): 64 characters."""

from __future__ import annotations

from struct import Struct
from typing import Final, NoReturn

from tomowire.wire.vrs import LONG_VRS

_UNDEFINED: Final = 0xFFFFFFFF
_DEEPEST: Final = 64
_LONG: Final = frozenset(LONG_VRS)
_DELIMITERS: Final = 0xFFFE  # the group of items, and of what ends them and their sequences (PS3.5 7.5)
_ITEM: Final = (_DELIMITERS, 0xE000)
_ITEM_END: Final = (_DELIMITERS, 0xE00D)
_SEQUENCE_END: Final = (_DELIMITERS, 0xE0DD)

_Tag = tuple[int, int]


class _Damage(Exception):
    """The first thing that is wrong."""


def what_is_wrong(data: bytes, *, is_implicit: bool, is_little: bool, most: int | None = None) -> str | None:
    """Which element, and why (PS3.5 7.1, 7.5); None if nothing is found: then each length fits, each sequence has its items, and
    there are no more than `most` elements and items, if that is given."""
    walk = _Walk(data, is_little=is_little, most=most)
    try:
        walk.data_set(0, len(data), is_implicit, 0)
    except _Damage as damage:
        return str(damage)
    return None


class _Walk:
    def __init__(self, data: bytes, *, is_little: bool, most: int | None) -> None:
        order = "<" if is_little else ">"
        self._most = most
        self._count = 0
        self._data = data
        self._tag = Struct(f"{order}HH")
        self._short = Struct(f"{order}H")
        self._long = Struct(f"{order}I")

    def data_set(
        self,
        position: int,
        end: int,
        is_implicit: bool,
        depth: int,
        *,
        item_of: _Tag | None = None,
        is_open: bool = False,
    ) -> int:
        """Walk over elements up to `end`, or, if it `is_open`, to the delimiter of the item; gives where that is."""
        before: _Tag | None = None
        while position < end:
            if end - position < 8:
                where = f" after {_shown(before)}" if before else f" in {_shown(item_of)}" if item_of else ""
                _fail(f"{end - position} bytes are left over{where}")
            tag = self._tag.unpack_from(self._data, position)
            if is_open and tag == _ITEM_END:
                return position + 8
            if tag[0] == _DELIMITERS:
                _fail(f"{_shown(tag)} is where an element belongs")
            position = self._element(tag, position + 4, end, is_implicit, depth)
            before = tag
        if is_open and item_of is not None:
            _fail(f"{_shown(item_of)} has an item without an end")
        return position

    def _count_one(self) -> None:
        self._count += 1
        if self._most is not None and self._count > self._most:
            _fail(f"it has more than {self._most} elements and items")

    def _element(self, tag: _Tag, position: int, end: int, is_implicit: bool, depth: int) -> int:
        self._count_one()
        vr, length, position = self._header(tag, position, end, is_implicit)
        if vr == "SQ" or length == _UNDEFINED:
            # PS3.5 6.2.2: what is in UN of undefined length is in Implicit VR.
            return self._items(tag, position, end, length, is_implicit or vr == "UN", depth + 1)
        self._check_length(tag, length, end - position)
        return position + length

    def _header(self, tag: _Tag, position: int, end: int, is_implicit: bool) -> tuple[str, int, int]:
        """VR, length, and where the value begins."""
        if is_implicit:
            (length,) = self._long.unpack_from(self._data, position)
            return _vr_of(tag), length, position + 4
        vr = self._data[position : position + 2].decode("latin-1")
        if not (vr.isascii() and vr.isalpha() and vr.isupper()):
            _fail(f"{_shown(tag)} has no VR")
        if vr not in _LONG:
            (length,) = self._short.unpack_from(self._data, position + 2)
            return vr, length, position + 4
        if end - position < 8:
            _fail(f"{_shown(tag)} ends inside its length")
        (length,) = self._long.unpack_from(self._data, position + 4)
        return vr, length, position + 8

    def _items(self, tag: _Tag, position: int, end: int, length: int, is_implicit: bool, depth: int) -> int:
        if depth > _DEEPEST:
            _fail(f"sequences in sequences, more than {_DEEPEST} deep")
        is_open = length == _UNDEFINED
        if not is_open:
            self._check_length(tag, length, end - position)
            end = position + length
        while position < end:
            if end - position < 8:
                _fail(f"{_shown(tag)} has an item cut short")
            found: _Tag = self._tag.unpack_from(self._data, position)
            (item_length,) = self._long.unpack_from(self._data, position + 4)
            position += 8
            if is_open and found == _SEQUENCE_END:
                return position
            self._count_one()
            if found != _ITEM:
                _fail(f"{_shown(tag)} has {_shown(found)} for an item")
            if item_length == _UNDEFINED:
                position = self.data_set(position, end, is_implicit, depth, item_of=tag, is_open=True)
            elif item_length > end - position:
                _fail(f"{_shown(tag)} has an item cut short")
            else:
                position = self.data_set(position, position + item_length, is_implicit, depth, item_of=tag)
        if is_open:
            _fail(f"{_shown(tag)} has no end")
        return position

    @staticmethod
    def _check_length(tag: _Tag, length: int, available: int) -> None:
        if length > available:
            _fail(f"{_shown(tag)} says {length} bytes, has {available}")


def _fail(text: str) -> NoReturn:
    raise _Damage(text)


def _shown(tag: _Tag) -> str:
    return f"({tag[0]:04X},{tag[1]:04X})"


def _vr_of(tag: _Tag) -> str:
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    return str(dictionary_VR(tag)) if dictionary_has_tag(tag) else "UN"
