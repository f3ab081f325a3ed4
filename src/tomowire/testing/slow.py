"""Peers that are slow, and peers of which only the beginning comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from tomowire.testing.behaviour import Behaviour
from tomowire.testing.checks import one_of, positive
from tomowire.testing.checks import seconds as checked_seconds
from tomowire.testing.raw import command_pdu, p_data
from tomowire.wire.pdu import encode_pdu

if TYPE_CHECKING:
    from tomowire.testing.behaviour import Talk
    from tomowire.wire.messages import Response
    from tomowire.wire.pdu import AAssociateRQ

Inside: TypeAlias = Literal["association", "pdu", "data set"]
Leaving: TypeAlias = Literal["close", "reset", "silence"]


class Trickles(Behaviour):
    """Sends all that it has to say byte by byte."""

    def __init__(self, bytes_per_second: float = 1.0) -> None:
        self.interval = 1 / positive("bytes_per_second", bytes_per_second)

    async def write(self, talk: Talk, data: bytes) -> None:
        for byte in data:
            await super().write(talk, bytes((byte,)))
            await asyncio.sleep(self.interval)


class Delays(Behaviour):
    """Waits `seconds` before each thing that it says: the answer to the association request, each response, the release."""

    def __init__(self, seconds: float) -> None:
        self.seconds = checked_seconds(seconds)

    async def write(self, talk: Talk, data: bytes) -> None:
        await asyncio.sleep(self.seconds)
        await super().write(talk, data)


class Truncates(Behaviour):
    """Sends half of an answer and then nothing more.

    `inside` says where it ends: in the middle of the A-ASSOCIATE-AC, of the PDU of a response, or of the data set of a response
    (after a whole PDU; responses without a data set are sent whole). `then` it closes the connection, resets it, or stays silent.
    """

    def __init__(self, inside: Inside = "pdu", then: Leaving = "close") -> None:
        one_of("inside", inside, get_args(Inside))
        one_of("then", then, get_args(Leaving))
        self.per_request = inside != "association"
        self.inside = inside
        self.then = then

    async def associate(self, talk: Talk, request: AAssociateRQ) -> None:
        if self.inside != "association":
            await super().associate(talk, request)
        else:
            await self._half(talk, encode_pdu(self.acceptance(talk, request)))

    async def respond(self, talk: Talk, context_id: int, response: Response, data: bytes | None = None) -> None:
        if self.inside == "pdu":
            await self._half(talk, command_pdu(context_id, response))
        elif data is not None:
            await talk.send(command_pdu(context_id, response))
            await talk.send(p_data(context_id, data[: len(data) // 2], command=False, last=False))
            await self.leave(talk)
        else:
            await super().respond(talk, context_id, response)

    async def leave(self, talk: Talk) -> None:
        if self.then == "reset":
            talk.reset()
        elif self.then == "close":
            await talk.close()
        await talk.connection.read_until_closed()

    async def _half(self, talk: Talk, data: bytes) -> None:
        await talk.send(data[: len(data) // 2])
        await self.leave(talk)
