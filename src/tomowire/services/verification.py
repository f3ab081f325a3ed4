"""The Verification service class (PS3.4 Annex A): C-ECHO, both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.protocol.negotiation import ProposedContext
from tomowire.protocol.status import SOP_CLASS_NOT_SUPPORTED, SUCCESS, UNRECOGNIZED_OPERATION, Status
from tomowire.services.arguments import checked_association
from tomowire.uids import TRANSFER_SYNTAXES, VERIFICATION
from tomowire.wire.messages import CEchoRQ, CEchoRSP

if TYPE_CHECKING:
    from collections.abc import Container

    from tomowire.aio.association import Association
    from tomowire.aio.serving import IncomingRequest

DEFAULT_ECHO_TIMEOUT: Final = 30.0


def verification(transfer_syntaxes: tuple[str, ...] = ("1.2.840.10008.1.2",)) -> ProposedContext:
    """The presentation context to propose for C-ECHO; Implicit VR Little Endian is what every peer has (PS3.5 10.1)."""
    return ProposedContext(VERIFICATION, transfer_syntaxes)


class CEchoScu:
    """C-ECHO on an association that has a presentation context for Verification."""

    def __init__(self, association: Association) -> None:
        self._association: Association = checked_association(association, "CEchoScu")

    async def echo(self, *, timeout: float = DEFAULT_ECHO_TIMEOUT) -> Status:
        """One C-ECHO (PS3.7 9.1.5). Returns the status; raises `OperationTimeout` when no answer came in `timeout` seconds."""
        association = self._association
        context = association.context(VERIFICATION)
        request = CEchoRQ(message_id=association.next_message_id(), affected_sop_class_uid=VERIFICATION)
        async with association.operation(request, name="C-ECHO", timeout=timeout) as operation:
            await association.send(context.context_id, request)
            response = await operation.only_response()
        return Status(response.status)


class Verification:
    """The Verification SCP: answers every C-ECHO with Success, if it is meant for Verification."""

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return TRANSFER_SYNTAXES if abstract_syntax == VERIFICATION else None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return False

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        return None

    async def handle(self, request: IncomingRequest) -> None:
        message = request.message
        if not isinstance(message, CEchoRQ):
            await request.refuse(UNRECOGNIZED_OPERATION)
            return
        is_meant = message.affected_sop_class_uid == request.context.abstract_syntax
        await request.respond(
            CEchoRSP(
                message_id_being_responded_to=message.message_id,
                affected_sop_class_uid=message.affected_sop_class_uid,
                status=SUCCESS if is_meant else SOP_CLASS_NOT_SUPPORTED,  # PS3.7 9.1.5.1.4
            )
        )
