"""Whatever comes, in whatever state and pieces: no exception, the same outcome, bounded memory, and a state that still works."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.table_9_10 import let_happen
from support.upper_layers import (
    ABORT,
    AC,
    CT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    P_DATA,
    REACHABLE,
    RELEASE_RP,
    RELEASE_RQ,
    RJ,
    RQ,
    VERIFICATION,
    accepted,
    in_state,
    proposal,
    raw_element,
    raw_p_data,
    raw_pdu,
    raw_pdv,
    sent,
    split_pdus,
)
from support.wire_values import mutilated
from tomowire.errors import UsageError
from tomowire.protocol.events import AssociationEnded, DataReceived, MalformedMessage, ProtocolEvent
from tomowire.protocol.reader import ASSOCIATE_CAP
from tomowire.protocol.states import Event, State
from tomowire.protocol.upper_layer import UpperLayer
from tomowire.wire.command_set import encode_command
from tomowire.wire.messages import CEchoRQ, CStoreRQ
from tomowire.wire.pdu import encode_pdu

MAXIMUM: Final = 256
"""The P-DATA-TF length that the ends of these tests announce."""

COMMANDS: Final = (
    encode_command(CEchoRQ(message_id=1, affected_sop_class_uid=VERIFICATION)),
    encode_command(CStoreRQ(message_id=2, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2.3")),
    raw_element(0x0100, b"\x77\x77")
    + raw_element(0x0110, b"\7\0")
    + raw_element(0x0800, b"\1\0"),  # unknown, with data
)
contexts = st.sampled_from((ECHO_CONTEXT, CT_CONTEXT, CT_CONTEXT, 5))
pdvs = st.one_of(
    st.builds(raw_pdv, contexts, st.just(3), st.sampled_from(COMMANDS)),
    st.builds(raw_pdv, contexts, st.just(1), st.sampled_from([each[:20] for each in COMMANDS])),
    st.builds(raw_pdv, contexts, st.integers(0, 3), st.binary(max_size=10)),
    st.builds(raw_pdv, contexts, st.sampled_from((0, 2)), st.binary(max_size=10)),
)
whole_pdus = st.one_of(
    st.lists(pdvs, min_size=1, max_size=3).map(lambda some: raw_p_data(*some)),
    st.sampled_from((encode_pdu(proposal()), encode_pdu(accepted(proposal())))),
    st.builds(raw_pdu, st.sampled_from((RJ, RELEASE_RQ, RELEASE_RP, ABORT)), st.binary(min_size=4, max_size=4)),
)
lies = st.builds(
    lambda pdu_type, length, rest: raw_pdu(pdu_type, rest, length=length),
    st.integers(0, 9),
    st.sampled_from((0, 1, 3, 5, 6, 67, 68, MAXIMUM, MAXIMUM + 1, ASSOCIATE_CAP, ASSOCIATE_CAP + 1, 0xFFFFFFFF)),
    st.binary(max_size=20),
)
streams = st.lists(whole_pdus | whole_pdus | mutilated(whole_pdus) | lies | st.binary(max_size=20), max_size=5).map(
    b"".join
)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    return [data[start:end] for start, end in pairwise([0, *cuts, len(data)])]


def facts(events: Iterable[ProtocolEvent]) -> list[object]:
    """Events in a form that can be compared, data sets put together as far as they came without interruption."""
    told: list[object] = []
    for event in events:
        if isinstance(event, DataReceived):
            data, last = bytes(event.data), event.last
            if told and isinstance(told[-1], tuple) and told[-1][1] is False:
                data = told.pop()[0] + data
            told.append((data, last))
        elif isinstance(event, AssociationEnded | MalformedMessage):
            told.append((type(event), str(event.error), vars(event.error)))
        else:
            told.append(event)
    return [fact for fact in told if fact != (b"", False)]


def outcome(upper: UpperLayer, segments: Sequence[bytes]) -> tuple[object, ...]:
    events = [event for segment in segments for event in upper.receive(memoryview(segment), 1.0)]
    return facts(events), sent(upper), upper.state, upper.close_requested, upper.deadline


reachable = st.sampled_from(REACHABLE)


@settings(max_examples=600)
@given(reachable, st.booleans(), streams, st.data())
@example((State.STA2_AWAITING_ASSOCIATE_RQ, False), False, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", None)
@example((State.STA2_AWAITING_ASSOCIATE_RQ, False), False, bytes.fromhex("16030100c8010000c40303"), None)
def test_any_bytes_in_any_state_in_any_pieces(
    where: tuple[State, bool], lenient: bool, stream: bytes, data: st.DataObject | None
) -> None:
    state, is_requestor = where
    one_by_one = range(1, len(stream))
    cuts: Iterable[int] = one_by_one
    if data is not None:
        cuts = data.draw(st.just(one_by_one) | st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
    results = []
    for segments in ([stream], pieces(stream, cuts)):
        upper = in_state(state, is_requestor=is_requestor, lenient=lenient, maximum_length=MAXIMUM)
        results.append(outcome(upper, segments))
        check_sound(upper, results[-1][1])
    assert results[0] == results[1]


def check_sound(upper: UpperLayer, output: object) -> None:
    """The timer runs where PS3.8 has it run, what was sent is made of PDUs, and every further event is dealt with."""
    assert isinstance(upper.state, State)
    runs = upper.state in (State.STA2_AWAITING_ASSOCIATE_RQ, State.STA13_AWAITING_TRANSPORT_CLOSE)
    assert (upper.deadline is not None) is runs
    assert isinstance(output, bytes)
    for pdu_type, payload in split_pdus(output):
        assert pdu_type in (RJ, ABORT)  # all that an end says without its user having said so
        assert len(payload) == 4
    for event in Event:
        try:
            let_happen(upper, event)
        except UsageError:
            assert event not in (Event.EVT10_P_DATA_TF_RECEIVED, Event.EVT17_TRANSPORT_CLOSED)
    assert upper.state in (State.STA1_IDLE, State.STA4_AWAITING_TRANSPORT_OPEN)


BLOCK: Final = 1 << 16
FLOODS: Final = {
    "a request that never ends": raw_pdu(RQ, b"", length=ASSOCIATE_CAP),
    "an answer that never ends": raw_pdu(AC, b"", length=ASSOCIATE_CAP),
    "a PDU of 4 GiB": raw_pdu(P_DATA, b"", length=0xFFFFFFFF) + raw_pdv(CT_CONTEXT, 0, b"", length=0xFFFFFFFB),
    "a command set of 4 GiB": raw_pdu(P_DATA, b"", length=0xFFFFFFFF) + raw_pdv(1, 1, b"", length=0xFFFFFFFB),
    "a data set of 4 GiB": raw_p_data(raw_pdv(CT_CONTEXT, 3, COMMANDS[1]))
    + raw_pdu(P_DATA, b"", length=0xFFFFFFFF)
    + raw_pdv(CT_CONTEXT, 0, b"", length=0xFFFFFFFB),
}
REPEATED: Final = {
    "requests": encode_pdu(proposal()),
    "releases": raw_pdu(RELEASE_RQ),
    "empty fragments": raw_p_data(raw_pdv(ECHO_CONTEXT, 1, b"")),
    "aborts": raw_pdu(ABORT),
    "nothing known": raw_pdu(0x42),
}


@pytest.mark.parametrize(("state", "is_requestor"), REACHABLE)
def test_no_flood_costs_more_than_the_caps(state: State, is_requestor: bool) -> None:
    """What is gathered is capped, what is passed on is not kept, what is answered is answered once."""
    rest = memoryview(b"\1" * BLOCK)
    for name, head in FLOODS.items():
        assert cost(state, is_requestor, [memoryview(head), *[rest] * 32]) < 3 * ASSOCIATE_CAP, name
    for name, pdu in REPEATED.items():
        assert cost(state, is_requestor, [memoryview(pdu * 200)] * 8) < 1 << 17, name


def test_a_request_made_of_empty_items_costs_a_small_multiple_of_its_size() -> None:
    head = memoryview(encode_pdu(proposal())[6:74])
    request = [memoryview(raw_pdu(RQ, b"", length=ASSOCIATE_CAP)), head, memoryview(bytes(ASSOCIATE_CAP - 68))]
    assert cost(State.STA2_AWAITING_ASSOCIATE_RQ, False, request) < 20 * ASSOCIATE_CAP


def cost(state: State, is_requestor: bool, segments: Sequence[memoryview]) -> int:
    """The most memory that is in use while `segments` come, events not kept."""
    upper = in_state(state, is_requestor=is_requestor, lenient=True)
    tracemalloc.start()
    try:
        for segment in segments:
            upper.receive(segment, 0.0)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
