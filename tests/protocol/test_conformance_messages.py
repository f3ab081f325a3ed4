"""Conformance cases 32 to 45: messages (PS3.7 6.3, 9.3; PS3.8 annex E).

They are what implementations commonly get wrong. What comes from the peer is put together by hand, byte by byte, and the
expectations are those of the standard's text.
"""

from __future__ import annotations

import pytest

from support.conformance import (
    ABORT_2_5,
    ABORT_2_6,
    ECHO,
    STA6,
    STORE,
    aborted_with,
    command_pdv,
    established,
    p_data_in_one_byte_fragments,
)
from support.upper_layers import (
    CT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    P_DATA,
    VERIFICATION,
    Joined,
    Received,
    Supports,
    messages_of,
    raw_element,
    raw_p_data,
    raw_pdv,
    receive,
    sent,
    split_pdus,
    split_pdvs,
)
from tomowire.protocol.events import MalformedMessage, MessageReceived, ProtocolEvent
from tomowire.protocol.negotiation import ProposedContext
from tomowire.protocol.responses import bare_response, refusal
from tomowire.protocol.status import SOP_CLASS_NOT_SUPPORTED, UNRECOGNIZED_OPERATION, Status
from tomowire.wire.command_set import encode_command
from tomowire.wire.messages import CCancelRQ, CEchoRQ, CFindRQ, CFindRSP


def test_case_32_command_and_data_in_one_pdu_and_many_pdvs_in_one() -> None:
    encoded = encode_command(STORE)
    pdu = raw_p_data(
        *(raw_pdv(CT_CONTEXT, 1, encoded[:10]), raw_pdv(CT_CONTEXT, 3, encoded[10:])),
        *(raw_pdv(CT_CONTEXT, 0, b"da"), raw_pdv(CT_CONTEXT, 0, b""), raw_pdv(CT_CONTEXT, 2, b"ta")),
    )
    assert messages_of(receive(established(), pdu)) == [Received(CT_CONTEXT, STORE, b"data")]


def test_case_33_a_command_in_fragments_of_one_byte() -> None:
    pdus = p_data_in_one_byte_fragments(encode_command(ECHO), ECHO_CONTEXT)
    assert receive(established(), pdus) == [MessageReceived(ECHO_CONTEXT, ECHO)]
    assert receive(established(), pdus[:-13]) == []


def test_case_34_an_empty_last_fragment() -> None:
    command = raw_p_data(raw_pdv(CT_CONTEXT, 1, encode_command(STORE)), raw_pdv(CT_CONTEXT, 3, b""))
    data = raw_p_data(raw_pdv(CT_CONTEXT, 0, b"data")) + raw_p_data(raw_pdv(CT_CONTEXT, 2, b""))
    assert messages_of(receive(established(), command + data)) == [Received(CT_CONTEXT, STORE, b"data")]


@pytest.mark.parametrize(
    "pdvs",
    [
        pytest.param([raw_pdv(CT_CONTEXT, 2, b"data")], id="no command at all"),
        pytest.param([raw_pdv(CT_CONTEXT, 1, encode_command(STORE)), raw_pdv(CT_CONTEXT, 2, b"")], id="not ended"),
        pytest.param([command_pdv(ECHO), raw_pdv(CT_CONTEXT, 2, b"data")], id="none announced"),
    ],
)
def test_case_35_a_data_set_where_none_is_due(pdvs: list[bytes]) -> None:
    assert aborted_with(established(lenient=True), raw_p_data(*pdvs)) == ABORT_2_5


@pytest.mark.parametrize(
    "pdvs",
    [
        pytest.param([raw_pdv(CT_CONTEXT, 1, b"\0\0"), raw_pdv(ECHO_CONTEXT, 1, b"\0\0")], id="commands"),
        pytest.param([command_pdv(STORE), raw_pdv(ECHO_CONTEXT, 2, b"data")], id="command and data set"),
        pytest.param(
            [command_pdv(STORE), raw_pdv(CT_CONTEXT, 0, b"da"), raw_pdv(ECHO_CONTEXT, 2, b"ta")], id="data sets"
        ),
        pytest.param([command_pdv(STORE), command_pdv(ECHO, ECHO_CONTEXT)], id="another message"),
    ],
)
def test_case_36_two_contexts_in_one_message(pdvs: list[bytes]) -> None:
    upper = established(lenient=True)
    assert aborted_with(upper, raw_p_data(*pdvs)) == ABORT_2_5


def test_case_37_a_context_that_was_not_accepted() -> None:
    for context_id in (0, 2, 5, 255):
        assert aborted_with(established(lenient=True), raw_p_data(command_pdv(ECHO, context_id))) == ABORT_2_6


@pytest.mark.parametrize("length", [0, 1, 7, 0xFFFFFFFF])
def test_case_37_pdv_lengths_that_cannot_be(length: int) -> None:
    assert aborted_with(established(), raw_p_data(raw_pdv(CT_CONTEXT, 3, b"data", length=length))) == ABORT_2_6


def test_case_38_command_sets_are_little_endian_in_any_context() -> None:
    big_endian, deflated = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
    joined = Joined(
        contexts=[ProposedContext(CT, (big_endian,)), ProposedContext(CT, (deflated,))],
        supported=Supports({CT: {big_endian, deflated}}),
    )
    for context_id in (1, 3):
        joined.requestor.send_message(context_id, STORE, memoryview(b"data"))
    joined.run()
    assert [each.message for each in joined.messages(joined.acceptor)] == [STORE, STORE]
    commands = [
        data
        for kind, payload in split_pdus(bytes(joined.traffic[joined.requestor]))
        if kind == P_DATA
        for _, control, data in split_pdvs(payload)
        if control & 1
    ]
    # (0000,0000) UL 4 bytes, implicit VR, little endian
    assert [command[:8] for command in commands] == [bytes.fromhex("0000 0000 04000000")] * 2


def raw_echo(*elements: bytes, data_set_type: int = 0x0101) -> bytes:
    """A C-ECHO-RQ without a group length."""
    return raw_pdv(
        ECHO_CONTEXT,
        3,
        raw_element(0x0002, VERIFICATION.encode() + b"\0")
        + raw_element(0x0100, b"\x30\0")
        + raw_element(0x0110, b"\1\0")
        + b"".join(elements)
        + raw_element(0x0800, data_set_type.to_bytes(2, "little")),
    )


@pytest.mark.parametrize("data_set_type", [0x0000, 0x0001, 0x0100, 0x0102, 0xFEFE, 0xFFFF])
def test_case_39_any_data_set_type_but_0101_announces_a_data_set(data_set_type: int) -> None:
    pdu = raw_p_data(raw_echo(data_set_type=data_set_type), raw_pdv(ECHO_CONTEXT, 2, b"data"))
    (received,) = messages_of(receive(established(), pdu))
    assert (received.data, received.whole) == (b"data", True)


def test_case_39_0101_announces_none() -> None:
    assert receive(established(), raw_p_data(raw_echo())) == [MessageReceived(ECHO_CONTEXT, ECHO)]


@pytest.mark.parametrize("group_length", [b"", raw_element(0, bytes(4)), raw_element(0, b"\xff" * 4)])
def test_case_40_group_length_and_unknown_elements_are_tolerated(group_length: bytes) -> None:
    unknown = raw_element(0x0777, b"whatever")
    pdv = raw_echo(unknown)
    pdv = raw_pdv(ECHO_CONTEXT, 3, group_length + pdv[6:])
    assert receive(established(), raw_p_data(pdv)) == [MessageReceived(ECHO_CONTEXT, ECHO)]


def unknown_command(data_set_type: bytes) -> bytes:
    elements = raw_element(0x0100, b"\x77\x07") + raw_element(0x0110, b"\x09\0") + raw_element(0x0800, data_set_type)
    return raw_pdv(ECHO_CONTEXT, 3, elements)


def test_case_41_an_unknown_command_is_answered_by_the_lenient() -> None:
    upper = established(lenient=True)
    (event,) = receive(upper, raw_p_data(unknown_command(b"\1\1")))
    assert isinstance(event, MalformedMessage)
    assert event.error.command_field is not None
    assert event.error.message_id is not None
    upper.send_command_set(
        event.context_id, bare_response(event.error.command_field, event.error.message_id, UNRECOGNIZED_OPERATION)
    )
    ((_, payload),) = split_pdus(sent(upper))
    ((context_id, control, response),) = split_pdvs(payload)
    assert (context_id, control) == (ECHO_CONTEXT, 3)
    assert raw_element(0x0100, b"\x77\x87") in response
    assert raw_element(0x0120, b"\x09\0") in response
    assert raw_element(0x0900, b"\x11\2") in response
    # The association goes on.
    assert receive(upper, raw_p_data(raw_echo())) == [MessageReceived(ECHO_CONTEXT, ECHO)]


def test_case_41_an_unknown_command_is_the_end_for_the_strict() -> None:
    assert aborted_with(established(), raw_p_data(unknown_command(b"\1\1"))) == ABORT_2_6


def test_case_42_the_refusal_of_another_sop_class() -> None:
    """The service compares the command with its context; this is what it says then."""
    response = refusal(STORE, SOP_CLASS_NOT_SUPPORTED)
    assert (response.status, response.message_id_being_responded_to) == (0x0122, STORE.message_id)
    assert response.affected_sop_class_uid == CT


@pytest.mark.parametrize("amid", [False, True])
def test_case_43_a_cancel_for_nothing_is_a_message_like_others(amid: bool) -> None:
    """PS3.7 9.3.2.3: whoever has nothing to cancel ignores it; the association is as it was."""
    upper = established()
    cancel = CCancelRQ(message_id_being_responded_to=4711)
    if amid:
        upper.send_message(CT_CONTEXT, STORE)
    assert receive(upper, raw_p_data(command_pdv(cancel))) == [MessageReceived(CT_CONTEXT, cancel)]
    assert upper.state is STA6
    assert receive(upper, raw_p_data(raw_echo())) == [MessageReceived(ECHO_CONTEXT, ECHO)]


def test_case_44_a_cancel_between_pending_responses_is_told_at_once() -> None:
    upper = established()
    find = CFindRQ(message_id=6, affected_sop_class_uid=CT)
    events: list[ProtocolEvent] = receive(upper, raw_p_data(command_pdv(find), raw_pdv(CT_CONTEXT, 2, b"id")))
    pending = CFindRSP(message_id_being_responded_to=6, status=0xFF00, data_set_type=1)
    upper.send_message(CT_CONTEXT, pending, memoryview(b"match"))
    cancel = CCancelRQ(message_id_being_responded_to=6)
    events += receive(upper, raw_p_data(command_pdv(cancel)))
    assert messages_of(events) == [Received(CT_CONTEXT, find, b"id"), Received(CT_CONTEXT, cancel)]
    upper.send_message(CT_CONTEXT, CFindRSP(message_id_being_responded_to=6, status=0xFE00))
    assert Status(0xFE00).is_cancel
    *_, (_, last) = split_pdus(sent(upper))
    assert raw_element(0x0900, b"\0\xfe") in last


@pytest.mark.parametrize("message_id", [0, 1, 65535])
def test_case_45_any_message_id_comes_back(message_id: int) -> None:
    upper = established()
    request = CEchoRQ(message_id=message_id, affected_sop_class_uid=VERIFICATION)
    for _ in range(2):  # used again
        (event,) = receive(upper, raw_p_data(command_pdv(request, ECHO_CONTEXT)))
        assert isinstance(event, MessageReceived)
        upper.send_message(ECHO_CONTEXT, refusal(event.message, 0))
    for _, payload in split_pdus(sent(upper)):
        ((_, _, response),) = split_pdvs(payload)
        assert raw_element(0x0120, message_id.to_bytes(2, "little")) in response
