"""The handlers of an association's beginning and end, and what the end tells."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from support.network import LOOPBACK
from support.raw_peer import RELEASE_RQ, RawPeer, associate_rq, echo_rq, message_pdus, raw_acceptor, store_rq
from support.services import Keeper, serve
from tomowire.aio.association import Association
from tomowire.aio.connect import associate
from tomowire.aio.ending import AssociationEnd, Ending
from tomowire.errors import OperationTimeout
from tomowire.services.verification import CEchoScu, verification
from tomowire.wire.pdu import AAbort, AAssociateRJ, AReleaseRP, encode_pdu

pytestmark = pytest.mark.usefixtures("no_leaks")


class Ends:
    """A handler of ends that remembers them."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[Association] = asyncio.Queue()

    def __call__(self, association: Association) -> None:
        self._told.put_nowait(association)

    async def next(self) -> AssociationEnd:
        async with asyncio.timeout(10):
            association = await self._told.get()
        assert association.end is not None
        return association.end

    @property
    def is_empty(self) -> bool:
        return self._told.empty()


async def test_the_beginning_is_told_when_there_is_an_association() -> None:
    begun: list[tuple[str, bool]] = []

    def on_established(association: Association) -> None:
        begun.append((association.calling_ae_title, association.is_established))

    async with serve(on_established=on_established, aet="RIGHT") as server:
        async with await RawPeer.connect(server.port) as peer:
            await peer.send(associate_rq(called="WRONG"))
            assert isinstance(await peer.read_pdu(), AAssociateRJ)
            assert begun == []
        async with await RawPeer.connect(server.port) as peer:
            await peer.associate(associate_rq(called="RIGHT", calling="CT"))
            assert begun == [("CT", True)]
            await peer.release()


async def test_a_release_by_the_peer_with_its_counts() -> None:
    ends = Ends()
    async with serve(on_ended=ends) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        sent = message_pdus(1, echo_rq()) + message_pdus(3, store_rq(2), b"data")
        await peer.send(sent)
        await peer.read_message()
        await peer.read_message()
        await peer.release()
        end = await ends.next()
    assert (end.how, end.by_peer) == (Ending.RELEASED, True)
    assert (end.source, end.reason) == (None, None)
    assert (end.messages_received, end.messages_sent) == (2, 2)
    assert end.bytes_received == len(encode_pdu(associate_rq()) + sent + RELEASE_RQ)
    assert end.seconds >= 0


async def by_abort(peer: RawPeer) -> None:
    await peer.send(encode_pdu(AAbort(2, 5)))


async def by_reset(peer: RawPeer) -> None:
    peer.reset()


async def by_nonsense(peer: RawPeer) -> None:
    await peer.send(b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x02\x03")  # presentation context 2 cannot be
    await peer.expect_abort()


async def by_silence(peer: RawPeer) -> None:
    await peer.expect_abort()


@pytest.mark.parametrize(
    ("act", "how", "by_peer", "source", "reason"),
    [
        (by_abort, Ending.ABORTED, True, 2, 5),
        (by_reset, Ending.LOST, True, None, None),
        (by_nonsense, Ending.ABORTED, False, 2, 6),
        (by_silence, Ending.TIMED_OUT, False, 0, 0),
    ],
)
async def test_other_ends(
    act: Callable[[RawPeer], Any], how: Ending, by_peer: bool, source: int | None, reason: int | None
) -> None:
    ends = Ends()
    idle_timeout = 0.2 if act is by_silence else None
    async with (
        serve(on_ended=ends, idle_timeout=idle_timeout) as server,
        await RawPeer.connect(server.port) as peer,
    ):
        await peer.associate()
        await act(peer)
        end = await ends.next()
    assert (end.how, end.by_peer, end.source, end.reason) == (how, by_peer, source, reason)
    assert end.text


async def test_an_abort_by_the_server_that_closes() -> None:
    ends = Ends()
    async with serve(on_ended=ends, shutdown_grace=0) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await server.close()
        end = await ends.next()
    assert (end.how, end.by_peer, end.source) == (Ending.ABORTED, False, 0)


async def test_the_end_is_told_when_the_last_handler_is_done() -> None:
    ends, keeper = Ends(), Keeper()
    keeper.gate.clear()
    async with serve(keeper, on_ended=ends) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(message_pdus(3, store_rq(), b"data"), RELEASE_RQ)
        await keeper.next_begun()
        assert ends.is_empty
        keeper.gate.set()
        await peer.read_message()
        assert isinstance(await peer.read_pdu(), AReleaseRP)
        assert (await ends.next()).how == Ending.RELEASED


async def test_a_peer_that_does_not_close_after_its_release_does_not_hold_it_up() -> None:
    ends = Ends()
    async with serve(on_ended=ends, artim_timeout=30) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.release()
        assert (await ends.next()).how == Ending.RELEASED  # and the connection is open still


async def test_who_got_no_association_has_no_end() -> None:
    ends = Ends()
    async with serve(on_ended=ends, aet="RIGHT") as server:
        async with await RawPeer.connect(server.port) as peer:
            await peer.send(associate_rq(called="WRONG"))
            assert isinstance(await peer.read_pdu(), AAssociateRJ)
        async with await RawPeer.connect(server.port) as peer:
            await peer.send(b"GET / HTTP/1.1\r\n\r\n")
        await server.close()
    assert ends.is_empty


# Handlers that fail, and asynchronous ones


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_handler_that_fails_is_logged_and_harms_nobody(
    asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(association: Association) -> None:
        raise ValueError("a name that nobody should read")

    async def fails_later(association: Association) -> None:
        fails(association)

    handler = fails_later if asynchronous else fails
    ends = Ends()

    def on_ended(association: Association) -> Any:
        ends(association)
        return handler(association)

    async with serve(on_established=handler, on_ended=on_ended) as server:
        async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as association:
            assert (await CEchoScu(association).echo()).is_success
        assert (await ends.next()).how == Ending.RELEASED
    assert "the handler of its beginning failed: ValueError at " in caplog.text
    assert "the handler of its end failed: ValueError at " in caplog.text
    assert "nobody should read" not in caplog.text


async def test_an_asynchronous_handler_runs_beside_its_association_and_the_server_waits_for_it() -> None:
    gate, done = asyncio.Event(), asyncio.Event()

    async def handler(association: Association) -> None:
        await gate.wait()
        done.set()

    async with serve(on_established=handler) as server:
        async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as association:
            assert (await CEchoScu(association).echo()).is_success
        asyncio.get_running_loop().call_soon(gate.set)
    assert done.is_set()


@pytest.mark.parametrize("stubborn", [False, True])
async def test_one_that_does_not_end_is_cancelled_when_the_server_closes(
    stubborn: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    gate = asyncio.Event()
    cancelled: list[bool] = []

    async def handler(association: Association) -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                if not stubborn:
                    raise

    async with (
        serve(on_ended=handler, shutdown_grace=0.1) as server,
        await RawPeer.connect(server.port) as peer,
    ):
        await peer.associate()
    assert cancelled
    assert ("goes on for more than" in caplog.text) is stubborn
    gate.set()


async def test_a_handler_may_close_the_server() -> None:
    async def handler(association: Association) -> None:
        await server.close()

    server = serve(on_ended=handler, shutdown_grace=30)
    async with asyncio.timeout(10):
        await server.start()
        async with await RawPeer.connect(server.port) as peer:
            await peer.associate()
            await peer.release()
        await server.wait_closed()


# The requestor


async def test_a_requestor_reads_how_its_association_ended() -> None:
    async with serve() as server:
        async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as association:
            await CEchoScu(association).echo()
            assert association.end is None
        end = association.end
    assert end is not None
    assert (end.how, end.by_peer, end.messages_sent, end.messages_received) == (Ending.RELEASED, False, 1, 1)


async def test_an_operation_that_times_out_is_such_an_end() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.expect_abort()

    async with raw_acceptor(script) as port:
        with pytest.raises(OperationTimeout):
            async with associate(f"ANY@{LOOPBACK}:{port}", [verification()]) as association:
                await CEchoScu(association).echo(timeout=0.1)
        assert association.end is not None
        assert association.end.how == Ending.TIMED_OUT


async def test_a_release_that_is_not_answered_is_such_an_end() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        with pytest.raises(OperationTimeout):
            async with associate(f"ANY@{LOOPBACK}:{port}", [verification()], release_timeout=0.1) as association:
                pass
        assert association.end is not None
        assert association.end.how == Ending.TIMED_OUT
