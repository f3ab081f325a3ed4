"""The same over TLS, where there is no descriptor to write to and no half-closed connection."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.files import sparse_file, write_file
from support.network import LOOPBACK
from support.raw_peer import CT, RawPeer, raw_acceptor
from support.requirements import system_program
from support.services import Keeper, serve
from tomowire.aio.blocks import BLOCK_SIZE
from tomowire.aio.budget import BLOCKS_FOR_TLS, LEAST_MEMORY
from tomowire.aio.connect import associate
from tomowire.errors import AssociationRejected, ConnectFailed, OperationTimeout
from tomowire.services.storage import CStoreScu, storage
from tomowire.services.verification import CEchoScu, verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN

pytestmark = pytest.mark.usefixtures("no_leaks")

MB = 1 << 20
CONTEXTS = [verification(), storage(CT, [EXPLICIT_VR_LITTLE_ENDIAN])]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *(str(system_program("openssl", "openssl")), "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test"),
            *("-addext", f"subjectAltName=IP:{LOOPBACK}", "-out", str(certificate), "-keyout", str(key)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture
def server_side(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def client_side(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate[0])


async def test_objects_arrive(tmp_path: Path, server_side: ssl.SSLContext, client_side: ssl.SSLContext) -> None:
    keeper = Keeper()
    data = bytes(number % 251 for number in range(MB)) * 5
    async with (
        serve(keeper, ssl=server_side) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", CONTEXTS, ssl=client_side) as association,
    ):
        assert (await CEchoScu(association).echo()).is_success
        scu = CStoreScu(association)
        files = [write_file(tmp_path, 1, data), *(write_file(tmp_path, number) for number in range(2, 20))]
        responses = await asyncio.gather(*(scu.send(file) for file in files))
    assert all(response.is_success for response in responses)
    assert keeper.stored["1.2.1"] == data


async def test_a_handler_that_does_not_read_holds_the_sender(
    tmp_path: Path, server_side: ssl.SSLContext, client_side: ssl.SSLContext
) -> None:
    keeper = Keeper(reads=False)
    keeper.gate.clear()
    async with (
        serve(keeper, ssl=server_side) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", CONTEXTS, ssl=client_side) as association,
    ):
        sending = asyncio.create_task(CStoreScu(association).send(sparse_file(tmp_path, 1, 64 * MB)))
        request = await keeper.next_begun()
        while not request.association.connection.is_reading_held:
            await asyncio.wait([sending], timeout=0.05)
        assert request.data.received <= 4 * MB
        keeper.gate.set()
        assert (await sending).is_success


async def test_what_waits_below_an_association_is_not_more_than_the_budget_counts(
    tmp_path: Path, server_side: ssl.SSLContext, client_side: ssl.SSLContext
) -> None:
    keeper = Keeper(reads=False)
    keeper.gate.clear()
    async with (
        serve(keeper, ssl=server_side) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", CONTEXTS, ssl=client_side) as association,
    ):
        sending = asyncio.create_task(CStoreScu(association).send(sparse_file(tmp_path, 1, 64 * MB)))
        below: Any = (await keeper.next_begun()).association.connection._transport
        while not below._ssl_protocol._ssl_reading_paused:
            await asyncio.wait([sending], timeout=0.05)
        held = len(below._ssl_protocol._ssl_buffer) + below._ssl_protocol._incoming.pending
        assert MB // 4 < held < BLOCKS_FOR_TLS * BLOCK_SIZE
        keeper.gate.set()
        assert (await sending).is_success


async def test_the_memory_of_tls_counts(server_side: ssl.SSLContext, client_side: ssl.SSLContext) -> None:
    """4 MiB are enough for four associations without it."""
    async with (
        serve(ssl=server_side, memory=LEAST_MEMORY) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", CONTEXTS, ssl=client_side),
    ):
        with pytest.raises(AssociationRejected, match="its limit of associations is reached"):
            async with associate(f"ANY@{LOOPBACK}:{server.port}", CONTEXTS, ssl=client_side):
                raise AssertionError


async def test_a_peer_that_does_not_shake_hands_is_dropped_in_time(server_side: ssl.SSLContext) -> None:
    """And does not hold up the end of the server."""
    async with serve(ssl=server_side, artim_timeout=0.3) as server, await RawPeer.connect(server.port) as peer:
        assert await peer.read_until_closed() == b""


async def test_a_peer_that_does_not_speak_tls_leaves_nothing(server_side: ssl.SSLContext) -> None:
    async with serve(ssl=server_side) as server:
        for _ in range(3):
            async with await RawPeer.connect(server.port) as peer:
                await peer.send(b"\x01\x00\x00\x00\x00\x44" + bytes(200))
                await peer.read_until_closed()
        assert server.associations == []


async def test_the_peer_does_not_speak_tls(client_side: ssl.SSLContext) -> None:
    async with serve(artim_timeout=0.2) as server:
        with pytest.raises(ConnectFailed, match="cannot connect to"):
            async with associate(f"ANY@{LOOPBACK}:{server.port}", CONTEXTS, ssl=client_side):
                raise AssertionError


async def test_a_certificate_that_nobody_vouches_for(server_side: ssl.SSLContext) -> None:
    async with serve(ssl=server_side) as server:
        with pytest.raises(ConnectFailed, match="certificate is signed by itself, and not trusted here"):
            async with associate(f"ANY@{LOOPBACK}:{server.port}", CONTEXTS, ssl=ssl.create_default_context()):
                raise AssertionError


async def test_a_peer_that_does_not_shake_hands_is_given_up(client_side: ssl.SSLContext) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        with pytest.raises(ConnectFailed, match=r"no answer within 0\.2 s"):
            async with associate(f"ANY@{LOOPBACK}:{port}", CONTEXTS, ssl=client_side, connect_timeout=0.2):
                raise AssertionError


async def test_a_peer_that_stops_reading_is_given_up(
    tmp_path: Path, server_side: ssl.SSLContext, client_side: ssl.SSLContext
) -> None:
    keeper = Keeper(reads=False)
    keeper.gate.clear()
    async with (
        serve(keeper, ssl=server_side) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", CONTEXTS, ssl=client_side) as association,
    ):
        with pytest.raises(OperationTimeout):
            await CStoreScu(association).send(sparse_file(tmp_path, 1, 64 * MB), timeout=0.3)
        await association.close(grace=0.1)
        keeper.gate.set()
        await keeper.next_end()
