"""Objects and identifiers that peers of a test send: small, valid, and of no patient."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.vrs import SHORT_VRS

if TYPE_CHECKING:
    from collections.abc import Iterable

CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
SYNTAXES: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""Those that data sets are made in here."""

_STUDY: Final = "2.25.1"


def new_uid() -> str:
    """A UID that nobody else has (PS3.5 B.2)."""
    return f"2.25.{uuid4().int}"


def sample_object(
    sop_instance_uid: str,
    *,
    sop_class_uid: str = CT_IMAGE_STORAGE,
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
    size: int = 1000,
) -> bytes:
    """A data set with what identifies an object, and `size` bytes of pixel data."""
    pixels = bytes(size + size % 2)
    elements = (
        (0x0008, 0x0016, b"UI", _uid(sop_class_uid)),
        (0x0008, 0x0018, b"UI", _uid(sop_instance_uid)),
        (0x0008, 0x0060, b"CS", b"CT"),
        (0x0010, 0x0010, b"PN", b"Test^Object "),
        (0x0010, 0x0020, b"LO", b"TEST"),
        (0x0020, 0x000D, b"UI", _uid(_STUDY)),
        (0x0020, 0x000E, b"UI", _uid(f"{_STUDY}.1")),
        (0x7FE0, 0x0010, b"OW", pixels),
    )
    return _encode(elements, transfer_syntax_uid)


def sample_match(transfer_syntax_uid: str) -> bytes:
    """The identifier of a study, as a C-FIND answers it."""
    elements = ((0x0008, 0x0052, b"CS", b"STUDY "), (0x0020, 0x000D, b"UI", _uid(_STUDY)))
    return _encode(elements, transfer_syntax_uid)


def _uid(text: str) -> bytes:
    data = text.encode("ascii")
    return data + b"\0" * (len(data) % 2)


def _encode(elements: Iterable[tuple[int, int, bytes, bytes]], transfer_syntax_uid: str) -> bytes:
    """PS3.5 7.1.2 and 7.1.3; what is neither of `SYNTAXES` is written as if it were explicit."""
    parts: list[bytes] = []
    for group, number, vr, data in elements:
        if transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
            head = struct.pack("<HHI", group, number, len(data))
        elif vr.decode("ascii") in SHORT_VRS:
            head = struct.pack("<HH2sH", group, number, vr, len(data))
        else:
            head = struct.pack("<HH2sxxI", group, number, vr, len(data))
        parts += (head, data)
    return b"".join(parts)
