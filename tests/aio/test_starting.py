"""A server is started once, and leaves no socket behind when its start comes to nothing."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from support.cancelling import cancelled_after_each_step, cancelled_at_each_await
from support.leaks import Resources, leaks_since
from support.network import LOOPBACK, free_port
from support.services import serve
from tomowire.aio.connect import associate
from tomowire.aio.listen import Server
from tomowire.errors import ConnectFailed, UsageError
from tomowire.services.verification import CEchoScu, verification

ON_EVERY_LOOP = True


async def works(server: Server) -> None:
    async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as association:
        assert (await CEchoScu(association).echo()).is_success


@pytest.mark.parametrize("way", [cancelled_at_each_await, cancelled_after_each_step])
async def test_cancelled_at_any_moment_it_leaves_no_socket(way: Any) -> None:
    async def whole() -> None:
        async with serve():
            pass

    async with serve() as server:
        await works(server)  # what uvloop keeps for itself from then on
    before = Resources.now()
    async for steps in way(whole):
        assert await leaks_since(before) == [], f"after {steps} steps"


async def test_it_is_started_once() -> None:
    """A second start would forget the sockets of the first."""
    async with serve() as server:
        with pytest.raises(UsageError, match="a server is used once"):
            await server.start()
        await works(server)


@pytest.mark.usefixtures("no_leaks")
async def test_two_who_start_it_at_the_same_time() -> None:
    server = serve()
    results = await asyncio.gather(server.start(), server.start(), return_exceptions=True)
    assert [type(each) for each in results] == [type(None), UsageError]
    await works(server)
    await server.close()


async def test_it_is_not_used_again() -> None:
    """It would listen, and drop whoever comes: it is closing for ever."""
    server = serve()
    async with server:
        pass
    with pytest.raises(UsageError, match="call listen"):
        await server.start()


@pytest.mark.usefixtures("no_leaks")
async def test_closed_while_it_starts_it_does_not_listen() -> None:
    server = serve()
    starting = asyncio.ensure_future(server.start())
    await asyncio.sleep(0)
    await server.close()
    with pytest.raises(UsageError, match="closed while it was being started"):
        await starting


async def test_when_the_port_is_free_again_it_can_be_started_after_all() -> None:
    port = free_port()
    server = serve(port=port)
    with socket.socket() as taken:
        taken.bind((LOOPBACK, port))
        taken.listen()
        with pytest.raises(ConnectFailed, match=f"cannot listen on {LOOPBACK}, port {port}: "):
            await server.start()
    async with server:
        await works(server)
