"""DIMSE messages over PDVs (PS3.7 6.3 and PS3.8 Annex E), both directions.

In: fragments become `MessageReceived` (the command set is gathered, under a cap) and `DataReceived` (data set bytes are passed
on as they come). Out: a command set becomes whole P-DATA-TF PDUs, a data set becomes headers with the caller's own buffers
between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.errors import CommandSetError, PduError
from tomowire.protocol.events import DataReceived, MalformedMessage, MessageReceived
from tomowire.wire.abort_reasons import INVALID_PDU_PARAMETER, UNEXPECTED_PDU_PARAMETER
from tomowire.wire.command_set import decode_command, is_response
from tomowire.wire.messages import CCancelRQ
from tomowire.wire.pdu import PduType
from tomowire.wire.pdv import COMMAND_BIT, LAST_BIT, MINIMUM_LENGTH, PDATA_HEADER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from tomowire.protocol.reader import Fragment

# The largest command set in use is a C-MOVE-RSP or an N-GET-RQ with a list of tags: some kilobytes.
COMMAND_SET_CAP: Final = 256 * 1024
# For a peer that sets no limit of its own (PS3.8 D.1: 0 means unlimited).
UNLIMITED_PDU_LENGTH: Final = 1 << 20

_P_DATA_TF: Final = int(PduType.P_DATA_TF)
_PDV_OVERHEAD: Final = 6  # PDV length field (4), context ID (1), message control header (1)
_SMALLEST_USABLE: Final = _PDV_OVERHEAD + 2
# A fragment that is sent without a copy costs a header, a slice and two places in a list: some 250 bytes of memory. Smaller
# ones are copied together, or a peer that asks for two bytes at a time would make a megabyte of data cost a hundred.
_WORTH_A_SLICE: Final = 512


class MessageAssembler:
    """Fragments of one association -> messages. `lenient` turns an unreadable command set into an event instead of an error."""

    def __init__(self, accepted: Collection[int], *, lenient: bool) -> None:
        self._accepted = accepted
        self._lenient = lenient
        self._context_id: int | None = None  # of the message under way
        self._command = bytearray()
        self._in_data_set = False
        self._discarding = False

    @property
    def is_amid_message(self) -> bool:
        """Whether a message has begun to arrive and is not whole yet."""
        return self._context_id is not None

    def add(self, fragment: Fragment) -> MessageReceived | MalformedMessage | DataReceived | None:
        """Take one fragment. Raises `PduError` where the standard leaves nothing but an abort."""
        context_id = fragment.context_id
        if self._context_id is None:
            if context_id not in self._accepted:
                raise PduError(
                    f"PDV for presentation context {context_id}, which was not accepted", reason=INVALID_PDU_PARAMETER
                )
            self._context_id = context_id
        elif context_id != self._context_id:
            # PS3.8 E.1: the fragments of a message follow each other, in one context.
            raise PduError(
                f"PDV of context {context_id} inside a message of context {self._context_id}",
                reason=UNEXPECTED_PDU_PARAMETER,
            )
        if fragment.is_command is self._in_data_set:
            due, came = ("data set", "command") if self._in_data_set else ("command", "data set")
            raise PduError(f"a {came} fragment where a {due} fragment is due", reason=UNEXPECTED_PDU_PARAMETER)
        return self._data(fragment) if self._in_data_set else self._add_to_command(fragment)

    def _data(self, fragment: Fragment) -> DataReceived | None:
        discarded = self._discarding
        if fragment.ends:
            self._in_data_set = self._discarding = False
            self._context_id = None
        # An empty piece that ends nothing is allowed, and is nothing: a flood of them must not become a flood of events.
        if discarded or not (fragment.data or fragment.ends):
            return None
        return DataReceived(fragment.data, fragment.ends)

    def _add_to_command(self, fragment: Fragment) -> MessageReceived | MalformedMessage | None:
        if len(self._command) + len(fragment.data) > COMMAND_SET_CAP:
            raise PduError(f"a command set of more than {COMMAND_SET_CAP} bytes", reason=INVALID_PDU_PARAMETER)
        if not fragment.ends:
            self._command += fragment.data
            return None
        if self._command:
            self._command += fragment.data
            encoded: bytes | memoryview = bytes(self._command)
            self._command.clear()
        else:
            encoded = fragment.data
        return self._decode(fragment.context_id, encoded)

    def _decode(self, context_id: int, encoded: bytes | memoryview) -> MessageReceived | MalformedMessage:
        event: MessageReceived | MalformedMessage
        try:
            message = decode_command(encoded)
        except CommandSetError as error:
            if not (self._lenient and _can_go_on(error)):
                raise PduError(f"command set: {error}", reason=INVALID_PDU_PARAMETER) from error
            has_data_set = self._discarding = bool(error.has_data_set)
            event = MalformedMessage(context_id, error)
        else:
            has_data_set = message.has_data_set
            event = MessageReceived(context_id, message)
        self._in_data_set = has_data_set
        if not has_data_set:
            self._context_id = None
        return event


def _can_go_on(error: CommandSetError) -> bool:
    """Whether the association can go on after a command set that could not be read.

    Without its data set type nobody knows what comes next. A request must be answered: without a Message ID nobody can, and
    C-CANCEL has no response.
    """
    if error.has_data_set is None:
        return False
    if is_response(error.command_field):
        return True
    return error.message_id is not None and error.command_field != CCancelRQ.command_field


class Fragmenter:
    """Cuts what is sent to the peer's maximum PDU length; `peer_maximum` 0 means that the peer sets no limit.

    Raises `PduError` for a maximum in which no data fits: nothing could ever be sent to such a peer.
    """

    def __init__(self, peer_maximum: int) -> None:
        maximum = min(peer_maximum or UNLIMITED_PDU_LENGTH, UNLIMITED_PDU_LENGTH)
        if maximum < _SMALLEST_USABLE:
            raise PduError(
                f"the peer's maximum PDU length of {peer_maximum} leaves no room for data", reason=INVALID_PDU_PARAMETER
            )
        # "Each fragment of a message shall consist of an even number of bytes" (PS3.8 E.1).
        self.payload_maximum: Final = (maximum - _PDV_OVERHEAD) & ~1

    def command(self, context_id: int, encoded: bytes) -> bytes:
        """The P-DATA-TF PDUs of a command set, as one string."""
        if len(encoded) <= self.payload_maximum:
            return _header(context_id, len(encoded), COMMAND_BIT | LAST_BIT) + encoded
        return b"".join(self._pieces(context_id, memoryview(encoded), COMMAND_BIT, last=True))

    def data(self, context_id: int, data: memoryview, *, last: bool) -> Iterable[bytes | memoryview]:
        """The P-DATA-TF PDUs of a piece of a data set, in the order to be sent: headers, and slices of `data` between them.

        Empty `data` gives a fragment without content if it is the `last`, which ends a data set as well as any other.
        """
        if len(data) <= self.payload_maximum:
            header = _header(context_id, len(data), LAST_BIT if last else 0)
            return (header, data) if data else (header,) if last else ()
        pieces = self._pieces(context_id, data, 0, last=last)
        if self.payload_maximum >= _WORTH_A_SLICE:
            return pieces
        joined = bytearray()
        for piece in pieces:  # not `join`, which makes a list of them first
            joined += piece
        return (memoryview(joined),)

    def _pieces(
        self, context_id: int, content: memoryview, control: int, *, last: bool
    ) -> Iterator[bytes | memoryview]:
        maximum, size = self.payload_maximum, len(content)
        for start in range(0, size, maximum):
            end = min(start + maximum, size)
            yield _header(context_id, end - start, control | LAST_BIT if last and end == size else control)
            yield content[start:end]


def _header(context_id: int, size: int, control: int) -> bytes:
    """The 12 bytes before a payload of `size` bytes: a P-DATA-TF header with the header of its one PDV."""
    return PDATA_HEADER.pack(_P_DATA_TF, size + _PDV_OVERHEAD, size + MINIMUM_LENGTH, context_id, control)
