"""Reads the attributes of the index from the bytes of a data set as they arrive, whatever pieces they come in.

Nothing is held but a copy of up to WINDOW bytes that is being walked, and the values that are wanted; pixels pass by
unseen. The end is the point of it: `finish` says whether the data set was whole, before the object is called stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tomowire.errors import DataSetError
from tomowire.server.index.inflate import MAXIMUM_INFLATED, Inflater
from tomowire.server.index.layout import Layout, is_deflated, layout_of
from tomowire.server.index.walker import Walker
from tomowire.server.index.wanted import WANTED
from tomowire.wire.value import value

# Slices of `bytes` are half as dear as slices of a `memoryview`, so the bytes ahead are copied once; nearly all objects
# have the elements before their pixels within this.
WINDOW: Final = 32 * 1024

_FILE_META_GROUP: Final = b"\x02\x00"


@value()
class ScannedHeader:
    """The raw values of the wanted elements of a whole data set."""

    transfer_syntax: str
    layout: Layout  # as found, which is not always what the transfer syntax says
    values: dict[int, bytes]  # tag -> value with its padding; for a sequence its items, and a delimiter if it had one
    odd_vrs: dict[int, str]  # tag -> VR, where that is not the one of the dictionary
    length: int  # bytes of the data set, inflated if it was deflated


class HeaderScanner:
    """`feed` it all bytes of one data set, then `finish`. Both raise `DataSetError`; after that it is of no more use.

    `transfer_syntax` is that of the presentation context. A deflated data set is given up when it has more than `most_inflated`
    bytes. Bytes given to `feed` may be changed once it has returned.
    """

    __slots__ = ("_held", "_inflater", "_skip", "_started", "_transfer_syntax", "_walker")

    def __init__(self, transfer_syntax: str, *, most_inflated: int = MAXIMUM_INFLATED) -> None:
        self._transfer_syntax = transfer_syntax
        self._walker = Walker(layout_of(transfer_syntax), WANTED)
        self._inflater = Inflater(most_inflated) if is_deflated(transfer_syntax) else None
        self._held = bytearray()  # the beginning of a unit that is not whole yet
        self._skip = 0  # bytes to come that belong to a value that is not wanted
        self._started = False

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Walk the next bytes, of any number."""
        view = memoryview(data)
        if self._inflater is None:
            self._feed(view)
        else:
            for piece in self._inflater.inflate(view):
                self._feed(memoryview(piece))

    @property
    def values(self) -> dict[int, bytes]:
        """What was found so far, of a data set that need not be whole: tag -> value with its padding."""
        return self._walker.values

    def finish(self) -> ScannedHeader:
        """What was found; raises `DataSetError` if the data set is cut short."""
        walker = self._walker
        if self._inflater is not None:
            self._inflater.finish()
        if self._skip:
            raise DataSetError(f"the last value lacks {self._skip} bytes", offset=walker.base)
        if self._held and not self._is_padding(bytes(self._held)):
            raise DataSetError("the data set ends within an element", offset=walker.base)
        if len(walker.frames) != 1:
            raise DataSetError("the data set ends within a sequence", offset=walker.base)
        length = walker.base + len(self._held)
        return ScannedHeader(self._transfer_syntax, walker.frames[0][1], walker.values, walker.odd_vrs, length)

    def _feed(self, view: memoryview) -> None:
        at, size = self._pass_by(view, 0), len(view)
        walker = self._walker
        while at < size:
            if self._held:
                more = view[at : at + walker.need - len(self._held)]
                self._held += more
                if len(self._held) < walker.need:
                    return
                at += len(more)
                window = bytes(self._held)
            else:
                window = bytes(view[at : at + WINDOW])
                at += len(window)
            self._walk(window)
            if self._skip:
                at = self._pass_by(view, at)

    def _walk(self, window: bytes) -> None:
        walker = self._walker
        if not self._started:
            self._check_start(window)
        end = walker.walk(window)
        used = min(end, len(window))
        if walker.recording is not None:
            walker.record(window[:used])
        walker.base += used
        self._skip = end - used
        self._held[:] = window[used:]

    def _pass_by(self, view: memoryview, at: int) -> int:
        """Skip what is to be skipped of `view`, from `at` on; return where that ends."""
        end = min(at + self._skip, len(view))
        self._walker.record(view[at:end])
        self._walker.base += end - at
        self._skip -= end - at
        return end

    def _is_padding(self, rest: bytes) -> bool:
        """NULs behind the last element are: none has the group 0000. One alone may begin a big endian tag."""
        return not rest.strip(b"\0") and (len(rest) > 1 or self._walker.frames[0][1].order == "little")

    def _check_start(self, window: bytes) -> None:
        """A data set that begins with group 0002 is refused: readers of the stored file take that group for file meta
        information until another group comes, whatever its length says, so that a sender could choose the transfer syntax.
        Later elements of group 0002 do no harm, and are not looked at (they do not belong there: PS3.10 7.1).
        """
        if len(window) >= 2:
            self._started = True
            if self._inflater is None and window.startswith(_FILE_META_GROUP):
                raise DataSetError("the data set begins with file meta information (group 0002)")


def scan(transfer_syntax: str, pieces: Iterable[bytes | bytearray | memoryview]) -> ScannedHeader:
    """Scan a data set of which all pieces are at hand. Raises `DataSetError`."""
    scanner = HeaderScanner(transfer_syntax)
    for piece in pieces:
        scanner.feed(piece)
    return scanner.finish()
