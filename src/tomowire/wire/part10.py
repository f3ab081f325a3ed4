"""The preamble and file meta information of a DICOM file (PS3.10 7.1): what stands before the data set.

It is always Explicit VR Little Endian. Reading needs the first bytes of the file only, and says when it needs more. It accepts
what other readers accept and real files have: a group length that is wrong or missing, missing elements, Implicit VR, no
preamble.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from tomowire.errors import FileFormatError, IncompleteFileMeta, UsageError
from tomowire.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tomowire.wire.value import value
from tomowire.wire.vrs import SHORT_VRS

PREAMBLE_LENGTH: Final = 128
PREFIX: Final = b"DICM"

MAXIMUM_LENGTH: Final = 1 << 20
"""No file meta information is read that is longer: a lying length must not make a reader fetch a whole file."""

_START: Final = PREAMBLE_LENGTH + len(PREFIX)
# Tag and VR of what follows an element. More bytes are always asked for with these, so that a reader who brings just what was
# asked for is never cut off where a wrong group length seems to be right.
_LOOK_AHEAD: Final = 6
_GROUP: Final = 0x0002
_SHORT: Final = Struct("<HH2sH")
_LONG: Final = Struct("<HH2sxxI")
_IMPLICIT: Final = Struct("<HHI")
_GROUP_LENGTH: Final = Struct("<HH2sHI")
# All others, future ones too, have a length of 32 bits.
_SHORT_VRS: Final = frozenset(vr.encode("ascii") for vr in SHORT_VRS)
_FIRST_VRS: Final = frozenset(
    (b"UL", b"OB", b"UI")
)  # of the first element that such files have: group length, version, or a UID
_MOST_FOREIGN_LENGTHS: Final = 4
_NOT_HERE: Final = (0, 0, b"", 0)  # an element that the bytes at hand do not hold
_VERSION_ELEMENT: Final = _LONG.pack(_GROUP, 0x0001, b"OB", 2) + b"\x00\x01"

# Element, field, VR; ascending, as they are written.
_TEXTS: Final = (
    (0x0002, "media_storage_sop_class_uid", b"UI"),
    (0x0003, "media_storage_sop_instance_uid", b"UI"),
    (0x0010, "transfer_syntax_uid", b"UI"),
    (0x0012, "implementation_class_uid", b"UI"),
    (0x0013, "implementation_version_name", b"SH"),
    (0x0016, "source_application_entity_title", b"AE"),
    (0x0017, "sending_application_entity_title", b"AE"),
    (0x0018, "receiving_application_entity_title", b"AE"),
    (0x0100, "private_information_creator_uid", b"UI"),
)
_FIELDS: Final[Mapping[int, str]] = {number: name for number, name, _ in _TEXTS}
_SOP_INSTANCE: Final = 0x0003
_PRIVATE_INFORMATION: Final = 0x0102
_GROUP_LENGTH_ELEMENT: Final = 0x0000


@value()
class FileMeta:
    """The elements of group 0002H. Where a file that is read lacks one of the first three, the field is an empty string."""

    media_storage_sop_class_uid: str
    media_storage_sop_instance_uid: str
    transfer_syntax_uid: str
    implementation_class_uid: str | None = IMPLEMENTATION_CLASS_UID
    implementation_version_name: str | None = IMPLEMENTATION_VERSION_NAME
    source_application_entity_title: str | None = None
    sending_application_entity_title: str | None = None
    receiving_application_entity_title: str | None = None
    private_information_creator_uid: str | None = None
    private_information: bytes | None = None


# What a file that is read lacks. Above all it does not get our own implementation's name.
_ABSENT: Final[dict[str, Any]] = {
    "media_storage_sop_class_uid": "",
    "media_storage_sop_instance_uid": "",
    "transfer_syntax_uid": "",
    "implementation_class_uid": None,
    "implementation_version_name": None,
}


def encode_file_meta(meta: FileMeta) -> bytes:
    """Preamble (zeros), prefix and file meta information; the data set follows. Raises `UsageError` for text that does not fit."""
    parts = [_VERSION_ELEMENT]
    for number, name, vr in _TEXTS:
        text = getattr(meta, name)
        if text is not None:
            encode = _encode_text if number == _SOP_INSTANCE else _encoded_before
            parts.append(encode(number, vr, text))
    if meta.private_information is not None:
        data = meta.private_information + b"\0" * (len(meta.private_information) % 2)
        parts += (_LONG.pack(_GROUP, _PRIVATE_INFORMATION, b"OB", len(data)), data)
    body = b"".join(parts)
    head = _GROUP_LENGTH.pack(_GROUP, _GROUP_LENGTH_ELEMENT, b"UL", 4, len(body))
    return bytes(PREAMBLE_LENGTH) + PREFIX + head + body


def decode_file_meta(prefix: bytes | memoryview) -> tuple[FileMeta, int]:
    """Read the start of a file: the file meta information, and the offset in the file at which the data set starts.

    `prefix` is as much of the file as is at hand. Raises `IncompleteFileMeta` when that is too little, with the number of bytes
    to come back with (a file that has no more is cut short), and `FileFormatError` when it is not a DICOM file, or its file meta
    information cannot be read or is longer than `MAXIMUM_LENGTH`.
    """
    view = memoryview(prefix)
    values: dict[str, Any] = {}
    declared_end = -1
    position = _after_foreign_lengths(view, _start(view))
    last, most = len(view) - _SHORT.size, min(len(view), MAXIMUM_LENGTH)
    while True:
        group, number, vr, length = _SHORT.unpack_from(view, position) if position <= last else _NOT_HERE
        start = position + _SHORT.size
        end = start + length
        # Nearly always it is a plain element, and all of it is here: that needs no calls, which cost `send` a lot for a small file.
        if group != _GROUP or vr not in _SHORT_VRS or end > most:
            if _ends(view, position, declared_end):
                break
            number, start, end = _element(view, position)
        data = view[start:end]
        if number == _GROUP_LENGTH_ELEMENT and len(data) == 4:
            declared_end = end + int.from_bytes(data, "little")
        elif number == _PRIVATE_INFORMATION:
            values["private_information"] = bytes(data)
        elif name := _FIELDS.get(number):
            values[name] = str(data, "latin-1").strip("\0 ")
        position = end
    return FileMeta(**(_ABSENT | values)), position


def _encode_text(number: int, vr: bytes, text: str) -> bytes:
    try:
        data = text.encode("latin-1")
    except UnicodeEncodeError:
        raise UsageError(f"(0002,{number:04X}): {text!r} has characters that do not fit") from None
    if len(data) % 2:
        data += b"\0" if vr == b"UI" else b" "
    if len(data) > 0xFFFF:
        raise UsageError(f"(0002,{number:04X}): a text of {len(text)} characters does not fit")
    return _SHORT.pack(_GROUP, number, vr, len(data)) + data


# All but the SOP instance UID is the same for many objects.
_encoded_before: Final = lru_cache(maxsize=64)(_encode_text)


def _start(view: memoryview) -> int:
    """Where the first element stands: after preamble and prefix, or at once in a file that was saved without them."""
    found = view[PREAMBLE_LENGTH:_START]
    if found != PREFIX[: len(found)]:
        if bytes(view[:2]) == b"\x02\x00" and bytes(view[4:6]) in _FIRST_VRS:
            return 0
        raise FileFormatError("not a DICOM file: no DICM after the preamble", offset=PREAMBLE_LENGTH)
    if len(found) < len(PREFIX):
        raise IncompleteFileMeta(_START + _GROUP_LENGTH.size + _LOOK_AHEAD)
    return _START


def _after_foreign_lengths(view: memoryview, start: int) -> int:
    """Where the file meta information begins, if not at `start`: group lengths of other groups (gggg,0000) may stand before it.

    They say nothing (PS3.5 7.2 has retired them), so nothing is lost with them. Where no group 0002H follows, they belong to a data
    set that stands alone.
    """
    position = start
    for _ in range(_MOST_FOREIGN_LENGTHS):
        if len(view) < position + _IMPLICIT.size:
            break
        group, number, length = _IMPLICIT.unpack_from(view, position)
        if group == _GROUP:
            return position
        if number != _GROUP_LENGTH_ELEMENT:
            return start
        if _is_vr(bytes(view[position + 4 : position + 6])):
            length >>= 16  # of 16 bits, behind the VR
        if length not in (0, 4):
            return start
        position += _IMPLICIT.size + length
    if position == start or len(view) >= position + _IMPLICIT.size:
        return start
    raise IncompleteFileMeta(position + _IMPLICIT.size)


def _ends(view: memoryview, position: int, declared_end: int) -> bool:
    """Whether the data set starts here: another group follows, or the group length says so and nothing speaks against it.

    The group length is needed where the file ends with its file meta information, and where the data set is deflated, which may
    look like anything; it is not believed when a plain element of group 0002H follows.
    """
    following = view[position : position + _LOOK_AHEAD]
    if len(following) < 2:
        if position == declared_end:
            return True
        raise IncompleteFileMeta(position + _LOOK_AHEAD)
    if following[0] | following[1] << 8 != _GROUP:
        return True
    return position == declared_end and not _is_vr(bytes(following[4:6]))


def _is_vr(letters: bytes) -> bool:
    return len(letters) == 2 and letters.isalpha() and letters.isupper()


def _element(view: memoryview, position: int) -> tuple[int, int, int]:
    """Element number, start and end of the value field."""
    start = position + _SHORT.size
    if len(view) < start:
        raise IncompleteFileMeta(start + _LOOK_AHEAD)
    _, number, vr, length = _SHORT.unpack_from(view, position)
    if vr in _SHORT_VRS:
        pass
    elif _is_vr(vr):
        start = position + _LONG.size
        if len(view) < start:
            raise IncompleteFileMeta(start + _LOOK_AHEAD)
        length = _LONG.unpack_from(view, position)[3]
    elif not length:
        # Implicit VR: not allowed here, but found. So are letters that are no VR, followed by a length of 16 bits; as Implicit VR
        # that would be 64 KiB or more.
        length = _IMPLICIT.unpack_from(view, position)[2]
    end = start + length
    if end > MAXIMUM_LENGTH:
        raise FileFormatError(f"(0002,{number:04X}): length {length} is not believable", offset=position)
    if end > len(view):
        raise IncompleteFileMeta(end + _LOOK_AHEAD)
    return number, start, end
