"""Bytes of the connection -> PDUs and PDV fragments (PS3.8 9.3 and Annex E), in any segmentation.

A P-DATA-TF is a stream: its payload leaves as slices of the bytes that came in, never waiting for the end of a PDU or a PDV
and never copied. Every other PDU is gathered, under a hard cap that is checked before a byte of it is kept.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from tomowire.errors import PduError
from tomowire.protocol.reasons import INVALID_PDU_PARAMETER, UNRECOGNIZED_PDU
from tomowire.wire.pdu import PDU_HEADER, PduType
from tomowire.wire.pdv import PDV_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

# 128 contexts with every transfer syntax of the standard each, and room for user identity (a SAML assertion is 64 KiB at most).
ASSOCIATE_CAP: Final = 1 << 20

_SHORT: Final = 4
_P_DATA_TF: Final = int(PduType.P_DATA_TF)
_PDU_HEADER_SIZE: Final = PDU_HEADER.size
_PDV_HEADER_SIZE: Final = PDV_HEADER.size
_LENGTH: Final = Struct(">I")


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
        self._payload_left = -1  # of a PDU that is being gathered; -1: none
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

    def _next(self, data: memoryview, position: int) -> tuple[Incoming | None, int]:
        """Use up some of `data` from `position`, whichever part of a PDU is due."""
        item: Incoming | None = None
        if self._pdv_left:
            end = min(position + self._pdv_left, len(data))
            return self._fragment(data[position:end]), end
        if self._pdata_left:
            header, position = self._header(data, position, _PDV_HEADER_SIZE)
            if header is not None:
                item = self._begin_pdv(header, position)
        elif self._payload_left >= 0:
            end = min(position + self._payload_left, len(data))
            self._partial += data[position:end]
            self._payload_left -= end - position
            position = end
            if not self._payload_left:
                item = self._whole_pdu()
        else:
            header, position = self._header(data, position, _PDU_HEADER_SIZE)
            if header is not None:
                self._begin_pdu(header, position)
        return item, position

    def stop(self) -> None:
        """Pass over everything from here on: the association is over, or what came made no sense one layer up."""
        self._broken = True

    def _header(self, data: memoryview, position: int, size: int) -> tuple[memoryview | bytes | None, int]:
        """The next `size` bytes: a slice where they lie together, else gathered over several calls."""
        if not self._partial and len(data) - position >= size:
            return data[position : position + size], position + size
        take = min(size - len(self._partial), len(data) - position)
        self._partial += data[position : position + take]
        position += take
        if len(self._partial) < size:
            return None, position
        header = bytes(self._partial)
        self._partial.clear()
        return header, position

    def _begin_pdu(self, header: memoryview | bytes, position: int) -> None:
        pdu_type, length = PDU_HEADER.unpack(header)
        if pdu_type == _P_DATA_TF:
            self._begin_pdata(length, position)
            return
        try:
            kind = PduType(pdu_type)
        except ValueError:
            raise self._error(
                f"unknown PDU type {pdu_type:#04x}", position - _PDU_HEADER_SIZE, UNRECOGNIZED_PDU
            ) from None
        associate = kind in (PduType.A_ASSOCIATE_RQ, PduType.A_ASSOCIATE_AC)
        # PS3.8 9.3.4, 9.3.6 to 9.3.8: the others are exactly four bytes long.
        if length > ASSOCIATE_CAP if associate else length != _SHORT:
            raise self._error(f"a length of {length} bytes is impossible for {kind.name}", position - _SHORT)
        self._pdu_type = pdu_type
        self._payload_left = length
        if not length:
            raise self._error(f"{kind.name} without content", position - _SHORT)

    def _begin_pdata(self, length: int, position: int) -> None:
        if length < _PDV_HEADER_SIZE:
            raise self._error(f"P-DATA-TF of {length} bytes holds no PDV", position - _SHORT)
        if self._maximum_length and length > self._maximum_length:
            limit = self._maximum_length
            raise self._error(
                f"P-DATA-TF of {length} bytes, more than the maximum of {limit} announced", position - _SHORT
            )
        self._pdata_left = length

    def _begin_pdv(self, header: memoryview | bytes, position: int) -> Fragment | None:
        length, context_id, control = PDV_HEADER.unpack(header)
        whole = length + _SHORT  # the length counts what follows it: context ID, control header and data
        if length < 2 or whole > self._pdata_left:
            raise self._error(
                f"PDV length {length} contradicts the {self._pdata_left} bytes left of its P-DATA-TF",
                position - _PDV_HEADER_SIZE,
            )
        self._pdata_left -= whole
        if 0 < self._pdata_left < _PDV_HEADER_SIZE:
            raise self._error(f"{self._pdata_left} stray bytes after the last PDV", position - _PDV_HEADER_SIZE)
        self._pdv_left = length - 2
        self._context_id = context_id
        self._is_command = bool(control & 1)
        self._is_last = bool(control & 2)
        # A PDV without data has no bytes to wait for, and may be the valid end of a message.
        return self._fragment(memoryview(b"")) if not self._pdv_left else None

    def _fragment(self, data: memoryview) -> Fragment:
        self._pdv_left -= len(data)
        return Fragment(self._context_id, self._is_command, data, self._is_last and not self._pdv_left)

    def _whole_pdu(self) -> RawPdu:
        payload = bytes(self._partial)
        self._partial.clear()
        self._payload_left = -1
        return RawPdu(self._pdu_type, payload)

    def _error(self, message: str, position: int, reason: int = INVALID_PDU_PARAMETER) -> PduError:
        return PduError(message, offset=max(0, self._offset + position), reason=reason)
