"""Refusals of a request, whatever its kind (PS3.7 9.3, 10.3)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.wire_values import bytes16, messages
from tomowire.protocol.responses import bare_response, refusal
from tomowire.wire.command_set import decode_command, encode_command
from tomowire.wire.elements import MESSAGES
from tomowire.wire.messages import (
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CStoreRQ,
    CStoreRSP,
    NActionRQ,
    NActionRSP,
    NCreateRQ,
    NCreateRSP,
    Request,
)

REQUESTS = [kind for kind in MESSAGES.values() if issubclass(kind, Request)]


@given(st.sampled_from(REQUESTS).flatmap(messages), bytes16)
def test_every_request_can_be_refused(request: Any, status: int) -> None:
    """PS3.7 E.1: the response's command field is the request's with bit 15 set; the Message ID comes back, whatever it is."""
    response: Any = decode_command(encode_command(refusal(request, status, "why")))
    assert response.command_field == request.command_field | 0x8000
    assert response.message_id_being_responded_to == request.message_id
    assert (response.status, response.error_comment, response.has_data_set) == (status, "why", False)
    names = ("affected_sop_class_uid", "requested_sop_class_uid")
    assert response.affected_sop_class_uid == next(getattr(request, name) for name in names if hasattr(request, name))


def test_there_are_as_many_kinds_of_requests_as_the_standard_has() -> None:
    """Five of PS3.7 9.3, six of 10.3; C-CANCEL has no response."""
    assert len(REQUESTS) == 11


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (
            CStoreRQ(message_id=1, affected_sop_class_uid="1.2", affected_sop_instance_uid="1.3"),
            CStoreRSP(
                message_id_being_responded_to=1,
                affected_sop_class_uid="1.2",
                affected_sop_instance_uid="1.3",
                status=0x0122,
            ),
        ),
        (
            CFindRQ(message_id=2, affected_sop_class_uid="1.2"),
            CFindRSP(message_id_being_responded_to=2, affected_sop_class_uid="1.2", status=0x0122),
        ),
        (
            NActionRQ(message_id=3, requested_sop_class_uid="1.2", requested_sop_instance_uid="1.3", action_type_id=1),
            NActionRSP(
                message_id_being_responded_to=3,
                affected_sop_class_uid="1.2",
                affected_sop_instance_uid="1.3",
                status=0x0122,
            ),
        ),
        (
            NCreateRQ(message_id=4, affected_sop_class_uid="1.2"),
            NCreateRSP(message_id_being_responded_to=4, affected_sop_class_uid="1.2", status=0x0122),
        ),
    ],
)
def test_class_and_instance_are_sent_back_where_the_response_has_them(request_: Request, response: Any) -> None:
    assert refusal(request_, 0x0122) == response


@given(bytes16.map(lambda field: field & 0x7FFF), bytes16, bytes16)
def test_a_bare_response_is_a_whole_command_set(command_field: int, message_id: int, status: int) -> None:
    encoded = bare_response(command_field, message_id, status)
    # Group length: all that follows it (PS3.7 9.3); elements ascending (6.3.1).
    assert encoded[:12] == bytes.fromhex("0000 0000 04000000") + (len(encoded) - 12).to_bytes(4, "little")
    assert [encoded[at + 2 : at + 4][::-1].hex() for at in range(12, len(encoded), 10)] == [
        "0100",
        "0120",
        "0800",
        "0900",
    ]
    assert encoded[20:22] == (command_field | 0x8000).to_bytes(2, "little")


def test_a_bare_response_is_what_the_codec_would_make() -> None:
    expected = encode_command(CEchoRSP(message_id_being_responded_to=7, status=0x0211))
    assert bare_response(0x0030, 7, 0x0211) == expected
