"""A connection that cannot be opened: the error says what happened, whose fault it is, and what to do."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import pytest

from support.network import LOOPBACK, free_port
from support.raw_peer import RawPeer, raw_acceptor
from tomowire.aio.connect import associate
from tomowire.aio.unreachable import the_same_in_all, why_not_connected
from tomowire.errors import AssociationAborted, AssociationLost, ConnectFailed, OperationTimeout, TlsFailed
from tomowire.services.verification import verification

pytestmark = pytest.mark.usefixtures("no_leaks")


async def failure(host: str, port: int, **options: Any) -> Exception:
    """What calling this peer raises."""
    with pytest.raises((ConnectFailed, AssociationLost, AssociationAborted, OperationTimeout)) as caught:
        async with associate(f"PEER@{host}:{port}", [verification()], **options):
            pass
    return caught.value


async def of_peer(said: bytes, *, resets: bool = False) -> Exception:
    """What is raised when the peer says this in place of an answer."""

    async def script(peer: RawPeer) -> None:
        await peer.read_pdu()
        await peer.send(said)
        if resets:
            peer.reset()
        else:
            await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        return await failure(LOOPBACK, port)


async def test_refused() -> None:
    error = await failure(LOOPBACK, free_port())
    assert str(error).endswith(": refused; nothing listens there: check host and port, and whether the peer runs")


async def test_refused_at_every_address_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `localhost` is, which is 127.0.0.1 and ::1: asyncio makes one error without a number of them."""
    port = free_port()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in (LOOPBACK, "127.0.0.2")]

    async def two_addresses(*_: Any, **__: Any) -> Any:
        return found

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two_addresses)
    error = await failure("two-addresses", port)
    assert "refused; nothing listens there" in str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)


def test_addresses_that_fail_for_different_reasons_have_none_in_common() -> None:
    error = OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 113] No route")
    assert the_same_in_all(error) is error
    assert why_not_connected(error).startswith("none of its addresses answers: check the address")


@pytest.mark.parametrize(
    ("number", "what_to_do"),
    [
        (errno.ENETUNREACH, "check the address, and the network between"),
        (errno.EHOSTUNREACH, "check the address, and the network between"),
        (errno.ETIMEDOUT, "whether the host is on; a firewall may drop what is sent to it"),
        (errno.ECONNRESET, "ask its operator to let this host in"),
        (errno.EACCES, "look at its firewall"),
        (errno.EMFILE, "use fewer associations, or raise its limit (ulimit -n)"),
        (errno.EADDRNOTAVAIL, "use fewer associations"),
        (errno.ENOBUFS, "check the address"),
    ],
)
def test_each_reason_of_the_system_has_its_advice(number: int, what_to_do: str) -> None:
    assert what_to_do in why_not_connected(OSError(number, os.strerror(number)))


async def test_a_name_that_nobody_knows() -> None:
    error = await failure("no-such-host.invalid", 104)
    assert str(error).endswith(": check how it is written, or use the IP address")
    assert "the host name cannot be resolved (" in str(error)


async def test_a_web_server() -> None:
    error = await of_peer(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert "is no DICOM server, as it seems: check host and port; " in str(error)
    assert "it speaks HTTP" in str(error)
    assert isinstance(error, AssociationAborted)
    assert error.foreign == "HTTP"


async def test_a_server_that_wants_tls() -> None:
    error = await of_peer(bytes.fromhex("15030300020246"))
    assert isinstance(error, TlsFailed)
    assert "the other side speaks TLS, and this connection is without (ssl=)" in str(error)


async def test_a_peer_that_resets_the_connection_instead_of_answering() -> None:
    error = await of_peer(b"", resets=True)
    assert isinstance(error, AssociationLost)
    assert "closed the connection instead of answering the association request; is it a DICOM server" in str(error)
    assert "It may also let in only hosts that it knows: its log may say more" in str(error)


async def test_a_peer_that_says_nothing() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read_pdu()
        await peer.expect_abort()

    async with raw_acceptor(script) as port:
        error = await failure(LOOPBACK, port, association_timeout=0.1)
    assert isinstance(error, OperationTimeout)
    assert "did not answer the association request within 0.1 s; is it a DICOM server?" in str(error)
