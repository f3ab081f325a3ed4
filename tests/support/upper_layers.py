"""Upper layers for tests: two ends joined in memory, one end brought into any state, and PDUs put together by hand."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from struct import pack
from typing import Any, Final

from tomowire.protocol.acceptance import AcceptorPolicy, answer
from tomowire.protocol.events import AssociateRequested, DataReceived, MessageReceived, ProtocolEvent
from tomowire.protocol.negotiation import ProposedContext, propose
from tomowire.protocol.states import State
from tomowire.protocol.upper_layer import UpperLayer
from tomowire.wire.command_set import Message
from tomowire.wire.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ, AReleaseRP, AReleaseRQ, encode_pdu

VERIFICATION: Final = "1.2.840.10008.1.1"
CT: Final = "1.2.840.10008.5.1.4.1.1.2"
MR: Final = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
JPEG: Final = "1.2.840.10008.1.2.4.50"

RQ, AC, RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

ECHO_CONTEXT, CT_CONTEXT = 1, 3
CONTEXTS: Final = (ProposedContext(VERIFICATION, (IMPLICIT,)), ProposedContext(CT, (EXPLICIT, IMPLICIT)))


@dataclass(frozen=True)
class Supports:
    """An acceptor's abilities, as tables."""

    syntaxes: Mapping[str, Container[str]]
    scp: Container[str] = ()
    extended: Mapping[str, bytes] = field(default_factory=dict)
    kept: Container[str] = ()

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return self.syntaxes.get(abstract_syntax)

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return abstract_syntax in self.scp

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        return self.extended.get(abstract_syntax)

    def refuses(self, abstract_syntax: str) -> bool:
        return abstract_syntax in self.kept


SUPPORTED: Final = Supports({VERIFICATION: {IMPLICIT}, CT: {EXPLICIT, IMPLICIT}})


def proposal(
    *contexts: ProposedContext,
    called: str = "ACCEPTOR",
    calling: str = "REQUESTOR",
    maximum_length: int = 16384,
    **more: Any,
) -> AAssociateRQ:
    return propose(
        called_ae_title=called,
        calling_ae_title=calling,
        contexts=contexts or CONTEXTS,
        maximum_length=maximum_length,
        **more,
    )


def accepted(request: AAssociateRQ, *, maximum_length: int = 16384) -> AAssociateAC:
    response = answer(request, AcceptorPolicy(SUPPORTED, maximum_length=maximum_length))
    assert isinstance(response, AAssociateAC)
    return response


# One end


def receive(upper: UpperLayer, *segments: bytes, now: float = 0.0) -> list[ProtocolEvent]:
    """Give `upper` the segments one after the other; return all events."""
    events: list[ProtocolEvent] = []
    for segment in segments:
        events += upper.receive(memoryview(segment), now)
    return events


def sent(upper: UpperLayer) -> bytes:
    """Take all output, as one string."""
    return b"".join(upper.take_output())


def in_state(state: State, *, is_requestor: bool, **options: Any) -> UpperLayer:
    """An upper layer that has come into `state` by itself, through what its user and its peer did; its output is taken."""
    upper = UpperLayer(is_requestor=is_requestor, **options)
    if state is not State.STA1_IDLE:
        for step in (_REQUESTOR_STEPS if is_requestor else _ACCEPTOR_STEPS)[state]:
            step(upper)
    upper.take_output()
    upper.take_events()
    assert upper.state is state, f"{upper.state.name} instead of {state.name}"
    return upper


def _associate(upper: UpperLayer) -> None:
    upper.associate(proposal(), 0.0)


def _connect(upper: UpperLayer) -> None:
    upper.connection_made(0.0)


def _be_accepted(upper: UpperLayer) -> None:
    receive(upper, encode_pdu(accepted(proposal())))


def _be_asked(upper: UpperLayer) -> None:
    receive(upper, encode_pdu(proposal()))


def _accept(upper: UpperLayer) -> None:
    upper.accept(proposal(), accepted(proposal()), 0.0)


def _release(upper: UpperLayer) -> None:
    upper.release(0.0)


def _respond(upper: UpperLayer) -> None:
    upper.respond_to_release(0.0)


def _abort(upper: UpperLayer) -> None:
    upper.abort(0.0)


def _be_asked_for_release(upper: UpperLayer) -> None:
    receive(upper, encode_pdu(AReleaseRQ()))


def _be_released(upper: UpperLayer) -> None:
    receive(upper, encode_pdu(AReleaseRP()))


_Steps = tuple[Callable[[UpperLayer], None], ...]


def _steps_after(to_sta6: _Steps) -> dict[State, _Steps]:
    return {
        State.STA6_DATA_TRANSFER: to_sta6,
        State.STA7_AWAITING_RELEASE_RP: (*to_sta6, _release),
        State.STA8_AWAITING_LOCAL_RELEASE_RESPONSE: (*to_sta6, _be_asked_for_release),
        State.STA13_AWAITING_TRANSPORT_CLOSE: (*to_sta6, _abort),
    }


_REQUESTOR_STEPS: Final[Mapping[State, _Steps]] = {
    State.STA4_AWAITING_TRANSPORT_OPEN: (_associate,),
    State.STA5_AWAITING_ASSOCIATE_AC_OR_RJ: (_associate, _connect),
    **_steps_after(to_requestor := (_associate, _connect, _be_accepted)),
    State.STA9_COLLISION_REQUESTOR_AWAITING_LOCAL_RELEASE_RESPONSE: (*to_requestor, _release, _be_asked_for_release),
    State.STA11_COLLISION_REQUESTOR_AWAITING_RELEASE_RP: (*to_requestor, _release, _be_asked_for_release, _respond),
}
_ACCEPTOR_STEPS: Final[Mapping[State, _Steps]] = {
    State.STA2_AWAITING_ASSOCIATE_RQ: (_connect,),
    State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE: (_connect, _be_asked),
    **_steps_after(to_acceptor := (_connect, _be_asked, _accept)),
    State.STA10_COLLISION_ACCEPTOR_AWAITING_RELEASE_RP: (*to_acceptor, _release, _be_asked_for_release),
    State.STA12_COLLISION_ACCEPTOR_AWAITING_LOCAL_RELEASE_RESPONSE: (
        *(*to_acceptor, _release, _be_asked_for_release),
        _be_released,
    ),
}

REACHABLE: Final[Sequence[tuple[State, bool]]] = (
    *((state, True) for state in (State.STA1_IDLE, *_REQUESTOR_STEPS)),
    *((state, False) for state in (State.STA1_IDLE, *_ACCEPTOR_STEPS)),
)
"""Every state in every role that can be in it: `(state, is_requestor)`."""


# Two ends


class Joined:
    """Both ends of one association. What one sends is with the other when `run` has been called.

    The acceptor answers with `policy` when it is asked. Events stand in `events`, by end, in order.
    """

    def __init__(
        self,
        *,
        contexts: Sequence[ProposedContext] = CONTEXTS,
        supported: Supports = SUPPORTED,
        requestor_maximum: int = 16384,
        acceptor_maximum: int = 16384,
        lenient: bool = False,
        established: bool = True,
    ) -> None:
        self.requestor: Final = UpperLayer(is_requestor=True, maximum_length=requestor_maximum, lenient=lenient)
        self.acceptor: Final = UpperLayer(is_requestor=False, maximum_length=acceptor_maximum, lenient=lenient)
        self.policy: Final = AcceptorPolicy(supported, maximum_length=acceptor_maximum)
        self.events: Final[dict[UpperLayer, list[ProtocolEvent]]] = {self.requestor: [], self.acceptor: []}
        self.traffic: Final[dict[UpperLayer, bytearray]] = {self.requestor: bytearray(), self.acceptor: bytearray()}
        """All that an end has ever sent."""
        if established:
            self.requestor.associate(proposal(*contexts, maximum_length=requestor_maximum), 0.0)
            self.acceptor.connection_made(0.0)
            self.requestor.connection_made(0.0)
            self.run()

    def other(self, end: UpperLayer) -> UpperLayer:
        return self.acceptor if end is self.requestor else self.requestor

    def run(self, *, now: float = 0.0) -> None:
        """Carry bytes in both directions until there are none left."""
        while any(self.carry(end, now=now) for end in (self.requestor, self.acceptor)):
            pass

    def carry(self, end: UpperLayer, *, now: float = 0.0) -> bool:
        """Give what `end` has sent to the other end, in one segment; return whether there was anything."""
        data = sent(end)
        if data:
            self.traffic[end] += data
            self.take(self.other(end), self.other(end).receive(memoryview(data), now), now)
        return bool(data)

    def take(self, end: UpperLayer, events: Iterable[ProtocolEvent], now: float = 0.0) -> None:
        for event in events:
            self.events[end].append(event)
            if isinstance(event, AssociateRequested):
                response = answer(event.request, self.policy)
                if isinstance(response, AAssociateRJ):
                    end.reject(response, now)
                else:
                    end.accept(event.request, response, now)

    def kinds(self, end: UpperLayer) -> list[str]:
        return [type(event).__name__ for event in self.events[end]]

    def messages(self, end: UpperLayer) -> list[Received]:
        """The messages that `end` has received."""
        return messages_of(self.events[end])


@dataclass
class Received:
    """A message as it has arrived: `data` is None when it has no data set; `whole` once its last byte is there."""

    context_id: int
    message: Message
    data: bytes | None = None
    whole: bool = True


def messages_of(events: Iterable[ProtocolEvent]) -> list[Received]:
    received: list[Received] = []
    for event in events:
        if isinstance(event, MessageReceived):
            has_data_set = event.message.has_data_set
            data = b"" if has_data_set else None
            received.append(Received(event.context_id, event.message, data, whole=not has_data_set))
        elif isinstance(event, DataReceived):
            assert received
            assert received[-1].data is not None
            assert not received[-1].whole
            received[-1].data += bytes(event.data)
            received[-1].whole = event.last
    return received


# PDUs by hand (PS3.8 9.3)


def raw_pdu(pdu_type: int, payload: bytes = bytes(4), *, length: int | None = None, reserved: int = 0) -> bytes:
    return pack(">BBI", pdu_type, reserved, len(payload) if length is None else length) + payload


def raw_pdv(context_id: int, control: int, data: bytes, *, length: int | None = None) -> bytes:
    return pack(">IBB", len(data) + 2 if length is None else length, context_id, control) + data


def raw_p_data(*pdvs: bytes) -> bytes:
    return raw_pdu(P_DATA, b"".join(pdvs))


def raw_element(number: int, value: bytes) -> bytes:
    """A command element (PS3.7 6.3.1)."""
    return pack("<HHI", 0, number, len(value)) + value


def split_pdus(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each PDU; `data` must end where the last one does."""
    position = 0
    while position < len(data):
        start = position + 6
        end = start + int.from_bytes(data[position + 2 : start], "big")
        assert end <= len(data)
        yield data[position], data[start:end]
        position = end


def split_pdvs(payload: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Context ID, message control header and data of each PDV in a P-DATA-TF."""
    while payload:
        end = 4 + int.from_bytes(payload[:4], "big")
        assert 6 <= end <= len(payload)
        yield payload[4], payload[5], payload[6:end]
        payload = payload[end:]
