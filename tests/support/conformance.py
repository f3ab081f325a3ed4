"""What the conformance cases share: requests and messages of the peer, put together byte by byte."""

from __future__ import annotations

from support.upper_layers import (
    ABORT,
    CT,
    CT_CONTEXT,
    IMPLICIT,
    RQ,
    SUPPORTED,
    VERIFICATION,
    Supports,
    in_state,
    raw_p_data,
    raw_pdu,
    raw_pdv,
    receive,
    sent,
)
from support.wire_values import raw_item
from tomowire.protocol.acceptance import AcceptorPolicy, answer
from tomowire.protocol.events import AssociateRequested, AssociationEnded
from tomowire.protocol.states import State
from tomowire.protocol.upper_layer import UpperLayer
from tomowire.wire.command_set import encode_command
from tomowire.wire.messages import CCancelRQ, CEchoRQ, CFindRQ, CStoreRQ
from tomowire.wire.pdu import AAssociateAC, AAssociateRQ

STA1, STA3, STA6 = State.STA1_IDLE, State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE, State.STA6_DATA_TRANSFER
STA13 = State.STA13_AWAITING_TRANSPORT_CLOSE

APPLICATION_CONTEXT = raw_item(0x10, b"1.2.840.10008.3.1.1.1")
USER_INFORMATION = raw_item(0x50, raw_item(0x51, bytes((0, 0, 0x40, 0))))
ABORT_2_1, ABORT_2_2, ABORT_2_5, ABORT_2_6 = (raw_pdu(ABORT, bytes((0, 0, 2, reason))) for reason in (1, 2, 5, 6))
ABORT_USER = raw_pdu(ABORT, bytes(4))

ECHO = CEchoRQ(message_id=1, affected_sop_class_uid=VERIFICATION)
STORE = CStoreRQ(message_id=2, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2.3")


def raw_context(context_id: int, abstract_syntax: bytes = CT.encode(), *transfer_syntaxes: bytes) -> bytes:
    transfer = b"".join(raw_item(0x40, each) for each in transfer_syntaxes or (IMPLICIT.encode(),))
    return raw_item(0x20, bytes((context_id, 0, 0, 0)) + raw_item(0x30, abstract_syntax) + transfer)


def raw_request(
    *items: bytes,
    version: int = 1,
    called: bytes = b"ACCEPTOR",
    calling: bytes = b"REQUESTOR",
    reserved: int = 0,
) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 Table 9-11); without `items`, with what it must have."""
    titles = called.ljust(16) + calling.ljust(16)
    fixed = version.to_bytes(2, "big") + bytes((reserved,)) * 2 + titles + bytes((reserved,)) * 32
    body = fixed + b"".join(items or (APPLICATION_CONTEXT, raw_context(1), USER_INFORMATION))
    return raw_pdu(RQ, body, reserved=reserved)


def awaiting_request() -> UpperLayer:
    return in_state(State.STA2_AWAITING_ASSOCIATE_RQ, is_requestor=False)


def established(*, is_requestor: bool = False, lenient: bool = False, maximum_length: int = 16384) -> UpperLayer:
    return in_state(STA6, is_requestor=is_requestor, lenient=lenient, maximum_length=maximum_length)


def aborted_with(upper: UpperLayer, data: bytes) -> bytes:
    """What is sent in answer to `data`, which must end the association."""
    events = receive(upper, data)
    assert isinstance(events[-1], AssociationEnded)
    assert upper.state is STA13
    return sent(upper)


def asked(*items: bytes, **fields: int | bytes) -> AAssociateRQ:
    """The request as the acceptor's user is told of it."""
    (event,) = receive(awaiting_request(), raw_request(*items, **fields))  # type: ignore[arg-type]
    assert isinstance(event, AssociateRequested)
    return event.request


def answered(*contexts: bytes, supported: Supports = SUPPORTED, information: bytes = b"") -> AAssociateAC:
    user_information = raw_item(0x50, raw_item(0x51, bytes(4)) + information)
    response = answer(asked(APPLICATION_CONTEXT, *contexts, user_information), AcceptorPolicy(supported))
    assert isinstance(response, AAssociateAC)
    return response


def command_pdv(message: CEchoRQ | CStoreRQ | CCancelRQ | CFindRQ, context_id: int = CT_CONTEXT) -> bytes:
    return raw_pdv(context_id, 3, encode_command(message))


def p_data_in_one_byte_fragments(encoded: bytes, context_id: int) -> bytes:
    last = len(encoded) - 1
    return b"".join(
        raw_p_data(raw_pdv(context_id, 3 if at == last else 1, bytes((byte,)))) for at, byte in enumerate(encoded)
    )
