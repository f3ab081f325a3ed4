"""Both ends joined in memory: an association from its request to its end, in every way it can go."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.upper_layers import (
    CONTEXTS,
    CT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    IMPLICIT,
    P_DATA,
    SUPPORTED,
    VERIFICATION,
    Joined,
    Received,
    Supports,
    proposal,
    split_pdus,
)
from tomowire.errors import AssociationAborted, AssociationLost
from tomowire.protocol.events import AssociateRejected, AssociationEnded, ReleaseRequested
from tomowire.protocol.negotiation import ProposedContext
from tomowire.protocol.states import State
from tomowire.protocol.upper_layer import DEFAULT_ARTIM, UpperLayer
from tomowire.wire.messages import CEchoRQ, CEchoRSP, CStoreRQ, CStoreRSP
from tomowire.wire.pdu import AAssociateRJ

STA1, STA6, STA13 = State.STA1_IDLE, State.STA6_DATA_TRANSFER, State.STA13_AWAITING_TRANSPORT_CLOSE


def echo(message_id: int) -> CEchoRQ:
    return CEchoRQ(message_id=message_id, affected_sop_class_uid=VERIFICATION)


def store(message_id: int) -> CStoreRQ:
    return CStoreRQ(message_id=message_id, affected_sop_class_uid=CT, affected_sop_instance_uid=f"1.2.{message_id}")


def ended(joined: Joined, end: UpperLayer) -> list[AssociationEnded]:
    return [event for event in joined.events[end] if isinstance(event, AssociationEnded)]


# Establishment


def test_an_association_is_established() -> None:
    joined = Joined()
    assert (joined.requestor.state, joined.acceptor.state) == (STA6, STA6)
    assert joined.kinds(joined.requestor) == ["AssociateAccepted"]
    assert joined.kinds(joined.acceptor) == ["AssociateRequested"]
    assert joined.requestor.agreement is not None
    assert joined.acceptor.agreement is not None
    assert joined.requestor.agreement.contexts == joined.acceptor.agreement.contexts
    assert set(joined.requestor.agreement.contexts) == {ECHO_CONTEXT, CT_CONTEXT}


def test_an_association_is_rejected_and_the_connection_closed_by_the_requestor() -> None:
    """AE-8, AE-4, AR-5."""
    joined = Joined(established=False)
    joined.requestor.associate(proposal(), 0.0)
    joined.acceptor.connection_made(0.0)
    joined.requestor.connection_made(0.0)
    data = b"".join(joined.requestor.take_output())
    joined.acceptor.receive(memoryview(data), 0.0)
    joined.acceptor.reject(AAssociateRJ(1, 1, 7), 0.0)
    joined.run()
    assert joined.events[joined.requestor] == [AssociateRejected(AAssociateRJ(1, 1, 7))]
    assert (joined.requestor.state, joined.requestor.close_requested) == (STA1, True)
    assert joined.acceptor.state is STA13
    assert joined.acceptor.connection_lost(1.0) == []
    assert (joined.acceptor.state, joined.acceptor.deadline) == (STA1, None)


def test_an_association_without_any_accepted_context_stands_and_can_be_released() -> None:
    joined = Joined(supported=Supports({}))
    assert joined.requestor.state is STA6
    assert joined.requestor.agreement is not None
    assert joined.requestor.agreement.contexts == {}
    assert [refused.result for refused in joined.requestor.agreement.refused] == [3, 3]
    joined.requestor.release(0.0)
    joined.run()
    assert joined.kinds(joined.acceptor)[-1] == "ReleaseRequested"


# Messages

maxima = st.sampled_from((0, 8, 10, 64, 1000, 16384, 0xFFFFFFFF)) | st.integers(8, 200)
messages = st.lists(
    st.tuples(st.booleans(), st.none() | st.binary(max_size=300) | st.integers(0, 3000).map(bytes)), max_size=6
)


@settings(max_examples=60)
@given(maxima, maxima, messages)
def test_what_is_received_is_what_was_sent(
    requestor_maximum: int, acceptor_maximum: int, script: list[tuple[bool, bytes | None]]
) -> None:
    """In both directions, whatever each end lets the other send at once (PS3.8 D.1)."""
    joined = Joined(requestor_maximum=requestor_maximum, acceptor_maximum=acceptor_maximum)
    expected: dict[UpperLayer, list[Received]] = {joined.requestor: [], joined.acceptor: []}
    for number, (by_requestor, data) in enumerate(script):
        sender = joined.requestor if by_requestor else joined.acceptor
        context_id, message = (ECHO_CONTEXT, echo(number)) if data is None else (CT_CONTEXT, store(number))
        sender.send_message(context_id, message, memoryview(data) if data is not None else None)
        expected[joined.other(sender)].append(Received(context_id, message, data))
    joined.run()
    for end, maximum in ((joined.requestor, acceptor_maximum), (joined.acceptor, requestor_maximum)):
        assert joined.messages(end) == expected[end]
        sizes = [len(payload) for kind, payload in split_pdus(bytes(joined.traffic[end])) if kind == P_DATA]
        assert all(size <= (maximum or size) for size in sizes)


def test_requests_and_responses_cross() -> None:
    joined = Joined()
    for number in range(3):
        joined.requestor.send_message(CT_CONTEXT, store(number), memoryview(bytes(10)))
    joined.run()
    for number in (2, 0, 1):
        joined.acceptor.send_message(CT_CONTEXT, CStoreRSP(message_id_being_responded_to=number, status=0))
    joined.requestor.send_message(ECHO_CONTEXT, echo(3))
    joined.run()
    assert [each.message for each in joined.messages(joined.requestor)] == [
        CStoreRSP(message_id_being_responded_to=number, status=0) for number in (2, 0, 1)
    ]
    assert len(joined.messages(joined.acceptor)) == 4


def test_every_one_of_128_contexts_works() -> None:
    classes = [f"1.2.{number}" for number in range(128)]
    joined = Joined(
        contexts=[ProposedContext(uid, (IMPLICIT,)) for uid in classes],
        supported=Supports({uid: {IMPLICIT} for uid in classes}),
    )
    for context_id in range(1, 256, 2):
        joined.requestor.send_message(context_id, echo(context_id))
    joined.run()
    assert [each.context_id for each in joined.messages(joined.acceptor)] == list(range(1, 256, 2))


# Release


def released(joined: Joined, first: UpperLayer, *, now: float = 5.0) -> None:
    """`first` has asked for release and its request has arrived: the other end answers, and the connection closes."""
    second = joined.other(first)
    second.respond_to_release(now)
    assert (second.state, second.deadline) == (STA13, now + DEFAULT_ARTIM)
    joined.run(now=now)
    assert (first.state, first.close_requested) == (STA1, True)
    assert joined.kinds(first)[-1] == "ReleaseConfirmed"
    assert second.connection_lost(now) == []
    assert (second.state, second.deadline) == (STA1, None)


@pytest.mark.parametrize("by_requestor", [True, False])
def test_release(by_requestor: bool) -> None:
    joined = Joined()
    first = joined.requestor if by_requestor else joined.acceptor
    first.release(0.0)
    joined.run()
    assert joined.events[joined.other(first)][-1] == ReleaseRequested(collision=False)
    released(joined, first)


@pytest.mark.parametrize("by_requestor", [True, False])
def test_the_other_end_may_finish_what_it_has_to_send(by_requestor: bool) -> None:
    """AR-7 and AR-6: data after a release request are still delivered, in Sta8 to Sta7 only."""
    joined = Joined()
    first = joined.requestor if by_requestor else joined.acceptor
    second = joined.other(first)
    second.send_message(CT_CONTEXT, store(1))
    second.send_data(memoryview(b"fi"), last=False)
    first.release(0.0)
    joined.run()
    second.send_data(memoryview(b"rst"), last=True)
    second.send_message(ECHO_CONTEXT, echo(2))
    joined.run()
    assert joined.messages(first) == [Received(CT_CONTEXT, store(1), b"first"), Received(ECHO_CONTEXT, echo(2))]
    released(joined, first)


def test_a_release_collision_ends_for_both() -> None:
    """The requestor goes 7, 9, 11, 1, the acceptor 7, 10, 12, 13, 1 (AR-8, AR-9, AR-10, AR-3, AR-4, AR-5)."""
    joined = Joined()
    requestor, acceptor = joined.requestor, joined.acceptor
    requestor.release(0.0)
    acceptor.release(0.0)
    joined.run()
    assert [joined.events[end][-1] for end in (requestor, acceptor)] == [ReleaseRequested(collision=True)] * 2
    assert (requestor.state.value, acceptor.state.value) == (9, 10)
    requestor.respond_to_release(0.0)
    joined.run()
    assert joined.kinds(acceptor)[-1] == "ReleaseConfirmed"
    assert (requestor.state.value, acceptor.state.value) == (11, 12)
    acceptor.respond_to_release(0.0)
    joined.run()
    assert joined.kinds(requestor)[-1] == "ReleaseConfirmed"
    assert (requestor.state, requestor.close_requested, acceptor.state) == (STA1, True, STA13)
    acceptor.connection_lost(0.0)
    assert acceptor.state is STA1
    assert not ended(joined, requestor) + ended(joined, acceptor)


def test_data_that_was_under_way_before_a_collision_is_delivered() -> None:
    joined = Joined()
    joined.acceptor.send_message(ECHO_CONTEXT, CEchoRSP(message_id_being_responded_to=1, status=0))
    joined.requestor.send_message(ECHO_CONTEXT, echo(2))
    joined.acceptor.release(0.0)
    joined.requestor.release(0.0)
    joined.run()
    assert len(joined.messages(joined.requestor)) == len(joined.messages(joined.acceptor)) == 1
    assert (joined.requestor.state.value, joined.acceptor.state.value) == (9, 10)


# Abort


def at(joined: Joined, end: UpperLayer, value: int) -> None:
    """Bring one end of an established association into the state with this number; the other follows."""
    other = joined.other(end)
    if value in (7, 9, 10, 11, 12):
        end.release(0.0)
    if value in (9, 10, 11, 12):
        other.release(0.0)
    if value == 8:
        other.release(0.0)
    joined.run()
    if value == 11:
        end.respond_to_release(0.0)
        joined.run()
    if value == 12:
        other.respond_to_release(0.0)
        joined.run()
    assert end.state.value == value


@pytest.mark.parametrize(
    ("value", "by_requestor"),
    [(value, by_requestor) for value in (6, 7, 8) for by_requestor in (True, False)]
    + [(9, True), (11, True), (10, False), (12, False)],
)
def test_an_abort_in_any_state_ends_both(value: int, by_requestor: bool) -> None:
    """AA-1 here, AA-3 there: no answer to an abort, and the one who receives it closes the connection."""
    joined = Joined()
    first = joined.requestor if by_requestor else joined.acceptor
    second = joined.other(first)
    at(joined, first, value)
    first.abort(7.0)
    joined.take(first, first.take_events())
    before = len(joined.traffic[second])
    joined.run(now=7.0)
    (own,), (theirs,) = ended(joined, first), ended(joined, second)
    assert isinstance(own.error, AssociationAborted)
    assert isinstance(theirs.error, AssociationAborted)
    assert (own.error.by_peer, theirs.error.by_peer) == (False, True)
    assert (theirs.error.source, theirs.error.reason) == (0, 0)
    assert len(joined.traffic[second]) == before
    assert (second.state, second.close_requested) == (STA1, True)
    assert (first.state, first.deadline) == (STA13, 7.0 + DEFAULT_ARTIM)
    assert first.connection_lost(8.0) == []
    assert first.state is STA1


def test_aborts_that_cross() -> None:
    joined = Joined()
    joined.requestor.abort(0.0)
    joined.acceptor.abort(0.0)
    joined.run()
    for end in (joined.requestor, joined.acceptor):
        assert (end.state, end.close_requested) == (STA1, True)  # AA-2


def test_an_abort_in_the_middle_of_a_data_set() -> None:
    joined = Joined()
    joined.requestor.send_message(CT_CONTEXT, store(1))
    joined.requestor.send_data(memoryview(bytes(100_000)), last=False)
    joined.requestor.abort(0.0)
    joined.run()
    (received,) = joined.messages(joined.acceptor)
    assert (received.data, received.whole) == (bytes(100_000), False)
    assert joined.kinds(joined.acceptor)[-1] == "AssociationEnded"


# The connection and the timer


@pytest.mark.parametrize("value", [6, 7, 8])
def test_a_lost_connection_ends_both(value: int) -> None:
    joined = Joined()
    at(joined, joined.requestor, value)
    for end in (joined.requestor, joined.acceptor):
        (event,) = end.connection_lost(0.0, ConnectionResetError("reset"))
        assert isinstance(event, AssociationEnded)
        assert isinstance(event.error, AssociationLost)
        assert (end.state, b"".join(end.take_output())) == (STA1, b"")


def test_a_peer_that_does_not_close_after_the_release_is_closed_on() -> None:
    joined = Joined()
    joined.requestor.release(0.0)
    joined.run()
    joined.acceptor.respond_to_release(10.0)
    joined.acceptor.handle_timeout(10.0 + DEFAULT_ARTIM - 0.1)
    assert joined.acceptor.state is STA13
    joined.acceptor.handle_timeout(10.0 + DEFAULT_ARTIM)
    assert (joined.acceptor.state, joined.acceptor.close_requested) == (STA1, True)


def test_the_contexts_of_this_module_are_what_the_tests_think() -> None:
    assert [context.abstract_syntax for context in CONTEXTS] == [VERIFICATION, CT]
    assert set(SUPPORTED.syntaxes) == {VERIFICATION, CT}
