"""Whether a port can be had is found out as `listen` would find it out, and nothing keeps it afterwards."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from support.network import free_port
from tomowire import Verification, listen
from tomowire.aio.ports import require_free
from tomowire.errors import ConnectFailed

LOOPBACK = "127.0.0.1"

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


async def test_a_port_that_is_taken_is_refused_as_listen_refuses_it(taken: int) -> None:
    with pytest.raises(ConnectFailed) as found:
        await require_free(LOOPBACK, taken)
    with pytest.raises(ConnectFailed) as met:
        async with listen(LOOPBACK, taken, services=[Verification()]):
            pass
    for refusal in (found, met):
        assert str(refusal.value).startswith(f"cannot listen on {LOOPBACK}, port {taken}: ")
        assert str(refusal.value).lower().endswith("address already in use")


async def test_a_port_that_was_found_free_can_be_listened_on() -> None:
    port = free_port()
    await require_free(LOOPBACK, port)
    async with listen(LOOPBACK, port, services=[Verification()]) as server:
        assert server.port == port


async def test_any_port_is_never_refused() -> None:
    await require_free("host.invalid", 0)


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConnectFailed, match=r"cannot listen for HTTP on 192\.0\.2\.1, port 9: .*; take another"):
        await require_free("192.0.2.1", 9, purpose=" for HTTP", advice="; take another")  # RFC 5737: nobody's


async def test_a_name_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConnectFailed, match=r"cannot listen on host\.invalid, port 9"):
        await require_free("host.invalid", 9)
