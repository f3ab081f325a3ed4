"""Sending again: to a peer that goes away and comes back, that is busy, or that is out of resources."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from support.files import data_of, write_file
from support.network import LOOPBACK, free_port
from support.raw_peer import RELEASE_RP, RawPeer, Unexpected, command_pdu, raw_acceptor
from support.services import Keeper, serve
from tomowire.aio.address import PeerAddress
from tomowire.aio.listen import Server, listen
from tomowire.errors import AssociationAborted, AssociationLost, AssociationRejected, ConnectFailed
from tomowire.protocol.status import Status
from tomowire.services.dicom_file import DicomFile
from tomowire.services.peer import Peer
from tomowire.services.retrying import Retries, retry_waits
from tomowire.services.sending import Sent, send_files
from tomowire.services.storage import StoreResponse
from tomowire.services.storage_scp import Storage, StoreRequest
from tomowire.wire.messages import CStoreRQ, CStoreRSP
from tomowire.wire.pdu import AAbort

pytestmark = pytest.mark.usefixtures("no_leaks")

SHORT = (0.02, 0.04, 0.08)
FOR_EVER = (3600.0,)


@pytest.fixture
def files(tmp_path: Path) -> list[DicomFile]:
    return [write_file(tmp_path, number) for number in range(1, 21)]


async def send(port: int, files: list[DicomFile], **options: Any) -> list[Sent]:
    async with asyncio.timeout(30):
        address = PeerAddress("ANY", LOOPBACK, port)
        return [sent async for sent in send_files(address, files, **{"retry_waits": SHORT} | options)]


def outcomes(results: list[Sent]) -> Counter[object]:
    return Counter(type(sent.error) if sent.error is not None else int(sent.status or 0) for sent in results)


class Refusing(Keeper):
    """Answers A700 to the first `times` requests for each of `uids`."""

    def __init__(self, times: int, *uids: str) -> None:
        super().__init__()
        self.times = times
        self.uids = uids
        self.asked: Counter[str] = Counter()

    async def keep(self, request: StoreRequest) -> int:
        uid = request.sop_instance_uid
        self.asked[uid] += 1
        if uid in self.uids and self.asked[uid] <= self.times:
            return 0xA700
        return await super().keep(request)


# A peer that is not there


@pytest.mark.parametrize("associations", [1, 3])
async def test_a_peer_that_restarts_gets_all(files: list[DicomFile], associations: int) -> None:
    """It stops in the middle of an object, and listens on the same port again a little later."""
    closing: list[asyncio.Task[None]] = []

    class Leaving(Keeper):
        async def keep(self, request: StoreRequest) -> int:
            if len(self.stored) >= 5:
                if not closing:
                    closing.append(asyncio.create_task(server.close(grace=0)))
                await asyncio.sleep(3600)
            return await super().keep(request)

    first, second = Leaving(), Keeper()
    port = free_port()
    server: Server = listen(LOOPBACK, port, services=[Storage(first.keep)])
    async with server:
        sending = asyncio.create_task(
            send(port, files, associations=associations, retry_waits=(0.2, 0.2, 0.2, 0.2, 0.2))
        )
        async with asyncio.timeout(10):
            while not closing:  # noqa: ASYNC110 - the handler says it
                await asyncio.sleep(0.01)
        await closing[0]
    async with listen(LOOPBACK, port, services=[Storage(second.keep)]):
        results = await sending
    assert outcomes(results) == {0: 20}
    assert first.stored.keys() | second.stored.keys() == {file.sop_instance_uid for file in files}
    assert len(first.stored) < 20


async def test_a_peer_that_was_never_there_is_not_waited_for(files: list[DicomFile]) -> None:
    began = time.monotonic()
    results = await send(free_port(), files, retry_waits=FOR_EVER)
    assert outcomes(results) == {ConnectFailed: 20}
    assert time.monotonic() - began < 5


async def test_a_peer_that_stays_away_is_waited_for_once(tmp_path: Path) -> None:
    """Not again for each further set of presentation contexts."""
    files = [write_file(tmp_path, number, sop_class=f"1.2.3.{number}") for number in range(300)]
    closing: list[asyncio.Task[None]] = []

    async def keep(request: StoreRequest) -> int:
        closing.append(asyncio.create_task(server.close(grace=0)))
        return 0

    server = listen(LOOPBACK, 0, services=[Storage(keep, any_sop_class=True)])
    async with server:
        began = time.monotonic()
        results = await send(server.port, files, window=1, retry_waits=(2,))
        seconds = time.monotonic() - began
    assert outcomes(results)[ConnectFailed] >= 298
    assert 1 <= seconds < 4  # of three sets of contexts: three waits would be six seconds, give or take a quarter


# A peer that is busy


async def test_a_transient_rejection_is_tried_again(files: list[DicomFile]) -> None:
    """PS3.8 Table 9-21: result 2, source 3, reason 2 is "local limit exceeded"."""
    keeper = Keeper()
    rejected: list[int] = []
    async with serve(keeper, aet="ANY") as server:

        async def script(peer: RawPeer) -> None:
            if not rejected:
                rejected.append(1)
                await peer.reject(2, 3, 2)
                return
            reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
            await relay(peer, reader, writer)

        async with raw_acceptor(script) as port:
            results = await send(port, files)
    assert outcomes(results) == {0: 20}
    assert rejected == [1]


async def relay(peer: RawPeer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()

    async def there() -> None:
        while data := await loop.sock_recv(peer.socket, 1 << 16):
            writer.write(data)
        writer.write_eof()

    async def back() -> None:
        while data := await reader.read(1 << 16):
            await loop.sock_sendall(peer.socket, data)
        peer.half_close()

    try:
        await asyncio.gather(there(), back())
    finally:
        writer.close()


@pytest.mark.parametrize(("result", "times"), [(2, 4), (1, 1)])
async def test_how_often_an_association_is_asked_for(files: list[DicomFile], result: int, times: int) -> None:
    """A permanent rejection (result 1) is final."""
    asked: list[int] = []

    async def script(peer: RawPeer) -> None:
        asked.append(1)
        await peer.reject(result, 3 if result == 2 else 1, 1)

    async with raw_acceptor(script) as port:
        results = await send(port, files)
    assert outcomes(results) == {AssociationRejected: 20}
    assert len(asked) == times


async def test_who_waits_does_not_hold_up_the_end(files: list[DicomFile]) -> None:
    """The peer takes one association at a time: when that one has sent all, nobody needs to wait any more."""
    keeper = Keeper()
    async with serve(keeper, maximum_associations=1) as server:
        results = await send(server.port, files, associations=5, retry_waits=FOR_EVER)
    assert outcomes(results) == {0: 20}


# A peer that is out of resources


@pytest.mark.parametrize("associations", [1, 3])
async def test_out_of_resources_twice(files: list[DicomFile], associations: int) -> None:
    keeper = Refusing(2, "1.2.3", "1.2.20")
    async with serve(keeper) as server:
        results = await send(server.port, files, associations=associations)
    assert outcomes(results) == {0: 20}
    assert keeper.asked == {file.sop_instance_uid: 1 for file in files} | {"1.2.3": 3, "1.2.20": 3}
    assert keeper.stored["1.2.3"] == data_of(3)


@pytest.mark.parametrize(("waits", "times"), [(SHORT, 4), ((), 1)])
async def test_out_of_resources_for_good(files: list[DicomFile], waits: tuple[float, ...], times: int) -> None:
    keeper = Refusing(1000, "1.2.3")
    async with serve(keeper) as server:
        results = await send(server.port, files, retry_waits=waits)
    assert outcomes(results) == {0: 19, 0xA700: 1}
    assert keeper.asked["1.2.3"] == times


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0110, 0x0124, 0xB000, 0xA6FF, 0xA800])
async def test_no_other_status_is_tried_again(files: list[DicomFile], status: int) -> None:
    keeper = Keeper(status=status)
    async with serve(keeper) as server:
        results = await send(server.port, files, retry_waits=FOR_EVER)
    assert outcomes(results) == {status: 20}
    assert len(keeper.order) == 20


async def test_what_was_refused_is_accounted_for_when_the_peer_is_gone(files: list[DicomFile]) -> None:
    """It answers A700 to the one object, aborts at the next, and is never seen again."""
    closing: list[asyncio.Task[None]] = []

    async def keep(request: StoreRequest) -> int:
        if request.sop_instance_uid == "1.2.1":
            return 0xA700
        closing.append(asyncio.create_task(server.close(grace=0)))
        await asyncio.sleep(3600)
        return 0

    server = listen(LOOPBACK, 0, services=[Storage(keep)])
    async with server:
        results = await send(server.port, files, window=1)
    assert outcomes(results) == {ConnectFailed: 20}
    assert len({sent.file for sent in results}) == 20


async def test_leaving_while_it_waits(files: list[DicomFile]) -> None:
    keeper = Refusing(1, "1.2.3")
    async with serve(keeper) as server:
        address = PeerAddress("ANY", LOOPBACK, server.port)
        async with asyncio.timeout(10), aclosing(send_files(address, files, retry_waits=FOR_EVER)) as results:
            for _ in range(19):
                assert not (await anext(results)).is_failure
            waiting = asyncio.ensure_future(anext(results))
            async with asyncio.timeout(10):
                while server.associations:  # noqa: ASYNC110 - the association is released before the wait
                    await asyncio.sleep(0.01)
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    assert keeper.asked["1.2.3"] == 1


# How long


def test_the_waits_double() -> None:
    assert retry_waits() == (1.0, 2.0, 4.0)
    assert retry_waits(0) == ()
    assert retry_waits(9) == (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0)


def test_the_waits_are_not_all_the_same() -> None:
    retries = Retries((1.0, 2.0))
    response = StoreResponse(Status(0xA7FF), "1.2", "1.2")
    for number, seconds in [(1, 1.0), (2, 2.0)]:
        waits = [retries.before_sending(response, number) or 0.0 for _ in range(100)]
        assert 0.75 * seconds <= min(waits) < max(waits) <= 1.25 * seconds
    assert retries.before_sending(response, 3) is None


# Connections that are lost


async def abort(peer: RawPeer) -> None:
    await peer.send(AAbort(0, 0))
    await peer.read_until_closed()


async def reset(peer: RawPeer) -> None:
    peer.reset()


async def stay_silent(peer: RawPeer) -> None:
    await peer.expect_abort()


class Ending:
    """An acceptor that ends the first `times` associations at their first object, after all that fit in the window have come."""

    def __init__(self, end: Callable[[RawPeer], Awaitable[None]], times: int, window: int = 1) -> None:
        self.end = end
        self.times = times
        self.window = window
        self.asked: Counter[str | None] = Counter()

    async def __call__(self, peer: RawPeer) -> None:
        await peer.accept(window=(self.window, 1))
        while True:
            for _ in range(self.window if self.times > 0 else 1):
                try:
                    message = await peer.read_message()
                except Unexpected:
                    await peer.send(RELEASE_RP)
                    return
                assert isinstance(message.command, CStoreRQ)
                self.asked[message.command.affected_sop_instance_uid] += 1
            if self.times > 0:
                self.times -= 1
                await self.end(peer)
                return
            response = CStoreRSP(message_id_being_responded_to=message.command.message_id, status=0)
            await peer.send(command_pdu(message.context_id, response))


@pytest.mark.parametrize(
    ("end", "times", "waits", "status", "attempts"),
    [
        (reset, 1, SHORT, 0, 2),
        (reset, 3, SHORT, 0, 4),
        (reset, 9, SHORT, None, 4),
        (reset, 9, SHORT[:1], None, 2),
        (abort, 1, SHORT, 0, 2),
        (abort, 9, SHORT, None, 2),
        (stay_silent, 9, SHORT, None, 2),
        (reset, 1, (), None, 1),
        (abort, 1, (), None, 1),
        (stay_silent, 1, (), None, 1),
    ],
)
async def test_a_lost_connection_is_worth_all_retries_and_an_abort_one_of_them(
    files: list[DicomFile],
    end: Callable[[RawPeer], Awaitable[None]],
    times: int,
    waits: tuple[float, ...],
    status: int | None,
    attempts: int,
) -> None:
    peer = Ending(end, times)
    async with raw_acceptor(peer) as port:
        (sent,) = await send(port, files[:1], retry_waits=waits, timeout=0.1)
    assert (sent.status, peer.asked.total()) == (status, attempts)


async def test_the_waits_of_a_lost_connection_are_those_of_a_refusal() -> None:
    retries = Retries((1.0, 2.0))
    lost, aborted = AssociationLost("gone"), AssociationAborted("aborted", source=0, reason=0, by_peer=True)
    for number, seconds in [(1, 1.0), (2, 2.0)]:
        assert 0.75 * seconds <= (retries.before_repeating(lost, number) or 0.0) <= 1.25 * seconds
    assert [retries.before_repeating(lost, 3), retries.before_repeating(aborted, 2)] == [None, None]
    assert retries.before_repeating(aborted, 1) == 0.0
    assert [Retries(()).before_repeating(each, 1) for each in (lost, aborted)] == [None, None]


@pytest.mark.parametrize("end", [reset, abort, stay_silent])
async def test_without_retries_nothing_is_sent_twice(
    files: list[DicomFile], end: Callable[[RawPeer], Awaitable[None]]
) -> None:
    """Four are under way when the association ends: these have failed, and the others go on a new one."""
    peer = Ending(end, 1, window=4)
    async with raw_acceptor(peer) as port:
        results = await send(port, files, retry_waits=(), timeout=0.3)
    assert [sent.is_failure for sent in results].count(True) == 4
    assert len({sent.sop_instance_uid for sent in results}) == len(results) == 20
    assert peer.asked == {file.sop_instance_uid: 1 for file in files}


async def test_without_retries_no_kept_association_is_used_that_may_be_dead(files: list[DicomFile]) -> None:
    """Else what is sent on it would have failed, or be sent twice."""
    taken: list[object] = []

    async def keep(request: StoreRequest) -> int:
        taken.append(request.association)
        return 0

    async with listen(LOOPBACK, 0, services=[Storage(keep)]) as server, Peer(f"ANY@{LOOPBACK}:{server.port}") as peer:
        for retries in (3, 3, 0):
            assert [int(sent.status or 0) async for sent in peer.send(files[0].path, retries=retries)] == [0]
    assert taken[0] is taken[1]
    assert taken[1] is not taken[2]
