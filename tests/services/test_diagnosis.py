"""Each way in which there is no association, brought about by a real or scripted peer: what is said about it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import pytest

from support.network import LOOPBACK, free_port
from support.raw_peer import CT, RawPeer, command_pdu, raw_acceptor
from tomowire.aio.address import PeerAddress
from tomowire.aio.connect import associate
from tomowire.errors import (
    AssociationAborted,
    AssociationError,
    AssociationRejected,
    ConnectFailed,
    NoAcceptedContext,
    OperationTimeout,
    TlsFailed,
    TomowireError,
)
from tomowire.services.diagnosis import Diagnosis, diagnose
from tomowire.services.verification import CEchoScu, verification
from tomowire.uids import VERIFICATION
from tomowire.wire.messages import CEchoRQ, CStoreRSP
from tomowire.wire.pdu import AAbort, AAssociateAC

pytestmark = pytest.mark.usefixtures("no_leaks")


async def failing(port: int, host: str = LOOPBACK, **options: object) -> tuple[TomowireError, Diagnosis]:
    """What an echo to this peer raises, and what is said about it."""
    peer = PeerAddress("ARCHIVE", host, port)
    try:
        async with associate(peer, [verification()], aet="ME", **{"association_timeout": 10, **options}) as association:  # type: ignore[arg-type]
            await CEchoScu(association).echo()
    except TomowireError as error:
        return error, diagnose(error, peer, "ME")
    raise AssertionError("the echo was answered")


async def from_script(
    script: Callable[[RawPeer], Awaitable[None]], **options: object
) -> tuple[TomowireError, Diagnosis]:
    async with raw_acceptor(script) as port:
        return await failing(port, **options)


async def test_a_name_that_cannot_be_resolved() -> None:
    error, diagnosis = await failing(104, "no-such-host.invalid")
    assert isinstance(error, ConnectFailed)
    assert diagnosis.kind == "name"
    assert "'no-such-host.invalid'" in diagnosis.whose
    assert "use the IP address instead" in diagnosis.change


async def test_a_name_that_is_none() -> None:
    assert (await failing(104, "a" * 70 + ".example"))[1].kind == "name"


async def test_a_port_on_which_nothing_listens() -> None:
    port = free_port()
    _, diagnosis = await failing(port)
    assert diagnosis.kind == "refused"
    assert str(port) in diagnosis.whose


async def test_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()

    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(loop, "create_connection", never)
    error, diagnosis = await failing(104, connect_timeout=0.01)
    assert isinstance(error, ConnectFailed)
    assert diagnosis.kind == "no answer"
    assert any("firewall" in each for each in diagnosis.change)


async def test_a_network_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()

    async def unreachable(*_: object, **__: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(loop, "create_connection", unreachable)
    assert (await failing(104))[1].kind == "unreachable"


async def test_tls_with_a_peer_that_has_none() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read(5)
        await peer.send(AAbort(2, 1))
        await peer.read_until_closed()

    _, diagnosis = await from_script(script, ssl=ssl.create_default_context(), connect_timeout=10)
    assert diagnosis.kind == "TLS"
    assert any("connect without" in each for each in diagnosis.change)


@pytest.mark.parametrize(
    ("result", "source", "reason", "whose", "change"),
    [
        (1, 1, 1, "gives no reason", "'ME'"),
        (1, 1, 2, "application context", "broken"),
        (1, 1, 3, "not known there as 'ME'", "have 'ME' added there"),
        (1, 1, 7, "was called 'ARCHIVE', and has another AE title", "upper and lower case"),
        (1, 2, 1, "gives no reason", "log"),
        (1, 2, 2, "version 1", "broken"),
        (2, 3, 1, "cannot take more at the moment", "later"),
        (2, 3, 2, "as many associations as it allows", "fewer associations"),
        (1, 9, 9, "gives no reason", "log"),
    ],
)
async def test_a_rejection(result: int, source: int, reason: int, whose: str, change: str) -> None:
    error, diagnosis = await from_script(lambda peer: peer.reject(result, source, reason))
    assert isinstance(error, AssociationRejected)
    assert error.proposed is not None
    assert (error.proposed.called_ae_title, error.agreement) == ("ARCHIVE", None)
    assert diagnosis.kind == "rejected"
    assert whose in diagnosis.whose
    assert any(change in each for each in diagnosis.change)
    if (source, reason) == (1, 3):
        assert "the peer does not know 'ME'" in str(error)
    if (source, reason) == (1, 7):
        assert "does not answer to 'ARCHIVE'" in str(error)


@pytest.mark.parametrize(
    ("said", "foreign", "change"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP", "belongs to a web server"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH", "is for logging in"),
        (b"220 mail.example ESMTP\r\n", "?", "check the port"),
    ],
)
async def test_something_else_than_dicom(said: bytes, foreign: str, change: str) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read(6)
        await peer.send(said)
        await peer.read_until_closed()

    error, diagnosis = await from_script(script)
    assert isinstance(error, AssociationAborted)
    assert error.foreign == foreign
    assert diagnosis.kind == "not DICOM"
    assert any(change in each for each in diagnosis.change)


async def test_a_peer_that_wants_tls() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read(6)
        await peer.send(bytes.fromhex("15030100020246"))  # RFC 8446 6: an alert, protocol_version
        await peer.read_until_closed()

    error, diagnosis = await from_script(script)
    assert isinstance(error, TlsFailed)
    assert diagnosis.kind == "TLS"
    assert diagnosis.change[0] == "connect with TLS"


@pytest.mark.parametrize(
    ("source", "reason", "whose"),
    [(0, 0, "it does not say why"), (2, 0, "it does not say why"), (2, 6, "one of the two")],
)
async def test_an_abort(source: int, reason: int, whose: str) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read_pdu()
        await peer.send(AAbort(source, reason))
        await peer.read_until_closed()

    _, diagnosis = await from_script(script)
    assert diagnosis.kind == "aborted"
    assert whose in diagnosis.whose


async def test_an_abort_of_our_own_is_the_peers_fault() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read_pdu()
        await peer.send(bytes.fromhex("020000000004 00000000"))
        await peer.read_until_closed()

    error, diagnosis = await from_script(script)
    assert isinstance(error, AssociationAborted)
    assert not error.by_peer
    assert diagnosis.kind == "aborted"
    assert "breaks the standard" in diagnosis.whose


async def test_a_connection_that_is_closed_without_a_word() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read_pdu()

    error, diagnosis = await from_script(script)
    assert isinstance(error, AssociationError)
    assert error.proposed is not None
    assert diagnosis.kind == "closed"
    assert any("with TLS" in each for each in diagnosis.change)


async def test_a_peer_that_says_nothing() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read_until_closed()

    error, diagnosis = await from_script(script, association_timeout=0.05)
    assert isinstance(error, OperationTimeout)
    assert diagnosis.kind == "silent"


async def test_no_context_tells_what_was_proposed_and_refused() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept(refuse=[VERIFICATION])
        await peer.expect_abort()

    error, diagnosis = await from_script(script)
    assert isinstance(error, NoAcceptedContext)
    assert (error.abstract_syntax, error.transfer_syntax) == (VERIFICATION, None)
    assert error.agreement is not None
    assert [each.result for each in error.agreement.refused] == [3]
    assert isinstance(error.agreement.response, AAssociateAC)
    assert "it has to be enabled there" in str(error)
    assert diagnosis.kind == "no context"


async def test_a_response_that_breaks_the_standard() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        command = (await peer.read_message()).command
        assert isinstance(command, CEchoRQ)
        wrong = CStoreRSP(message_id_being_responded_to=command.message_id, status=0, affected_sop_class_uid=CT)
        await peer.send(command_pdu(1, wrong))
        await peer.read_until_closed()

    _, diagnosis = await from_script(script)
    assert diagnosis.kind == "misbehaved"
    assert any("lenient" in each for each in diagnosis.change)


def test_what_nobody_foresaw_is_told_as_it_is() -> None:
    diagnosis = diagnose(TomowireError("strange"), PeerAddress("A", "b", 1), "ME")
    assert (diagnosis.kind, diagnosis.happened) == ("other", "strange")
