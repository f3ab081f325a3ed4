"""The Failed SOP Instance UID List (0008,0058) of a retrieval's last response (PS3.4 C.4.2.1.4.2, C.4.3.1.3.2)."""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Final

from tomowire.aio.responses import LARGEST_DATA_SET
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_IN_SHORT_LENGTH: Final = 0xFFFE
_LONGEST_HEAD: Final = 12
_LARGEST: Final = LARGEST_DATA_SET - _LONGEST_HEAD


class FailedList:
    """Gathers the UIDs as they are sent, 65 bytes for each at most; not more of them than our own SCU reads (8 MiB)."""

    def __init__(self) -> None:
        self.left_out = 0
        """For how many there was no room."""
        self._text = bytearray()

    def __bool__(self) -> bool:
        return bool(self._text)

    def add(self, uid: str) -> None:
        encoded = (b"\\" if self._text else b"") + uid.encode("ascii", "replace")
        if not uid:
            return
        if self.left_out or len(self._text) + len(encoded) > _LARGEST:
            self.left_out += 1
        else:
            self._text += encoded

    def encode(self, transfer_syntax_uid: str) -> bytes:
        """An identifier with the list.

        PS3.5 6.2.2: what is too long for the length field of its VR is encoded in explicit VR as UN.
        """
        padding = len(self._text) % 2
        length = len(self._text) + padding
        if transfer_syntax_uid != EXPLICIT_VR_LITTLE_ENDIAN:
            head = pack("<HHI", 0x0008, 0x0058, length)
        elif length <= _MOST_IN_SHORT_LENGTH:
            head = pack("<HH2sH", 0x0008, 0x0058, b"UI", length)
        else:
            head = pack("<HH2sHI", 0x0008, 0x0058, b"UN", 0, length)
        return b"".join((head, self._text, bytes(padding)))


def encode_failed_list(uids: Iterable[str], transfer_syntax_uid: str) -> bytes:
    """The list of just these."""
    made = FailedList()
    for uid in uids:
        made.add(uid)
    return made.encode(transfer_syntax_uid)
