"""Bytes of the connection -> PDUs and PDV fragments (PS3.8 9.3 and Annex E), in any segmentation.

A P-DATA-TF is a stream: its payload leaves as slices of the bytes that came in, never waiting for the end of a PDU or a PDV
and never copied. Every other PDU is gathered, under a hard cap that is checked before a byte of it is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from tomowire.errors import PduError
from tomowire.protocol.explain import explain_beginning, foreign_protocol
from tomowire.wire.abort_reasons import INVALID_PDU_PARAMETER, UNRECOGNIZED_PDU
from tomowire.wire.pdu import PDU_HEADER, PduType
from tomowire.wire.pdv import COMMAND_BIT, LAST_BIT, MINIMUM_LENGTH, PDV_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

# 128 contexts with each transfer syntax of the standard take some 200 KiB, user information with a SAML assertion 64 KiB at most.
# As values they take fifteen times as much when an enemy makes them of empty items.
ASSOCIATE_CAP: Final = 512 * 1024

# Shortest and longest content. The fixed fields of A-ASSOCIATE-RQ and -AC are 68 bytes long (PS3.8 9.3.2, 9.3.3), the other PDUs
# always 4 (9.3.4, 9.3.6 to 9.3.8).
_LENGTHS: Final[dict[int, tuple[int, int]]] = {
    PduType.A_ASSOCIATE_RQ: (68, ASSOCIATE_CAP),
    PduType.A_ASSOCIATE_AC: (68, ASSOCIATE_CAP),
    PduType.A_ASSOCIATE_RJ: (4, 4),
    PduType.A_RELEASE_RQ: (4, 4),
    PduType.A_RELEASE_RP: (4, 4),
    PduType.A_ABORT: (4, 4),
}
_LENGTH_FIELD: Final = 4
_P_DATA_TF: Final = int(PduType.P_DATA_TF)
# The headers of a PDU and of a PDV happen to be equally long.
_HEADER_SIZE: Final = PDU_HEADER.size
assert PDV_HEADER.size == _HEADER_SIZE


class RawPdu(NamedTuple):
    """A whole PDU that is not P-DATA-TF: its type, and the bytes after its header."""

    pdu_type: int
    payload: bytes


class Fragment(NamedTuple):
    """A piece of a PDV. `ends` when it is the last piece of a PDV whose message control header says "last"."""

    context_id: int
    is_command: bool
    data: memoryview
    ends: bool


Incoming: TypeAlias = RawPdu | Fragment


class PduReader:
    """Reads one connection's bytes. After an error nothing more is read: the place of the next PDU is unknown.

    `maximum_length` is the maximum P-DATA-TF length that this side announced, 0 for no limit (PS3.8 D.1).
    """

    def __init__(self, maximum_length: int = 0) -> None:
        self._maximum_length = maximum_length
        self._partial = bytearray()  # a header, or a gathered PDU, not whole yet
        self._payload_left = 0  # of the PDU that is being gathered
        self._pdu_type = 0
        self._pdata_left = 0  # of the P-DATA-TF being streamed
        self._pdv_left = 0  # of the PDV being streamed
        self._context_id = 0
        self._is_command = False
        self._is_last = False
        self._offset = 0  # of the first byte of the current `feed`, from the start of the connection
        self._broken = False

    def feed(self, data: memoryview) -> Iterator[Incoming]:
        """Yield what is whole in `data`; the rest is remembered. Raises `PduError` with the reason for the A-ABORT."""
        if self._broken:
            return
        position, end = 0, len(data)
        try:
            while position < end:
                item, position = self._next(data, position)
                if item is not None:
                    yield item
        except PduError:
            self._broken = True
            raise
        finally:
            self._offset += end

    def stop(self) -> None:
        """Pass over everything from here on: what came made no sense one layer up."""
        self._broken = True

    def _next(self, data: memoryview, position: int) -> tuple[Incoming | None, int]:
        """Use up some of `data` from `position`, whichever part of a PDU is due; return what is whole now, and where that ends."""
        if self._pdv_left:
            end = min(position + self._pdv_left, len(data))
            return self._fragment(data[position:end]), end
        if self._payload_left:
            end = min(position + self._payload_left, len(data))
            return self._gather(data[position:end]), end
        header, position = self._header(data, position)
        if header is None:
            return None, position
        if self._pdata_left:
            return self._begin_pdv(header, position), position
        self._begin_pdu(header, position)
        return None, position

    def _header(self, data: memoryview, position: int) -> tuple[memoryview | bytes | None, int]:
        """The header of a PDU or a PDV: a slice where it lies together, else gathered over several calls."""
        end = position + _HEADER_SIZE - len(self._partial)
        if not self._partial and end <= len(data):
            return data[position:end], end
        self._partial += data[position:end]
        if len(self._partial) < _HEADER_SIZE:
            return None, len(data)
        header = bytes(self._partial)
        self._partial.clear()
        return header, end

    def _begin_pdu(self, header: memoryview | bytes, position: int) -> None:
        pdu_type, length = PDU_HEADER.unpack(header)
        if pdu_type == _P_DATA_TF:
            self._begin_pdata(length, position)
            return
        if pdu_type not in _LENGTHS:
            start = position - _HEADER_SIZE
            error = f"PDU type {pdu_type:02X}H is not defined"
            if self._offset + start:
                raise self._error(error, start, UNRECOGNIZED_PDU)
            first = bytes(header)
            text, foreign = f"{error}: {explain_beginning(first)}", foreign_protocol(first) or "?"
            raise PduError(text, offset=0, reason=UNRECOGNIZED_PDU, foreign=foreign)
        shortest, longest = _LENGTHS[pdu_type]
        if not shortest <= length <= longest:
            name = PduType(pdu_type).name
            raise self._error(f"a length of {length} bytes is impossible for {name}", position - _LENGTH_FIELD)
        self._pdu_type = pdu_type
        self._payload_left = length

    def _begin_pdata(self, length: int, position: int) -> None:
        if length < _HEADER_SIZE:
            raise self._error(f"P-DATA-TF of {length} bytes holds no PDV", position - _LENGTH_FIELD)
        if self._maximum_length and length > self._maximum_length:
            limit = self._maximum_length
            raise self._error(
                f"P-DATA-TF of {length} bytes, more than the maximum of {limit} announced", position - _LENGTH_FIELD
            )
        self._pdata_left = length

    def _begin_pdv(self, header: memoryview | bytes, position: int) -> Fragment | None:
        length, context_id, control = PDV_HEADER.unpack(header)
        whole = length + _LENGTH_FIELD  # the length counts what follows it: context ID, control header and data
        if length < MINIMUM_LENGTH or whole > self._pdata_left:
            raise self._error(
                f"PDV length {length} contradicts the {self._pdata_left} bytes left of its P-DATA-TF",
                position - _HEADER_SIZE,
            )
        self._pdata_left -= whole
        if 0 < self._pdata_left < _HEADER_SIZE:
            raise self._error(f"{self._pdata_left} stray bytes after the last PDV", position - _HEADER_SIZE)
        self._pdv_left = length - MINIMUM_LENGTH
        self._context_id = context_id
        self._is_command = bool(control & COMMAND_BIT)
        self._is_last = bool(control & LAST_BIT)
        # A PDV without data has no bytes to wait for, and may be the valid end of a message.
        return self._fragment(memoryview(b"")) if not self._pdv_left else None

    def _fragment(self, data: memoryview) -> Fragment:
        self._pdv_left -= len(data)
        return Fragment(self._context_id, self._is_command, data, self._is_last and not self._pdv_left)

    def _gather(self, data: memoryview) -> RawPdu | None:
        self._partial += data
        self._payload_left -= len(data)
        if self._payload_left:
            return None
        payload = bytes(self._partial)
        self._partial.clear()
        return RawPdu(self._pdu_type, payload)

    def _error(self, message: str, position: int, reason: int = INVALID_PDU_PARAMETER) -> PduError:
        return PduError(message, offset=self._offset + position, reason=reason)
