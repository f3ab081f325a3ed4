"""What comes faster than it is used makes the peer wait; memory stays flat, on both sides."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.network import LOOPBACK
from support.raw_peer import CT, RELEASE_RP, RawPeer, command_pdu, echo_rq, message_pdus, p_data, raw_acceptor, store_rq
from support.requirements import REPOSITORY
from support.services import Keeper, serve
from tomowire.aio.blocks import BLOCK_LIMIT, BLOCK_SIZE, LEAST_BLOCKS
from tomowire.aio.budget import LEAST_MEMORY
from tomowire.aio.connect import associate
from tomowire.aio.connection import Connection
from tomowire.aio.ending import Ending
from tomowire.errors import AssociationReleased
from tomowire.services.dicom_file import DicomFile
from tomowire.services.models import Model
from tomowire.services.move import CMoveScu, moving
from tomowire.services.query import Query
from tomowire.services.storage import CStoreScu, storage
from tomowire.services.storage_scp import StoreRequest
from tomowire.services.verification import CEchoScu, verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.messages import CEchoRSP, CMoveRSP, CStoreRSP, Response
from tomowire.wire.pdu import AReleaseRQ

pytestmark = pytest.mark.usefixtures("no_leaks")

MB = 1 << 20
BLOCKS = BLOCK_LIMIT * BLOCK_SIZE
# What the kernels of both ends may hold of a connection (tcp_rmem and tcp_wmem have maxima of 6 MB and 4 MB).
KERNEL = 16 * MB
FRAGMENT = p_data(3, bytes(128 * 1024 - 12), command=False, last=False)
LAST = p_data(3, b"", command=False, last=True)


async def read_status(peer: RawPeer) -> int:
    command = (await peer.read_message()).command
    assert isinstance(command, Response)
    return command.status


def narrow(peer: RawPeer, connection: Connection) -> None:
    """Let the kernel hold little of what is under way: else it takes some hundred thousand messages until anybody waits."""
    assert connection._transport is not None
    for end in (peer.socket, connection._transport.get_extra_info("socket")):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)


async def test_a_handler_that_does_not_read_makes_its_peer_wait_and_nobody_else() -> None:
    keeper = Keeper(reads=False)
    keeper.gate.clear()
    async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(command_pdu(3, store_rq()))
        request = await keeper.next_begun()
        sent = await peer.send_until_stalled(FRAGMENT, limit=200 * MB)
        assert request.association.connection.is_reading_held
        assert BLOCKS - BLOCK_SIZE < request.data.received <= BLOCKS
        assert sent < BLOCKS + KERNEL
        async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as other:
            assert (await CEchoScu(other).echo()).is_success
        keeper.gate.set()
        await peer.send(FRAGMENT[sent % len(FRAGMENT) :], LAST)
        assert await read_status(peer) == 0
    assert len(keeper.stored["1.2.3"]) == (sent // len(FRAGMENT) + 1) * (len(FRAGMENT) - 12)


async def test_a_handler_that_reads_slowly_is_given_what_there_is_and_no_more() -> None:
    sizes: list[int] = []
    turns = asyncio.Semaphore(0)

    class Slow(Keeper):
        async def keep(self, request: StoreRequest) -> int:
            self.begun.put_nowait(request)
            async for chunk in request.data:
                sizes.append(chunk.nbytes)
                await turns.acquire()
            return 0

    keeper = Slow()
    async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(command_pdu(3, store_rq()))
        request = await keeper.next_begun()
        total = 0
        for _ in range(3):
            total = await peer.send_until_stalled(FRAGMENT, limit=200 * MB, already=total)
            assert request.data.received <= sum(sizes) + BLOCKS
            turns.release()
        for _ in range(1000):
            turns.release()
        await peer.send(FRAGMENT[total % len(FRAGMENT) :], LAST)
        assert await read_status(peer) == 0
    assert max(sizes) <= BLOCKS
    assert sum(sizes) == (total // len(FRAGMENT) + 1) * (len(FRAGMENT) - 12)


async def test_small_objects_that_wait_for_their_handlers_fill_the_same_memory() -> None:
    """The last that begins is not whole, and its handler is not asked to wait for the rest: it gets what there is."""
    keeper = Keeper()
    keeper.gate.clear()
    data = bytes(300 * 1024)
    async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        objects = [message_pdus(3, store_rq(number, f"1.{number}"), data, 1 << 17) for number in range(60)]
        sending = asyncio.create_task(peer.send(*objects))
        begun = [await keeper.next_begun() for _ in range(BLOCKS // len(data))]
        connection = begun[0].association.connection
        async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as other:
            for _ in range(20):
                await CEchoScu(other).echo()
        assert connection.is_reading_held
        assert keeper.running <= BLOCKS // len(data) + 1
        keeper.gate.set()
        answers = [await read_status(peer) for _ in range(60)]
        await sending
    assert answers == [0] * 60
    assert set(keeper.stored.values()) == {data}


async def test_blocks_full_of_tiny_fragments_are_handed_out_before_there_is_enough_to_gather() -> None:
    """A byte takes thirteen on the way: all blocks are full long before a megabyte of data has come. (Few blocks fill sooner.)"""
    count = LEAST_BLOCKS * BLOCK_SIZE // 13 + 10_000
    keeper = Keeper()
    async with serve(keeper, memory=LEAST_MEMORY) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        sending = asyncio.create_task(
            peer.send(command_pdu(3, store_rq()), p_data(3, b"x", command=False, last=False) * count, LAST)
        )
        assert await read_status(peer) == 0
        await sending
    assert keeper.stored["1.2.3"] == b"x" * count


async def test_a_flood_of_responses_without_data_sets_waits_until_they_are_taken() -> None:
    """Nothing of them lies in the memory that is received into: they would pile up as long as the caller does something else."""
    pending = command_pdu(1, CMoveRSP(message_id_being_responded_to=1, status=0xFF00)) * 100
    final = command_pdu(1, CMoveRSP(message_id_being_responded_to=1, status=0))
    stalled = asyncio.Event()
    sent = 0

    async def script(peer: RawPeer) -> None:
        nonlocal sent
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        await peer.accept()
        await peer.read_message()
        sent = await peer.send_until_stalled(pending, limit=50 * MB)
        stalled.set()
        await peer.send(pending[sent % len(pending) :], final)
        await peer.answer_release()

    async with raw_acceptor(script) as port:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.connect((LOOPBACK, port))
        async with associate("ANY@here:104", [moving(Model.STUDY_ROOT)], sock=sock) as association:
            progress = CMoveScu(association).move(Query.study("1.2.3"), "SOMEWHERE")
            await anext(progress)
            await stalled.wait()
            assert association.connection.is_reading_held
            taken = 1 + len([each async for each in progress])
    assert taken == -(-sent // len(pending)) * 100 + 1


@pytest.mark.parametrize("is_held_up_before", [True, False])
async def test_they_do_not_hold_up_a_release(is_held_up_before: bool) -> None:
    """Who leaves a retrieval in the middle is not to wait for the answer behind what nobody takes."""
    pending = command_pdu(1, CMoveRSP(message_id_being_responded_to=1, status=0xFF00)) * 100
    begun = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_message()
        await peer.send(pending)
        sent = await peer.send_until_stalled(pending, limit=50 * MB) if is_held_up_before else 0
        begun.set()
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        await peer.send(pending[sent % len(pending) :], *[pending] * 200, RELEASE_RP)
        assert await peer.read_until_closed() == b""

    async with raw_acceptor(script) as port:
        peer = f"ANY@{LOOPBACK}:{port}"
        async with associate(peer, [moving(Model.STUDY_ROOT)], release_timeout=20) as association:
            progress = CMoveScu(association).move(Query.study("1.2.3"), "SOMEWHERE")
            await anext(progress)
            await begun.wait()
        assert association.end is not None
        assert association.end.how is Ending.RELEASED
        with pytest.raises(AssociationReleased, match="not been taken"):
            assert [each async for each in progress]


async def test_they_are_copied_when_their_caller_waits_for_something_else() -> None:
    """It would hold up itself; and another is answered at once."""

    async def script(peer: RawPeer) -> None:
        await peer.accept(window=(4, 1))
        move = (await peer.read_message()).command.message_id  # type: ignore[attr-defined]
        pending = command_pdu(1, CMoveRSP(message_id_being_responded_to=move, status=0xFF00))
        await peer.send(pending)
        echo = (await peer.read_message()).command.message_id  # type: ignore[attr-defined]
        for _ in range(20):
            await peer.send(pending * 1000)
        await peer.send(command_pdu(3, CEchoRSP(message_id_being_responded_to=echo, status=0)))
        await peer.send(command_pdu(1, CMoveRSP(message_id_being_responded_to=move, status=0)))
        await peer.answer_release()

    contexts = [moving(Model.STUDY_ROOT), verification()]
    async with raw_acceptor(script) as port, associate(f"ANY@{LOOPBACK}:{port}", contexts) as association:
        progress = CMoveScu(association).move(Query.study("1.2.3"), "SOMEWHERE")
        await anext(progress)
        assert (await CEchoScu(association).echo()).is_success
        assert len([each async for each in progress]) == 20_001


async def test_a_peer_that_does_not_read_its_answers_is_not_read_from() -> None:
    flood = b"".join(command_pdu(1, echo_rq(number)) for number in range(1000))
    async with serve() as server, await RawPeer.connect(server.port, receive_buffer=4096) as peer:
        await peer.associate()
        (association,) = server.associations
        narrow(peer, association.connection)
        sent = await peer.send_until_held(flood, association.connection)
        assert association.connection.unsent < MB
        async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as other:
            assert (await CEchoScu(other).echo()).is_success
        each = len(flood) // 1000
        for _ in range(sent // each):  # and when it reads, everything is answered
            assert await read_status(peer) == 0


async def test_a_peer_that_never_reads_its_answers_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """Its handlers wait for it and are never idle: that must not keep the association for ever."""
    flood = command_pdu(1, echo_rq()) * 1000
    async with (
        serve(idle_timeout=3) as server,
        await RawPeer.connect(server.port, receive_buffer=4096) as peer,
    ):
        await peer.associate()
        (association,) = server.associations
        narrow(peer, association.connection)
        await peer.send_until_held(flood, association.connection)
        async with asyncio.timeout(30):
            await association.wait_closed()
    assert "the peer has not read what was sent for 3 s" in caplog.text


async def test_artim_does_not_wait_for_a_peer_that_reads_nothing() -> None:
    """What is still to be sent to it does not keep the connection after the abort."""
    flood = command_pdu(1, echo_rq()) * 1000
    async with serve(artim_timeout=0.3) as server, await RawPeer.connect(server.port, receive_buffer=4096) as peer:
        await peer.associate()
        (association,) = server.associations
        narrow(peer, association.connection)
        await peer.send_until_held(flood, association.connection)
        association.abort()
        assert association.connection.unsent
        async with asyncio.timeout(20):
            await association.wait_closed()


async def test_the_sender_waits_for_a_peer_that_does_not_read(tmp_path: Path) -> None:
    size = 64 * MB
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(size)
    may_read = asyncio.Event()
    received = 0

    async def script(peer: RawPeer) -> None:
        nonlocal received
        await peer.accept()
        await may_read.wait()
        message = await peer.read_message()
        received = len(message.data or b"")
        await peer.send(command_pdu(message.context_id, CStoreRSP(message_id_being_responded_to=1, status=0)))
        await peer.answer_release()

    progress: list[int] = []
    async with (
        raw_acceptor(script) as port,
        associate(f"ANY@{LOOPBACK}:{port}", [storage(CT, [EXPLICIT_VR_LITTLE_ENDIAN])]) as association,
    ):
        file_ = DicomFile(path, CT, "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN, 0, size)
        sending = asyncio.create_task(CStoreScu(association).send(file_, on_bytes=progress.append))
        before = -1
        while sum(progress) != before:  # until it stands still
            before = sum(progress)
            await asyncio.wait([sending], timeout=0.3)
        assert 0 < sum(progress) < KERNEL + 2 * MB
        assert 0 < association.connection.unsent <= MB + 4096
        may_read.set()
        assert (await sending).is_success
    assert received == sum(progress) == size


def test_a_large_object_costs_neither_side_its_size() -> None:
    """Sender and receiver in one process: together they add less than 32 MB to it for an object of 64 MB."""
    program = """
import asyncio, json, resource, tempfile
from pathlib import Path
from tomowire import CStoreScu, Storage, associate, listen, storage
from tomowire.services.dicom_file import DicomFile
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN as EXPLICIT

CT, SIZE = "1.2.840.10008.5.1.4.1.1.2", 64 << 20
largest = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
received = 0

async def keep(request):
    global received
    async for chunk in request.data:
        received += chunk.nbytes
    return 0

async def main(path):
    async with listen(port=0, services=[Storage(keep)]) as server:
        async with associate(f"ANY@127.0.0.1:{server.port}", [storage(CT, [EXPLICIT])]) as association:
            sizes = []
            for number, size in enumerate((1 << 10, SIZE)):
                with path.open("wb") as file:
                    file.truncate(size)
                response = await CStoreScu(association).send(DicomFile(path, CT, f"1.{number}", EXPLICIT, 0, size))
                assert response.is_success
                sizes.append(largest())
    print(json.dumps({"received": received, "added": sizes[1] - sizes[0]}))

with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(Path(folder) / "object"))
"""
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(REPOSITORY / "src")},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    result = json.loads(answer.stdout)
    assert result["received"] == (64 << 20) + (1 << 10)
    assert result["added"] < 32 << 20
