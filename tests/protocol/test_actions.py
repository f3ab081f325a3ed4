"""What each action of PS3.8 9.2.2 (Tables 9-6 to 9-9) sends, tells, closes and times."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from support.table_9_10 import NOW, actions_9_2_2, let_happen, table_9_10
from support.upper_layers import (
    ABORT,
    AC,
    P_DATA,
    REACHABLE,
    RELEASE_RP,
    RELEASE_RQ,
    RJ,
    RQ,
    in_state,
    proposal,
    raw_pdu,
    receive,
    sent,
    split_pdus,
)
from tomowire.errors import AssociationAborted, AssociationLost, PduError
from tomowire.protocol.events import (
    AssociateAccepted,
    AssociateRejected,
    AssociateRequested,
    AssociationEnded,
    MessageReceived,
    ProtocolEvent,
    ReleaseConfirmed,
    ReleaseRequested,
)
from tomowire.protocol.states import Event, State
from tomowire.protocol.upper_layer import DEFAULT_ARTIM, UpperLayer
from tomowire.wire.pdu import encode_pdu


@dataclass(frozen=True)
class Effect:
    """What the standard's definition of an action says. The ARTIM timer "runs", has been "started" anew, or is "off"."""

    sends: tuple[int, ...] = ()
    tells: type[ProtocolEvent] | None = None
    closes: bool = False
    artim: str = "off"


EFFECTS = {
    "AE-1": Effect(),
    "AE-2": Effect(sends=(RQ,)),
    "AE-3": Effect(tells=AssociateAccepted),
    "AE-4": Effect(tells=AssociateRejected, closes=True),
    "AE-5": Effect(artim="started"),
    "AE-6": Effect(tells=AssociateRequested),
    "AE-7": Effect(sends=(AC,)),
    "AE-8": Effect(sends=(RJ,), artim="started"),
    "DT-1": Effect(sends=(P_DATA,)),
    "DT-2": Effect(tells=MessageReceived),
    "AR-1": Effect(sends=(RELEASE_RQ,)),
    "AR-2": Effect(tells=ReleaseRequested),
    "AR-3": Effect(tells=ReleaseConfirmed, closes=True),
    "AR-4": Effect(sends=(RELEASE_RP,), artim="started"),
    "AR-5": Effect(),
    "AR-6": Effect(tells=MessageReceived),
    "AR-7": Effect(sends=(P_DATA,)),
    "AR-8": Effect(tells=ReleaseRequested),
    "AR-9": Effect(sends=(RELEASE_RP,)),
    "AR-10": Effect(tells=ReleaseConfirmed),
    # The standard has no indication for an abort of one's own; our user is told all the same, with the reason.
    "AA-1": Effect(sends=(ABORT,), tells=AssociationEnded, artim="started"),
    "AA-2": Effect(closes=True),
    "AA-3": Effect(tells=AssociationEnded, closes=True),
    "AA-4": Effect(tells=AssociationEnded),
    "AA-5": Effect(),
    "AA-6": Effect(artim="runs"),
    "AA-7": Effect(sends=(ABORT,), artim="runs"),
    "AA-8": Effect(sends=(ABORT,), tells=AssociationEnded, artim="started"),
}
CELLS = [
    pytest.param(state, event, is_requestor, code, id=f"{code}-{state.name}-{event.name}-{is_requestor=!s}")
    for (state, event), code in table_9_10().items()
    for reached, is_requestor in REACHABLE
    if reached is state
    if is_requestor or event is not Event.EVT1_ASSOCIATE_REQUEST
    if not (is_requestor and event is Event.EVT5_TRANSPORT_CONNECTION_INDICATION)
]


def test_every_action_has_an_expectation() -> None:
    assert set(EFFECTS) == set(actions_9_2_2())


@pytest.mark.parametrize(("state", "event", "is_requestor", "code"), CELLS)
def test_an_action_does_what_the_standard_says(state: State, event: Event, is_requestor: bool, code: str) -> None:
    upper = in_state(state, is_requestor=is_requestor)
    ran_until = upper.deadline
    told = [type(each) for each in let_happen(upper, event)]
    expected = EFFECTS[code]
    assert [pdu_type for pdu_type, _ in split_pdus(sent(upper))] == list(expected.sends)
    assert told == ([expected.tells] if expected.tells else [])
    assert upper.close_requested is expected.closes
    assert upper.deadline == {"off": None, "runs": ran_until, "started": NOW + DEFAULT_ARTIM}[expected.artim]


def in_sta2(**options: float) -> UpperLayer:
    return in_state(State.STA2_AWAITING_ASSOCIATE_RQ, is_requestor=False, **options)


def established(**options: float) -> UpperLayer:
    return in_state(State.STA6_DATA_TRANSFER, is_requestor=False, **options)


def test_ae_6_refuses_what_the_provider_cannot_accept() -> None:
    """The other outcome of AE-6: a protocol version without bit 0 (PS3.8 9.3.2), answered with Table 9-21's 1/2/2."""
    upper = in_sta2()
    assert receive(upper, encode_pdu(replace(proposal(), protocol_version=2)), now=NOW) == []
    assert sent(upper) == raw_pdu(RJ, bytes((0, 1, 2, 2)))
    assert upper.state is State.STA13_AWAITING_TRANSPORT_CLOSE
    assert upper.deadline == NOW + DEFAULT_ARTIM


@pytest.mark.parametrize(
    ("is_requestor", "next_state"),
    [
        (True, State.STA9_COLLISION_REQUESTOR_AWAITING_LOCAL_RELEASE_RESPONSE),
        (False, State.STA10_COLLISION_ACCEPTOR_AWAITING_RELEASE_RP),
    ],
)
def test_ar_8_depends_on_who_asked_for_the_association(is_requestor: bool, next_state: State) -> None:
    upper = in_state(State.STA7_AWAITING_RELEASE_RP, is_requestor=is_requestor)
    assert receive(upper, raw_pdu(RELEASE_RQ)) == [ReleaseRequested(collision=True)]
    assert upper.state is next_state


def test_ar_2_is_no_collision() -> None:
    assert receive(established(), raw_pdu(RELEASE_RQ)) == [ReleaseRequested(collision=False)]


def abort_of(upper: UpperLayer) -> tuple[int, int]:
    """Source and reason of the A-ABORT that is the only output (PS3.8 Table 9-26)."""
    ((pdu_type, payload),) = split_pdus(sent(upper))
    assert pdu_type == ABORT
    assert payload[:2] == bytes(2)
    return payload[2], payload[3]


def ended(events: list[ProtocolEvent]) -> AssociationAborted:
    (event,) = events
    assert isinstance(event, AssociationEnded)
    assert isinstance(event.error, AssociationAborted)
    return event.error


@pytest.mark.parametrize(
    ("bad", "source_and_reason"),
    [
        pytest.param(raw_pdu(0x47), (0, 0), id="unknown type"),
        pytest.param(raw_pdu(RELEASE_RQ), (0, 0), id="unexpected"),
        # Deliberate: what is wrong with the content of a PDU can only be said by a provider's abort.
        pytest.param(raw_pdu(RQ, bytes(68)), (2, 6), id="invalid content"),
    ],
)
def test_aa_1_tells_the_peer_what_it_can(bad: bytes, source_and_reason: tuple[int, int]) -> None:
    upper = in_sta2()
    error = ended(receive(upper, bad))
    assert abort_of(upper) == source_and_reason
    assert ((error.source, error.reason), error.by_peer) == (source_and_reason, False)


def test_aa_1_starts_the_timer_anew() -> None:
    upper = in_sta2(artim_timeout=10.0)
    assert upper.deadline == 10.0
    receive(upper, raw_pdu(RELEASE_RQ), now=9.0)
    assert upper.deadline == 19.0


def test_aa_1_for_the_user() -> None:
    upper = established()
    upper.abort(0.0)
    error = ended(upper.take_events())
    assert abort_of(upper) == (0, 0)
    assert "on this side" in str(error)
    assert not error.by_peer


def test_aa_1_for_a_user_who_blames_the_peer() -> None:
    upper = established()
    upper.abort(0.0, PduError("a response to nothing", reason=5))
    error = ended(upper.take_events())
    assert abort_of(upper) == (0, 0)
    assert "a response to nothing" in str(error)


@pytest.mark.parametrize(
    ("source", "reason", "who"), [(0, 0, "its application"), (2, 1, "its protocol machine"), (1, 0, "does not define")]
)
def test_aa_3_says_who_aborted_and_why(source: int, reason: int, who: str) -> None:
    error = ended(receive(established(), raw_pdu(ABORT, bytes((0, 0, source, reason)))))
    assert (error.source, error.reason, error.by_peer) == (source, reason, True)
    assert who in str(error)


@pytest.mark.parametrize("cause", [None, ConnectionResetError("reset by peer")])
def test_aa_4_tells_the_cause(cause: Exception | None) -> None:
    (event,) = established().connection_lost(0.0, cause)
    assert isinstance(event, AssociationEnded)
    assert isinstance(event.error, AssociationLost)
    assert ("reset by peer" in str(event.error)) is (cause is not None)


def test_aa_7_is_sent_once() -> None:
    """What a peer sends in Sta13 without reading must not pile up as aborts on our side."""
    upper = in_state(State.STA13_AWAITING_TRANSPORT_CLOSE, is_requestor=False)
    receive(upper, encode_pdu(proposal()) * 1000)
    assert sent(upper) == raw_pdu(ABORT, bytes((0, 0, 2, 2)))
    receive(upper, encode_pdu(proposal()), raw_pdu(0x42))
    assert sent(upper) == b""


def test_aa_7_gives_the_reason_of_an_invalid_pdu() -> None:
    upper = in_state(State.STA13_AWAITING_TRANSPORT_CLOSE, is_requestor=True)
    receive(upper, raw_pdu(0x42))
    assert abort_of(upper) == (2, 1)


@pytest.mark.parametrize(
    ("bad", "reason", "words"),
    [
        pytest.param(raw_pdu(0x42), 1, "PDU type 42H", id="unrecognized"),
        pytest.param(raw_pdu(RELEASE_RP), 2, "the peer sent A-RELEASE-RP where", id="unexpected"),
        pytest.param(raw_pdu(P_DATA, b""), 6, "holds no PDV", id="invalid"),
    ],
)
def test_aa_8_says_what_was_wrong(bad: bytes, reason: int, words: str) -> None:
    upper = established()
    error = ended(receive(upper, bad))
    assert abort_of(upper) == (2, reason)
    assert ((error.source, error.reason), error.by_peer) == ((2, reason), False)
    assert words in str(error)


def test_aa_8_names_p_data_where_it_is_not_allowed() -> None:
    upper = in_state(State.STA8_AWAITING_LOCAL_RELEASE_RESPONSE, is_requestor=False)
    error = ended(let_happen(upper, Event.EVT10_P_DATA_TF_RECEIVED))
    assert "P-DATA-TF" in str(error)
    assert error.reason == 2
