"""Command sets <-> messages: one codec for all messages (PS3.7 6.3.1).

A command set is a list of group 0000H elements in Implicit VR Little Endian, whatever the transfer syntax of the presentation
context is, big endian and deflated included.

Reading is tolerant of what peers get wrong without harm: group length wrong or missing (it is not needed), elements unknown,
of another group, or out of order; numbers in more than two bytes; padding of any kind. It is strict about lengths, and about
elements without which the message cannot be answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from struct import error as StructError
from typing import Final

import tomowire.wire.messages  # noqa: F401  fills MESSAGES
from tomowire.errors import CommandSetError, UnknownCommand, UsageError
from tomowire.wire.elements import (
    COMMAND_FIELD,
    DATA_SET_PRESENT,
    DATA_SET_TYPE,
    HEADER,
    MESSAGE_ID,
    MESSAGE_ID_BEING_RESPONDED_TO,
    MESSAGES,
    NO_DATA_SET,
    Message,
    decode_us,
)

__all__ = ["DATA_SET_PRESENT", "NO_DATA_SET", "Message", "decode_command", "encode_command", "is_response"]

_RESPONSE_BIT: Final = 0x8000
_GROUP_LENGTH: Final = Struct("<HHII")


def encode_command(message: Message) -> bytes:
    """The command set, group length first. Raises `UsageError` for a value that its element cannot hold."""
    layout = message.layout
    try:
        body = b"".join(
            [
                encode(value)
                for encode, value in zip(layout.encoders, layout.values(message), strict=True)
                if value is not None and value != ()
            ]
        )
    except (ValueError, OverflowError, StructError) as error:
        raise UsageError(f"{message} cannot be encoded: {error}") from error
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def decode_command(data: bytes | memoryview) -> Message:
    """Read a whole command set.

    Raises `UnknownCommand` for a command field that PS3.7 does not define, and `CommandSetError` when an element goes past the
    end, cannot be read, or is missing though the message needs it. Both carry what could be read.
    """
    elements: dict[int, bytes] = {}
    try:
        _split(bytes(data), elements)
        return _build(elements)
    except CommandSetError as error:
        error.command_field = _peek(elements, COMMAND_FIELD)
        numbers = (MESSAGE_ID, MESSAGE_ID_BEING_RESPONDED_TO)
        first, second = reversed(numbers) if is_response(error.command_field) else numbers
        error.message_id = _peek(elements, first)
        if error.message_id is None:
            error.message_id = _peek(elements, second)
        data_set_type = _peek(elements, DATA_SET_TYPE)
        error.has_data_set = None if data_set_type is None else data_set_type != NO_DATA_SET
        raise


def is_response(command_field: int | None) -> bool:
    """Whether a command field is that of a response (PS3.7 E.1); one that could not be read is none."""
    return command_field is not None and bool(command_field & _RESPONSE_BIT)


def _split(data: bytes, elements: dict[int, bytes]) -> None:
    """Fill `elements` with value fields by element number. Each "shall occur at most once" (PS3.7 6.3.1); the last one counts."""
    position, end = 0, len(data)
    unpack = HEADER.unpack_from
    while position < end:
        start = position + 8
        if start > end:
            raise CommandSetError("the header of an element is cut short", offset=position)
        group, number, length = unpack(data, position)
        if length > end - start:
            raise CommandSetError(f"({group:04X},{number:04X}): length {length} goes past the end", offset=position)
        position = start + length
        if not group:
            elements[number] = data[start:position]


def _build(elements: Mapping[int, bytes]) -> Message:
    command_field = _peek(elements, COMMAND_FIELD)
    if command_field is None:
        raise CommandSetError("there is no readable command field")
    message = MESSAGES.get(command_field)
    if message is None:
        raise UnknownCommand(f"command field {command_field:04X}H is not defined")
    values = {}
    for number, name, decode, required in message.layout.decoders:
        data = elements.get(number)
        if data or (required and data is not None):  # an optional element without a value says nothing
            try:
                values[name] = decode(data)
            except ValueError as error:
                raise CommandSetError(f"{message.__name__}: element (0000,{number:04X}): {error}") from None
        elif required:
            raise CommandSetError(f"{message.__name__}: element (0000,{number:04X}) is missing")
    return message(**values)


def _peek(elements: Mapping[int, bytes], number: int) -> int | None:
    try:
        return decode_us(elements[number])
    except (KeyError, ValueError):
        return None
