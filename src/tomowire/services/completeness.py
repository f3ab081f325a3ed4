"""Whether a DICOM file is there to its end: the data set ends where its elements say. Values stay unread."""

from __future__ import annotations

import os
from struct import Struct
from typing import IO, TYPE_CHECKING, Final
from zlib import MAX_WBITS, decompressobj
from zlib import error as ZlibError

from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tomowire.wire.vrs import LONG_VRS

if TYPE_CHECKING:
    from tomowire.services.dicom_file import DicomFile

_UNDEFINED: Final = 0xFFFFFFFF
_HEADER: Final = 8
_LENGTH: Final = 4
_INFLATED: Final = 1 << 16
_DELIMITERS: Final = 0xFFFE  # PS3.5 7.5: items, and what ends them and their sequences
_ITEM: Final = 0xE000
_PIXELS: Final = 0x7FE0
_LONG_VRS: Final = frozenset(vr.encode("ascii") for vr in LONG_VRS)


def is_whole(file: DicomFile) -> bool:
    """Whether the file ends where its data set does. Of one whose elements make no sense that cannot be said: then it is.

    Blocking. Raises `OSError`.
    """
    with file.path.open("rb") as opened:
        opened.seek(file.offset)
        if file.transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            return _ends_deflated(opened)
        return _Walk(opened, file.transfer_syntax_uid).ends()


def _ends_deflated(opened: IO[bytes]) -> bool:
    """RFC 1951 3.2.3: the last block of a deflated stream says so."""
    inflating = decompressobj(-MAX_WBITS)
    try:
        while not inflating.eof:
            data = inflating.unconsumed_tail or opened.read(_INFLATED)
            if not data:
                return False
            inflating.decompress(data, _INFLATED)
    except ZlibError:
        return True
    return True


def pixel_bytes(file: DicomFile) -> int | None:
    """Bytes of the pixel data in a file that is neither compressed nor deflated; None if the file is not whole.

    Blocking. Raises `OSError`.
    """
    with file.path.open("rb") as opened:
        opened.seek(file.offset)
        walk = _Walk(opened, file.transfer_syntax_uid)
        return walk.pixels if walk.ends() else None


class _Walk:
    """From element to element. What has a length is passed over whole; what has none is entered, and its end waited for."""

    def __init__(self, opened: IO[bytes], syntax: str) -> None:
        order = ">" if syntax == EXPLICIT_VR_BIG_ENDIAN else "<"
        self._file = opened
        self._size = os.fstat(opened.fileno()).st_size
        self._position = opened.tell()
        self._tag = Struct(f"{order}HH")
        self._short = Struct(f"{order}H")
        self._long = Struct(f"{order}I")
        self._open: list[bool] = []
        """For each sequence and item of undefined length that has begun: whether what is in it is in Implicit VR."""
        self._is_implicit = syntax == IMPLICIT_VR_LITTLE_ENDIAN
        self.pixels = 0
        """Bytes of pixel data that have been passed over."""

    def ends(self) -> bool:
        while self._position < self._size:
            header = self._read(_HEADER)
            if len(header) < _HEADER:
                return not self._open and not any(header)  # some programs fill up with zeros
            is_inside = bool(self._open)
            length = self._pass_header(header)
            if length is None:
                return True  # no element
            if not is_inside and self._tag.unpack_from(header)[0] == _PIXELS:
                self.pixels += length
            self._position += length
        return self._position == self._size and not self._open

    def _pass_header(self, header: bytes) -> int | None:
        """Enter or leave what the header begins or ends; gives the length of what is to be passed over, None for no element."""
        group, number = self._tag.unpack_from(header)
        if group == _DELIMITERS:
            length: int = self._long.unpack_from(header, _LENGTH)[0]
            if number == _ITEM:
                return self._entered(self._is_implicit) if length == _UNDEFINED else length
            if not self._open:
                return None
            self._is_implicit = self._open.pop()
            return 0
        if self._is_implicit:
            (length,) = self._long.unpack_from(header, _LENGTH)
            return self._entered(True) if length == _UNDEFINED else length
        return self._pass_explicit(header[_LENGTH : _LENGTH + 2], header)

    def _pass_explicit(self, vr: bytes, header: bytes) -> int | None:
        if not (vr.isalpha() and vr.isupper()):
            return None
        if vr not in _LONG_VRS:
            short: int = self._short.unpack_from(header, _LENGTH + 2)[0]
            return short
        encoded = self._read(_LENGTH)
        if len(encoded) < _LENGTH:
            return _UNDEFINED  # more than there can be: cut short
        length: int = self._long.unpack(encoded)[0]
        # PS3.5 6.2.2: what is in UN of undefined length is in Implicit VR.
        return self._entered(vr == b"UN") if length == _UNDEFINED else length

    def _entered(self, is_implicit: bool) -> int:
        self._open.append(self._is_implicit)
        self._is_implicit = is_implicit
        return 0

    def _read(self, size: int) -> bytes:
        self._file.seek(self._position)
        data = self._file.read(size)
        self._position += len(data)
        return data
