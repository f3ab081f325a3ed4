"""Walks the elements of a data set, one window of bytes after another, and keeps the values that are wanted.

A window is consumed in units: an element's header with its value if that is wanted, or else its header alone (the value is
skipped by its length, and may lie outside the window); an item's header; a delimiter. The walker stops at the first unit
that is not whole, and says how many bytes that unit needs.

What is open is a stack of frames. At the bottom lies the data set; a sequence or an item of undefined length lies on it
until its delimiter has come (PS3.5 7.5.2). What has a length is skipped by it, and not looked into: a data set is whole if
its lengths add up and every frame has been closed.

    DATA_SET, ITEM         elements come next
    SEQUENCE, FRAGMENTS    items come next; fragments are those of encapsulated pixel data (PS3.5 A.4), never data sets
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tomowire.errors import DataSetError
from tomowire.server.index.layout import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NO_VR,
    SAID_TO_BE_IMPLICIT,
    UNDEFINED_LENGTH,
    Layout,
    WantedTags,
)

DATA_SET, ITEM, SEQUENCE, FRAGMENTS = range(4)
MAXIMUM_VALUE: Final = 65536  # a longer value is not kept: no attribute of the index is that long
MAXIMUM_DEPTH: Final = 64  # sequences within each other; real objects have less than ten

_ELEMENT_HEADER: Final = 8
_LONG_HEADER: Final = 12
_NOT_AN_ELEMENT: Final = -1
_NOTHING: Final[Mapping[int, tuple[int, int]]] = {}
_BLANK: Final = frozenset(b"\0 ?-")


class Walker:
    """Finds `wanted` elements among those of the outermost level. Feed it with `walk`; keep `base` up to date.

    `values` is tag -> value, with the delimiter if it is a sequence of undefined length; `odd_vrs` has the VR of a value
    that stands there with another VR than the dictionary's. `need` is 0, or the length that the window must have from the
    place where `walk` stopped. `recording` says that skipped bytes are to be given to `record`, too.
    """

    __slots__ = ("_record_from", "_record_tag", "_wanted", "base", "frames", "need", "odd_vrs", "recording", "values")

    def __init__(self, layout: Layout, wanted: WantedTags, *, outermost: int = DATA_SET) -> None:
        self.frames: list[tuple[int, Layout]] = [(outermost, layout)]
        self.values: dict[int, bytes] = {}
        self.odd_vrs: dict[int, str] = {}
        self.base = 0  # where the window begins in the data set
        self.need = 0
        self.recording: bytearray | None = None
        self._record_from = 0
        self._record_tag = 0
        self._wanted = wanted

    def walk(self, window: bytes) -> int:
        """Consume what is whole; return where it ends, which may be behind the window. Raises `DataSetError`."""
        pos = self.need = 0
        size = len(window)
        frames = self.frames
        while pos < size and not self.need and frames:
            kind, layout = frames[-1]
            if layout.uncertain and kind <= ITEM:
                self._detect(window, pos, kind, layout)
            elif kind > ITEM:
                pos = self._items(window, pos, kind, layout)
            elif layout.implicit:
                pos = self._implicit(window, pos, layout)
            else:
                pos = self._explicit(window, pos, layout)
        return pos

    def record(self, consumed: bytes | memoryview) -> None:
        """Take note of the bytes from `base` on, which belong to a wanted sequence of undefined length."""
        if self.recording is not None:
            self.recording += consumed[max(self._record_from - self.base, 0) :]
            if len(self.recording) > MAXIMUM_VALUE:
                self.recording = None

    def _explicit(self, window: bytes, pos: int, layout: Layout) -> int:
        """Elements with explicit VR (PS3.5 7.1.2), until the window ends or a frame is opened or closed."""
        header, length_at = layout.header, layout.length
        short_vrs, long_vrs = layout.short_vrs, layout.long_vrs
        wanted = self._wanted_in(layout)
        values, odd_vrs = self.values, self.odd_vrs
        size = len(window)
        last = size - _ELEMENT_HEADER
        while pos <= last:
            tag, vr, length = header(window, pos)
            if vr in short_vrs:
                start = pos + _ELEMENT_HEADER
            elif vr in long_vrs and pos + _LONG_HEADER <= size:
                (length,) = length_at(window, pos + _ELEMENT_HEADER)
                start = pos + _LONG_HEADER
                if length == UNDEFINED_LENGTH:
                    return self._open(tag, vr, start, layout)
            else:
                start, length, vr = self._unusual(window, pos, layout)
                if length == _NOT_AN_ELEMENT:
                    return start
            if tag in wanted:
                end = start + length
                if end <= size:
                    key, usual = wanted[tag]
                    values[key] = window[start:end]
                    if vr != usual or odd_vrs:
                        self._note_vr(key, vr, usual, layout)
                elif length <= MAXIMUM_VALUE:
                    self.need = end - pos
                    return pos
            pos = start + length
        return self._stop(pos, size)

    def _implicit(self, window: bytes, pos: int, layout: Layout) -> int:
        """Elements with implicit VR (PS3.5 7.1.3), until the window ends or a frame is opened or closed."""
        header, delimiters = layout.header, layout.delimiters
        wanted = self._wanted_in(layout)
        size = len(window)
        last = size - _ELEMENT_HEADER
        while pos <= last:
            tag, length = header(window, pos)
            start = pos + _ELEMENT_HEADER
            if tag in delimiters:
                start, length = self._delimiter(tag, pos, layout)
                if length == _NOT_AN_ELEMENT:
                    return start
            elif length == UNDEFINED_LENGTH:
                return self._open(tag, NO_VR, start, layout)
            elif tag in wanted:
                end = start + length
                if end <= size:
                    self.values[wanted[tag][0]] = window[start:end]
                elif length <= MAXIMUM_VALUE:
                    self.need = end - pos
                    return pos
            pos = start + length
        return self._stop(pos, size)

    def _items(self, window: bytes, pos: int, kind: int, layout: Layout) -> int:
        """Items of a sequence or fragments of pixel data, until one is to be looked into or the delimiter has come."""
        size = len(window)
        last = size - _ELEMENT_HEADER
        while pos <= last:
            tag, length = layout.tag_and_length(window, pos)
            if tag == layout.sequence_delimiter:
                return self._close_sequence(window, pos + _ELEMENT_HEADER)
            if tag == layout.item and length != UNDEFINED_LENGTH:
                pos += _ELEMENT_HEADER + length
            elif tag == layout.item and kind == SEQUENCE:
                self.frames.append((ITEM, layout))
                return pos + _ELEMENT_HEADER
            elif tag == layout.item_delimiter:  # behind an item that has a length: needless, but seen
                pos += _ELEMENT_HEADER
            else:
                what = "a fragment of undefined length" if tag == layout.item else _written(layout.tag(tag))
                raise self._error(f"{what} where an item is due", pos)
        return self._stop(pos, size)

    def _open(self, tag: int, vr: int, start: int, layout: Layout) -> int:
        """A value of undefined length begins at `start`: the items of a sequence, or fragments."""
        if len(self.frames) >= 2 * MAXIMUM_DEPTH:
            raise self._error(f"more than {MAXIMUM_DEPTH} sequences within each other", start)
        wanted = self._wanted_in(layout)
        if tag in wanted:
            self.recording, self._record_tag, self._record_from = bytearray(), wanted[tag][0], self.base + start
            self._note_vr(self._record_tag, vr, wanted[tag][1], layout)
        if vr in layout.fragment_vrs:
            self.frames.append((FRAGMENTS, layout))
        elif vr == layout.unknown_vr or (vr == NO_VR and not layout.implicit):
            # PS3.5 6.2.2: the value of UN of undefined length is a sequence in implicit VR little endian.
            self.frames.append((SEQUENCE, SAID_TO_BE_IMPLICIT))
        else:
            self.frames.append((SEQUENCE, layout))
        return start

    def _close_sequence(self, window: bytes, end: int) -> int:
        self.frames.pop()
        if self.recording is not None and len(self.frames) == 1:
            value = bytes(self.recording) + window[max(self._record_from - self.base, 0) : end]
            self.recording = None
            if len(value) <= MAXIMUM_VALUE:
                self.values[self._record_tag] = value
        return end

    def _delimiter(self, tag: int, pos: int, layout: Layout) -> tuple[int, int]:
        """A tag of group FFFE among elements: the end of the item, or something that does not belong here."""
        end = pos + _ELEMENT_HEADER
        if tag == layout.item_delimiter and self.frames[-1][0] == ITEM:
            self.frames.pop()
            return end, _NOT_AN_ELEMENT
        if tag != layout.item and len(self.frames) == 1:
            return end, 0  # a delimiter behind a sequence that has a length: needless, but seen
        raise self._error(f"{_written(layout.tag(tag))} where an element is due", pos)

    def _unusual(self, window: bytes, pos: int, layout: Layout) -> tuple[int, int, int]:
        """Start of the value, its length, and the VR, of an element with explicit VR whose VR is none of PS3.5 Table 6.2-1.

        A length of _NOT_AN_ELEMENT means: go on at `start`, a frame was opened or closed or the window is too short.
        """
        tag, vr, length = layout.header(window, pos)
        start = pos + _ELEMENT_HEADER
        first, second = window[pos + 4], window[pos + 5]
        letters = _are_letters(first, second)
        if vr in layout.long_vrs or (letters and length == 0):
            # PS3.5 6.2: VRs to come have the 32 bit form, in which these two bytes are 0.
            return self._long_form(window, pos, tag, vr, layout)
        if letters:
            return start, length, vr
        if tag in layout.delimiters:
            return *self._delimiter(tag, pos, layout), NO_VR
        if first in _BLANK and second in _BLANK and length:
            return start, length, NO_VR  # VR left blank: DCMTK reads a 16 bit length as well
        # An element with implicit VR among explicit ones, as some writers leave them behind when they convert.
        (length,) = layout.length(window, pos + 4)
        if length == UNDEFINED_LENGTH:
            return self._open(tag, NO_VR, start, layout), _NOT_AN_ELEMENT, NO_VR
        return start, length, NO_VR

    def _long_form(self, window: bytes, pos: int, tag: int, vr: int, layout: Layout) -> tuple[int, int, int]:
        if pos + _LONG_HEADER > len(window):
            self.need = _LONG_HEADER
            return pos, _NOT_AN_ELEMENT, vr
        (length,) = layout.length(window, pos + _ELEMENT_HEADER)
        start = pos + _LONG_HEADER
        if length == UNDEFINED_LENGTH:
            return self._open(tag, vr, start, layout), _NOT_AN_ELEMENT, vr
        return start, length, vr

    def _detect(self, window: bytes, pos: int, kind: int, said: Layout) -> None:
        """Look at the first element. A length that looks like a VR would have to be above 16 kB, and be one of few."""
        if len(window) - pos < _ELEMENT_HEADER:
            self.need = _ELEMENT_HEADER
            return
        _, vr, _ = EXPLICIT_LITTLE.header(window, pos)
        known = vr in EXPLICIT_LITTLE.short_vrs or vr in EXPLICIT_LITTLE.long_vrs
        explicit = known or (not said.implicit and _are_letters(window[pos + 4], window[pos + 5]))
        self.frames[-1] = (kind, EXPLICIT_LITTLE if explicit else IMPLICIT_LITTLE)

    def _wanted_in(self, layout: Layout) -> Mapping[int, tuple[int, int]]:
        if len(self.frames) > 1:
            return _NOTHING
        return self._wanted.little if layout.order == "little" else self._wanted.big

    def _note_vr(self, tag: int, vr: int, usual: int, layout: Layout) -> None:
        if vr in (usual, NO_VR):
            self.odd_vrs.pop(tag, None)  # of a former element with this tag: the last one counts, as for pydicom
        else:
            self.odd_vrs[tag] = layout.vr_name(vr)

    def _stop(self, pos: int, size: int) -> int:
        if pos < size:
            self.need = _ELEMENT_HEADER
        return pos

    def _error(self, message: str, pos: int) -> DataSetError:
        return DataSetError(message, offset=self.base + pos)


def _are_letters(first: int, second: int) -> bool:
    return 0x41 <= first <= 0x5A and 0x41 <= second <= 0x5A


def _written(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
