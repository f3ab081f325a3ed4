"""In every state of PS3.8 that a connection can be in for a while, the peer resets it, closes it, or talks nonsense.

Nothing is left then: no connection, no task, no timer, and no error in the log that would blame this side.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from support.network import LOOPBACK
from support.raw_peer import RELEASE_RQ, RawPeer, associate_rq, command_pdu, p_data, raw_acceptor, store_rq
from support.services import Keeper, serve
from tomowire.aio.association import Association
from tomowire.aio.association_request import AssociationRequest
from tomowire.aio.connect import associate
from tomowire.aio.listen import Server
from tomowire.errors import TomowireError
from tomowire.protocol.states import State
from tomowire.services.verification import CEchoScu, Verification, verification
from tomowire.wire.messages import CEchoRSP
from tomowire.wire.pdu import AAssociateRJ, AReleaseRQ, encode_pdu

pytestmark = pytest.mark.usefixtures("no_leaks")

HALF_DATA = command_pdu(3, store_rq()) + p_data(3, bytes(1000), command=False, last=False)


# What the peer does to it


async def reset(peer: RawPeer) -> None:
    peer.reset()


async def close(peer: RawPeer) -> None:
    peer.close()


async def half_close(peer: RawPeer) -> None:
    peer.socket.shutdown(socket.SHUT_WR)


async def random_bytes(peer: RawPeer) -> None:
    await peer.send(random.Random(20261121).randbytes(3000))


async def half_a_pdu(peer: RawPeer) -> None:
    await peer.send(encode_pdu(associate_rq())[:40])
    peer.reset()


async def unexpected_pdus(peer: RawPeer) -> None:
    await peer.send(encode_pdu(associate_rq()), encode_pdu(AAssociateRJ(1, 1, 1)), RELEASE_RQ * 3)


async def silence(peer: RawPeer) -> None:
    """Until somebody's patience is at its end."""


FAULTS = [reset, close, half_close, random_bytes, half_a_pdu, unexpected_pdus, silence]
Fault = Callable[[RawPeer], Awaitable[None]]


# How an acceptor gets into a state


class Acceptor:
    """A server of which a test sees the associations."""

    def __init__(self) -> None:
        self.keeper = Keeper(reads=False)
        self.keeper.gate.clear()
        self.association: Association
        self.is_asked = asyncio.Event()
        self.releasing: asyncio.Future[None] | None = None

    async def on_request(self, request: AssociationRequest) -> None:
        self.association = request.association
        self.is_asked.set()
        if request.calling_ae_title == "WAITS":
            await asyncio.sleep(60)

    def server(self) -> Server:
        return serve(self.keeper, on_request=self.on_request, artim_timeout=0.3, idle_timeout=0.3)


async def sta2(acceptor: Acceptor, peer: RawPeer) -> None:
    """Connected; nothing is asked for."""


async def sta3(acceptor: Acceptor, peer: RawPeer) -> None:
    await peer.send(associate_rq(calling="WAITS"))
    await acceptor.is_asked.wait()


async def sta6(acceptor: Acceptor, peer: RawPeer) -> None:
    await peer.associate()


async def sta6_amid_data(acceptor: Acceptor, peer: RawPeer) -> None:
    await peer.associate()
    await peer.send(HALF_DATA)
    await acceptor.keeper.next_begun()


async def sta7(acceptor: Acceptor, peer: RawPeer) -> None:
    await peer.associate()
    acceptor.releasing = asyncio.ensure_future(acceptor.association.release(timeout=0.3))
    assert isinstance(await peer.read_pdu(), AReleaseRQ)


async def sta8(acceptor: Acceptor, peer: RawPeer) -> None:
    await peer.associate()
    await peer.send(command_pdu(3, store_rq()), p_data(3, b"", command=False, last=True))
    await acceptor.keeper.next_begun()
    await peer.send(RELEASE_RQ)
    await until(lambda: acceptor.association._upper.state is State.STA8_AWAITING_LOCAL_RELEASE_RESPONSE)


async def sta10(acceptor: Acceptor, peer: RawPeer) -> None:
    await sta7(acceptor, peer)
    await peer.send(RELEASE_RQ)
    await until(lambda: acceptor.association._upper.state is State.STA10_COLLISION_ACCEPTOR_AWAITING_RELEASE_RP)


async def sta13(acceptor: Acceptor, peer: RawPeer) -> None:
    await peer.associate()
    acceptor.association.abort()
    await peer.expect_abort()


STATES = [sta2, sta3, sta6, sta6_amid_data, sta7, sta8, sta10, sta13]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - nothing tells of a state
            await asyncio.sleep(0.005)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("state", STATES)
async def test_an_acceptor(state: Any, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    acceptor = Acceptor()
    async with acceptor.server() as server:
        async with await RawPeer.connect(server.port) as peer:
            await state(acceptor, peer)
            await fault(peer)
            if state is sta8:  # a handler that works is waited for, and its association with it
                acceptor.keeper.gate.set()
            await until(lambda: not server._connections)
        if (releasing := acceptor.releasing) is not None:
            await asyncio.wait([releasing])
            assert isinstance(releasing.exception(), TomowireError | None)
        async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as association:
            assert (await CEchoScu(association).echo()).is_success
    assert errors(caplog) == []


# A requestor


async def sta5(peer: RawPeer) -> None:
    await peer.read_pdu()


async def as_requestor_sta6(peer: RawPeer) -> None:
    await peer.accept()


async def amid_an_operation(peer: RawPeer) -> None:
    await peer.accept()
    await peer.read_message()


async def as_requestor_sta7(peer: RawPeer) -> None:
    await peer.accept()
    await peer.send(command_pdu(1, echo_response(await peer.read_message())))
    assert isinstance(await peer.read_pdu(), AReleaseRQ)


async def sta11(peer: RawPeer) -> None:
    """Both have asked; the requestor has answered, and waits for the answer."""
    await as_requestor_sta7(peer)
    await peer.send(RELEASE_RQ)
    await peer.read_pdu()


def echo_response(message: Any) -> Any:
    return CEchoRSP(message_id_being_responded_to=message.command.message_id, status=0)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("state", [sta5, as_requestor_sta6, amid_an_operation, as_requestor_sta7, sta11])
async def test_a_requestor(state: Any, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """It gets an error of this library in a second, or, where all was answered and only the release was not, none."""

    async def script(peer: RawPeer) -> None:
        await state(peer)
        await fault(peer)
        if fault not in (reset, close, half_a_pdu):
            await peer.read_until_closed()

    limits = {"association_timeout": 0.5, "release_timeout": 0.5, "artim_timeout": 0.3}
    echoed = False
    async with raw_acceptor(script) as port, asyncio.timeout(20):
        try:
            async with associate(
                f"ANY@{LOOPBACK}:{port}", [verification()], services=[Verification()], **limits
            ) as association:
                echoed = (await CEchoScu(association).echo(timeout=0.5)).is_success
        except TomowireError:
            pass
        else:
            assert state in (as_requestor_sta7, sta11)
    assert echoed is (state in (as_requestor_sta7, sta11))
    assert errors(caplog) == []
