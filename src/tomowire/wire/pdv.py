"""Presentation data values: the fragments of messages that a P-DATA-TF PDU carries (PS3.8 9.3.5.1 and annex E).

The transport path of large data sets uses the two header layouts directly and never builds a `Pdv`; the functions here
are for command sets, which are small, and for PDUs at rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from tomowire.errors import PduError, UsageError
from tomowire.wire.value import value

PDV_HEADER: Final = Struct(">IBB")
"""Item length, presentation context ID, message control header. The length counts the last two and the data."""

PDATA_HEADER: Final = Struct(">BxIIBB")
"""PDU type, PDU length, and a `PDV_HEADER`: the 12 bytes before the data when a P-DATA-TF holds one PDV."""

COMMAND_BIT: Final = 0b01
"""Of the message control header (PS3.8 E.2): set for command information, clear for data set information."""

LAST_BIT: Final = 0b10
"""Of the message control header (PS3.8 E.2): set on the last fragment of the command or of the data set."""

MINIMUM_LENGTH: Final = 2
"""The least item length that is possible: context ID and message control header, no data."""


@value()
class Pdv:
    """One fragment. `data` is what was handed in: on decoding a slice of the PDU's own buffer, no copy."""

    context_id: int
    is_command: bool
    is_last: bool
    data: bytes | memoryview


def encode_pdvs(pdvs: Iterable[Pdv]) -> bytes:
    """The variable field of a P-DATA-TF PDU. Raises `UsageError` for a context ID or a length that does not fit its field."""
    parts: list[bytes | memoryview] = []
    for pdv in pdvs:
        control = COMMAND_BIT * pdv.is_command | LAST_BIT * pdv.is_last
        length = len(pdv.data) + MINIMUM_LENGTH
        if not 0 <= pdv.context_id <= 0xFF or length > 0xFFFFFFFF:
            raise UsageError(f"a PDV of context {pdv.context_id} with {len(pdv.data)} bytes cannot be encoded")
        parts += (PDV_HEADER.pack(length, pdv.context_id, control), pdv.data)
    return b"".join(parts)


def decode_pdvs(view: memoryview, offset: int) -> tuple[Pdv, ...]:
    """Take the variable field of a P-DATA-TF PDU apart; `offset` is where it stands in the PDU, for the error.

    Raises `PduError` when an item length is below 2 or goes past the PDU, or when there is no PDV at all.
    """
    if not len(view):
        raise PduError("P-DATA-TF: no presentation data value item", offset=offset)  # one or more, PS3.8 9.3.5
    pdvs: list[Pdv] = []
    position = 0
    while position < len(view):
        if len(view) - position < PDV_HEADER.size:
            raise PduError("P-DATA-TF: the header of a PDV is cut short", offset=offset + position)
        length, context_id, control = PDV_HEADER.unpack_from(view, position)
        end = position + 4 + length
        if length < MINIMUM_LENGTH or end > len(view):
            raise PduError(f"P-DATA-TF: PDV length {length} does not fit the PDU", offset=offset + position)
        # The other six bits "shall always be set to 0 by the sender and never checked by the receiver" (PS3.8 E.2).
        data = view[position + PDV_HEADER.size : end]
        pdvs.append(Pdv(context_id, bool(control & COMMAND_BIT), bool(control & LAST_BIT), data))
        position = end
    return tuple(pdvs)
