"""Fragments -> messages and back (PS3.7 6.3, PS3.8 annex E)."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.upper_layers import (
    CT,
    VERIFICATION,
    Received,
    messages_of,
    raw_element,
    raw_p_data,
    raw_pdv,
    split_pdus,
    split_pdvs,
)
from tomowire.errors import PduError, UnknownCommand
from tomowire.protocol.dimse import COMMAND_SET_CAP, UNLIMITED_PDU_LENGTH, Fragmenter, MessageAssembler
from tomowire.protocol.events import DataReceived, MalformedMessage, MessageReceived, ProtocolEvent
from tomowire.protocol.reader import Fragment
from tomowire.wire.command_set import encode_command
from tomowire.wire.messages import CCancelRQ, CEchoRQ, CStoreRQ

ECHO = CEchoRQ(message_id=1, affected_sop_class_uid=VERIFICATION)
STORE = CStoreRQ(message_id=2, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2.3")
ACCEPTED = (1, 3)


def command(context_id: int, data: bytes, *, ends: bool = True) -> Fragment:
    return Fragment(context_id, True, memoryview(data), ends)


def content(context_id: int, data: bytes, *, ends: bool = False) -> Fragment:
    return Fragment(context_id, False, memoryview(data), ends)


def assembled(*fragments: Fragment, lenient: bool = False) -> list[ProtocolEvent]:
    assembler = MessageAssembler(ACCEPTED, lenient=lenient)
    return [event for fragment in fragments if (event := assembler.add(fragment)) is not None]


def refused(*fragments: Fragment, lenient: bool = False) -> PduError:
    """The error for the last of the fragments."""
    assembler = MessageAssembler(ACCEPTED, lenient=lenient)
    for fragment in fragments[:-1]:
        assembler.add(fragment)
    with pytest.raises(PduError) as caught:
        assembler.add(fragments[-1])
    return caught.value


def test_a_command_set_alone() -> None:
    assert assembled(command(1, encode_command(ECHO))) == [MessageReceived(1, ECHO)]


def test_a_command_set_in_one_byte_fragments_ends_with_the_last_bit_only() -> None:
    *first, last = encode_command(ECHO)
    fragments = [command(1, bytes((byte,)), ends=False) for byte in first]
    assert assembled(*fragments) == []
    assert assembled(*fragments, command(1, bytes((last,)))) == [MessageReceived(1, ECHO)]


def test_an_empty_fragment_can_be_the_last() -> None:
    encoded = encode_command(ECHO)
    assert assembled(command(1, encoded, ends=False), command(1, b"")) == [MessageReceived(1, ECHO)]


def test_the_data_set_is_passed_on_as_it_comes() -> None:
    first = content(3, b"ab")
    events = assembled(command(3, encode_command(STORE)), first, content(3, b"cd"), content(3, b"", ends=True))
    assert messages_of(events) == [Received(3, STORE, b"abcd")]
    assert len(events) == 4
    assert isinstance(events[1], DataReceived)
    assert events[1].data is first.data


def test_messages_follow_each_other_in_any_context() -> None:
    stores = [command(3, encode_command(STORE)), content(3, b"ab", ends=True)]
    echoes = [command(1, encode_command(ECHO))]
    assert [each.message for each in messages_of(assembled(*stores, *echoes, *echoes, *stores))] == [
        STORE,
        ECHO,
        ECHO,
        STORE,
    ]


def test_whether_a_message_is_under_way() -> None:
    assembler = MessageAssembler(ACCEPTED, lenient=False)
    encoded = encode_command(STORE)
    seen = [assembler.is_amid_message]
    for fragment in (command(3, encoded[:9], ends=False), command(3, encoded[9:]), content(3, b"", ends=True)):
        assembler.add(fragment)
        seen.append(assembler.is_amid_message)
    assert seen == [False, True, True, False]


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    ("fragments", "reason"),
    [
        pytest.param([command(5, b"")], 6, id="context that was not accepted"),
        pytest.param([content(1, b"")], 5, id="data set without a command"),
        pytest.param([command(1, b"ab", ends=False), content(1, b"")], 5, id="data set before the command ends"),
        pytest.param([command(1, encode_command(ECHO)), content(1, b"")], 5, id="data set that was not announced"),
        pytest.param([command(3, encode_command(STORE)), command(3, b"")], 5, id="command where a data set is due"),
        pytest.param([command(3, b"ab", ends=False), command(1, b"")], 5, id="two contexts in a command"),
        pytest.param([command(3, encode_command(STORE)), content(1, b"")], 5, id="two contexts in a message"),
        pytest.param([command(1, b"")], 6, id="empty command set"),
        pytest.param([command(1, bytes(COMMAND_SET_CAP + 1))], 6, id="huge command set"),
    ],
)
def test_what_leaves_nothing_but_an_abort(fragments: list[Fragment], reason: int, lenient: bool) -> None:
    assert refused(*fragments, lenient=lenient).reason == reason


def test_what_was_due_is_told() -> None:
    assert "a data set fragment where a command" in str(refused(content(1, b"")))
    assert "a command fragment where a data set" in str(refused(command(3, encode_command(STORE)), command(3, b"")))


def test_a_command_set_that_never_ends_is_refused_at_the_cap() -> None:
    block = bytes(1 << 15)
    up_to_the_cap = [command(1, block, ends=False)] * (COMMAND_SET_CAP // len(block))
    assert assembled(*up_to_the_cap, lenient=True) == []
    assert "more than" in str(refused(*up_to_the_cap, command(1, b"x", ends=False), lenient=True))


# Strict and lenient

HEAD = raw_element(0x0100, b"\x30\0")
MESSAGE_ID = raw_element(0x0110, b"\7\0")
WITH_DATA, WITHOUT_DATA = raw_element(0x0800, b"\1\0"), raw_element(0x0800, b"\1\1")
NO_SOP_CLASS = HEAD + MESSAGE_ID + WITHOUT_DATA


def test_strict_refuses_a_command_set_that_cannot_be_read() -> None:
    error = refused(command(1, NO_SOP_CLASS))
    assert error.reason == 6
    assert "missing" in str(error)


def test_lenient_tells_what_could_be_read_and_goes_on() -> None:
    events = assembled(command(1, NO_SOP_CLASS), command(1, encode_command(ECHO)), lenient=True)
    assert len(events) == 2
    assert isinstance(events[0], MalformedMessage)
    error = events[0].error
    assert (events[0].context_id, error.command_field, error.message_id, error.has_data_set) == (1, 0x30, 7, False)
    assert events[1] == MessageReceived(1, ECHO)


def test_lenient_passes_over_the_data_set_of_what_cannot_be_read() -> None:
    unknown = raw_element(0x0100, b"\x77\x77") + MESSAGE_ID + WITH_DATA
    fragments = [command(3, unknown), content(3, b"ab"), content(3, b"cd", ends=True)]
    malformed, *rest = assembled(*fragments, command(1, encode_command(ECHO)), lenient=True)
    assert isinstance(malformed, MalformedMessage)
    assert isinstance(malformed.error, UnknownCommand)
    assert rest == [MessageReceived(1, ECHO)]


def test_lenient_still_keeps_the_order_of_what_it_passes_over() -> None:
    unknown = raw_element(0x0100, b"\x77\x77") + MESSAGE_ID + WITH_DATA
    assert refused(command(3, unknown), command(3, encode_command(ECHO)), lenient=True).reason == 5


@pytest.mark.parametrize(
    "elements",
    [
        pytest.param(HEAD + WITHOUT_DATA, id="no message ID to answer to"),
        pytest.param(HEAD + MESSAGE_ID, id="no word on a data set"),
        pytest.param(HEAD + MESSAGE_ID + WITHOUT_DATA[:-1], id="cut short"),
        # PS3.7 9.3.2.3: C-CANCEL has no response, so a broken one cannot be answered either.
        pytest.param(raw_element(0x0100, b"\xff\x0f") + MESSAGE_ID + WITHOUT_DATA, id="cancel"),
    ],
)
def test_lenient_refuses_what_cannot_be_answered(elements: bytes) -> None:
    assert refused(command(1, elements), lenient=True).reason == 6


def test_lenient_goes_on_after_a_response_that_names_no_request() -> None:
    """Nobody has to be answered: it is enough to know what comes next."""
    response = raw_element(0x0100, b"\x30\x80")
    malformed, following = assembled(
        command(1, response + WITHOUT_DATA), command(1, encode_command(ECHO)), lenient=True
    )
    assert isinstance(malformed, MalformedMessage)
    assert (malformed.error.command_field, malformed.error.message_id) == (0x8030, None)
    assert following == MessageReceived(1, ECHO)
    assert refused(command(1, response), lenient=True).reason == 6


def test_a_proper_cancel_is_a_message() -> None:
    cancel = CCancelRQ(message_id_being_responded_to=7)
    assert assembled(command(1, encode_command(cancel)), lenient=True) == [MessageReceived(1, cancel)]


# Fragmenter

maxima = st.sampled_from((0, 8, 9, 10, 64, 65, 1024, 16384, 0xFFFFFFFF)) | st.integers(8, 300)


def limit(peer_maximum: int) -> int:
    return peer_maximum or UNLIMITED_PDU_LENGTH


def fragments_of(encoded: bytes, peer_maximum: int, *, is_command: bool) -> list[tuple[int, bytes]]:
    """Message control header and data of each fragment; checks what holds for all of them."""
    fragments: list[tuple[int, bytes]] = []
    for pdu_type, payload in split_pdus(encoded):
        assert pdu_type == 4
        assert len(payload) <= limit(peer_maximum)
        ((context_id, control, data),) = split_pdvs(payload)
        assert context_id == 3
        assert bool(control & 1) is is_command
        fragments.append((control, data))
    # "Each fragment of a message shall consist of an even number of bytes" (PS3.8 E.1): all that end inside it can.
    assert all(len(data) % 2 == 0 for _, data in fragments[:-1])
    return fragments


@given(maxima, st.binary(max_size=2000))
def test_a_data_set_is_cut_to_the_maximum_of_the_peer(peer_maximum: int, data: bytes) -> None:
    encoded = b"".join(Fragmenter(peer_maximum).data(3, memoryview(data), last=True))
    fragments = fragments_of(encoded, peer_maximum, is_command=False)
    assert b"".join(piece for _, piece in fragments) == data
    assert [control for control, _ in fragments] == [0] * (len(fragments) - 1) + [2]


@given(maxima, st.binary(min_size=1, max_size=2000))
def test_a_command_set_is_cut_to_the_maximum_of_the_peer(peer_maximum: int, data: bytes) -> None:
    fragments = fragments_of(Fragmenter(peer_maximum).command(3, data), peer_maximum, is_command=True)
    assert b"".join(piece for _, piece in fragments) == data
    assert [control for control, _ in fragments] == [1] * (len(fragments) - 1) + [3]


@given(maxima, st.lists(st.binary(max_size=100).map(lambda half: half * 2), max_size=5))
def test_a_data_set_in_pieces_ends_once(peer_maximum: int, pieces: list[bytes]) -> None:
    fragmenter = Fragmenter(peer_maximum)
    encoded = b"".join(b"".join(fragmenter.data(3, memoryview(piece), last=False)) for piece in pieces)
    encoded += b"".join(fragmenter.data(3, memoryview(b""), last=True))
    fragments = fragments_of(encoded, peer_maximum, is_command=False)
    assert b"".join(data for _, data in fragments) == b"".join(pieces)
    assert [control for control, _ in fragments] == [0] * (len(fragments) - 1) + [2]


@pytest.mark.parametrize(("peer_maximum", "payload"), [(8, 2), (9, 2), (10, 4), (16384, 16378), (16385, 16378)])
def test_as_much_is_sent_at_once_as_fits(peer_maximum: int, payload: int) -> None:
    """Six bytes of each PDU are the header of the PDV (PS3.8 Table 9-23, E.2)."""
    assert Fragmenter(peer_maximum).payload_maximum == payload


@pytest.mark.parametrize("peer_maximum", [0, UNLIMITED_PDU_LENGTH, 0xFFFFFFFF])
def test_beyond_our_own_cap_nothing_is_gained(peer_maximum: int) -> None:
    assert Fragmenter(peer_maximum).payload_maximum == UNLIMITED_PDU_LENGTH - 6


@pytest.mark.parametrize("peer_maximum", [1, 6, 7])
def test_a_maximum_without_room_for_data_is_an_invalid_parameter(peer_maximum: int) -> None:
    with pytest.raises(PduError, match=f"maximum PDU length of {peer_maximum} ") as caught:
        Fragmenter(peer_maximum)
    assert caught.value.reason == 6


def test_an_empty_piece_in_the_middle_sends_nothing() -> None:
    assert list(Fragmenter(0).data(3, memoryview(b""), last=False)) == []
    assert list(Fragmenter(0).data(3, memoryview(b""), last=True)) == [raw_p_data(raw_pdv(3, 2, b""))]


def test_large_data_is_sent_where_it_lies() -> None:
    data = memoryview(bytearray(40_000))
    buffers = list(Fragmenter(16384).data(3, data, last=True))
    slices = buffers[1::2]
    assert all(isinstance(each, memoryview) and each.obj is data.obj for each in slices)
    assert sum(len(each) for each in slices) == len(data)


def test_a_peer_that_wants_two_bytes_at_a_time_costs_no_more_than_the_bytes_it_gets() -> None:
    data = memoryview(bytes(1 << 16))
    tracemalloc.start()
    try:
        buffers = list(Fragmenter(8).data(3, data, last=True))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(buffers[0]) == len(data) // 2 * 14
    assert peak < 3 * len(buffers[0])
