"""The end of a connection over TLS, and handshakes that end otherwise than TLS foresees; on both event loops."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from support.certificates import Authority
from support.network import LOOPBACK
from support.raw_peer import RawPeer, raw_acceptor
from support.services import serve
from support.tls_peer import TlsRawPeer
from tomowire.aio.association import Association
from tomowire.aio.blocks import BLOCK_LIMIT, BLOCK_SIZE
from tomowire.aio.connect import associate
from tomowire.aio.connection import Connection
from tomowire.aio.server import Server
from tomowire.aio.tls import TlsClient, TlsServer
from tomowire.aio.tls_handshake import Handshake
from tomowire.errors import TlsFailed, UsageError
from tomowire.services.verification import CEchoScu, verification

pytestmark = pytest.mark.usefixtures("no_leaks")

ON_EVERY_LOOP = True

FOR_EVER = 3600.0


def server_context(authority: Authority) -> ssl.SSLContext:
    identity = authority.sign()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    return context


async def echo(server: Server, authority: Authority) -> None:
    """The server serves."""
    peer = f"ANY@{LOOPBACK}:{server.port}"
    async with associate(peer, [verification()], ssl=TlsClient(authority.file)) as association:
        assert (await CEchoScu(association).echo()).is_success


# The end


async def test_a_release_does_not_wait_for_a_peer_that_does_not_confirm_the_end_of_tls(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomowire.aio.tls_handshake._SHUTDOWN_TIMEOUT", FOR_EVER)
    monkeypatch.setattr("tomowire.aio.connection._TLS_LINGER", FOR_EVER)
    ended: list[bool] = []

    async def script(plain: RawPeer) -> None:
        peer = await TlsRawPeer.over(plain, server_context(authority), server_side=True)
        await peer.accept()
        await peer.answer_release()  # and see the connection closed
        ended.append(peer.has_ended)

    async with raw_acceptor(script) as port:
        peer = f"ANY@{LOOPBACK}:{port}"
        async with asyncio.timeout(10), associate(peer, [verification()], ssl=TlsClient(authority.file)):
            pass
    assert ended == [True]  # TLS was ended in an orderly way all the same (RFC 8446 6.1)


@pytest.mark.parametrize("is_tls", [False, True])
async def test_connections_that_are_over_keep_no_memory_until_they_are_collected(
    authority: Authority, is_tls: bool
) -> None:
    client, there = (TlsClient(authority.file), TlsServer(**authority.sign().options)) if is_tls else (None, None)
    count = 2 * BLOCK_LIMIT
    gc.collect()
    gc.disable()
    try:
        async with serve(ssl=there) as server, AsyncExitStack() as stack:
            peer = f"ANY@{LOOPBACK}:{server.port}"
            for _ in range(count):
                association = await stack.enter_async_context(associate(peer, [verification()], ssl=client))
                await CEchoScu(association).echo()
            del association
            assert blocks_in_memory() >= 2 * count
        assert blocks_in_memory() <= BLOCK_LIMIT  # the reserve
    finally:
        gc.enable()


def blocks_in_memory() -> int:
    found = set()
    for each in gc.get_objects():
        with suppress(ValueError):  # it has been released
            if type(each) is memoryview and each.nbytes == BLOCK_SIZE:
                found.add(id(each.obj))
    return len(found)


async def test_nor_does_it_on_somebody_elses_tls(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomowire.aio.connection._TLS_LINGER", 0.05)
    ended: list[bool] = []

    async def script(plain: RawPeer) -> None:
        peer = await TlsRawPeer.over(plain, server_context(authority), server_side=True)
        await peer.accept()
        await peer.answer_release()
        ended.append(peer.has_ended)

    async with raw_acceptor(script) as port:
        context = ssl.create_default_context(cafile=authority.file)
        stream = await asyncio.open_connection(LOOPBACK, port, ssl=context, ssl_shutdown_timeout=FOR_EVER)
        async with asyncio.timeout(10), associate("ANY@peer:104", [verification()], stream=stream):
            pass
    assert ended == [True]


async def test_an_acceptor_confirms_the_end_of_tls(authority: Authority) -> None:
    """And closes the connection then, for a requestor that waits for that."""
    gone: asyncio.Queue[Association] = asyncio.Queue()
    async with (
        serve(ssl=TlsServer(**authority.sign().options), on_ended=gone.put_nowait) as server,
        await RawPeer.connect(server.port) as plain,
    ):
        context = ssl.create_default_context(cafile=authority.file)
        peer = await TlsRawPeer.over(plain, context, server_side=False, name=LOOPBACK)
        await peer.associate()
        await peer.release()
        await peer.end_tls()
        assert await peer.read_until_closed() == b""
        assert peer.has_ended
        assert str((await gone.get()).end.how) == "released"  # type: ignore[union-attr]


# What else can go wrong in a handshake


class _Mistaken(ssl.SSLContext):
    """A context of the caller's own, with a mistake in it."""

    def wrap_bio(self, *arguments: Any, **keywords: Any) -> ssl.SSLObject:
        raise RuntimeError("a mistake")


async def test_a_mistake_in_an_ssl_context_is_told_and_the_connection_closed(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(ssl=_Mistaken(ssl.PROTOCOL_TLS_SERVER)) as server, await RawPeer.connect(server.port) as peer:
        await peer.send(b"\x16\x03\x01")
        assert await peer.read_until_closed() == b""
    (line,) = [record for record in caplog.records if record.name == "tomowire.tls"]
    assert line.levelno == logging.ERROR
    assert "the TLS handshake failed: RuntimeError at" in line.getMessage()


async def test_a_mistake_after_the_handshake_closes_that_connection_and_no_other(
    authority: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection_made = Connection.connection_made

    def fail_once(connection: Connection, transport: asyncio.BaseTransport) -> None:
        monkeypatch.setattr(Connection, "connection_made", connection_made)
        raise RuntimeError("a mistake")

    monkeypatch.setattr(Connection, "connection_made", fail_once)
    context = ssl.create_default_context(cafile=authority.file)
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:
        async with await RawPeer.connect(server.port) as plain:
            peer = await TlsRawPeer.over(plain, context, server_side=False, name=LOOPBACK)
            with pytest.raises(AssertionError, match="closed before the end of TLS"):
                await peer.read(1)
        await echo(server, authority)
    assert "what follows the TLS handshake failed: RuntimeError at" in caplog.text
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_a_connection_that_the_kernel_gives_up_is_not_one_that_took_too_long(
    authority: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ETIMEDOUT is a `TimeoutError` too."""

    async def give_up(handshake: Handshake, transport: asyncio.Transport, *_: object, **__: object) -> None:
        transport.abort()
        raise TimeoutError(110, "Connection timed out")

    caplog.set_level(logging.INFO, "tomowire.tls")
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:
        monkeypatch.setattr("tomowire.aio.tls_acceptor.Handshake.run", give_up)
        async with await RawPeer.connect(server.port) as peer:
            assert await peer.read_until_closed() == b""
    (line,) = [record for record in caplog.records if record.name == "tomowire.tls"]
    assert "no TLS handshake within" not in line.getMessage()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_caller_that_vanishes_in_the_middle_of_the_handshake_is_worth_one_line(
    authority: Authority, caplog: pytest.LogCaptureFixture, reset: bool
) -> None:
    context = ssl.create_default_context(cafile=authority.file)
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=LOOPBACK).do_handshake()
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:
        peer = await RawPeer.connect(server.port)
        await peer.send(outgoing.read())
        await peer.read(5)  # the server's answer has begun
        peer.reset() if reset else peer.close()
        await echo(server, authority)
    (line,) = [record for record in caplog.records if record.name == "tomowire.tls"]
    assert "the caller closed the connection in the middle of the TLS handshake" in line.getMessage()


@pytest.mark.parametrize("listens", [True, False])
async def test_a_context_for_the_other_side_is_refused_before_anything_is_opened(listens: bool) -> None:
    if listens:
        with pytest.raises(UsageError, match=r"is one for who calls \(PROTOCOL_TLS_CLIENT\), and not for who listens"):
            serve(ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return
    with pytest.raises(UsageError, match=r"is one for who listens \(PROTOCOL_TLS_SERVER\), and not for who calls"):
        async with associate("ANY@localhost:104", [verification()], ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)):
            raise AssertionError


# Certificates that are replaced meanwhile


async def test_of_two_reloads_the_later_one_counts(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of them takes longer."""
    identity, new = authority.sign(), authority.sign()
    async with serve(ssl=TlsServer(**identity.options)) as server:
        from tomowire.aio import tls_acceptor

        load, has_read, may_end, calls = tls_acceptor.context_of_server, asyncio.Event(), asyncio.Event(), list[int]()

        async def load_slowly(tls: TlsServer) -> ssl.SSLContext:
            calls.append(1)
            context = await load(tls)
            if len(calls) == 1:
                has_read.set()
                await may_end.wait()
            return context

        monkeypatch.setattr(tls_acceptor, "context_of_server", load_slowly)
        first = asyncio.create_task(server.reload_tls())
        await has_read.wait()
        identity.replace_by(new)
        second = asyncio.create_task(server.reload_tls())
        await asyncio.wait([second], timeout=0.5)  # it ends only where it does not wait for the first
        may_end.set()
        await asyncio.gather(first, second)
        peer = f"ANY@{LOOPBACK}:{server.port}"
        async with associate(peer, [verification()], ssl=TlsClient(authority.file)) as association:
            assert association.peer_certificate is not None
            assert association.peer_certificate.der == new.der


async def test_a_handshake_that_has_begun_goes_on_with_the_certificate_of_then(authority: Authority) -> None:
    identity = authority.sign()
    before, new = identity.der, authority.sign()
    context = ssl.create_default_context(cafile=authority.file)
    async with (
        serve(ssl=TlsServer(**identity.options)) as server,
        await RawPeer.connect(server.port) as plain,
    ):
        await echo(server, authority)  # so that the server has met `plain` before
        identity.replace_by(new)
        await server.reload_tls()
        peer = await TlsRawPeer.over(plain, context, server_side=False, name=LOOPBACK)
        assert peer.certificate == before
        async with await RawPeer.connect(server.port) as other:
            assert (await TlsRawPeer.over(other, context, server_side=False, name=LOOPBACK)).certificate == new.der


async def test_files_that_break_during_handshakes_change_nothing(authority: Authority) -> None:
    identity = authority.sign()
    async with serve(ssl=TlsServer(**identity.options)) as server:
        identity.key.write_text("hello")
        for _ in range(3):
            calls = [asyncio.create_task(echo(server, authority)) for _ in range(3)]
            with pytest.raises(UsageError, match=str(identity.key)):
                await server.reload_tls()
            await asyncio.gather(*calls)


async def test_a_key_that_does_not_fit_is_refused_and_named(authority: Authority) -> None:
    identity = authority.sign()
    async with serve(ssl=TlsServer(**identity.options)) as server:
        identity.key.write_bytes(authority.sign().key.read_bytes())
        with pytest.raises(UsageError, match=f"{identity.key} cannot be used: the key is not that of the certificate"):
            await server.reload_tls()
        await echo(server, authority)


async def test_a_password_that_is_none_is_the_callers_mistake(authority: Authority) -> None:
    identity = authority.sign()
    tls = TlsServer(**identity.options, password=7)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"the key in .* cannot be opened"):
        await serve(ssl=tls).start()
    with pytest.raises((UsageError, TlsFailed), match=r"the key in .* cannot be opened"):
        async with associate(
            "ANY@localhost:1",
            [verification()],
            ssl=TlsClient(**identity.options, password=7),  # type: ignore[arg-type]
        ):
            raise AssertionError
