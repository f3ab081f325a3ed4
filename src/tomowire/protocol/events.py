"""What the protocol tells its user: a small frozen fact for each indication, confirmation (PS3.8 section 7) and message."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.errors import AssociationError, CommandSetError
    from tomowire.wire.command_set import Message
    from tomowire.wire.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ


@value()
class AssociateRequested:
    """A-ASSOCIATE indication: answer with `accept` or `reject`."""

    request: AAssociateRQ


@value()
class AssociateAccepted:
    """A-ASSOCIATE confirmation (accept): the association is established."""

    response: AAssociateAC


@value()
class AssociateRejected:
    """A-ASSOCIATE confirmation (reject): there is no association."""

    response: AAssociateRJ


@value()
class MessageReceived:
    """A whole command set. When `message.has_data_set`, the `DataReceived` that follow are its data set."""

    context_id: int
    message: Message


@value()
class MalformedMessage:
    """A command set that cannot be decoded (only in lenient mode: else the association is aborted). Its data set is passed over."""

    context_id: int
    error: CommandSetError


@value()
class DataReceived:
    """A piece of the data set of the last message: `data` is a slice of what was given to `receive`, never a copy."""

    data: memoryview
    last: bool


@value()
class ReleaseRequested:
    """A-RELEASE indication: answer with `respond_to_release`. `collision` when we had asked ourselves (PS3.8 AR-8)."""

    collision: bool


@value()
class ReleaseConfirmed:
    """A-RELEASE confirmation: the peer agrees. After a collision the acceptor still has its own answer to give (Sta12)."""


@value()
class AssociationEnded:
    """A-ABORT or A-P-ABORT indication: the association is over, `error` says how and why."""

    error: AssociationError


ProtocolEvent: TypeAlias = (
    AssociateRequested
    | AssociateAccepted
    | AssociateRejected
    | MessageReceived
    | MalformedMessage
    | DataReceived
    | ReleaseRequested
    | ReleaseConfirmed
    | AssociationEnded
)
