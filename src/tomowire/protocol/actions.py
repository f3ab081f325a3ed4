"""The actions of PS3.8 9.2.2 (Tables 9-6 to 9-9), one function each: do what the standard says, return the next state.

`upper` is the automaton that acts, `argument` what came with the event: a PDU to send; a PDU received, or only its name where its
content does not matter; an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from tomowire.errors import AssociationAborted, AssociationLost, PduError
from tomowire.protocol.events import (
    AssociateAccepted,
    AssociateRejected,
    AssociateRequested,
    AssociationEnded,
    ReleaseConfirmed,
    ReleaseRequested,
)
from tomowire.protocol.reasons import (
    SERVICE_PROVIDER,
    SERVICE_USER,
    describe_abort,
)
from tomowire.protocol.states import State
from tomowire.wire.abort_reasons import INVALID_PDU_PARAMETER, UNEXPECTED_PDU
from tomowire.wire.pdu import AAbort, AAssociateAC, AAssociateRJ, AAssociateRQ, AReleaseRP, AReleaseRQ, encode_pdu

if TYPE_CHECKING:
    from tomowire.protocol.upper_layer import UpperLayer

_VERSION_1: Final = 0x0001
_RELEASE_RQ: Final = encode_pdu(AReleaseRQ())
_RELEASE_RP: Final = encode_pdu(AReleaseRP())


# Table 9-6: establishment


def ae_1_open_transport(upper: UpperLayer, argument: object) -> State:
    """The connection is opened by whoever drives this automaton; the request waits for it."""
    upper.pending_request = cast("AAssociateRQ", argument)
    return State.STA4_AWAITING_TRANSPORT_OPEN


def ae_2_send_associate_rq(upper: UpperLayer, _: object) -> State:
    upper.write(encode_pdu(cast("AAssociateRQ", upper.pending_request)))
    return State.STA5_AWAITING_ASSOCIATE_AC_OR_RJ


def ae_3_confirm_accept(upper: UpperLayer, argument: object) -> State:
    upper.emit(AssociateAccepted(cast("AAssociateAC", argument)))
    return State.STA6_DATA_TRANSFER


def ae_4_confirm_reject(upper: UpperLayer, argument: object) -> State:
    upper.emit(AssociateRejected(cast("AAssociateRJ", argument)))
    upper.close()
    return State.STA1_IDLE


def ae_5_start_artim(upper: UpperLayer, _: object) -> State:
    upper.start_artim()
    return State.STA2_AWAITING_ASSOCIATE_RQ


def ae_6_examine_associate_rq(upper: UpperLayer, argument: object) -> State:
    """What the provider itself can refuse is the protocol version; all else is the user's matter (`negotiation`)."""
    request = cast("AAssociateRQ", argument)
    upper.stop_artim()
    # PS3.8 9.3.2: only bit 0 is tested.
    if not request.protocol_version & _VERSION_1:
        return ae_8_send_associate_rj(upper, AAssociateRJ(result=1, source=2, reason=2))
    upper.emit(AssociateRequested(request))
    return State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE


def ae_7_send_associate_ac(upper: UpperLayer, argument: object) -> State:
    upper.write(encode_pdu(cast("AAssociateAC", argument)))
    return State.STA6_DATA_TRANSFER


def ae_8_send_associate_rj(upper: UpperLayer, argument: object) -> State:
    upper.write(encode_pdu(cast("AAssociateRJ", argument)))
    upper.start_artim()
    return State.STA13_AWAITING_TRANSPORT_CLOSE


# Table 9-7: data transfer. The payload itself goes round the automaton: in as fragments, out as buffers.


def dt_1_send_p_data(_upper: UpperLayer, _: object) -> State:
    return State.STA6_DATA_TRANSFER


def dt_2_indicate_p_data(_upper: UpperLayer, _: object) -> State:
    return State.STA6_DATA_TRANSFER


# Table 9-8: release


def ar_1_send_release_rq(upper: UpperLayer, _: object) -> State:
    upper.write(_RELEASE_RQ)
    return State.STA7_AWAITING_RELEASE_RP


def ar_2_indicate_release(upper: UpperLayer, _: object) -> State:
    upper.emit(ReleaseRequested(collision=False))
    return State.STA8_AWAITING_LOCAL_RELEASE_RESPONSE


def ar_3_confirm_release(upper: UpperLayer, _: object) -> State:
    upper.emit(ReleaseConfirmed())
    upper.close()
    return State.STA1_IDLE


def ar_4_send_release_rp(upper: UpperLayer, _: object) -> State:
    upper.write(_RELEASE_RP)
    upper.start_artim()
    return State.STA13_AWAITING_TRANSPORT_CLOSE


def ar_5_stop_artim(upper: UpperLayer, _: object) -> State:
    upper.stop_artim()
    return State.STA1_IDLE


def ar_6_indicate_p_data(_upper: UpperLayer, _: object) -> State:
    return State.STA7_AWAITING_RELEASE_RP


def ar_7_send_p_data(_upper: UpperLayer, _: object) -> State:
    return State.STA8_AWAITING_LOCAL_RELEASE_RESPONSE


def ar_8_indicate_release_collision(upper: UpperLayer, _: object) -> State:
    upper.emit(ReleaseRequested(collision=True))
    if upper.is_requestor:
        return State.STA9_COLLISION_REQUESTOR_AWAITING_LOCAL_RELEASE_RESPONSE
    return State.STA10_COLLISION_ACCEPTOR_AWAITING_RELEASE_RP


def ar_9_send_release_rp(upper: UpperLayer, _: object) -> State:
    upper.write(_RELEASE_RP)
    return State.STA11_COLLISION_REQUESTOR_AWAITING_RELEASE_RP


def ar_10_confirm_release_collision(upper: UpperLayer, _: object) -> State:
    upper.emit(ReleaseConfirmed())
    return State.STA12_COLLISION_ACCEPTOR_AWAITING_LOCAL_RELEASE_RESPONSE


# Table 9-9: abort. The argument of an abort of our own is the PduError that says why, or None when the user asked.


def aa_1_send_abort(upper: UpperLayer, argument: object) -> State:
    """Service-user source (0), for which PS3.8 9.3.8 makes the reason insignificant: sent as 0.

    The exception is a known PDU with an invalid content, such as an A-ASSOCIATE-RQ with a context ID of 2: source 2 is the only
    way of Table 9-26 to tell the peer's engineer what was wrong, so it gets 2/6 here as it does in every other state.
    """
    source, reason = SERVICE_USER, 0
    if isinstance(argument, PduError) and argument.reason == INVALID_PDU_PARAMETER:
        source, reason = SERVICE_PROVIDER, INVALID_PDU_PARAMETER
    upper.write(encode_pdu(AAbort(source=source, reason=reason)))
    upper.restart_artim()
    upper.emit(AssociationEnded(_own_abort(argument, source=source, reason=reason)))
    return State.STA13_AWAITING_TRANSPORT_CLOSE


def aa_2_close(upper: UpperLayer, _: object) -> State:
    upper.stop_artim()
    upper.close()
    return State.STA1_IDLE


def aa_3_indicate_abort(upper: UpperLayer, argument: object) -> State:
    abort = cast("AAbort", argument)
    text = f"the peer aborted the association: {describe_abort(abort.source, abort.reason)}"
    upper.emit(
        AssociationEnded(AssociationAborted(text, source=abort.source, reason=abort.reason, by_peer=True)),
    )
    upper.close()
    return State.STA1_IDLE


def aa_4_indicate_connection_lost(upper: UpperLayer, argument: object) -> State:
    cause = f": {argument}" if argument is not None else ""
    upper.emit(AssociationEnded(AssociationLost(f"the connection was closed without a release or an abort{cause}")))
    return State.STA1_IDLE


def aa_5_stop_artim(upper: UpperLayer, _: object) -> State:
    upper.stop_artim()
    return State.STA1_IDLE


def aa_6_ignore(_upper: UpperLayer, _: object) -> State:
    return State.STA13_AWAITING_TRANSPORT_CLOSE


def aa_7_send_abort_again(upper: UpperLayer, argument: object) -> State:
    """Once: a peer that goes on sending requests and reads nothing must not fill our memory with aborts."""
    if not upper.has_aborted_again:
        upper.has_aborted_again = True
        upper.write(encode_pdu(AAbort(source=SERVICE_PROVIDER, reason=_reason(argument))))
    return State.STA13_AWAITING_TRANSPORT_CLOSE


def aa_8_abort_as_provider(upper: UpperLayer, argument: object) -> State:
    reason = _reason(argument)
    upper.write(encode_pdu(AAbort(source=SERVICE_PROVIDER, reason=reason)))
    upper.emit(AssociationEnded(_own_abort(argument, source=SERVICE_PROVIDER, reason=reason)))
    upper.start_artim()
    return State.STA13_AWAITING_TRANSPORT_CLOSE


def _reason(argument: object) -> int:
    """The reason of an abort by the provider: an error knows it, and a PDU was then not expected."""
    return argument.reason if isinstance(argument, PduError) else UNEXPECTED_PDU


def _own_abort(argument: object, *, source: int, reason: int) -> AssociationAborted:
    foreign = None
    if argument is None:
        text = "the association was aborted on this side"
    elif isinstance(argument, PduError):
        text = f"the peer broke the protocol and the association was aborted: {argument}"
        foreign = argument.foreign
    else:
        text = f"the peer sent {argument} where the protocol does not allow it, and the association was aborted"
    return AssociationAborted(text, source=source, reason=reason, by_peer=False, foreign=foreign)
