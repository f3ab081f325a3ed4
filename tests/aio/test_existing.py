"""An association on a connection that is there already: a socket, a transport, a pair of streams."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Authority
from support.files import data_of, write_file
from support.network import LOOPBACK, closed
from support.raw_peer import CT, RawPeer
from support.services import Keeper, serve
from tomowire.aio.connect import associate
from tomowire.aio.listen import Server
from tomowire.aio.tls import TlsClient, TlsServer
from tomowire.errors import AssociationAborted, AssociationLost, TlsFailed, UsageError
from tomowire.services.storage import CStoreScu, storage
from tomowire.services.verification import CEchoScu, verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.pdu import AAbort, encode_pdu

ON_EVERY_LOOP = True

CONTEXTS = [verification(), storage(CT, [EXPLICIT_VR_LITTLE_ENDIAN])]
PEER = "ANY@nowhere.invalid:104"
"""No connection can be opened to it."""


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
async def server(keeper: Keeper) -> AsyncIterator[Server]:
    async with serve(keeper) as server:
        yield server


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets without an address."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("blocking", [True, False])
async def test_a_connected_socket_is_used_and_closed_at_the_end(tmp_path: Path, blocking: bool) -> None:
    keeper = Keeper()
    async with serve(keeper) as server:
        sock = socket.create_connection((LOOPBACK, server.port))
        sock.setblocking(blocking)
        async with associate(PEER, CONTEXTS, sock=sock) as association:
            assert association.peer_address == f"{LOOPBACK}:{server.port}"
            assert (await CStoreScu(association).send(write_file(tmp_path, 1))).is_success
        await closed(sock)
    assert keeper.stored["1.2.1"] == data_of(1)


async def test_a_socket_pair_serves_as_well(pair: tuple[socket.socket, socket.socket]) -> None:
    async def acceptor() -> None:
        peer = RawPeer(pair[1])
        await peer.accept()
        await peer.answer_release()

    accepting = asyncio.create_task(acceptor())
    async with associate(PEER, CONTEXTS, sock=pair[0]) as association:
        assert association.is_established
    await accepting


async def test_a_transport_is_used_and_closed_at_the_end(server: Server, keeper: Keeper, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, LOOPBACK, server.port)
    async with associate(PEER, CONTEXTS, stream=transport) as association:
        assert (await CStoreScu(association).send(write_file(tmp_path, 1))).is_success
    assert transport.is_closing()
    assert keeper.stored["1.2.1"] == data_of(1)


async def test_a_transport_that_was_told_to_read_no_more_is_read_again(server: Server) -> None:
    """A reader that holds much has paused it."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, LOOPBACK, server.port)
    transport.pause_reading()
    async with associate(PEER, CONTEXTS, stream=transport, association_timeout=10) as association:
        assert (await CEchoScu(association).echo()).is_success


async def test_streams_are_used_and_nobody_else_has_to_hold_them(
    server: Server, keeper: Keeper, tmp_path: Path
) -> None:
    async with associate(PEER, CONTEXTS, stream=await asyncio.open_connection(LOOPBACK, server.port)) as association:
        assert (await CEchoScu(association).echo()).is_success
        assert (await CStoreScu(association).send(write_file(tmp_path, 1))).is_success
    assert keeper.stored["1.2.1"] == data_of(1)


@pytest.mark.parametrize(
    ("tls", "held", "error", "words"),
    [
        (None, encode_pdu(AAbort(2, 1)), AssociationAborted, "the peer aborted the association"),
        (None, b"HTTP/1.1 400 Bad Request\r\n" * 4000, AssociationAborted, "it speaks HTTP"),
        (TlsClient(verify=False), b"HTTP/1.1 400 Bad Request\r\n", TlsFailed, "but HTTP"),
    ],
)
async def test_what_a_reader_holds_is_not_lost(
    pair: tuple[socket.socket, socket.socket], tls: TlsClient | None, held: bytes, error: type[Exception], words: str
) -> None:
    reader, writer = await asyncio.open_connection(sock=pair[0])
    pair[1].sendall(b"1" + held)
    assert await reader.readexactly(1) == b"1"
    with pytest.raises(error, match=words):
        async with associate(PEER, CONTEXTS, stream=(reader, writer), ssl=tls):
            raise AssertionError


class Ending(asyncio.StreamReaderProtocol):
    """Tells that the other side sends no more."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self.has_ended = asyncio.Event()

    def eof_received(self) -> bool | None:
        self.has_ended.set()
        return super().eof_received()


async def test_nor_is_the_end_behind_it(pair: tuple[socket.socket, socket.socket]) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, protocol = await loop.create_connection(lambda: Ending(reader), sock=pair[0])
    pair[1].sendall(b"\x02")
    pair[1].shutdown(socket.SHUT_WR)
    await protocol.has_ended.wait()
    with pytest.raises(AssociationLost, match="closed the connection instead of answering"):
        async with associate(PEER, CONTEXTS, stream=(reader, asyncio.StreamWriter(transport, protocol, reader, loop))):
            raise AssertionError


async def test_for_the_streams_it_is_the_end(server: Server) -> None:
    """Who waits for one of them, as is the habit after `close`, does not wait for ever."""
    reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
    waiting = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    async with associate(PEER, CONTEXTS, stream=(reader, writer)) as association, asyncio.timeout(10):
        assert await waiting == b""
        assert (await CEchoScu(association).echo()).is_success
    writer.close()
    async with asyncio.timeout(10):
        await writer.wait_closed()


async def test_a_stream_that_speaks_tls_already_is_used_as_it_is(authority: Authority) -> None:
    context = ssl.create_default_context(cafile=authority.file)
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:
        streams = await asyncio.open_connection(LOOPBACK, server.port, ssl=context)
        async with associate(PEER, CONTEXTS, stream=streams) as association:
            assert (await CEchoScu(association).echo()).is_success
            assert association.tls_version == "TLSv1.3"


@pytest.mark.parametrize("kind", ["socket", "stream", "transport"])
async def test_tls_begins_on_what_is_there(authority: Authority, kind: str) -> None:
    loop = asyncio.get_running_loop()
    client = TlsClient(authority.file, server_hostname=LOOPBACK)
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:
        if kind == "socket":
            existing = {"sock": socket.create_connection((LOOPBACK, server.port))}
        elif kind == "stream":
            existing = {"stream": await asyncio.open_connection(LOOPBACK, server.port)}
        else:
            existing = {"stream": (await loop.create_connection(asyncio.Protocol, LOOPBACK, server.port))[0]}
        async with associate(PEER, CONTEXTS, ssl=client, **existing) as association:
            assert (await CEchoScu(association).echo()).is_success
            assert association.peer_certificate is not None


async def test_the_name_in_the_certificate_is_that_of_the_peer(authority: Authority) -> None:
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:
        sock = socket.create_connection((LOOPBACK, server.port))
        with pytest.raises(TlsFailed, match=r"not valid for 'nowhere\.invalid'"):
            async with associate(PEER, CONTEXTS, ssl=TlsClient(authority.file), sock=sock):
                raise AssertionError
        await closed(sock)


# What cannot be used is still the caller's


async def refused(**existing: object) -> str:
    with pytest.raises(UsageError) as error:
        async with associate(PEER, CONTEXTS, **existing):  # type: ignore[arg-type]
            raise AssertionError
    return str(error.value)


async def test_a_socket_that_is_not_connected() -> None:
    with socket.socket() as sock:
        assert (await refused(sock=sock)).startswith("the socket is not connected (")
        assert sock.getblocking()
        assert sock.fileno() != -1


@pytest.mark.parametrize("mistake", [{"aet": "x" * 17}, {"malformed": "both"}, {"window": 1 << 16}])
async def test_a_mistake_in_something_else(
    pair: tuple[socket.socket, socket.socket], mistake: dict[str, object]
) -> None:
    await refused(sock=pair[0], **mistake)
    assert pair[0].getblocking()
    assert pair[0].fileno() != -1


async def test_a_socket_that_is_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    assert await refused(sock=pair[0]) == "the socket is closed"


async def test_a_datagram_socket() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect((LOOPBACK, 104))
        assert "must be a stream over TCP or a Unix socket" in await refused(sock=sock)


async def test_a_socket_with_tls_of_its_own(pair: tuple[socket.socket, socket.socket]) -> None:
    context = ssl.create_default_context()
    with context.wrap_socket(pair[0], server_hostname="x", do_handshake_on_connect=False) as sock:
        assert "give the socket below it, and ssl= for TLS" in await refused(sock=sock)


async def test_a_stream_that_is_closed(server: Server) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
    writer.close()
    assert await refused(stream=(reader, writer)) == "the stream is closed"
    assert await refused(stream=writer.transport) == "the stream is closed"


async def test_a_stream_that_the_peer_has_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    reader, writer = await asyncio.open_connection(sock=pair[0])
    pair[1].close()
    assert await reader.read() == b""
    assert await refused(stream=(reader, writer)) == "the stream is closed"
    writer.close()


async def test_a_socket_and_a_stream(server: Server, pair: tuple[socket.socket, socket.socket]) -> None:
    streams = await asyncio.open_connection(LOOPBACK, server.port)
    assert await refused(sock=pair[0], stream=streams) == "there can be a socket or a stream, not both"
    streams[1].close()


# When it fails


async def test_a_socket_whose_other_end_is_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].close()
    with pytest.raises((AssociationLost, UsageError)):  # some systems know it at once
        async with associate(PEER, CONTEXTS, sock=pair[0]):
            raise AssertionError
    await closed(pair[0])


async def test_a_file_that_is_missing_closes_what_was_given(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(UsageError, match="No such file"):
        async with associate(PEER, CONTEXTS, sock=pair[0], ssl=TlsClient("missing.pem")):
            raise AssertionError
    assert pair[0].fileno() == -1


async def test_the_pipes_of_a_program_are_refused_with_the_way_that_works() -> None:
    program = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    assert program.stdin is not None
    assert program.stdout is not None
    with pytest.raises(UsageError, match=r"these are pipes, of which each goes one way.*socketpair"):
        async with associate(PEER, CONTEXTS, stream=(program.stdout, program.stdin)):
            raise AssertionError
    program.stdin.write(b"still the caller's")
    program.stdin.close()
    assert await program.stdout.read() == b"still the caller's"
    await program.wait()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stream": "ANY@localhost:104"}, "stream= takes a transport, .* and not str"),
        ({"stream": (1, 2)}, r"and not \('int', 'int'\)"),
        ({"sock": 7}, "sock is a connected socket.socket, and not a int"),
    ],
)
async def test_what_is_neither_socket_nor_stream(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        async with associate(PEER, CONTEXTS, **given):
            raise AssertionError
