"""DIMSE messages over PDVs (PS3.7 6.3 and PS3.8 Annex E), both directions.

In: fragments become `MessageReceived` (the command set is gathered, under a cap) and `DataReceived` (data set bytes are passed
on as they come). Out: a command set becomes whole P-DATA-TF PDUs, a data set becomes headers with the caller's own buffers
between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.errors import CommandSetError, PduError
from tomowire.protocol.events import DataReceived, MalformedMessage, MessageReceived
from tomowire.protocol.reasons import INVALID_PDU_PARAMETER, UNEXPECTED_PDU_PARAMETER
from tomowire.wire.command_set import decode_command
from tomowire.wire.pdv import PDATA_HEADER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tomowire.protocol.reader import Fragment

# The largest command set in use is a C-MOVE-RSP or an N-GET-RQ with a list of tags: some kilobytes.
COMMAND_SET_CAP: Final = 256 * 1024
# For a peer that sets no limit of its own (PS3.8 D.1: 0 means unlimited).
UNLIMITED_PDU_LENGTH: Final = 1 << 20

_PDV_OVERHEAD: Final = 6  # PDV length field (4), context ID (1), message control header (1)
_SMALLEST_USABLE: Final = _PDV_OVERHEAD + 2


class MessageAssembler:
    """Fragments of one association -> messages. `lenient` turns an unreadable command set into an event instead of an error."""

    def __init__(self, accepted: Collection[int], *, lenient: bool) -> None:
        self._accepted = accepted
        self._lenient = lenient
        self._context_id: int | None = None  # of the message under way
        self._command = bytearray()
        self._in_data_set = False
        self._discarding = False

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
            # PS3.8 Annex E.1: the fragments of a message follow each other, in one context.
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
        return None if discarded else DataReceived(fragment.data, fragment.ends)

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
        try:
            message = decode_command(encoded)
        except CommandSetError as error:
            # Without its data set type nobody knows what comes next; without a Message ID nobody can answer.
            if not self._lenient or error.has_data_set is None or error.message_id is None:
                raise PduError(f"command set: {error}", reason=INVALID_PDU_PARAMETER) from error
            self._in_data_set = self._discarding = error.has_data_set
            self._context_id = context_id if error.has_data_set else None
            return MalformedMessage(context_id, error)
        self._in_data_set = message.has_data_set
        self._context_id = context_id if message.has_data_set else None
        return MessageReceived(context_id, message)


class Fragmenter:
    """Cuts what is sent to the peer's maximum PDU length; `peer_maximum` 0 means that the peer sets no limit."""

    def __init__(self, peer_maximum: int, own_maximum: int = UNLIMITED_PDU_LENGTH) -> None:
        maximum = min(peer_maximum or own_maximum, own_maximum)
        if maximum < _SMALLEST_USABLE:
            raise PduError(
                f"the peer's maximum PDU length of {peer_maximum} leaves no room for data", reason=INVALID_PDU_PARAMETER
            )
        # Fragments are even, as PS3.8 Annex E.2 wants of all but nothing: data sets are even in length.
        self.payload_maximum: Final = (maximum - _PDV_OVERHEAD) & ~1

    def command(self, context_id: int, encoded: bytes) -> bytes:
        """The P-DATA-TF PDUs of a command set, as one string."""
        maximum = self.payload_maximum
        if len(encoded) <= maximum:
            return self.header(context_id, len(encoded), is_command=True, last=True) + encoded
        parts: list[bytes] = []
        for start in range(0, len(encoded), maximum):
            piece = encoded[start : start + maximum]
            parts += (self.header(context_id, len(piece), is_command=True, last=start + maximum >= len(encoded)), piece)
        return b"".join(parts)

    def data(self, context_id: int, data: memoryview, *, last: bool) -> Iterator[bytes | memoryview]:
        """Headers and slices of `data`, in the order to be sent. Empty `data` with `last` is a valid end (case of an empty rest)."""
        maximum, size = self.payload_maximum, len(data)
        if size <= maximum:
            yield self.header(context_id, size, is_command=False, last=last)
            yield data
            return
        for start in range(0, size, maximum):
            end = min(start + maximum, size)
            yield self.header(context_id, end - start, is_command=False, last=last and end == size)
            yield data[start:end]

    @staticmethod
    def header(context_id: int, size: int, *, is_command: bool, last: bool) -> bytes:
        """The 12 bytes before a payload of `size` bytes: a P-DATA-TF header with the header of its one PDV."""
        control = (1 if is_command else 0) | (2 if last else 0)
        return PDATA_HEADER.pack(4, size + _PDV_OVERHEAD, size + 2, context_id, control)
