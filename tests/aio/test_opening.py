"""Cancelled at any moment of its opening, an association leaves nothing: no socket, no task, no timer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from support.leaks import Resources, leaks_since
from support.network import LOOPBACK
from support.raw_peer import Closed, RawPeer, raw_acceptor
from tomowire.aio.address import PeerAddress
from tomowire.aio.connect import associate
from tomowire.aio.tls import TlsClient
from tomowire.services.verification import verification
from tomowire.wire.pdu import AAbort

ON_EVERY_LOOP = True

_STEPS = 40
"""Turns of the loop in which every way of opening has come to wait for the answer of the peer."""

Connected = dict[str, Any]
"""What `associate` is given in place of an address."""
Way = Callable[[int], Awaitable[Connected]]


async def by_address(_port: int) -> Connected:
    return {}


async def by_socket(port: int) -> Connected:
    return {"sock": socket.create_connection((LOOPBACK, port))}


async def by_transport(port: int) -> Connected:
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, LOOPBACK, port)
    return {"stream": transport}


async def by_streams(port: int) -> Connected:
    return {"stream": await asyncio.open_connection(LOOPBACK, port)}


async def never_answers(peer: RawPeer) -> None:
    """It closes when the other side does, or has said that it goes."""
    with suppress(Closed):
        while not isinstance(await peer.read_pdu(), AAbort):
            pass


async def silent(peer: RawPeer) -> None:
    await peer.read_until_closed()


async def cancelled_after(steps: int, port: int, options: Connected) -> None:
    """Open an association, and cancel that after so many turns of the event loop."""

    async def work() -> None:
        async with associate(PeerAddress("PEER", LOOPBACK, port), [verification()], **options):
            raise AssertionError("nobody has answered")

    task = asyncio.ensure_future(work())
    for _ in range(steps):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("way", [by_address, by_socket, by_transport, by_streams])
@pytest.mark.parametrize("tls", [None, TlsClient(verify=False)], ids=["plain", "tls"])
async def test_cancelled_at_any_moment_it_leaves_nothing(way: Way, tls: TlsClient | None) -> None:
    """What is left would be seen on either side: the peer's end of a connection is closed when ours is."""
    async with raw_acceptor(never_answers if tls is None else silent) as port:
        await cancelled_after(_STEPS, port, await way(port) | {"ssl": tls})  # what uvloop keeps for itself from then on
        before = Resources.now()
        for steps in range(1, _STEPS):  # before its first step it owns nothing
            await cancelled_after(steps, port, await way(port) | {"ssl": tls})
            assert await leaks_since(before) == [], f"after {steps} steps"
