"""Associations that are kept between calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.cancelling import cancelled_after_each_step
from support.files import write_file
from support.network import LOOPBACK
from support.raw_peer import RELEASE_RP, RawPeer, Unexpected, command_pdu, raw_acceptor
from support.services import Keeper
from support.store_peers import Ending, StorePeer, close
from tomowire import (
    Association,
    AssociationAborted,
    AssociationError,
    AssociationLost,
    AssociationRejected,
    AssociationReleased,
    ConnectFailed,
    NoAcceptedContext,
    OperationTimeout,
    Peer,
    ProposedContext,
    Query,
    Server,
    Storage,
    Verification,
    listen,
    verification,
)
from tomowire.aio.address import PeerAddress
from tomowire.aio.serving import IncomingRequest
from tomowire.protocol.status import Status
from tomowire.services import pool as pool_module
from tomowire.services.models import querying
from tomowire.services.pool import Pool
from tomowire.services.verification import CEchoScu
from tomowire.wire.messages import CEchoRQ, CEchoRSP, CFindRQ, CFindRSP
from tomowire.wire.pdu import AAbort, AReleaseRQ

pytestmark = pytest.mark.usefixtures("no_leaks")

FIND = Query.studies().patient_id("1")


class Remembering(Verification):
    """A Verification SCP that remembers on which association each request came, and that can hold requests up."""

    def __init__(self) -> None:
        self.associations: list[Association] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Semaphore(0)

    async def handle(self, request: IncomingRequest) -> None:
        self.associations.append(request.association)
        self.begun.release()
        await self.gate.wait()
        await super().handle(request)

    @property
    def count(self) -> int:
        return len(set(self.associations))


@pytest.fixture
def service() -> Remembering:
    return Remembering()


@pytest.fixture
async def ends() -> asyncio.Queue[Association]:
    return asyncio.Queue()


@pytest.fixture
async def server(service: Remembering, ends: asyncio.Queue[Association]) -> AsyncIterator[Server]:
    services = [service, Storage(Keeper().keep)]
    async with listen(LOOPBACK, 0, services=services, on_ended=ends.put_nowait, shutdown_grace=2.0) as server:
        yield server


def peer_of(server: Server | int, **options: Any) -> Peer:
    port = server if isinstance(server, int) else server.port
    return Peer(PeerAddress("ANY", LOOPBACK, port), **options)


def pool_of(server: Server, **options: Any) -> Pool:
    return Pool(PeerAddress("ANY", LOOPBACK, server.port), {}, **options)


@asynccontextmanager
async def kept(pool: Pool) -> AsyncIterator[Pool]:
    pool.open()
    try:
        yield pool
    finally:
        await pool.close()


async def soon(waiting: Awaitable[Any]) -> Any:
    async with asyncio.timeout(10):
        return await waiting


# What is kept


async def test_calls_one_after_the_other_share_an_association(
    server: Server, service: Remembering, ends: asyncio.Queue[Association]
) -> None:
    async with peer_of(server) as peer:
        for _ in range(5):
            await peer.echo()
        assert service.count == 1
        assert ends.empty()
    assert (await soon(ends.get())).error is None, "released at the end of the block"
    assert ends.empty()


async def test_without_a_block_each_call_has_an_association_of_its_own(
    server: Server, service: Remembering, ends: asyncio.Queue[Association]
) -> None:
    peer = peer_of(server)
    for _ in range(3):
        await peer.echo()
        await soon(ends.get())
    assert service.count == 3


async def test_calls_at_the_same_time_have_one_each_and_no_more_than_some_are_kept(
    server: Server, service: Remembering, ends: asyncio.Queue[Association]
) -> None:
    service.gate.clear()
    async with peer_of(server, kept=2) as peer:
        echoes = [asyncio.create_task(peer.echo()) for _ in range(5)]
        for _ in echoes:
            await soon(service.begun.acquire())
        assert service.count == 5
        service.gate.set()
        await soon(asyncio.gather(*echoes))
        for _ in range(3):
            await soon(ends.get())
        assert len(server.associations) == 2
        for _ in range(4):
            await peer.echo()
        assert service.count == 5


async def test_files_are_sent_over_what_is_kept(
    server: Server, ends: asyncio.Queue[Association], tmp_path: Path
) -> None:
    files = [write_file(tmp_path, number) for number in range(3)]
    async with peer_of(server) as peer:
        for file in files:
            assert [sent.status async for sent in peer.send(file.path)] == [0]
        assert len(server.associations) == 1
        assert ends.empty()


async def test_what_was_not_proposed_takes_another_association(server: Server) -> None:
    wanted = [ProposedContext("1.2.840.10008.5.1.4.1.1.2", ("1.2.840.10008.1.2",))]
    async with kept(pool_of(server)) as pool:
        async with pool.lease([verification(), *wanted]) as both:
            pass
        async with pool.lease([verification()]) as one:
            assert one.association is both.association
            assert one.is_reused
        async with pool.lease([ProposedContext(wanted[0].abstract_syntax, ("1.2.840.10008.1.2.1",))]) as other:
            assert other.association is not both.association
            assert not other.is_reused
        async with pool.lease([*wanted]) as again:
            assert again.association is both.association


async def test_the_role_belongs_to_what_was_proposed(server: Server) -> None:
    class_uid, syntax = "1.2.840.10008.5.1.4.1.1.2", ("1.2.840.10008.1.2",)
    async with kept(pool_of(server)) as pool:
        async with pool.lease([ProposedContext(class_uid, syntax)]) as as_scu:
            pass
        async with pool.lease([ProposedContext(class_uid, syntax, scu=False, scp=True)]) as as_scp:
            assert as_scp.association is not as_scu.association


async def test_special_options_and_services_make_an_association_of_their_own(server: Server) -> None:
    async with kept(pool_of(server)) as pool:
        async with pool.lease([verification()], maximum_length=1 << 15) as special:
            pass
        async with pool.lease([verification()]) as usual:
            assert usual.association is not special.association
        async with pool.lease([verification()], maximum_length=1 << 15) as again:
            assert again.association is special.association
        async with pool.lease([verification()], services=[Verification()]) as serving:
            pass
        assert not serving.association.is_established, "it served this call, and is not kept"


async def test_a_refusal_does_not_cost_the_association(server: Server, ends: asyncio.Queue[Association]) -> None:
    async with peer_of(server) as peer:
        for _ in range(2):
            with pytest.raises(NoAcceptedContext):
                async with aclosing(peer.find(FIND)) as answers:
                    await anext(answers)
        assert len(server.associations) == 1
        assert ends.empty()


async def test_an_exception_in_the_middle_costs_the_association(
    server: Server, ends: asyncio.Queue[Association]
) -> None:
    async with kept(pool_of(server)) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.lease([verification()]):
                raise ZeroDivisionError
        assert isinstance((await soon(ends.get())).error, AssociationAborted)


# How long


async def test_what_is_not_used_is_released(server: Server, ends: asyncio.Queue[Association]) -> None:
    async with peer_of(server, idle=0.05) as peer:
        await peer.echo()
        assert (await soon(ends.get())).error is None
        await peer.echo()


async def test_each_is_released_when_its_own_time_has_come(server: Server, ends: asyncio.Queue[Association]) -> None:
    """Used in turns, with less than the limit between two uses, both would stay; the one that is not used goes."""
    async with kept(pool_of(server, idle=0.3)) as pool:
        async with pool.lease([verification()]) as used, pool.lease([querying()]) as unused:
            pass
        while ends.empty():
            async with pool.lease([verification()]):
                await asyncio.sleep(0.02)
        assert not unused.association.is_established
        assert used.association.is_established


async def test_the_end_of_the_block_does_not_wait_long_for_a_silent_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_RELEASE_GRACE", 0.1)

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await answer_echo(peer)
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        await peer.expect_abort()

    async with raw_acceptor(script) as port, asyncio.timeout(10), peer_of(port) as peer:
        await peer.echo()


async def test_nothing_is_kept_that_is_given_back_after_the_end(server: Server, service: Remembering) -> None:
    service.gate.clear()
    async with peer_of(server) as peer:
        echo = asyncio.create_task(peer.echo())
        await soon(service.begun.acquire())
    service.gate.set()
    assert await soon(echo) == 0
    await soon(peer.echo())
    assert service.count == 2


# Peers that end what was kept


async def answer_echo(peer: RawPeer) -> None:
    message = await peer.read_message()
    assert isinstance(message.command, CEchoRQ)
    response = CEchoRSP(message_id_being_responded_to=message.command.message_id, status=0)
    await peer.send(command_pdu(message.context_id, response))


async def abort(peer: RawPeer) -> None:
    await peer.send(AAbort(0, 0))
    await peer.read_until_closed()


async def reset(peer: RawPeer) -> None:
    peer.reset()


async def release(peer: RawPeer) -> None:
    await peer.release()


ENDINGS: list[Ending] = [abort, close, reset, release]


@pytest.mark.parametrize("end", ENDINGS)
async def test_one_that_has_ended_meanwhile_is_not_used(end: Ending) -> None:
    connections = 0
    is_kept = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        nonlocal connections
        connections += 1
        await peer.accept()
        await answer_echo(peer)
        if connections == 1:
            await is_kept.wait()
            await end(peer)
        else:
            await peer.answer_release()

    async with raw_acceptor(script) as port, peer_of(port) as peer:
        await peer.echo()
        await until_it_is_known(peer, is_kept)
        async with peer._pool.lease([verification()]) as lease:  # by itself: `Peer.echo` would ask again, and hide it
            assert await soon(CEchoScu(lease.association).echo()) == 0
    assert connections == 2


async def until_it_is_known(peer: Peer, is_kept: asyncio.Event) -> None:
    """Until what happens to the association that is kept has come to this side."""
    (unused,) = peer._pool._unused
    is_kept.set()
    async with asyncio.timeout(10):
        while unused.association.is_established:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)


def failing_once(
    end: Ending,
    then: Callable[[RawPeer], Awaitable[None]],
    first: Callable[[RawPeer], Awaitable[None]] | None = None,
) -> Callable[[RawPeer], Awaitable[None]]:
    """A peer that answers one C-ECHO, or does what comes `first`, and ends the association when the next request is there; on the
    next it does `then`.
    """
    connections = iter((True, False, False))

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        if next(connections):
            await (first or answer_echo)(peer)
            await peer.read(6)
            await end(peer)
        else:
            await then(peer)
            await peer.answer_release()

    return script


@pytest.mark.parametrize("end", [abort, close, reset])
async def test_an_echo_that_meets_the_end_of_a_kept_association_is_made_again(end: Ending) -> None:
    async with raw_acceptor(failing_once(end, answer_echo)) as port, peer_of(port) as peer:
        await peer.echo()
        assert await soon(peer.echo()) == 0


async def answer_find(peer: RawPeer) -> None:
    message = await peer.read_message()
    assert isinstance(message.command, CFindRQ)
    response = CFindRSP(message_id_being_responded_to=message.command.message_id, status=0)
    await peer.send(command_pdu(message.context_id, response))


async def test_a_query_that_meets_the_end_of_a_kept_association_is_made_again() -> None:
    async with raw_acceptor(failing_once(close, answer_find, first=answer_find)) as port, peer_of(port) as peer:
        assert [answer async for answer in peer.find(FIND)] == []
        assert [answer async for answer in peer.find(FIND)] == []


async def test_it_is_made_again_once_only() -> None:
    """On a new association it is not the end of an old one that it meets."""
    async with raw_acceptor(failing_once(close, wait_and_close)) as port, peer_of(port) as peer:
        await peer.echo()
        with pytest.raises(AssociationLost):
            await soon(peer.echo())


async def wait_and_close(peer: RawPeer) -> None:
    await peer.read(6)
    peer.close()
    raise asyncio.CancelledError


async def test_on_a_new_association_nothing_is_made_again() -> None:
    connections = 0

    async def script(peer: RawPeer) -> None:
        nonlocal connections
        connections += 1
        await peer.accept()
        await peer.read(6)
        peer.close()

    async with raw_acceptor(script) as port, peer_of(port) as peer:
        with pytest.raises(AssociationError):
            await soon(peer.echo())
    assert connections == 1


async def test_an_object_that_meets_the_end_of_a_kept_association_is_sent_again(tmp_path: Path) -> None:
    file = write_file(tmp_path, 1)
    answers = iter((0, close, 0))
    scp = StorePeer(lambda _: next(answers))
    async with raw_acceptor(scp) as port, peer_of(port) as peer:
        for _ in range(2):
            assert [sent.status async for sent in peer.send(file.path, retries=1)] == [0]
    assert scp.requests == 3


async def test_after_a_time_out_the_association_is_not_used_again() -> None:
    """The peer answers after all, much too late: that would be taken for the answer to a later request."""
    connections = 0

    async def script(peer: RawPeer) -> None:
        nonlocal connections
        connections += 1
        await peer.accept()
        if connections == 1:
            message = await peer.read_message()
            with pytest.raises(Unexpected) as other:
                await peer.read_message()
            assert isinstance(other.value.pdu, AAbort)
            assert isinstance(message.command, CEchoRQ)
            late = CEchoRSP(message_id_being_responded_to=message.command.message_id, status=0x0110)
            await peer.send(command_pdu(message.context_id, late))
            await peer.read_until_closed()
        else:
            await answer_echo(peer)
            await peer.answer_release()

    async with raw_acceptor(script) as port, peer_of(port) as peer:
        with pytest.raises(OperationTimeout):
            await peer.echo(timeout=0.05)
        assert await soon(peer.echo()) == 0
    assert connections == 2


# Peers that take few associations


async def test_what_is_unused_gives_way_where_the_peer_has_a_limit(service: Remembering) -> None:
    """It rejects a second one for now (PS3.8 Table 9-21: result 2): that which is kept for C-ECHO has to go for the C-FIND."""
    async with listen(LOOPBACK, 0, services=[service], maximum_associations=1) as server, peer_of(server) as peer:
        for _ in range(2):
            await soon(peer.echo())
            with pytest.raises(NoAcceptedContext):
                await soon(anext(peer.find(FIND)))


async def test_a_limit_that_others_use_up_is_an_error(service: Remembering) -> None:
    async with (
        listen(LOOPBACK, 0, services=[service], maximum_associations=1) as server,
        peer_of(server) as peer,
        pool_of(server).lease([verification()]),
    ):
        with pytest.raises(AssociationRejected) as rejected:
            await soon(peer.echo())
    assert rejected.value.result == 2


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_PATIENCE", 0.05)


async def test_what_is_unused_gives_way_where_the_peer_serves_one_at_a_time(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a peer takes the connection, and answers when the association before it is over."""
    turn = asyncio.Lock()
    answered = 0

    async def script(peer: RawPeer) -> None:
        nonlocal answered
        async with turn:
            await peer.accept()
            while True:
                try:
                    message = await peer.read_message()
                except Unexpected:
                    await peer.send(RELEASE_RP)
                    return
                answered += 1
                kind = CEchoRSP if isinstance(message.command, CEchoRQ) else CFindRSP
                assert isinstance(message.command, CEchoRQ | CFindRQ)
                answer = kind(message_id_being_responded_to=message.command.message_id, status=0)
                await peer.send(command_pdu(message.context_id, answer))

    async with raw_acceptor(script) as port, peer_of(port, association_timeout=20.0) as peer:
        for _ in range(3):
            assert await soon(peer.echo()) == 0
            async with asyncio.timeout(10):
                assert [answer async for answer in peer.find(FIND)] == []
            monkeypatch.setattr(pool_module, "_PATIENCE", 60.0)  # from the second time on nobody has to find it out
        monkeypatch.setattr(pool_module, "_PATIENCE", 0.05)
        assert await soon(asyncio.gather(peer.echo(), peer.echo(), peer.echo())) == [0, 0, 0]
    assert answered == 9


# Cancellation


async def test_cancelled_at_any_moment_it_leaves_nothing_behind(server: Server) -> None:
    async def work() -> None:
        async with peer_of(server) as peer:
            await peer.echo()
            await asyncio.gather(peer.echo(), peer.echo())

    async for _ in cancelled_after_each_step(work):
        pass


async def test_cancelled_in_the_middle_of_an_echo_the_association_is_not_used_again(
    server: Server, service: Remembering
) -> None:
    async with peer_of(server) as peer:
        service.gate.clear()
        echo = asyncio.create_task(peer.echo())
        await soon(service.begun.acquire())
        echo.cancel()
        with pytest.raises(asyncio.CancelledError):
            await echo
        service.gate.set()
        assert await soon(peer.echo()) == 0
    assert service.count == 2


async def test_work_in_the_block_of_a_lease_meets_the_errors_of_the_association(server: Server) -> None:
    async def work(association: Association) -> Status:
        await association.release()
        return await CEchoScu(association).echo()

    async with kept(pool_of(server)) as pool:
        with pytest.raises(AssociationReleased):
            await pool.use([verification()], work)


# What goes to `associate`


async def test_options_of_a_call_make_an_association_of_their_own(server: Server) -> None:
    async with peer_of(server) as peer:
        for options in ({}, {"maximum_length": 1 << 15}, {}, {"maximum_length": 1 << 15}):
            with pytest.raises(NoAcceptedContext):
                await anext(peer.find(FIND, **options))
        assert len(server.associations) == 2
        with pytest.raises(TypeError, match="no_such_option"):
            await anext(peer.find(FIND, no_such_option=1))


async def test_a_connection_that_is_there_is_good_for_one_association(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`associate` is handed the connection once; what does not fit the one association fails and says why."""
    handed: list[object] = []
    associate = pool_module.associate

    def noting(*arguments: Any, sock: object = None, **options: Any) -> Any:
        handed.append(sock)
        return associate(*arguments, **options)

    monkeypatch.setattr(pool_module, "associate", noting)
    connection, file = object(), write_file(tmp_path, 1)
    async with peer_of(server, sock=connection) as peer:
        for _ in range(3):
            assert await peer.echo() == 0
        (sent,) = [each async for each in peer.send(file.path)]
        assert isinstance(sent.error, ConnectFailed)
        assert "good for one association" in str(sent.error)
    assert handed == [connection]


async def test_several_lanes_on_a_connection_that_is_there_are_one(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    associate = pool_module.associate
    monkeypatch.setattr(pool_module, "associate", lambda *args, sock=None, **options: associate(*args, **options))
    paths = [write_file(tmp_path, number).path for number in range(30)]
    async with peer_of(server, sock=object()) as peer:
        assert [sent.status async for sent in peer.send(paths, associations=3)] == [0] * 30


async def test_an_iteration_that_another_task_is_in_does_not_keep_the_block_open(
    server: Server, tmp_path: Path
) -> None:
    """It ends with that task; what else was left is closed, and what is kept released."""
    paths = [write_file(tmp_path, number).path for number in range(5)]
    is_asked = asyncio.Event()

    async def silent(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_message()
        is_asked.set()
        await peer.read_until_closed()

    async with raw_acceptor(silent) as port:
        async with peer_of(port) as peer:
            waiting = asyncio.ensure_future(anext(peer.find(FIND)))
            await soon(is_asked.wait())
        waiting.cancel()
        await soon(asyncio.wait([waiting]))
    async with peer_of(server) as peer:
        left = peer.send(paths)
        assert (await soon(anext(left))).status == 0
    assert [each async for each in left] == []
