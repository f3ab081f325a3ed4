"""The façade: what a user of one end can do, may not do, and is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from support.upper_layers import (
    ABORT,
    AC,
    CT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    P_DATA,
    REACHABLE,
    RELEASE_RQ,
    VERIFICATION,
    accepted,
    in_state,
    proposal,
    raw_element,
    raw_p_data,
    raw_pdu,
    raw_pdv,
    receive,
    sent,
    split_pdus,
    split_pdvs,
)
from tomowire.errors import AssociationAborted, UsageError
from tomowire.protocol.events import (
    AssociateRequested,
    AssociationEnded,
    DataReceived,
    MalformedMessage,
    MessageReceived,
)
from tomowire.protocol.negotiation import AcceptedContext
from tomowire.protocol.states import State
from tomowire.protocol.upper_layer import UpperLayer
from tomowire.wire.command_set import encode_command
from tomowire.wire.messages import CEchoRQ, CEchoRSP, CStoreRQ
from tomowire.wire.pdu import AAssociateRJ, AAssociateRQ, encode_pdu

ECHO = CEchoRQ(message_id=1, affected_sop_class_uid=VERIFICATION)
STORE = CStoreRQ(message_id=2, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2.3")


def established(**options: bool) -> UpperLayer:
    return in_state(State.STA6_DATA_TRANSFER, is_requestor=True, **options)


def pdvs(upper: UpperLayer) -> list[tuple[int, int, bytes]]:
    """Context ID, control header and data of what has been sent."""
    return [pdv for pdu_type, payload in split_pdus(sent(upper)) if pdu_type == P_DATA for pdv in split_pdvs(payload)]


# Connecting


def test_a_requestor_asks_when_the_connection_is_open() -> None:
    upper = UpperLayer(is_requestor=True)
    upper.associate(proposal(), 0.0)
    assert sent(upper) == b""
    upper.connection_made(1.0)
    assert sent(upper) == encode_pdu(proposal())


def test_an_association_is_asked_for_once_and_by_the_requestor() -> None:
    with pytest.raises(UsageError, match="requestor"):
        UpperLayer(is_requestor=False).associate(proposal(), 0.0)
    ended = established()
    ended.connection_lost(0.0)
    assert ended.state is State.STA1_IDLE
    with pytest.raises(UsageError, match="once"):
        ended.associate(proposal(), 0.0)


@pytest.mark.parametrize(
    "request_",
    [replace(proposal(), called_ae_title="LONGER THAN 16 CHARACTERS"), replace(proposal(), protocol_version=-1)],
)
def test_a_request_that_cannot_be_encoded_is_refused_before_anything_happens(request_: AAssociateRQ) -> None:
    upper = UpperLayer(is_requestor=True)
    with pytest.raises(UsageError):
        upper.associate(request_, 0.0)
    upper.associate(proposal(), 0.0)
    assert upper.state is State.STA4_AWAITING_TRANSPORT_OPEN


def test_an_abort_before_the_connection_is_open_is_not_overtaken_by_it() -> None:
    upper = in_state(State.STA4_AWAITING_TRANSPORT_OPEN, is_requestor=True)
    upper.abort(0.0)
    assert upper.close_requested
    upper.connection_made(1.0)
    assert (upper.state, sent(upper)) == (State.STA1_IDLE, b"")


def test_a_requestor_that_has_not_asked_has_no_use_for_a_connection() -> None:
    with pytest.raises(UsageError, match="EVT2"):
        UpperLayer(is_requestor=True).connection_made(0.0)


# Answering


def test_what_was_agreed_is_known_from_the_answer_on() -> None:
    upper = in_state(State.STA5_AWAITING_ASSOCIATE_AC_OR_RJ, is_requestor=True)
    assert upper.agreement is None
    receive(upper, encode_pdu(accepted(proposal())))
    assert upper.agreement is not None
    context = upper.agreement.contexts[ECHO_CONTEXT]
    assert isinstance(context, AcceptedContext)
    assert context.abstract_syntax == VERIFICATION


def test_an_acceptance_outside_sta5_agrees_on_nothing() -> None:
    upper = in_state(State.STA2_AWAITING_ASSOCIATE_RQ, is_requestor=False)
    receive(upper, encode_pdu(accepted(proposal())))
    assert upper.agreement is None


@pytest.mark.parametrize(
    "answer",
    [
        lambda upper: upper.accept(proposal(), replace(accepted(proposal()), called_ae_title="€"), 0.0),
        lambda upper: upper.reject(AAssociateRJ(1, 1, 256), 0.0),
    ],
    ids=["accept", "reject"],
)
def test_an_answer_that_cannot_be_encoded_is_refused_before_anything_happens(
    answer: Callable[[UpperLayer], None],
) -> None:
    upper = in_state(State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE, is_requestor=False)
    with pytest.raises(UsageError):
        answer(upper)
    assert (upper.state, sent(upper)) == (State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE, b"")


@pytest.mark.parametrize("maximum_length", [1, 7])
def test_a_peer_that_leaves_no_room_for_data_is_refused_as_soon_as_it_says_so(maximum_length: int) -> None:
    """PS3.8 D.1: six bytes of each P-DATA-TF are needed for the header of a PDV, and fragments are even."""
    acceptor = in_state(State.STA2_AWAITING_ASSOCIATE_RQ, is_requestor=False)
    requestor = in_state(State.STA5_AWAITING_ASSOCIATE_AC_OR_RJ, is_requestor=True)
    for upper, pdu in (
        (acceptor, encode_pdu(proposal(maximum_length=maximum_length))),
        (requestor, encode_pdu(accepted(proposal(), maximum_length=maximum_length))),
    ):
        (event,) = receive(upper, pdu)
        assert isinstance(event, AssociationEnded)
        assert f"maximum PDU length of {maximum_length}" in str(event.error)
        assert sent(upper) == raw_pdu(ABORT, b"\0\0\2\6")
        assert upper.state is State.STA13_AWAITING_TRANSPORT_CLOSE


# Sending


def test_a_message_without_a_data_set() -> None:
    upper = established()
    upper.send_message(ECHO_CONTEXT, ECHO)
    assert pdvs(upper) == [(ECHO_CONTEXT, 3, encode_command(ECHO))]
    assert not upper.is_sending_data


def test_a_message_with_its_whole_data_set() -> None:
    upper = established()
    upper.send_message(CT_CONTEXT, STORE, memoryview(b"data"))
    assert pdvs(upper) == [(CT_CONTEXT, 3, encode_command(STORE)), (CT_CONTEXT, 2, b"data")]
    assert not upper.is_sending_data


def test_a_message_with_its_data_set_in_pieces() -> None:
    upper = established()
    upper.send_message(CT_CONTEXT, STORE)
    assert upper.is_sending_data
    upper.send_data(memoryview(b"da"), last=False)
    upper.send_data(memoryview(b"tum"), last=True)  # an odd end is the caller's data set, not ours to pad
    assert pdvs(upper)[1:] == [(CT_CONTEXT, 0, b"da"), (CT_CONTEXT, 2, b"tum")]
    assert not upper.is_sending_data


def test_messages_are_not_interleaved() -> None:
    """PS3.8 E.1: a response that is ready amid the data set of another message waits for its end."""
    upper = established()
    response = encode_command(CEchoRSP(message_id_being_responded_to=9, status=0))
    upper.send_message(CT_CONTEXT, STORE)
    upper.send_data(memoryview(b"da"), last=False)
    upper.send_command_set(ECHO_CONTEXT, response)
    upper.send_data(memoryview(b"ta"), last=True)
    assert pdvs(upper) == [
        (CT_CONTEXT, 3, encode_command(STORE)),
        (CT_CONTEXT, 0, b"da"),
        (CT_CONTEXT, 2, b"ta"),
        (ECHO_CONTEXT, 3, response),
    ]
    upper.send_message(CT_CONTEXT, STORE, memoryview(b""))
    assert len(pdvs(upper)) == 2


MISUSES: list[tuple[str, Callable[[UpperLayer], None]]] = [
    ("another message", lambda upper: upper.send_message(ECHO_CONTEXT, ECHO)),
    ("must be even", lambda upper: upper.send_data(memoryview(b"odd"), last=False)),
    ("still being sent", lambda upper: upper.release(0.0)),
]


@pytest.mark.parametrize(("words", "misuse"), MISUSES, ids=[words for words, _ in MISUSES])
def test_what_cannot_be_done_amid_a_data_set(words: str, misuse: Callable[[UpperLayer], None]) -> None:
    upper = established()
    upper.send_message(CT_CONTEXT, STORE)
    upper.take_output()
    with pytest.raises(UsageError, match=words):
        misuse(upper)
    assert (upper.state, sent(upper)) == (State.STA6_DATA_TRANSFER, b"")
    upper.send_data(memoryview(b""), last=True)
    assert pdvs(upper) == [(CT_CONTEXT, 2, b"")]


MISTAKES: list[tuple[str, Callable[[UpperLayer], None]]] = [
    ("not accepted", lambda upper: upper.send_message(5, ECHO)),
    ("not accepted", lambda upper: upper.send_message(300, STORE, memoryview(b""))),
    ("no data set, but one was given", lambda upper: upper.send_message(ECHO_CONTEXT, ECHO, memoryview(b""))),
    ("cannot be encoded", lambda upper: upper.send_message(CT_CONTEXT, replace(STORE, message_id=1 << 16))),
    ("no message whose data set is due", lambda upper: upper.send_data(memoryview(b""), last=True)),
]


@pytest.mark.parametrize(("words", "mistake"), MISTAKES)
def test_a_mistake_changes_nothing(words: str, mistake: Callable[[UpperLayer], None]) -> None:
    upper = established()
    with pytest.raises(UsageError, match=words):
        mistake(upper)
    assert (upper.state, sent(upper), upper.is_sending_data) == (State.STA6_DATA_TRANSFER, b"", False)


@pytest.mark.parametrize("end", [lambda upper: upper.abort(0.0), lambda upper: upper.connection_lost(0.0)])
def test_after_the_end_the_rest_of_a_data_set_cannot_be_sent(end: Callable[[UpperLayer], None]) -> None:
    upper = established()
    upper.send_message(CT_CONTEXT, STORE)
    end(upper)
    upper.take_output()
    with pytest.raises(UsageError, match="EVT9"):
        upper.send_data(memoryview(b""), last=True)
    assert sent(upper) == b""


def test_the_buffers_sent_are_the_callers_own() -> None:
    upper = established()
    data = memoryview(bytearray(10_000))
    upper.send_message(CT_CONTEXT, STORE, data)
    assert upper.take_output()[-1] is data
    assert upper.payload_maximum == 16384 - 6


# Receiving


def test_the_data_received_lies_where_it_was_received() -> None:
    upper = established()
    block = memoryview(
        bytearray(
            raw_p_data(raw_pdv(CT_CONTEXT, 3, encode_command(STORE))) + raw_p_data(raw_pdv(CT_CONTEXT, 2, b"data"))
        )
    )
    message, data = upper.receive(block, 0.0)
    assert message == MessageReceived(CT_CONTEXT, STORE)
    assert isinstance(data, DataReceived)
    assert (data.data.obj, data.last) == (block.obj, True)


def test_lenient_is_told_what_strict_aborts_for() -> None:
    without_sop_class = raw_element(0x0100, b"\x30\0") + raw_element(0x0110, b"\7\0") + raw_element(0x0800, b"\1\1")
    unreadable = raw_p_data(raw_pdv(ECHO_CONTEXT, 3, without_sop_class))
    (strict,) = receive(established(), unreadable)
    assert isinstance(strict, AssociationEnded)
    (lenient,) = receive(established(lenient=True), unreadable)
    assert isinstance(lenient, MalformedMessage)


@pytest.mark.parametrize("state", [State.STA6_DATA_TRANSFER, State.STA7_AWAITING_RELEASE_RP])
@pytest.mark.parametrize("part", ["command", "data set"])
def test_a_release_amid_a_message_is_not_waited_for(state: State, part: str) -> None:
    """After A-RELEASE-RQ no P-DATA can come (PS3.8 Table 9-10, Evt9 in Sta7): the rest of the message never will."""
    upper = in_state(state, is_requestor=False)
    begun = raw_pdv(CT_CONTEXT, 1, b"\0\0") if part == "command" else raw_pdv(CT_CONTEXT, 3, encode_command(STORE))
    *_, event = receive(upper, raw_p_data(begun), raw_pdu(RELEASE_RQ))
    assert isinstance(event, AssociationEnded)
    assert "middle of a message" in str(event.error)
    assert sent(upper) == raw_pdu(ABORT, b"\0\0\2\2")


def test_events_before_a_breach_are_told_before_it() -> None:
    echo = raw_p_data(raw_pdv(ECHO_CONTEXT, 3, encode_command(ECHO)))
    first, second = receive(established(), echo + raw_pdu(0x42) + echo)
    assert first == MessageReceived(ECHO_CONTEXT, ECHO)
    assert isinstance(second, AssociationEnded)


def test_nothing_is_read_after_an_invalid_pdu() -> None:
    """Where the next PDU begins is not known then: an A-ABORT that seems to follow is none."""
    upper = established()
    receive(upper, raw_pdu(0x42), raw_pdu(ABORT))
    assert (upper.state, upper.close_requested) == (State.STA13_AWAITING_TRANSPORT_CLOSE, False)


# The state, for those who ask


@pytest.mark.parametrize(("state", "is_requestor"), REACHABLE)
def test_what_is_possible_in_each_state(state: State, is_requestor: bool) -> None:
    upper = in_state(state, is_requestor=is_requestor)
    assert upper.is_established is (state.value in (6, 8))
    assert upper.awaits_release_response is (state.value in (8, 9, 12))
    assert upper.is_over is (state.value in (1, 13))


@pytest.mark.parametrize(("state", "is_requestor"), REACHABLE)
def test_abort_is_always_possible_and_does_nothing_where_there_is_no_association(
    state: State, is_requestor: bool
) -> None:
    upper = in_state(state, is_requestor=is_requestor)
    upper.abort(0.0)
    aborted = [pdu_type for pdu_type, _ in split_pdus(sent(upper))]
    assert aborted == ([] if state.value in (1, 2, 4, 13) else [ABORT])
    again = upper.state
    upper.abort(0.0)
    assert (upper.state, sent(upper)) == (again, b"")


# Time


def test_the_timer_does_not_expire_early() -> None:
    upper = in_state(State.STA2_AWAITING_ASSOCIATE_RQ, is_requestor=False, artim_timeout=5.0)
    assert upper.deadline == 5.0
    upper.handle_timeout(4.9)
    assert (upper.state, upper.deadline) == (State.STA2_AWAITING_ASSOCIATE_RQ, 5.0)
    upper.handle_timeout(5.0)
    assert (upper.state, upper.deadline, upper.close_requested) == (State.STA1_IDLE, None, True)


def test_a_timer_that_does_not_run_does_not_expire() -> None:
    upper = established()
    upper.handle_timeout(1e9)
    assert upper.state is State.STA6_DATA_TRANSFER


def test_events_of_local_requests_wait_to_be_taken() -> None:
    upper = established()
    upper.abort(0.0)
    (event,) = upper.take_events()
    assert isinstance(event, AssociationEnded)
    assert isinstance(event.error, AssociationAborted)
    assert upper.take_events() == []


def test_a_request_is_given_to_the_user_as_it_came() -> None:
    upper = in_state(State.STA2_AWAITING_ASSOCIATE_RQ, is_requestor=False)
    assert receive(upper, encode_pdu(proposal())) == [AssociateRequested(proposal())]
    assert AC not in [pdu_type for pdu_type, _ in split_pdus(sent(upper))]
