"""The façade of the protocol: one end of one association, without I/O and without a clock.

Bytes go in through `receive` and come back as events; requests of the local user are methods; what must be sent is taken
with `take_output`. Time comes in as `now` (seconds, any monotonic clock) and goes out as `deadline`.

    user                    UpperLayer                          connection
    associate, accept, ...  ->  (state, event) -> action  ->    take_output, close_requested
    events                  <-  PduReader, MessageAssembler <-  receive, connection_lost
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.errors import PduError, UsageError
from tomowire.protocol.dimse import Fragmenter, MessageAssembler
from tomowire.protocol.negotiation import Agreement
from tomowire.protocol.reader import Fragment, PduReader
from tomowire.protocol.states import Event, State
from tomowire.protocol.transitions import TRANSITIONS
from tomowire.wire.abort_reasons import UNEXPECTED_PDU
from tomowire.wire.command_set import encode_command
from tomowire.wire.pdu import AAssociateAC, AAssociateRQ, PduType, decode_pdu, encode_pdu

if TYPE_CHECKING:
    from tomowire.protocol.events import ProtocolEvent
    from tomowire.protocol.reader import RawPdu
    from tomowire.wire.command_set import Message
    from tomowire.wire.pdu import AAssociateRJ

DEFAULT_ARTIM: Final = 30.0

_EVENT_OF_PDU: Final[dict[int, Event]] = {
    PduType.A_ASSOCIATE_RQ: Event.EVT6_ASSOCIATE_RQ_RECEIVED,
    PduType.A_ASSOCIATE_AC: Event.EVT3_ASSOCIATE_AC_RECEIVED,
    PduType.A_ASSOCIATE_RJ: Event.EVT4_ASSOCIATE_RJ_RECEIVED,
    PduType.A_RELEASE_RQ: Event.EVT12_RELEASE_RQ_RECEIVED,
    PduType.A_RELEASE_RP: Event.EVT13_RELEASE_RP_RECEIVED,
    PduType.A_ABORT: Event.EVT16_ABORT_RECEIVED,
}
_P_DATA_RECEIVED: Final = Event.EVT10_P_DATA_TF_RECEIVED
_DATA_EXPECTED: Final = (State.STA6_DATA_TRANSFER, State.STA7_AWAITING_RELEASE_RP)
_OVER: Final = (State.STA1_IDLE, State.STA13_AWAITING_TRANSPORT_CLOSE)
# Everywhere else a PDU is not expected or says no more than its type does. Reading it all the same would cost time and memory.
_CONTENT_MATTERS: Final = frozenset(
    {
        (State.STA2_AWAITING_ASSOCIATE_RQ, Event.EVT6_ASSOCIATE_RQ_RECEIVED),
        (State.STA5_AWAITING_ASSOCIATE_AC_OR_RJ, Event.EVT3_ASSOCIATE_AC_RECEIVED),
        (State.STA5_AWAITING_ASSOCIATE_AC_OR_RJ, Event.EVT4_ASSOCIATE_RJ_RECEIVED),
        *((state, Event.EVT16_ABORT_RECEIVED) for state in State),
    }
)


class UpperLayer:
    """One end of one association (PS3.8 section 9 and PS3.7 section 8); the next association needs another object.

    `maximum_length` is the P-DATA-TF length that this side announces, 0 for no limit; it must be what the A-ASSOCIATE PDU of
    this side says. `lenient` answers an unreadable command set instead of aborting. `artim_timeout` is in seconds.

    What the peer sends never raises. A request of the local user that the state does not allow raises `UsageError` and
    changes nothing; so does a message or a PDU that cannot be encoded.
    """

    def __init__(
        self,
        *,
        is_requestor: bool,
        maximum_length: int = 0,
        lenient: bool = False,
        artim_timeout: float = DEFAULT_ARTIM,
    ) -> None:
        self.is_requestor: Final = is_requestor
        self.lenient: Final = lenient
        self.state = State.STA1_IDLE
        self.close_requested = False
        """Whether the connection is to be closed, once all output is sent."""
        self.deadline: float | None = None
        """When `handle_timeout` is due: the ARTIM timer (PS3.8 9.1.5). None while it does not run."""
        self.agreement: Agreement | None = None
        """What was negotiated; None until the association is established."""
        self.pending_request: AAssociateRQ | None = None
        """Our own A-ASSOCIATE-RQ, if we are the requestor and have asked."""
        self.has_aborted_again = False
        """Whether the abort of AA-7 has been sent."""
        self._artim_timeout = artim_timeout
        self._now = 0.0
        self._reader = PduReader(maximum_length)
        self._assembler = MessageAssembler((), lenient=lenient)
        self._fragmenter = Fragmenter(0)
        self._events: list[ProtocolEvent] = []
        self._output: list[bytes | memoryview] = []
        self._data_context: int | None = None  # of the data set that is being sent
        self._held: list[bytes] = []  # command sets that wait for its end

    # The connection

    def connection_made(self, now: float) -> None:
        """The transport connection is open: Evt2 for the requestor (who has called `associate`), Evt5 for the acceptor."""
        self._now = now
        if self.close_requested:
            return  # the requestor has thought better of it while the connection was being opened
        if self.is_requestor:
            self._local(Event.EVT2_TRANSPORT_CONNECTED, None)
        else:
            self._local(Event.EVT5_TRANSPORT_CONNECTION_INDICATION, None)

    def receive(self, data: memoryview, now: float) -> list[ProtocolEvent]:
        """Take bytes of the connection; return what they mean. `DataReceived.data` are slices of `data`."""
        self._now = now
        try:
            for incoming in self._reader.feed(data):
                if isinstance(incoming, Fragment):
                    self._on_fragment(incoming)
                else:
                    self._on_pdu(incoming)
        except PduError as error:
            self._reader.stop()
            self._remote(Event.EVT19_INVALID_PDU_RECEIVED, error)
        return self.take_events()

    def connection_lost(self, now: float, cause: Exception | None = None) -> list[ProtocolEvent]:
        """The transport connection is closed (Evt17). `cause` is told to the user."""
        self._now = now
        self._remote(Event.EVT17_TRANSPORT_CLOSED, cause)
        return self.take_events()

    def handle_timeout(self, now: float) -> None:
        """Tell the time when `deadline` has come: the ARTIM timer expires (Evt18)."""
        self._now = now
        if self.deadline is not None and now >= self.deadline:
            self._remote(Event.EVT18_ARTIM_EXPIRED, None)

    def take_output(self) -> list[bytes | memoryview]:
        """What is to be sent, in order; the buffers are the caller's now."""
        output, self._output = self._output, []
        return output

    def take_events(self) -> list[ProtocolEvent]:
        """Events that have not been taken yet: those that a local request brought about."""
        events, self._events = self._events, []
        return events

    # The local user

    def associate(self, request: AAssociateRQ, now: float) -> None:
        """A-ASSOCIATE request; it is sent when the connection is made."""
        if not self.is_requestor or self.pending_request is not None:
            raise UsageError("only a requestor asks for an association, and once")
        encode_pdu(
            request
        )  # what cannot be sent is the caller's mistake: it shows here, and not when the connection is open
        self._now = now
        self._local(Event.EVT1_ASSOCIATE_REQUEST, request)

    def accept(self, request: AAssociateRQ, response: AAssociateAC, now: float) -> None:
        """A-ASSOCIATE response (accept) to the `AssociateRequested` that brought `request`."""
        self._now = now
        self._local(Event.EVT7_ASSOCIATE_RESPONSE_ACCEPT, response)
        self._establish(request, response)

    def reject(self, response: AAssociateRJ, now: float) -> None:
        """A-ASSOCIATE response (reject)."""
        self._now = now
        self._local(Event.EVT8_ASSOCIATE_RESPONSE_REJECT, response)

    def release(self, now: float) -> None:
        """A-RELEASE request. A data set that is being sent must be complete: no P-DATA can follow (Sta7)."""
        if self.is_sending_data:
            raise UsageError("the data set of a message is still being sent")
        self._now = now
        self._local(Event.EVT11_RELEASE_REQUEST, None)

    def respond_to_release(self, now: float) -> None:
        """A-RELEASE response. After a collision the acceptor's is due when the peer's own has come (Sta12)."""
        self._now = now
        self._local(Event.EVT14_RELEASE_RESPONSE, None)

    def abort(self, now: float, error: PduError | None = None) -> None:
        """A-ABORT request; nothing happens when there is no association any more. `error` tells why, if the peer is to blame."""
        self._now = now
        if (self.state, Event.EVT15_ABORT_REQUEST) in TRANSITIONS:
            self._local(Event.EVT15_ABORT_REQUEST, error)

    def send_message(self, context_id: int, message: Message, data: memoryview | None = None) -> None:
        """Send a command set and, if given, its whole data set. With `has_data_set` and no `data`, `send_data` must follow."""
        if self.is_sending_data:
            raise UsageError("the data set of another message is still being sent")
        if (data is not None) > message.has_data_set:
            raise UsageError(f"{type(message).__name__} says that it has no data set, but one was given")
        self.send_command_set(context_id, encode_command(message))
        if message.has_data_set:
            self._data_context = context_id
            if data is not None:
                self.send_data(data, last=True)

    def send_command_set(self, context_id: int, encoded: bytes) -> None:
        """Send a command set that is encoded already, and has no data set.

        While the data set of another message is being sent it waits for the end of that: messages must not be interleaved
        (PS3.8 E.1).
        """
        self._local(Event.EVT9_P_DATA_REQUEST, None)
        if self.agreement is None or context_id not in self.agreement.contexts:
            raise UsageError(f"presentation context {context_id} was not accepted on this association")
        output = self._output if self._data_context is None else self._held
        output.append(self._fragmenter.command(context_id, encoded))

    def send_data(self, data: memoryview, *, last: bool) -> None:
        """Send a piece of the data set of the message under way. The buffer must not change until it has been sent.

        All pieces but the last must be even in length: each fragment of a message must be (PS3.8 E.1).
        """
        context_id = self._data_context
        if context_id is None:
            raise UsageError("there is no message whose data set is due")
        if len(data) % 2 and not last:
            raise UsageError(f"a piece of {len(data)} bytes in the middle of a data set: it must be even")
        self._local(Event.EVT9_P_DATA_REQUEST, None)
        self._output += self._fragmenter.data(context_id, data, last=last)
        if last:
            self._data_context = None
            self._output += self._held
            self._held.clear()

    @property
    def is_established(self) -> bool:
        """Whether messages can be sent: Sta6, or Sta8 while the peer waits for our answer to its release."""
        return (self.state, Event.EVT9_P_DATA_REQUEST) in TRANSITIONS

    @property
    def awaits_release_response(self) -> bool:
        """Whether the peer has asked for release and `respond_to_release` is possible and due."""
        return (self.state, Event.EVT14_RELEASE_RESPONSE) in TRANSITIONS

    @property
    def is_over(self) -> bool:
        """Whether the association has ended, or never began."""
        return self.state in _OVER

    @property
    def is_sending_data(self) -> bool:
        """Whether a message has been begun whose data set is not complete yet."""
        return self._data_context is not None

    @property
    def payload_maximum(self) -> int:
        """The most bytes of a data set that fit in one PDU to this peer."""
        return self._fragmenter.payload_maximum

    # For the actions

    def write(self, pdu: bytes) -> None:
        self._output.append(pdu)

    def emit(self, event: ProtocolEvent) -> None:
        self._events.append(event)

    def close(self) -> None:
        self.close_requested = True

    def start_artim(self) -> None:
        self.deadline = self._now + self._artim_timeout

    restart_artim = start_artim

    def stop_artim(self) -> None:
        self.deadline = None

    # The automaton

    def _local(self, event: Event, argument: object) -> None:
        """An event of the local side: an empty cell of the table is the caller's mistake."""
        action = TRANSITIONS.get((self.state, event))
        if action is None:
            raise UsageError(f"{event.name} is not possible in {self.state.name}")
        self.state = action(self, argument)

    def _remote(self, event: Event, argument: object) -> None:
        """An event of the peer, the connection or the timer: an empty cell means that it is of no interest any more."""
        action = TRANSITIONS.get((self.state, event))
        if action is not None:
            self.state = action(self, argument)

    def _on_fragment(self, fragment: Fragment) -> None:
        if self.state not in _DATA_EXPECTED:
            self._remote(_P_DATA_RECEIVED, "P-DATA-TF")
            return
        event = self._assembler.add(fragment)
        self._remote(_P_DATA_RECEIVED, None)
        if event is not None:
            self._events.append(event)

    def _on_pdu(self, raw: RawPdu) -> None:
        event = _EVENT_OF_PDU[raw.pdu_type]
        if (
            event is Event.EVT12_RELEASE_RQ_RECEIVED
            and self.state in _DATA_EXPECTED
            and self._assembler.is_amid_message
        ):
            # PS3.8 Table 9-10 has no P-DATA after a release request: what has begun to arrive would be waited for in vain.
            raise PduError("the peer asks for release in the middle of a message", reason=UNEXPECTED_PDU)
        if (self.state, event) not in _CONTENT_MATTERS:
            self._remote(event, PduType(raw.pdu_type).name.replace("_", "-"))
            return
        pdu = decode_pdu(raw.pdu_type, raw.payload)
        if isinstance(pdu, AAssociateRQ | AAssociateAC):
            self._fragmenter = Fragmenter(pdu.user_information.maximum_length)
        self._remote(event, pdu)
        if isinstance(pdu, AAssociateAC):
            assert self.pending_request is not None
            self._establish(self.pending_request, pdu)

    def _establish(self, request: AAssociateRQ, response: AAssociateAC) -> None:
        self.agreement = Agreement.of(request, response)
        self._assembler = MessageAssembler(self.agreement.contexts, lenient=self.lenient)
