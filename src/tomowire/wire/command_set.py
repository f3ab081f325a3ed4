"""Command sets: one declaration per message, one codec for all (PS3.7 6.3.1, annex E).

A command set is a list of group 0000H elements in Implicit VR Little Endian, whatever the presentation context says. A message
class declares which elements it has; at the time the class is made, tables are built from that, so that encoding and decoding
are one loop over a table:

    @dataclass(frozen=True, slots=True, kw_only=True)
    class CEchoRSP(Response, command_field=0x8030):
        affected_sop_class_uid: str | None = field(default=None, metadata=element(0x0002, UI))

Reading is tolerant of what peers get wrong without harm: group length wrong or missing (it is not needed), elements unknown, of
another group, or out of order; numbers in more bytes than two; padding of any kind. It is strict about lengths, and about
elements without which the message cannot be answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from operator import attrgetter
from struct import Struct
from struct import error as StructError
from typing import Any, ClassVar, Final

from tomowire.errors import CommandSetError, UnknownCommand, UsageError

NO_DATA_SET: Final = 0x0101
"""Command Data Set Type (0000,0800) of a message without a data set; any other value announces one (PS3.7 E.1)."""

DATA_SET_PRESENT: Final = 0x0001
"""What is sent to announce a data set."""

_HEADER: Final = Struct("<HHI")
_GROUP_LENGTH: Final = Struct("<HHII")
_US_ELEMENT: Final = Struct("<HHIH")
_COMMAND_FIELD: Final = 0x0100
_MESSAGE_IDS: Final = (0x0110, 0x0120)
_DATA_SET_TYPE: Final = 0x0800
_METADATA: Final = "element"

# Error Comment may hold "only characters from the Default Character Repertoire" (PS3.7 annex C), LO no control characters and no
# backslash (PS3.5 6.2). A comment is there to help, so what it cannot hold is replaced and never stands in the way of the response.
_LO_BYTES: Final = bytes(byte if 0x20 <= byte < 0x7F and byte != 0x5C else 0x3F for byte in range(256))
_LO_LENGTH: Final = 64
_AE_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class Vr:
    """How the values of one value representation become bytes, padding included, and back. Both raise `ValueError`."""

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def _encode_us(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _decode_us(data: bytes) -> int:
    # Some peers write four bytes; as long as the number fits, there is no doubt about what is meant.
    value = int.from_bytes(data, "little") if 0 < len(data) <= 8 else -1
    if not 0 <= value <= 0xFFFF:
        raise ValueError(f"{len(data)} bytes do not hold a number of 16 bits")
    return value


def _encode_ui(value: str) -> bytes:
    data = value.encode("latin-1")
    return data + b"\0" if len(data) % 2 else data


def _decode_text(data: bytes) -> str:
    return data.decode("latin-1").strip("\0 ")


def _encode_ae(value: str) -> bytes:
    data = value.encode("latin-1")
    if len(data) > _AE_LENGTH:
        raise ValueError("an AE title has at most 16 characters")
    return data + b" " if len(data) % 2 else data


def _encode_lo(value: str) -> bytes:
    data = value.encode("ascii", "replace").translate(_LO_BYTES)[:_LO_LENGTH]
    return data + b" " if len(data) % 2 else data


def _encode_at(tags: tuple[int, ...]) -> bytes:
    return b"".join((tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") for tag in tags)


def _decode_at(data: bytes) -> tuple[int, ...]:
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes are not a list of tags")
    read = int.from_bytes
    return tuple(
        read(data[at : at + 2], "little") << 16 | read(data[at + 2 : at + 4], "little") for at in range(0, len(data), 4)
    )


US: Final = Vr("US", _encode_us, _decode_us)
"""`int`, 0 to 65535."""

UI: Final = Vr("UI", _encode_ui, _decode_text)
"""`str`. Neither length nor characters are checked: a response has to send back even a UID that is none."""

AE: Final = Vr("AE", _encode_ae, _decode_text)
"""`str` of up to 16 characters, outer spaces being insignificant."""

LO: Final = Vr("LO", _encode_lo, _decode_text)
"""`str`; on encoding cut to 64 characters of the default repertoire, with `?` for what it does not have."""

AT: Final = Vr("AT", _encode_at, _decode_at)
"""`tuple[int, ...]` of tags as 0xGGGGEEEE, VM 1-n. An empty tuple is an absent element."""


@dataclass(frozen=True, slots=True)
class Element:
    """Where a field of a message stands in the command set: element (0000,`number`), and whether reading fails without it."""

    number: int
    vr: Vr
    required: bool | None


def element(number: int, vr: Vr, *, required: bool | None = None) -> Mapping[str, Element]:
    """The `metadata` of a dataclass field that is element (0000,`number`).

    A value of `None` or `()` is not sent. A field without a default is `required` on reading, unless said otherwise.
    """
    return {_METADATA: Element(number, vr, required)}


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the two loops below need to know of one message class, in ascending order of elements."""

    values: Callable[[Message], tuple[Any, ...]]
    encoders: tuple[Callable[[Any], bytes], ...]
    decoders: tuple[tuple[int, str, Callable[[bytes], Any], bool], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A DIMSE message, without its data set. The subclasses stand in `tomowire.wire.messages`."""

    command_field: ClassVar[int]
    _layout: ClassVar[_Layout]

    data_set_type: int = field(default=NO_DATA_SET, metadata=element(_DATA_SET_TYPE, US, required=True))

    def __init_subclass__(cls, command_field: int | None = None) -> None:
        # `slots=True` makes each class a second time, without the keyword, when the fields are known.
        if command_field is not None:
            cls.command_field = command_field
        elif "command_field" in cls.__dict__:
            cls._layout = _make_layout(cls)
            _MESSAGES[cls.command_field] = cls

    @property
    def has_data_set(self) -> bool:
        return self.data_set_type != NO_DATA_SET


_MESSAGES: Final[dict[int, type[Message]]] = {}


def _make_layout(message: type[Message]) -> _Layout:
    elements = [(_COMMAND_FIELD, "command_field", US)]
    decoders = []
    for each in fields(message):
        declared: Element = each.metadata[_METADATA]
        required = each.default is MISSING if declared.required is None else declared.required
        elements.append((declared.number, each.name, declared.vr))
        decoders.append((declared.number, each.name, declared.vr.decode, required))
    elements.sort()
    return _Layout(
        values=attrgetter(*(name for _, name, _ in elements)),
        encoders=tuple(_element_encoder(number, vr) for number, _, vr in elements),
        decoders=tuple(decoders),
    )


def _element_encoder(number: int, vr: Vr) -> Callable[[Any], bytes]:
    if vr is US:  # most elements: one call into C for each
        return partial(_US_ELEMENT.pack, 0, number, 2)

    def encode(value: Any) -> bytes:
        data = vr.encode(value)
        return _HEADER.pack(0, number, len(data)) + data

    return encode


def encode_command(message: Message) -> bytes:
    """The command set, group length first. Raises `UsageError` for a value that its element cannot hold."""
    layout = message._layout
    try:
        body = b"".join(
            encode(value)
            for encode, value in zip(layout.encoders, layout.values(message), strict=True)
            if value is not None and value != ()
        )
    except (ValueError, OverflowError, StructError) as error:
        raise UsageError(f"{message} cannot be encoded: {error}") from error
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def decode_command(data: bytes | memoryview) -> Message:
    """Read a whole command set.

    Raises `UnknownCommand` for a command field that PS3.7 does not define, and `CommandSetError` when an element goes past the end,
    cannot be read, or is missing though the message needs it. Both carry what could be read.
    """
    elements = _split_elements(bytes(data))
    command_field = _peek(elements, _COMMAND_FIELD)
    if command_field is None:
        raise _error(elements, "there is no readable command field")
    message = _MESSAGES.get(command_field)
    if message is None:
        raise _error(elements, f"command field {command_field:04X}H is not defined", UnknownCommand)
    values = {}
    for number, name, decode, required in message._layout.decoders:
        value = elements.get(number)
        if value or (required and value is not None):
            try:
                values[name] = decode(value)
            except ValueError as error:
                raise _error(elements, f"{message.__name__}: element (0000,{number:04X}): {error}") from None
        elif required:
            raise _error(elements, f"{message.__name__}: element (0000,{number:04X}) is missing")
    return message(**values)


def _split_elements(data: bytes) -> dict[int, bytes]:
    """Values by element number. Group length and order do not matter; elements "shall occur at most once" (PS3.7 6.3.1), the last counts."""
    elements: dict[int, bytes] = {}
    position, end = 0, len(data)
    unpack = _HEADER.unpack_from
    while position < end:
        start = position + 8
        if start > end:
            raise _error(elements, "the header of an element is cut short", offset=position)
        group, number, length = unpack(data, position)
        if length > end - start:
            raise _error(elements, f"({group:04X},{number:04X}): length {length} goes past the end", offset=position)
        position = start + length
        if not group:
            elements[number] = data[start:position]
    return elements


def _peek(elements: Mapping[int, bytes], number: int) -> int | None:
    try:
        return _decode_us(elements[number])
    except (KeyError, ValueError):
        return None


def _error(
    elements: Mapping[int, bytes],
    message: str,
    kind: type[CommandSetError] = CommandSetError,
    *,
    offset: int | None = None,
) -> CommandSetError:
    message_ids = [_peek(elements, number) for number in _MESSAGE_IDS]
    data_set_type = _peek(elements, _DATA_SET_TYPE)
    return kind(
        message,
        offset=offset,
        command_field=_peek(elements, _COMMAND_FIELD),
        message_id=next((each for each in message_ids if each is not None), None),
        has_data_set=None if data_set_type is None else data_set_type != NO_DATA_SET,
    )
