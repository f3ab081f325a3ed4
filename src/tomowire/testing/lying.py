"""Peers whose answers break the standard."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tomowire.protocol.status import SUCCESS
from tomowire.testing.behaviour import Behaviour
from tomowire.testing.raw import command_pdu, malformed_command_pdu, with_wrong_length
from tomowire.wire.items import ContextResult, PresentationContextAC
from tomowire.wire.messages import CEchoRSP, CStoreRSP

if TYPE_CHECKING:
    from tomowire.testing.behaviour import Talk
    from tomowire.testing.raw import RawMessage
    from tomowire.wire.messages import Response
    from tomowire.wire.pdu import AAssociateAC, AAssociateRQ

NEVER_PROPOSED: Final = "1.2.840.10008.1.2.4.203"
"""HTJ2K: a transfer syntax that nobody proposes by default."""


class WrongMessageId(Behaviour):
    """Answers a request that was never made."""

    per_request = True

    async def respond(self, talk: Talk, context_id: int, response: Response, data: bytes | None = None) -> None:
        wrong = (response.message_id_being_responded_to + 1000) & 0xFFFF
        await super().respond(talk, context_id, replace(response, message_id_being_responded_to=wrong), data)


class WrongResponse(Behaviour):
    """Answers with the response to another kind of request: C-STORE for C-ECHO, C-ECHO for all others."""

    per_request = True

    async def respond(self, talk: Talk, context_id: int, response: Response, data: bytes | None = None) -> None:
        kind = CStoreRSP if isinstance(response, CEchoRSP) else CEchoRSP
        wrong = kind(message_id_being_responded_to=response.message_id_being_responded_to, status=SUCCESS)
        await super().respond(talk, context_id, wrong)


class AnswersTwice(Behaviour):
    """Gives its last answer to a request twice."""

    per_request = True

    async def answer(self, talk: Talk, message: RawMessage) -> None:
        await super().answer(talk, message)
        await super().answer(talk, message)


class WrongLength(Behaviour):
    """Sends a response whose PDU says that it is shorter than its content."""

    per_request = True

    async def respond(self, talk: Talk, context_id: int, response: Response, data: bytes | None = None) -> None:
        await talk.send(with_wrong_length(command_pdu(context_id, response)))


class MalformedCommandSet(Behaviour):
    """Sends a command set in which the length of an element goes past the end."""

    per_request = True

    async def respond(self, talk: Talk, context_id: int, response: Response, data: bytes | None = None) -> None:
        await talk.send(malformed_command_pdu(context_id, response))


class Babbles(Behaviour):
    """Answers a request with bytes that are no DICOM."""

    per_request = True

    def __init__(self, data: bytes = b"HTTP/1.1 400 Bad Request\r\n\r\n") -> None:
        self.data = data

    async def answer(self, talk: Talk, message: RawMessage) -> None:
        await talk.send(self.data)


class UnproposedTransferSyntax(Behaviour):
    """Accepts every presentation context in a transfer syntax that was not proposed for it."""

    def acceptance(self, talk: Talk, request: AAssociateRQ) -> AAssociateAC:
        accepted = super().acceptance(talk, request)
        lies = tuple(replace(each, transfer_syntax=NEVER_PROPOSED) for each in accepted.presentation_contexts)
        return replace(accepted, presentation_contexts=lies)


class UnproposedContext(Behaviour):
    """Accepts a presentation context that was not proposed, besides those that were."""

    def acceptance(self, talk: Talk, request: AAssociateRQ) -> AAssociateAC:
        accepted = super().acceptance(talk, request)
        context_id = next(number for number in range(255, 0, -2) if number not in talk.contexts)
        made_up = PresentationContextAC(context_id, ContextResult.ACCEPTANCE, NEVER_PROPOSED)
        return replace(accepted, presentation_contexts=(*accepted.presentation_contexts, made_up))
