"""Conformance cases 1 to 12: PDUs, states and time (PS3.8 9.2, 9.3).

They are what implementations commonly get wrong. What comes from the peer is put together by hand, byte by byte, and the
expectations are those of the standard's text.
"""

from __future__ import annotations

import pytest

from support.conformance import (
    ABORT_2_1,
    ABORT_2_2,
    ABORT_2_6,
    ABORT_USER,
    ECHO,
    STA1,
    STA3,
    STA6,
    STA13,
    STORE,
    aborted_with,
    awaiting_request,
    command_pdv,
    established,
    raw_context,
    raw_request,
)
from support.upper_layers import (
    ABORT,
    AC,
    CT_CONTEXT,
    ECHO_CONTEXT,
    P_DATA,
    REACHABLE,
    RELEASE_RP,
    RELEASE_RQ,
    RJ,
    RQ,
    Received,
    in_state,
    messages_of,
    raw_p_data,
    raw_pdu,
    raw_pdv,
    receive,
    sent,
)
from tomowire.errors import AssociationLost
from tomowire.protocol.events import AssociationEnded, ReleaseConfirmed, ReleaseRequested
from tomowire.protocol.states import State
from tomowire.protocol.upper_layer import DEFAULT_ARTIM, UpperLayer
from tomowire.wire.pdu import AAssociateRJ


def test_case_01_one_byte_at_a_time_or_many_pdus_at_once() -> None:
    request = raw_request()
    one_by_one = [bytes((byte,)) for byte in request]
    assert receive(awaiting_request(), *one_by_one) == receive(awaiting_request(), request)
    messages = raw_p_data(command_pdv(STORE), raw_pdv(CT_CONTEXT, 2, b"data")) + raw_p_data(
        command_pdv(ECHO, ECHO_CONTEXT)
    )
    expected = [Received(CT_CONTEXT, STORE, b"data"), Received(ECHO_CONTEXT, ECHO)]
    for segments in ([messages + raw_pdu(RELEASE_RQ)], [bytes((byte,)) for byte in messages + raw_pdu(RELEASE_RQ)]):
        events = receive(established(), *segments)
        assert messages_of(events) == expected
        assert events[-1] == ReleaseRequested(collision=False)


@pytest.mark.parametrize("state", [STA6, State.STA7_AWAITING_RELEASE_RP])
def test_case_02_p_data_without_a_pdv(state: State) -> None:
    assert aborted_with(in_state(state, is_requestor=False), raw_pdu(P_DATA, b"")) == ABORT_2_6


@pytest.mark.parametrize("length", [16385, 0xFFFFFFFF])
def test_case_03_pdu_longer_than_our_maximum(length: int) -> None:
    assert aborted_with(established(maximum_length=16384), raw_pdu(P_DATA, b"", length=length)) == ABORT_2_6


@pytest.mark.parametrize("pdu_type", [RQ, AC, RJ, RELEASE_RQ, RELEASE_RP, ABORT])
def test_case_03_other_pdus_of_4_gib(pdu_type: int) -> None:
    assert aborted_with(established(), raw_pdu(pdu_type, b"", length=0xFFFFFFFF)) == ABORT_2_6


@pytest.mark.parametrize("pdu_type", [0, 8, 0x16, 0x47, 0xFF])
def test_case_04_unknown_pdu_type(pdu_type: int) -> None:
    assert aborted_with(awaiting_request(), raw_pdu(pdu_type)) == ABORT_USER  # AA-1
    assert aborted_with(established(), raw_pdu(pdu_type)) == ABORT_2_1  # AA-8


def test_case_05_second_request_on_an_association() -> None:
    assert aborted_with(established(), raw_request()) == ABORT_2_2


def test_case_05_second_request_on_an_association_whatever_it_says() -> None:
    assert aborted_with(established(), raw_request(raw_context(2))) == ABORT_2_2


def test_case_05_p_data_before_a_request() -> None:
    assert aborted_with(awaiting_request(), raw_p_data(command_pdv(ECHO))) == ABORT_USER


def test_case_06_no_request_in_time() -> None:
    upper = awaiting_request()
    upper.handle_timeout(DEFAULT_ARTIM)
    assert (upper.state, upper.close_requested, sent(upper), upper.take_events()) == (STA1, True, b"", [])


def test_case_06_dripped_bytes_do_not_buy_time() -> None:
    upper = awaiting_request()
    for second, byte in enumerate(raw_request()[: int(DEFAULT_ARTIM) - 1]):
        receive(upper, bytes((byte,)), now=float(second))
    assert upper.deadline == DEFAULT_ARTIM
    upper.handle_timeout(DEFAULT_ARTIM)
    assert upper.close_requested


def in_sta13(how: str) -> UpperLayer:
    if how == "rejected":
        upper = in_state(STA3, is_requestor=False)
        upper.reject(AAssociateRJ(1, 1, 1), 0.0)
    else:
        upper = in_state(State.STA8_AWAITING_LOCAL_RELEASE_RESPONSE, is_requestor=False)
        upper.respond_to_release(0.0)
    assert upper.state is STA13
    upper.take_output()
    return upper


@pytest.mark.parametrize("how", ["rejected", "released"])
@pytest.mark.parametrize(
    ("data", "answer_"),
    [
        pytest.param(raw_p_data(command_pdv(ECHO)), b"", id="AA-6 P-DATA"),
        pytest.param(raw_pdu(RELEASE_RQ), b"", id="AA-6 A-RELEASE-RQ"),
        pytest.param(raw_pdu(RELEASE_RP), b"", id="AA-6 A-RELEASE-RP"),
        pytest.param(raw_pdu(RJ), b"", id="AA-6 A-ASSOCIATE-RJ"),
        pytest.param(raw_request(), ABORT_2_2, id="AA-7 A-ASSOCIATE-RQ"),
        pytest.param(raw_pdu(0x42), ABORT_2_1, id="AA-7 invalid PDU"),
    ],
)
def test_case_07_what_comes_while_the_peer_should_close(how: str, data: bytes, answer_: bytes) -> None:
    upper = in_sta13(how)
    assert receive(upper, data, now=5.0) == []
    assert (sent(upper), upper.state, upper.deadline) == (answer_, STA13, DEFAULT_ARTIM)
    upper.handle_timeout(DEFAULT_ARTIM)
    assert (upper.state, upper.close_requested) == (STA1, True)


@pytest.mark.parametrize("how", ["rejected", "released"])
def test_case_07_the_peer_closes(how: str) -> None:
    upper = in_sta13(how)
    assert upper.connection_lost(5.0) == []
    assert (upper.state, upper.deadline) == (STA1, None)


@pytest.mark.parametrize(("state", "is_requestor"), [each for each in REACHABLE if each[0].value not in (1, 4)])
def test_case_08_an_abort_closes_without_a_reply(state: State, is_requestor: bool) -> None:
    upper = in_state(state, is_requestor=is_requestor)
    events = receive(upper, raw_pdu(ABORT, bytes((0, 0, 2, 0))))
    assert (upper.state, upper.close_requested, sent(upper)) == (STA1, True, b"")
    # AA-3 tells the user, who cancels what runs; in Sta2 and Sta13 (AA-2) there is nobody to tell.
    assert [type(event) for event in events] == ([] if state.value in (2, 13) else [AssociationEnded])


def test_case_09_connection_lost_amid_a_data_set() -> None:
    upper = established()
    events = receive(upper, raw_p_data(command_pdv(STORE), raw_pdv(CT_CONTEXT, 0, b"part")))
    events += upper.connection_lost(0.0)
    assert messages_of(events) == [Received(CT_CONTEXT, STORE, b"part", whole=False)]
    assert isinstance(events[-1], AssociationEnded)
    assert isinstance(events[-1].error, AssociationLost)
    assert (upper.state, sent(upper)) == (STA1, b"")


def test_case_10_a_peer_that_has_closed_its_side_still_gets_its_release_response() -> None:
    """The glue keeps the connection as long as `awaits_release_response` says that there is something to say."""
    upper = established()
    receive(upper, raw_pdu(RELEASE_RQ))
    assert upper.awaits_release_response
    upper.respond_to_release(0.0)
    assert sent(upper) == raw_pdu(RELEASE_RP)
    assert not upper.awaits_release_response


def test_case_11_release_collision_seen_by_the_requestor() -> None:
    """Sta7, 9, 11, 1."""
    upper = in_state(State.STA7_AWAITING_RELEASE_RP, is_requestor=True)
    assert receive(upper, raw_pdu(RELEASE_RQ)) == [ReleaseRequested(collision=True)]
    upper.respond_to_release(0.0)
    assert sent(upper) == raw_pdu(RELEASE_RP)
    assert upper.state is State.STA11_COLLISION_REQUESTOR_AWAITING_RELEASE_RP
    assert receive(upper, raw_pdu(RELEASE_RP)) == [ReleaseConfirmed()]
    assert (upper.state, upper.close_requested) == (STA1, True)


def test_case_11_release_collision_seen_by_the_acceptor() -> None:
    """Sta7, 10, 12, 13."""
    upper = in_state(State.STA7_AWAITING_RELEASE_RP, is_requestor=False)
    assert receive(upper, raw_pdu(RELEASE_RQ)) == [ReleaseRequested(collision=True)]
    assert not upper.awaits_release_response  # the requestor's answer comes first
    assert receive(upper, raw_pdu(RELEASE_RP)) == [ReleaseConfirmed()]
    assert upper.state is State.STA12_COLLISION_ACCEPTOR_AWAITING_LOCAL_RELEASE_RESPONSE
    upper.respond_to_release(0.0)
    assert (sent(upper), upper.state, upper.close_requested) == (raw_pdu(RELEASE_RP), STA13, False)


def test_case_12_p_data_after_our_release_request() -> None:
    upper = in_state(State.STA7_AWAITING_RELEASE_RP, is_requestor=True)
    events = receive(upper, raw_p_data(command_pdv(STORE)) + raw_p_data(raw_pdv(CT_CONTEXT, 2, b"late")))
    assert messages_of(events) == [Received(CT_CONTEXT, STORE, b"late")]
    assert upper.state is State.STA7_AWAITING_RELEASE_RP
