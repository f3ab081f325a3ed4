"""PS3.8 Table 9-10 and 9.2.2 as they were typed from the standard, and how each event is brought about."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Final

from support.upper_layers import (
    ABORT,
    ECHO_CONTEXT,
    RELEASE_RP,
    RELEASE_RQ,
    RJ,
    VERIFICATION,
    accepted,
    proposal,
    raw_p_data,
    raw_pdu,
    raw_pdv,
    receive,
)
from tomowire.protocol.events import ProtocolEvent
from tomowire.protocol.states import Event, State
from tomowire.protocol.upper_layer import UpperLayer
from tomowire.wire.command_set import encode_command
from tomowire.wire.messages import CEchoRQ
from tomowire.wire.pdu import AAssociateRJ, encode_pdu

_FOLDER: Final = Path(__file__).parents[1] / "protocol"
ECHO: Final = CEchoRQ(message_id=7, affected_sop_class_uid=VERIFICATION)
NOW: Final = 100.0


@cache
def table_9_10() -> dict[tuple[State, Event], str]:
    """The code of the action in each cell that is not empty."""
    with (_FOLDER / "table_9_10.csv").open(newline="") as file:
        return {
            (State(int(column[3:])), Event(int(row["event"][3:]))): code
            for row in csv.DictReader(file)
            for column, code in row.items()
            if column.startswith("Sta") and code
        }


@cache
def actions_9_2_2() -> dict[str, set[State]]:
    """The states to which each action leads."""
    with (_FOLDER / "actions_9_2_2.csv").open(newline="") as file:
        return {
            row["action"]: {State(int(name[3:])) for name in row["next_states"].split("|")}
            for row in csv.DictReader(file)
        }


_RECEIVED: Final = {
    Event.EVT3_ASSOCIATE_AC_RECEIVED: encode_pdu(accepted(proposal())),
    Event.EVT4_ASSOCIATE_RJ_RECEIVED: raw_pdu(RJ, bytes((0, 1, 1, 1))),
    Event.EVT6_ASSOCIATE_RQ_RECEIVED: encode_pdu(proposal()),
    Event.EVT10_P_DATA_TF_RECEIVED: raw_p_data(raw_pdv(ECHO_CONTEXT, 3, encode_command(ECHO))),
    Event.EVT12_RELEASE_RQ_RECEIVED: raw_pdu(RELEASE_RQ),
    Event.EVT13_RELEASE_RP_RECEIVED: raw_pdu(RELEASE_RP),
    Event.EVT16_ABORT_RECEIVED: raw_pdu(ABORT),
    Event.EVT19_INVALID_PDU_RECEIVED: raw_pdu(0x42),
}


def let_happen(upper: UpperLayer, event: Event) -> list[ProtocolEvent]:  # noqa: C901 - one case for each row
    """Bring `event` about at time `NOW`, as the user, the peer, the connection or the timer does; return what the user is told."""
    if event in _RECEIVED:
        return receive(upper, _RECEIVED[event], now=NOW)
    match event:
        case Event.EVT1_ASSOCIATE_REQUEST:
            upper.associate(proposal(), NOW)
        case Event.EVT2_TRANSPORT_CONNECTED | Event.EVT5_TRANSPORT_CONNECTION_INDICATION:
            upper.connection_made(NOW)
        case Event.EVT7_ASSOCIATE_RESPONSE_ACCEPT:
            upper.accept(proposal(), accepted(proposal()), NOW)
        case Event.EVT8_ASSOCIATE_RESPONSE_REJECT:
            upper.reject(AAssociateRJ(1, 1, 1), NOW)
        case Event.EVT9_P_DATA_REQUEST:
            upper.send_message(ECHO_CONTEXT, ECHO)
        case Event.EVT11_RELEASE_REQUEST:
            upper.release(NOW)
        case Event.EVT14_RELEASE_RESPONSE:
            upper.respond_to_release(NOW)
        case Event.EVT15_ABORT_REQUEST:
            upper.abort(NOW)
        case Event.EVT17_TRANSPORT_CLOSED:
            return upper.connection_lost(NOW)
        case Event.EVT18_ARTIM_EXPIRED:
            upper.handle_timeout(NOW)
    return upper.take_events()
