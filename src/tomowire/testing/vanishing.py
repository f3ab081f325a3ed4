"""Peers that go away, or are there and say nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tomowire.testing.behaviour import Behaviour
from tomowire.testing.checks import seconds as checked_seconds
from tomowire.testing.checks import whole_number

if TYPE_CHECKING:
    from tomowire.testing.behaviour import Talk
    from tomowire.testing.raw import RawMessage
    from tomowire.wire.messages import Response
    from tomowire.wire.pdu import AAssociateRQ


class Closes(Behaviour):
    """Accepts the association, and closes the connection (FIN) when `after_bytes` more bytes have come: in the middle of a PDU."""

    def __init__(self, after_bytes: int = 1) -> None:
        # The first byte that comes after the association was accepted is 1.
        self.after_bytes = whole_number("after_bytes", after_bytes, least=1)

    async def associate(self, talk: Talk, request: AAssociateRQ) -> None:
        talk.leave_after(self.after_bytes)
        await super().associate(talk, request)


class Resets(Closes):
    """As `Closes`, with a TCP RST."""

    async def leave(self, talk: Talk) -> None:
        talk.reset()


class StopsReading(Closes):
    """As `Closes`, but stays: it reads no more, so that the sender's bytes find no room."""

    async def leave(self, talk: Talk) -> None:
        await asyncio.get_running_loop().create_future()


class NeverAnswers(Behaviour):
    """Accepts the connection, reads what comes, and never says anything."""

    async def connected(self, talk: Talk) -> None:
        await talk.connection.read_until_closed()


class FallsSilent(Behaviour):
    """Accepts the association and reads, but answers nothing, the release neither."""

    async def answer(self, talk: Talk, message: RawMessage) -> None:
        return

    async def release(self, talk: Talk) -> None:
        return


class AnswersLate(Behaviour):
    """Gives every answer to a request `seconds` too late; associations are accepted at once."""

    per_request = True

    def __init__(self, seconds: float) -> None:
        self.seconds = checked_seconds(seconds)

    async def respond(self, talk: Talk, context_id: int, response: Response, data: bytes | None = None) -> None:
        await asyncio.sleep(self.seconds)
        await super().respond(talk, context_id, response, data)
