"""What an acceptor does at each step of an association: all as it should. A fault overrides the step at which it goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.protocol.responses import refusal
from tomowire.protocol.status import PENDING, SUCCESS
from tomowire.testing.raw import Closed, message_pdus
from tomowire.testing.samples import SYNTAXES, new_uid, sample_match, sample_object
from tomowire.uids import STORAGE_SOP_CLASSES
from tomowire.wire.elements import DATA_SET_PRESENT
from tomowire.wire.items import ContextResult, PresentationContextAC
from tomowire.wire.messages import CFindRQ, CFindRSP, CGetRQ, CGetRSP, CMoveRQ, CMoveRSP, CStoreRQ
from tomowire.wire.pdu import AAssociateAC, AReleaseRP, encode_pdu
from tomowire.wire.user_information import UserInformation

if TYPE_CHECKING:
    from tomowire.testing.raw import RawConnection, RawMessage
    from tomowire.wire.messages import Response
    from tomowire.wire.pdu import AAssociateRQ, Pdu


class Enough(Exception):
    """So many bytes have come that it is time to leave."""


class Talk:
    """One connection to a `FaultyPeer`: what is said on it, by the behaviour that is in force."""

    def __init__(self, connection: RawConnection, behaviour: Behaviour) -> None:
        self.connection = connection
        self.behaviour = behaviour
        self.contexts: dict[int, tuple[str, str]] = {}
        """The abstract and transfer syntax of each accepted presentation context."""

    async def send(self, *items: bytes | Pdu) -> None:
        """Send bytes and PDUs, in the way of the behaviour."""
        data = b"".join(item if isinstance(item, bytes) else encode_pdu(item) for item in items)
        await self.behaviour.write(self, data)

    def leave_after(self, count: int) -> None:
        """Have `Behaviour.leave` called when `count` more bytes have come; not one more is read."""
        connection = self.connection
        end = connection.received + count

        def check() -> None:
            left = end - connection.received
            if left > 0:
                connection.most = min(most, left)
                return
            connection.most, connection.on_received = most, None
            raise Enough

        most = connection.most
        connection.most = min(most, count)
        connection.on_received = check

    def reset(self) -> None:
        """End with a TCP RST."""
        self.connection.reset()
        raise Closed

    async def close(self) -> None:
        """End with a TCP FIN, and read what still comes: closing with bytes unread would send RST."""
        try:
            self.connection.half_close()
        except OSError:
            raise Closed from None  # the other side was faster
        await self.connection.read_until_closed()
        raise Closed


class Behaviour:
    """An acceptor that does all as it should. To write a fault of your own, derive from it and override a step.

    C-ECHO and C-STORE are answered with Success, C-FIND with one study, C-MOVE as if one object had been moved, C-GET with one
    object if a context for storage was accepted, all others with Success. `per_request` says what `after` and `times` of
    `FaultyPeer` count: requests, or connections.
    """

    per_request: bool = False

    async def connected(self, talk: Talk) -> None:
        """The connection is open; nothing has come yet."""

    async def associate(self, talk: Talk, request: AAssociateRQ) -> None:
        """The peer asks for an association."""
        await talk.send(self.acceptance(talk, request))

    def acceptance(self, talk: Talk, request: AAssociateRQ) -> AAssociateAC:
        """The A-ASSOCIATE-AC: all contexts with their first transfer syntax that is usable here, all roles, a window of one."""
        contexts = []
        for each in request.presentation_contexts:
            syntax = next((one for one in each.transfer_syntaxes if one in SYNTAXES), each.transfer_syntaxes[0])
            talk.contexts[each.context_id] = (each.abstract_syntax, syntax)
            contexts.append(PresentationContextAC(each.context_id, ContextResult.ACCEPTANCE, syntax))
        information = UserInformation(
            implementation_class_uid="1.2.3", role_selections=request.user_information.role_selections
        )
        return AAssociateAC(request.called_ae_title, request.calling_ae_title, tuple(contexts), information)

    async def answer(self, talk: Talk, message: RawMessage) -> None:
        """A request has come, whole."""
        request = message.command
        final = refusal(request, SUCCESS)
        if isinstance(request, CFindRQ):
            _, syntax = talk.contexts[message.context_id]
            pending = CFindRSP(
                message_id_being_responded_to=request.message_id,
                affected_sop_class_uid=request.affected_sop_class_uid,
                status=PENDING,
                data_set_type=DATA_SET_PRESENT,
            )
            await self.respond(talk, message.context_id, pending, sample_match(syntax))
        elif isinstance(request, CMoveRQ):
            final = _counted(request, 1)
        elif isinstance(request, CGetRQ):
            final = _counted(request, await self._give(talk))
        await self.respond(talk, message.context_id, final)

    async def respond(self, talk: Talk, context_id: int, response: Response, data: bytes | None = None) -> None:
        """Send one response, with its data set."""
        await talk.send(message_pdus(context_id, response, data))

    async def release(self, talk: Talk) -> None:
        """The peer asks for release."""
        await talk.send(AReleaseRP())

    async def write(self, talk: Talk, data: bytes) -> None:
        """Whole PDUs are to be sent."""
        await talk.connection.send(data)

    async def leave(self, talk: Talk) -> None:
        """As many bytes have come as were waited for."""
        await talk.close()

    async def _give(self, talk: Talk) -> int:
        """The sub-operation of a C-GET. Gives the number of objects."""
        for context_id, (sop_class, syntax) in talk.contexts.items():
            if sop_class in STORAGE_SOP_CLASSES:
                uid = new_uid()
                data = sample_object(uid, sop_class_uid=sop_class, transfer_syntax_uid=syntax)
                store = CStoreRQ(message_id=1, affected_sop_class_uid=sop_class, affected_sop_instance_uid=uid)
                await talk.send(message_pdus(context_id, store, data))
                await talk.connection.read_message()
                return 1
        return 0


def _counted(request: CMoveRQ | CGetRQ, completed: int) -> Response:
    kind = CMoveRSP if isinstance(request, CMoveRQ) else CGetRSP
    return kind(
        message_id_being_responded_to=request.message_id,
        affected_sop_class_uid=request.affected_sop_class_uid,
        status=SUCCESS,
        number_of_completed_suboperations=completed,
        number_of_failed_suboperations=0,
        number_of_warning_suboperations=0,
    )
