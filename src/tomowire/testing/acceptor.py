"""The engine of `FaultyPeer`: an acceptor that follows a `Behaviour` a number of times, and is well-behaved otherwise."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypedDict

from tomowire.aio.address import check_ae_title
from tomowire.errors import UsageError
from tomowire.testing.behaviour import Behaviour, Enough, Talk
from tomowire.testing.checks import positive, whole_number
from tomowire.testing.hosting import LOOPBACK, Hosted, Listener
from tomowire.testing.raw import Closed, RawConnection, RawMessage, Unexpected
from tomowire.wire.messages import CCancelRQ, Response
from tomowire.wire.pdu import AAbort, AAssociateRQ, AReleaseRQ

if TYPE_CHECKING:
    import socket

    from tomowire.wire.pdu import Pdu

DEFAULT_PATIENCE: Final = 60.0
_GOOD: Final = Behaviour()


class Options(TypedDict, total=False):
    """What every `FaultyPeer` can be given besides its fault."""

    after: int
    times: int | None
    aet: str
    patience: float
    receive_buffer: int | None


@dataclass
class Heard:
    """What a peer was told, in the order in which it came; complete when the block is over, or after `wait_idle`."""

    connections: int = 0
    """How many connections there were."""
    associations: list[AAssociateRQ] = field(default_factory=list)
    """Every A-ASSOCIATE-RQ."""
    requests: list[RawMessage] = field(default_factory=list)
    """Every request that came whole: `command`, and its data set as bytes (None if it has none)."""
    cancels: int = 0
    """How many C-CANCEL came."""
    aborts: list[AAbort] = field(default_factory=list)
    """Every A-ABORT."""
    releases: int = 0
    """How many times release was asked for."""


class FaultyAcceptor(Hosted):
    """An acceptor on 127.0.0.1 and a free port: all that `FaultyPeer` can do but for its named constructors."""

    def __init__(
        self,
        fault: Behaviour,
        *,
        after: int = 0,
        times: int | None = None,
        aet: str = "FAULTY",
        patience: float = DEFAULT_PATIENCE,
        receive_buffer: int | None = None,
    ) -> None:
        if not isinstance(fault, Behaviour):
            raise UsageError(f"a fault is a Behaviour, made: Behaviour(), not {fault!r}")
        self.fault = fault
        self.aet = check_ae_title(aet)
        self.heard = Heard()
        """What the other side has said so far."""
        self._good_left = whole_number("after", after)
        self._bad_left = whole_number("times", times) if times is not None else None
        self._patience = positive("patience", patience)
        self._listener = Listener(self._play, receive_buffer=receive_buffer)
        self._port = 0

    @property
    def port(self) -> int:
        """The TCP port. Raises `UsageError` before it is known."""
        if not self._port:
            raise UsageError("the peer is not listening yet")
        return self._port

    @property
    def address(self) -> str:
        """`AET@host:port`, as `Peer` and `associate` take it."""
        return f"{self.aet}@{LOOPBACK}:{self.port}"

    async def start(self) -> None:
        await self._listener.start()
        self._port = self._listener.port

    async def stop(self) -> None:
        await self._listener.stop()

    async def wait_idle(self) -> None:
        """Wait until no connection is open any more; for `async with` only. Then all has been heard.

        Raises `UsageError` where it runs in a thread (leaving the block is enough there), or does not run at all.
        """
        if not self._in_use or self._thread is not None:
            raise UsageError("wait_idle is for a peer that runs in this event loop: `async with`")
        await self._listener.wait_idle()

    # One connection

    async def _play(self, sock: socket.socket) -> None:
        self.heard.connections += 1
        talk = Talk(RawConnection(sock, patience=self._patience), _GOOD if self.fault.per_request else self._turn())
        try:
            await self._converse(talk)
        except Enough:
            await self._leave(talk)
        except (Closed, OSError):
            return  # the other side is gone, or (`TimeoutError`) has said nothing for long

    async def _converse(self, talk: Talk) -> None:
        await talk.behaviour.connected(talk)
        request = await talk.connection.read_pdu()
        if isinstance(request, AAbort):
            self.heard.aborts.append(request)
            return
        if not isinstance(request, AAssociateRQ):
            raise Unexpected(request)
        self.heard.associations.append(request)
        await talk.behaviour.associate(talk, request)
        while True:
            try:
                await self._on_message(talk, await talk.connection.read_message())
            except Unexpected as unexpected:
                await self._on_control(talk, unexpected.pdu)

    async def _on_message(self, talk: Talk, message: RawMessage) -> None:
        if isinstance(message.command, CCancelRQ):
            self.heard.cancels += 1
        elif not isinstance(message.command, Response):
            self.heard.requests.append(message)
            if self.fault.per_request:
                talk.behaviour = self._turn()
            await talk.behaviour.answer(talk, message)

    async def _on_control(self, talk: Talk, pdu: Pdu) -> None:
        match pdu:
            case AReleaseRQ():
                self.heard.releases += 1
                await talk.behaviour.release(talk)
            case AAbort():
                self.heard.aborts.append(pdu)
                raise Closed
            case _:
                raise Unexpected(pdu)

    async def _leave(self, talk: Talk) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await talk.behaviour.leave(talk)
        except (Closed, OSError):
            return

    def _turn(self) -> Behaviour:
        """How the next occasion goes."""
        if self._good_left > 0:
            self._good_left -= 1
            return _GOOD
        if self._bad_left is None:
            return self.fault
        self._bad_left -= 1
        return self.fault if self._bad_left >= 0 else _GOOD
