"""Peers that say no."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from tomowire.errors import UsageError
from tomowire.protocol.status import Status
from tomowire.testing.behaviour import Behaviour
from tomowire.testing.checks import whole_number
from tomowire.wire.items import ContextResult
from tomowire.wire.pdu import AAbort, AAssociateRJ

if TYPE_CHECKING:
    from tomowire.testing.behaviour import Talk
    from tomowire.testing.raw import RawMessage
    from tomowire.wire.messages import Response
    from tomowire.wire.pdu import AAssociateAC, AAssociateRQ


class Rejection(Enum):
    """Every A-ASSOCIATE-RJ that the standard knows: result, source, reason (PS3.8 Table 9-21)."""

    NO_REASON = (1, 1, 1)
    APPLICATION_CONTEXT = (1, 1, 2)
    CALLING_AE_TITLE = (1, 1, 3)
    CALLED_AE_TITLE = (1, 1, 7)
    PROVIDER_NO_REASON = (1, 2, 1)
    PROTOCOL_VERSION = (1, 2, 2)
    CONGESTION = (2, 3, 1)
    LOCAL_LIMIT = (2, 3, 2)


class Rejects(Behaviour):
    """Rejects the association."""

    def __init__(self, rejection: Rejection | tuple[int, int, int] = Rejection.NO_REASON) -> None:
        codes: object = rejection.value if isinstance(rejection, Rejection) else rejection
        if not (isinstance(codes, tuple) and len(codes) == 3):
            raise UsageError(f"a rejection is a Rejection, or its result, source and reason, not {rejection!r}")
        result, source, reason = codes
        self.codes = (
            whole_number("result", result, most=0xFF),
            whole_number("source", source, most=0xFF),
            whole_number("reason", reason, most=0xFF),
        )

    async def associate(self, talk: Talk, request: AAssociateRQ) -> None:
        await talk.send(AAssociateRJ(*self.codes))
        await talk.connection.read_until_closed()


class RefusesContexts(Behaviour):
    """Accepts the association, and of its presentation contexts none."""

    def acceptance(self, talk: Talk, request: AAssociateRQ) -> AAssociateAC:
        accepted = super().acceptance(talk, request)
        refused = [
            replace(each, result=ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED) for each in accepted.presentation_contexts
        ]
        return replace(accepted, presentation_contexts=tuple(refused))


class Aborts(Behaviour):
    """Answers a request with A-ABORT (PS3.8 Table 9-26)."""

    per_request = True

    def __init__(self, source: int = 2, reason: int = 0) -> None:
        self.source = whole_number("source", source, most=0xFF)
        self.reason = whole_number("reason", reason, most=0xFF)

    async def answer(self, talk: Talk, message: RawMessage) -> None:
        await talk.send(AAbort(self.source, self.reason))
        await talk.connection.read_until_closed()


class Answers(Behaviour):
    """Answers requests with this status, whatever it may be: a failure, or one that the standard does not know."""

    per_request = True

    def __init__(self, status: int, comment: str | None = None) -> None:
        self.status = whole_number("a status", status, most=0xFFFF)
        self.comment = comment

    async def respond(self, talk: Talk, context_id: int, response: Response, data: bytes | None = None) -> None:
        if not Status(response.status).is_pending:
            response = replace(response, status=self.status, error_comment=self.comment)
        await super().respond(talk, context_id, response, data)
