"""How a DIMSE message is declared: its elements (PS3.7 annex E), their value representations, and the base class.

A message class says which elements of group 0000H it has. From that, tables are built when the class is made, so that the codec
(`command_set`) is one loop over a table for all messages:

    @value(kw_only=True)
    class CEchoRQ(Request, command_field=0x0030):
        affected_sop_class_uid: str = field(metadata=element(0x0002, UI))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from functools import partial
from operator import attrgetter
from struct import Struct
from typing import Any, ClassVar, Final, NamedTuple

from tomowire.wire.value import value

NO_DATA_SET: Final = 0x0101
"""Command Data Set Type (0000,0800) of a message without a data set; any other value announces one (PS3.7 E.1)."""

DATA_SET_PRESENT: Final = 0x0001
"""What is sent to announce a data set."""

COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
MESSAGE_ID_BEING_RESPONDED_TO: Final = 0x0120
DATA_SET_TYPE: Final = 0x0800

HEADER: Final = Struct("<HHI")
"""Group, element, length: Implicit VR Little Endian (PS3.7 6.3.1)."""

_US_ELEMENT: Final = Struct("<HHIH")
_METADATA: Final = "element"
_AE_LENGTH: Final = 16
_LO_LENGTH: Final = 64

# Error Comment may hold "only characters from the Default Character Repertoire" (PS3.7 annex C), and LO neither control
# characters nor a backslash (PS3.5 6.2). A comment is there to help: what it cannot hold is replaced, so that it never stands
# in the way of the response.
_LO_BYTES: Final = bytes(byte if 0x20 <= byte < 0x7F and byte != 0x5C else 0x3F for byte in range(256))


class Vr(NamedTuple):
    """How the values of one value representation become bytes, padding included, and back. Both raise `ValueError`."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def decode_us(data: bytes) -> int:
    """A number of 16 bits. Some peers write it in four bytes; as long as the number fits, there is no doubt about what it is."""
    number = int.from_bytes(data, "little")
    if not data or number > 0xFFFF:
        raise ValueError(f"{len(data)} bytes do not hold a number of 16 bits")
    return number


def _encode_us(number: int) -> bytes:
    return number.to_bytes(2, "little")


def _decode_text(data: bytes) -> str:
    return data.decode("latin-1").strip("\0 ")


def _encode_ui(text: str) -> bytes:
    data = text.encode("latin-1")
    return data + b"\0" if len(data) % 2 else data


def _encode_ae(text: str) -> bytes:
    data = text.encode("latin-1")
    if len(data) > _AE_LENGTH:
        raise ValueError("an AE title has at most 16 characters")
    return data + b" " if len(data) % 2 else data


def long_string(text: str) -> bytes:
    """As much of `text` as an LO of the command set can hold, 64 bytes at most; without padding."""
    return text[:_LO_LENGTH].encode("ascii", "replace").translate(_LO_BYTES)


def _encode_lo(text: str) -> bytes:
    data = long_string(text)
    return data + b" " if len(data) % 2 else data


def _encode_at(tags: tuple[int, ...]) -> bytes:
    return b"".join(_encode_us(tag >> 16) + _encode_us(tag & 0xFFFF) for tag in tags)


def _decode_at(data: bytes) -> tuple[int, ...]:
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes are not a list of tags")
    halves = [int.from_bytes(data[at : at + 2], "little") for at in range(0, len(data), 2)]
    return tuple(group << 16 | element for group, element in zip(halves[::2], halves[1::2], strict=True))


US: Final = Vr(_encode_us, decode_us)
"""`int`, 0 to 65535."""

UI: Final = Vr(_encode_ui, _decode_text)
"""`str`. Neither length nor characters are checked: a response has to send back even what is no UID."""

AE: Final = Vr(_encode_ae, _decode_text)
"""`str` of up to 16 characters, outer spaces being insignificant."""

LO: Final = Vr(_encode_lo, _decode_text)
"""`str`; on encoding cut to 64 characters of the default repertoire, with `?` for what it does not have."""

AT: Final = Vr(_encode_at, _decode_at)
"""`tuple[int, ...]` of tags as 0xGGGGEEEE, VM 1-n."""


class Element(NamedTuple):
    """Where the value of a field stands: element (0000,`number`). `required` is as in `element()`."""

    number: int
    vr: Vr
    required: bool | None


def element(number: int, vr: Vr, *, required: bool | None = None) -> Mapping[str, Element]:
    """The `metadata` of a dataclass field that is element (0000,`number`).

    A value of `None` or `()` is not sent. Without a default, reading a message fails when the element is missing, and with one it
    does not; `required` says otherwise.
    """
    return {_METADATA: Element(number, vr, required)}


class Layout(NamedTuple):
    """What the codec needs to know of one message class."""

    values: Callable[[Message], tuple[Any, ...]]
    """All values in ascending order of elements, the command field among them."""

    encoders: tuple[Callable[[Any], bytes], ...]
    """For each of them: the value -> the whole element."""

    decoders: tuple[tuple[int, str, Callable[[bytes], Any], bool], ...]
    """For each field: element number, name, value field -> value, whether it must be there."""


@value(kw_only=True)
class Message:
    """A DIMSE message, without its data set. The subclasses stand in `tomowire.wire.messages`.

    Each of them must be decorated with `@value(kw_only=True)`, which gives it its layout.
    """

    command_field: ClassVar[int]
    layout: ClassVar[Layout]

    data_set_type: int = field(default=NO_DATA_SET, metadata=element(DATA_SET_TYPE, US, required=True))

    def __init_subclass__(cls, command_field: int | None = None) -> None:
        # Slots make each class a second time, then without the keyword, and with the fields known.
        if command_field is not None:
            cls.command_field = command_field
        elif "command_field" in cls.__dict__:
            cls.layout = _make_layout(cls)
            MESSAGES[cls.command_field] = cls

    @property
    def has_data_set(self) -> bool:
        """Whether a data set follows (PS3.7 E.1: any value other than 0101H)."""
        return self.data_set_type != NO_DATA_SET


MESSAGES: Final[dict[int, type[Message]]] = {}
"""Every message class by its command field."""


def _make_layout(message: type[Message]) -> Layout:
    elements = [(COMMAND_FIELD, "command_field", US)]
    decoders = []
    for each in fields(message):
        number, vr, required = each.metadata[_METADATA]
        elements.append((number, each.name, vr))
        decoders.append((number, each.name, vr.decode, each.default is MISSING if required is None else required))
    elements.sort()
    return Layout(
        values=attrgetter(*(name for _, name, _ in elements)),
        encoders=tuple(_element_encoder(number, vr) for number, _, vr in elements),
        decoders=tuple(decoders),
    )


def _element_encoder(number: int, vr: Vr) -> Callable[[Any], bytes]:
    if vr is US:  # most elements: one call into C for each
        return partial(_US_ELEMENT.pack, 0, number, 2)

    def encode(content: Any) -> bytes:
        data = vr.encode(content)
        return HEADER.pack(0, number, len(data)) + data

    return encode
