"""The same on every event loop that there is: asyncio's own, and uvloop where it is installed."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from support.cancelling import cancelled_after_each_step
from support.files import data_of, sparse_file, write_file
from support.leaks import Resources, leaks_since
from support.network import LOOPBACK
from support.raw_peer import (
    CT,
    RELEASE_RQ,
    RawPeer,
    command_pdu,
    echo_rq,
    message_pdus,
    p_data,
    raw_acceptor,
    store_rq,
)
from support.services import Keeper, serve
from tomowire.aio.address import PeerAddress
from tomowire.aio.blocks import BLOCK_LIMIT, BLOCK_SIZE
from tomowire.aio.connect import associate
from tomowire.aio.connection import Connection
from tomowire.aio.listen import listen
from tomowire.errors import AssociationAborted, ConnectFailed, OperationTimeout
from tomowire.services.sending import send_files
from tomowire.services.storage import CStoreScu, storage
from tomowire.services.storage_scp import Storage, StoreRequest
from tomowire.services.verification import CEchoScu, verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.messages import CStoreRSP
from tomowire.wire.pdu import AAbort, AAssociateAC, AReleaseRP

MB = 1 << 20
CONTEXTS = [verification(), storage(CT, [EXPLICIT_VR_LITTLE_ENDIAN])]


def new_uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(
        new_uvloop,
        id="uvloop",
        marks=pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"),
    ),
]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Runs a scenario on one kind of loop, and sees that it leaves nothing."""

    async def watched(scenario: Callable[[], Awaitable[None]]) -> None:
        # What a loop opens for itself when it first listens.
        first = await asyncio.start_server(lambda *_: None, LOOPBACK, 0)
        first.close()
        await first.wait_closed()
        before = Resources.now()
        async with asyncio.timeout(60):
            await scenario()
        assert await leaks_since(before) == []

    def run_it(scenario: Callable[[], Awaitable[None]]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(watched(scenario))

    return run_it


def to(port: int, **options: Any) -> Any:
    return associate(f"ANY@{LOOPBACK}:{port}", CONTEXTS, **options)


def test_files_arrive(run: Any, tmp_path: Path) -> None:
    files = [write_file(tmp_path, number) for number in range(100)]
    files += [sparse_file(tmp_path, 200, 20 * MB), write_file(tmp_path, 201, bytes(range(256)) * 8000)]

    async def scenario() -> None:
        keeper = Keeper()
        async with serve(keeper) as server:
            peer = PeerAddress("ANY", LOOPBACK, server.port)
            results = [sent async for sent in send_files(peer, files, associations=2)]
        assert not any(sent.is_failure for sent in results)
        assert all(keeper.stored[f"1.2.{number}"] == data_of(number) for number in range(100))
        assert len(keeper.stored["1.2.200"]) == 20 * MB
        assert keeper.stored["1.2.201"] == bytes(range(256)) * 8000

    run(scenario)


def test_a_handler_that_does_not_read_makes_its_peer_wait(run: Any) -> None:
    fragment = p_data(3, bytes(128 * 1024 - 12), command=False, last=False)

    async def scenario() -> None:
        keeper = Keeper(reads=False)
        keeper.gate.clear()
        async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
            await peer.associate()
            await peer.send(command_pdu(3, store_rq()))
            request = await keeper.next_begun()
            sent = await peer.send_until_stalled(fragment, limit=200 * MB)
            assert request.data.received <= BLOCK_LIMIT * BLOCK_SIZE
            async with to(server.port) as other:
                assert (await CEchoScu(other).echo()).is_success
            keeper.gate.set()
            await peer.send(fragment[sent % len(fragment) :], p_data(3, b"", command=False, last=True))
            answer = (await peer.read_message()).command
            assert isinstance(answer, CStoreRSP)
            assert answer.status == 0

    run(scenario)


def test_a_peer_that_stops_reading_is_given_up(run: Any, tmp_path: Path) -> None:
    file = sparse_file(tmp_path, 1, 64 * MB)

    async def scenario() -> None:
        stay = asyncio.Event()

        async def script(peer: RawPeer) -> None:
            await peer.accept()
            await stay.wait()

        async with raw_acceptor(script, receive_buffer=4096) as port, to(port) as association:
            with pytest.raises(OperationTimeout):
                await CStoreScu(association).send(file, timeout=0.3)
            await association.close(grace=0.1)
            assert association.connection.is_closed
            stay.set()

    run(scenario)


def test_a_peer_that_reads_slowly_gets_everything_unharmed(run: Any, tmp_path: Path) -> None:
    """What waits to be sent is in memory that is to be used again: it must not be, too early."""
    data = bytes(number * 7 % 251 for number in range(MB)) * 6
    file = write_file(tmp_path, 1, data)

    async def scenario() -> None:
        received: list[bytes | None] = []

        async def script(peer: RawPeer) -> None:
            await peer.accept(maximum_length=50_000)
            received.append((await peer.read_message()).data)
            await peer.send(command_pdu(3, CStoreRSP(message_id_being_responded_to=1, status=0)))
            await peer.answer_release()

        async with raw_acceptor(script, receive_buffer=4096) as port, to(port) as association:
            assert (await CStoreScu(association).send(file)).is_success
        assert received == [data]

    run(scenario)


def test_a_piece_that_was_written_may_be_overwritten(run: Any) -> None:
    """Not before its last byte is with the kernel: a loop may keep a reference instead of a copy."""
    count, size = 300, 30_000

    async def scenario() -> None:
        received: list[bytes | None] = []

        async def script(peer: RawPeer) -> None:
            await peer.accept()
            received.append((await peer.read_message()).data)
            await peer.send(command_pdu(3, CStoreRSP(message_id_being_responded_to=1, status=0)))
            await peer.answer_release()

        buffer = bytearray(size)
        request = store_rq()
        async with (
            raw_acceptor(script, receive_buffer=4096) as port,
            to(port) as association,
            association.operation(request, name="C-STORE", timeout=20) as operation,
        ):
            async with association.sending(3, request, operation) as sender:
                for number in range(count):
                    buffer[:] = bytes([number % 251]) * size
                    await sender.write(memoryview(buffer), last=number == count - 1)
                    buffer[:] = b"\xff" * size
            await operation.only_response()
        (data,) = received
        assert data == b"".join(bytes([number % 251]) * size for number in range(count))

    run(scenario)


def test_artim_drops_who_says_nothing(run: Any) -> None:
    async def scenario() -> None:
        async with serve(artim_timeout=0.2) as server:
            async with await RawPeer.connect(server.port) as silent:
                assert await silent.read_until_closed() == b""
            async with await RawPeer.connect(server.port) as babbling:
                await babbling.send(b"GET / HTTP/1.1\r\n\r\n")
                assert isinstance(await babbling.read_pdu(), AAbort)
                assert await babbling.read_until_closed() == b""

    run(scenario)


def test_a_half_closed_connection_is_still_answered(run: Any) -> None:
    async def scenario() -> None:
        keeper = Keeper()
        keeper.gate.clear()
        async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
            await peer.associate()
            await peer.send(message_pdus(3, store_rq(), b"data"), RELEASE_RQ)
            peer.half_close()
            await keeper.next_begun()
            keeper.gate.set()
            assert isinstance((await peer.read_message()).command, CStoreRSP)
            assert isinstance(await peer.read_pdu(), AReleaseRP)
            assert await peer.read_until_closed() == b""

    run(scenario)


@pytest.mark.parametrize("way", ["reset", "close", "abort"])
def test_handlers_of_a_peer_that_goes_away_are_cancelled(run: Any, way: str) -> None:
    async def scenario() -> None:
        keeper = Keeper()
        keeper.gate.clear()
        async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
            await peer.associate()
            await peer.send(message_pdus(3, store_rq(), b"data"))
            await keeper.next_begun()
            if way == "abort":
                await peer.send(AAbort(0, 0))
            else:
                getattr(peer, way)()
            assert isinstance(await keeper.next_end(), asyncio.CancelledError)
        assert keeper.stored == {}

    run(scenario)


def test_the_last_words_of_a_peer_are_heard(run: Any, tmp_path: Path) -> None:
    file = sparse_file(tmp_path, 1, 64 * MB)

    async def scenario() -> None:
        async def script(peer: RawPeer) -> None:
            await peer.accept()
            await peer.read(200)
            await peer.send(AAbort(2, 1))

        async with raw_acceptor(script) as port, to(port) as association:
            with pytest.raises(AssociationAborted, match="the peer aborted"):
                await CStoreScu(association).send(file)

    run(scenario)


def test_nobody_listens(run: Any) -> None:
    async def scenario() -> None:
        async with serve() as server:
            port = server.port
        with pytest.raises(ConnectFailed, match="refused"):
            async with to(port):
                raise AssertionError

    run(scenario)


def test_shutting_down(run: Any) -> None:
    async def scenario() -> None:
        keeper = Keeper()
        keeper.gate.clear()
        server = serve(keeper, shutdown_grace=0.1)
        await server.start()
        async with await RawPeer.connect(server.port) as busy, await RawPeer.connect(server.port) as silent:
            assert isinstance(await busy.associate(), AAssociateAC)
            await busy.send(message_pdus(3, store_rq(), b"data"), message_pdus(1, echo_rq(2)))
            await keeper.next_begun()
            closing = asyncio.create_task(server.close())
            assert await busy.expect_abort() == AAbort(0, 0)
            busy.close()
            await closing
            assert await silent.read_until_closed() == b""
            assert isinstance(await keeper.next_end(), asyncio.CancelledError)

    run(scenario)


def test_cancelling(run: Any, tmp_path: Path) -> None:
    file = sparse_file(tmp_path, 1, 3 * MB)

    async def scenario() -> None:
        async with serve() as server:

            async def whole() -> None:
                async with to(server.port) as association:
                    await CStoreScu(association).send(file)

            async for _ in cancelled_after_each_step(whole):
                pass
            await whole()

    run(scenario)


def test_a_large_object_is_handed_on_while_it_arrives(run: Any, tmp_path: Path) -> None:
    """uvloop reads up to 32 times before it lets others run; all the memory would be full, and then wait until it is written."""
    sizes: list[int] = []
    file = sparse_file(tmp_path, 1, 64 * MB)

    async def keep(request: StoreRequest) -> int:
        sizes.extend([chunk.nbytes async for chunk in request.data])
        return 0

    async def send(port: int) -> None:
        async with associate(PeerAddress("ANY", LOOPBACK, port), CONTEXTS) as association:
            assert (await CStoreScu(association).send(file)).is_success

    async def scenario() -> None:
        async with listen(LOOPBACK, 0, services=[Storage(keep)]) as server:
            # In a thread, so that there is always something to read.
            await asyncio.to_thread(lambda: asyncio.run(send(server.port)))

    run(scenario)
    assert sum(sizes) >= 64 * MB
    assert max(sizes) <= BLOCK_LIMIT * BLOCK_SIZE // 2


def test_only_a_loop_that_reads_on_and_on_is_paused(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio's own loops read once in each turn: pausing them would cost two system calls for nothing."""
    reads_on: list[bool] = []
    paused: list[Connection] = []
    end_turn = Connection._end_turn
    monkeypatch.setattr(Connection, "_end_turn", lambda connection: (paused.append(connection), end_turn(connection)))
    file = sparse_file(tmp_path, 1, 16 * MB)

    async def scenario() -> None:
        reads_on.append(not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop))
        async with serve() as server, to(server.port) as association:
            assert (await CStoreScu(association).send(file)).is_success

    run(scenario)
    assert [bool(paused)] == reads_on
