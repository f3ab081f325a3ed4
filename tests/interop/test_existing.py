"""Associations over connections that are there already, with other people's programs behind them: DCMTK and pynetdicom.

Sockets, streams, TLS that somebody else has begun, and a program that relays what it gets on its standard input and output, as
`ssh -W host:port` does.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.certificates import Authority
from support.dcmqrscp import dcmqrscp, write_files
from support.dcmtk import objects_below, storescp
from support.filled import small_hospital
from support.network import LOOPBACK, free_port
from support.objects import ROOT, SECONDARY_CAPTURE
from support.requirements import system_program
from support.services import Keeper
from tomowire import (
    CEchoScu,
    CFindScu,
    CGetScu,
    CMoveScu,
    CStoreScu,
    PeerAddress,
    Query,
    Storage,
    TlsClient,
    associate,
    getting,
    listen,
    moving,
    querying,
    storage,
    verification,
)
from tomowire.services.dicom_file import inspect
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN

pytestmark = pytest.mark.interop

STUDY = f"{ROOT}.1.1"
SAMPLES = [sample for sample in small_hospital() if sample.number <= 5]
OBJECTS = {sample.uid: sample.data_set for sample in SAMPLES}

RELAY = """
import os, select, socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2]))).detach()
ways = {0: peer, peer: 1}
while data := {way: os.read(way, 65536) for way in select.select(list(ways), [], [])[0]}:
    for way, some in data.items():
        if not some:
            sys.exit()
        while some:
            some = some[os.write(ways[way], some):]
"""
"""What `ssh -W` does, without a network in between: a program of its own whose standard input and output are the connection."""


@asynccontextmanager
async def beside(*command: object) -> AsyncIterator[dict[str, Any]]:
    """A program that relays, which must end with the connection to it."""
    ours, theirs = socket.socketpair()
    with theirs:
        nothing = asyncio.subprocess.DEVNULL
        program = await asyncio.create_subprocess_exec(*map(str, command), stdin=theirs, stdout=theirs, stderr=nothing)
    try:
        yield {"sock": ours}
        async with asyncio.timeout(10):
            await program.wait()
    finally:
        ours.close()
        if program.returncode is None:
            program.kill()
            await program.wait()


@asynccontextmanager
async def connected(way: str, port: int) -> AsyncIterator[dict[str, Any]]:
    """A connection to `port`, as keyword arguments for `associate`."""
    match way:
        case "socket":
            yield {"sock": socket.create_connection((LOOPBACK, port))}
        case "streams":
            yield {"stream": await asyncio.open_connection(LOOPBACK, port)}
        case "transport":
            loop = asyncio.get_running_loop()
            yield {"stream": (await loop.create_connection(asyncio.Protocol, LOOPBACK, port))[0]}
        case _:
            async with beside(sys.executable, "-c", RELAY, LOOPBACK, port) as connection:
                yield connection


WAYS = ["socket", "streams", "transport", "program"]


@pytest.fixture(scope="module")
def archive(dcmtk: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """DCMTK's archive, and the port at which it knows DEST."""
    destination = free_port()
    with dcmqrscp(dcmtk("dcmqrscp"), tmp_path_factory.mktemp("archive"), SAMPLES, destination) as address:
        yield address, destination


@pytest.mark.parametrize("way", WAYS)
async def test_dcmtks_archive_is_asked_on_a_connection_that_is_there(archive: tuple[str, int], way: str) -> None:
    """C-ECHO, C-FIND, C-GET and C-MOVE, on one association."""
    peer, destination = PeerAddress.parse(archive[0]), archive[1]
    got, moved = Keeper(), Keeper()
    contexts = [verification(), querying(), moving(), getting(SECONDARY_CAPTURE)]
    async with (
        listen(LOOPBACK, destination, services=[Storage(moved.keep)], aet="DEST"),
        connected(way, peer.port) as connection,
        associate(
            f"{peer.ae_title}@nowhere.invalid", contexts, services=[Storage(got.keep)], **connection
        ) as association,
    ):
        assert (await CEchoScu(association).echo()).is_success
        query = Query.studies().patient_id("JANE")
        found = [str(each.StudyInstanceUID) async for each in CFindScu(association).find(query)]
        async for _ in CGetScu(association).get(Query.study(STUDY)):
            pass
        async for _ in CMoveScu(association).move(Query.study(STUDY), "DEST"):
            pass
    assert found == [STUDY]
    assert got.stored == moved.stored == OBJECTS


@pytest.fixture
def tls_storescp(dcmtk: Callable[[str], Path], tmp_path: Path) -> Iterator[tuple[int, ssl.SSLContext, Authority]]:
    """DCMTK's `storescp` with TLS; its port, and what to trust."""
    authority = Authority(tmp_path)
    mine = authority.sign(LOOPBACK, rsa=True)
    options = ["+tls", str(mine.key), str(mine.certificate), "-ic"]
    with storescp(dcmtk("storescp"), tmp_path / "received", *options) as port:
        yield port, ssl.create_default_context(cafile=authority.file), authority


async def store_over(connection: dict[str, Any], folder: Path) -> None:
    """Store the first of `SAMPLES`."""
    write_files(folder / "sent", SAMPLES[:1])
    file = inspect(folder / "sent" / "1.dcm")
    contexts = [verification(), storage(SECONDARY_CAPTURE, [EXPLICIT_VR_LITTLE_ENDIAN])]
    async with associate("STORESCP@127.0.0.1", contexts, **connection) as association:
        assert (await CEchoScu(association).echo()).is_success
        assert (await CStoreScu(association).send(file)).is_success


def assert_stored(folder: Path) -> None:
    assert [(each.sop_instance_uid, each.data_set) for each in objects_below(folder)] == [
        (SAMPLES[0].uid, SAMPLES[0].data_set)
    ]


@pytest.mark.parametrize("way", WAYS)
async def test_tls_begins_on_a_connection_that_is_there(
    tls_storescp: tuple[int, ssl.SSLContext, Authority], tmp_path: Path, way: str
) -> None:
    port, _, authority = tls_storescp
    async with connected(way, port) as connection:
        await store_over(connection | {"ssl": TlsClient(authority.file)}, tmp_path)
    assert_stored(tmp_path / "received")


@pytest.mark.parametrize("kind", ["streams", "transport"])
async def test_tls_that_somebody_else_has_begun_is_used_as_it_is(
    tls_storescp: tuple[int, ssl.SSLContext, Authority], tmp_path: Path, kind: str
) -> None:
    port, context, _ = tls_storescp
    reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
    stream = (reader, writer) if kind == "streams" else writer.transport
    await store_over({"stream": stream}, tmp_path)
    assert_stored(tmp_path / "received")


async def test_openssl_speaks_tls_for_an_association_that_knows_nothing_of_it(
    tls_storescp: tuple[int, ssl.SSLContext, Authority], tmp_path: Path
) -> None:
    command = (
        system_program("openssl", "openssl"),
        "s_client",
        "-quiet",
        "-no_ign_eof",
        "-connect",
        f"{LOOPBACK}:{tls_storescp[0]}",
    )
    async with beside(*command) as connection:
        await store_over(connection, tmp_path)
    assert_stored(tmp_path / "received")


@pytest.mark.parametrize("way", WAYS)
async def test_pynetdicom_stores_what_comes_over_a_connection_that_is_there(
    pynetdicom: ModuleType, tmp_path: Path, way: str
) -> None:
    received: dict[str, bytes] = {}

    def keep(event: Any) -> int:
        received[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
        return 0x0000

    entity = pynetdicom.AE("STORESCP")
    entity.add_supported_context(verification().abstract_syntax)
    entity.add_supported_context(SECONDARY_CAPTURE, EXPLICIT_VR_LITTLE_ENDIAN)
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=[(pynetdicom.evt.EVT_C_STORE, keep)])
    try:
        async with connected(way, server.socket.getsockname()[1]) as connection:
            await store_over(connection, tmp_path)
    finally:
        await asyncio.to_thread(server.shutdown)
    assert received == {SAMPLES[0].uid: SAMPLES[0].data_set}
