"""The caller's task is cancelled at every single await: the association is usable afterwards, or closed; nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.cancelling import cancelled_after_each_step, cancelled_at_each_await
from support.files import sparse_file, write_file
from support.network import LOOPBACK
from support.raw_peer import CT, RELEASE_RP, RawPeer, Unexpected, command_pdu, raw_acceptor
from support.services import Keeper, serve
from tomowire.aio.address import PeerAddress
from tomowire.aio.association import Association
from tomowire.aio.connect import associate
from tomowire.errors import AssociationAborted, AssociationError, OperationTimeout
from tomowire.services.sending import send_files
from tomowire.services.storage import CStoreScu, StoreResponse, storage
from tomowire.services.verification import CEchoScu, verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.messages import CEchoRSP
from tomowire.wire.pdu import AReleaseRQ

pytestmark = pytest.mark.usefixtures("no_leaks")

MB = 1 << 20
CONTEXTS = [verification(), storage(CT, [EXPLICIT_VR_LITTLE_ENDIAN])]
WAYS = [cancelled_at_each_await, cancelled_after_each_step]
Way = Callable[[Callable[[], Coroutine[Any, Any, Any]]], AsyncIterator[int]]


@asynccontextmanager
async def association_to(port: int, **options: Any) -> AsyncIterator[Association]:
    async with associate(f"ANY@{LOOPBACK}:{port}", CONTEXTS, **options) as association:
        yield association


class Reopened:
    """An association that is opened anew whenever it was lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._context: Any = None
        self.association: Association
        self.kept = 0
        self.lost = 0

    async def open(self) -> None:
        self._context = association_to(self._port)
        self.association = await self._context.__aenter__()

    async def check(self) -> None:
        """Whether the association can be used; if it cannot, it must be closed."""
        try:
            async with asyncio.timeout(20):
                assert (await CEchoScu(self.association).echo()).is_success
            self.kept += 1
        except AssociationAborted:
            await self.close()
            assert self.association.connection.is_closed
            self.lost += 1
            await self.open()

    async def close(self) -> None:
        await self._context.__aexit__(None, None, None)


@asynccontextmanager
async def reopened(keeper: Keeper | None = None) -> AsyncIterator[Reopened]:
    async with serve(keeper) as server:
        each = Reopened(server.port)
        await each.open()
        try:
            yield each
        finally:
            await each.close()


@pytest.mark.parametrize("way", WAYS)
async def test_an_echo(way: Way) -> None:
    """It is a small message, sent whole or not at all: the association is always kept."""
    async with reopened() as it:
        async for _ in way(lambda: CEchoScu(it.association).echo()):
            await it.check()
        assert it.kept >= 1
        assert it.lost == 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_store_of_what_lies_in_memory(tmp_path: Path, way: Way) -> None:
    file = write_file(tmp_path)
    content = file.path.read_bytes()[file.offset :]
    async with reopened() as it:
        async for _ in way(lambda: CStoreScu(it.association).send(file, content=content)):
            await it.check()
        assert it.kept >= 1
        assert it.lost == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [100, 5 * MB])
async def test_a_store_from_a_file(tmp_path: Path, way: Way, size: int) -> None:
    """In the middle of its data set the association is given up: nothing else can follow half a message."""
    file = sparse_file(tmp_path, 1, size)
    keeper = Keeper()
    async with reopened(keeper) as it:
        async for _ in way(lambda: CStoreScu(it.association).send(file.path)):
            await it.check()
        assert it.kept >= 3
        assert it.lost >= 1 or size < MB
    assert keeper.stored["1.2.1"] == file.path.read_bytes()[file.offset :]


@pytest.mark.parametrize("way", WAYS)
async def test_a_store_that_waits_for_another(tmp_path: Path, way: Way) -> None:
    """For a place in the window, and for the other's data set to be out: the other is not harmed."""
    large, small = sparse_file(tmp_path, 1, 3 * MB), write_file(tmp_path, 2)
    others: list[asyncio.Future[StoreResponse]] = []
    async with reopened() as it:
        scu = CStoreScu(it.association)

        async def second() -> None:
            await asyncio.sleep(0)  # the first has begun
            await scu.send(small, content=b"small")

        def both() -> Coroutine[Any, Any, None]:
            others.append(asyncio.ensure_future(scu.send(large)))
            return second()

        async for _ in way(both):
            assert (await others.pop()).is_success
            await it.check()
        assert it.kept >= 2
        assert it.lost == 0
        assert (await others.pop()).is_success


@pytest.mark.parametrize("way", WAYS)
async def test_opening_and_releasing(way: Way) -> None:
    async with serve() as server:

        async def whole() -> None:
            async with association_to(server.port) as association:
                await CEchoScu(association).echo()

        runs = [number async for number in way(whole)]
        assert len(runs) >= 4
        await whole()
    assert server.associations == []


@pytest.mark.parametrize("way", WAYS)
async def test_release_by_hand(way: Way) -> None:
    """Cancelled, the release is not over: leaving the block sees to the rest."""
    async with serve() as server:
        entered: list[Association] = []

        async def release() -> None:
            async with association_to(server.port) as association:
                entered.append(association)
                await association.release()
                assert association.connection.is_closed

        async for _ in way(release):
            assert all(each.connection.is_closed for each in entered)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("associations", [1, 3])
async def test_sending_files(tmp_path: Path, way: Way, associations: int) -> None:
    """After each cancellation no lane, no reader and no association is left; a last run goes through."""
    files = [write_file(tmp_path, number) for number in range(4)] + [sparse_file(tmp_path, 9, 2 * MB)]
    keeper = Keeper()
    async with serve(keeper) as server:
        peer = PeerAddress("ANY", LOOPBACK, server.port)

        async def send() -> None:
            async with aclosing(send_files(peer, files, associations=associations)) as results:
                async for sent in results:
                    assert not sent.is_failure

        before = asyncio.all_tasks()
        async for _ in way(send):
            left = {task for task in asyncio.all_tasks() - before if "tomowire/services" in str(task.get_coro())}
            assert not [task for task in left if "_lane" in str(task) or "_worker" in str(task)]
        await send()
    assert len(keeper.stored) == 5


async def test_a_late_answer_to_a_cancelled_request_is_passed_over() -> None:
    """And its Message ID is not used again before."""
    ids: list[int] = []
    go_on = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept(window=(4, 1))
        held = await peer.read_message()
        ids.append(held.command.message_id)  # type: ignore[attr-defined]
        while True:
            try:
                message = await peer.read_message()
            except Unexpected as error:
                assert isinstance(error.pdu, AReleaseRQ)
                break
            number: int = message.command.message_id  # type: ignore[attr-defined]
            ids.append(number)
            if len(ids) == 3:
                await peer.send(command_pdu(1, CEchoRSP(message_id_being_responded_to=ids[0], status=0x0110)))
            await peer.send(command_pdu(1, CEchoRSP(message_id_being_responded_to=number, status=0)))
        await peer.send(RELEASE_RP)

    async with raw_acceptor(script) as port, association_to(port) as association:
        scu = CEchoScu(association)
        given_up = asyncio.ensure_future(scu.echo())
        await asyncio.sleep(0)
        given_up.cancel()
        for _ in range(4):
            assert (await scu.echo()).is_success
        go_on.set()
    assert ids == [1, 2, 3, 4, 5]


async def test_a_cancelled_request_that_is_never_answered_blocks_nobody_for_ever() -> None:
    """Its place in the window is taken: the next waits, and is told when the time of the first is over."""

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_message()
        await peer.expect_abort()

    async with raw_acceptor(script) as port, association_to(port) as association:
        scu = CEchoScu(association)
        given_up = asyncio.ensure_future(scu.echo(timeout=0.2))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises((AssociationError, OperationTimeout), match=r"nothing moved for 0\.2 s"):
            await scu.echo(timeout=10)


async def test_cancelling_one_who_waits_for_the_kernel_does_not_cancel_the_others(tmp_path: Path) -> None:
    """They share what they wait for."""
    may_read = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await may_read.wait()
        await peer.read_until_closed()

    async with raw_acceptor(script, receive_buffer=4096) as port, association_to(port) as association:
        sending = asyncio.ensure_future(CStoreScu(association).send(sparse_file(tmp_path, 1, 64 * MB)))
        connection = association.connection
        while not connection.is_writing_paused:
            await asyncio.wait([sending], timeout=0.05)
        waiting = [asyncio.ensure_future(connection.drain()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait(waiting, timeout=0.05)
        assert [each.done() for each in waiting] == [True, False, False]
        assert not sending.done()
        may_read.set()
        await asyncio.gather(*waiting[1:])
        association.abort()
        with pytest.raises(AssociationAborted):
            await sending
