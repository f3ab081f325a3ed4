"""What `Peer.send` takes: paths, folders, data sets, streams, and iterables of those."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from support.files import data_of, write_file
from support.network import LOOPBACK
from support.raw_peer import MR, RELEASE_RP, RawPeer, Unexpected, command_pdu, raw_acceptor
from support.services import Keeper, serve
from support.store_peers import StorePeer, close
from tomowire import Peer, Server, Storage, UsageError, listen
from tomowire.aio.address import PeerAddress
from tomowire.errors import AssociationError, DataSetError, FileFormatError, NoAcceptedContext, OperationTimeout
from tomowire.services.sent import Sent
from tomowire.services.sources import as_source
from tomowire.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.messages import CStoreRQ, CStoreRSP

pytestmark = pytest.mark.usefixtures("no_leaks")

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
async def server(keeper: Keeper) -> AsyncIterator[Server]:
    async with serve(keeper) as server:
        yield server


def peer_of(server: Server | int, **options: Any) -> Peer:
    port = server if isinstance(server, int) else server.port
    return Peer(PeerAddress("ANY", LOOPBACK, port), **options)


def data_set(number: int, sop_class: str = CT, **attributes: Any) -> Dataset:
    made = Dataset()
    made.SOPClassUID = sop_class
    made.SOPInstanceUID = f"1.2.{number}"
    for keyword, content in attributes.items():
        setattr(made, keyword, content)
    return made


async def send(peer: Peer, *things: Any, **options: Any) -> list[Sent]:
    async with asyncio.timeout(30):
        return [sent async for sent in peer.send(*things, **{"retries": 0} | options)]


class Once(io.RawIOBase):
    """A blocking stream that cannot be wound back."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


async def test_all_kinds_in_one_call(server: Server, keeper: Keeper, tmp_path: Path) -> None:
    files = [write_file(tmp_path, number) for number in range(1, 9)]
    folder = tmp_path / "folder"
    folder.mkdir()
    inside = write_file(folder, 20)
    content = files[1].path.read_bytes()
    seekable, once = io.BytesIO(files[2].path.read_bytes()), Once(files[3].path.read_bytes())
    a_data_set, a_source = data_set(30), await as_source(files[4].path.read_bytes())
    listed = [files[5].path, (str(files[6].path), data_set(31))]
    async with peer_of(server) as peer:
        results = await send(peer, files[0].path, folder, content, seekable, once, a_data_set, a_source, listed)
    assert {sent.status for sent in results} == {0}
    assert keeper.stored.keys() == {f"1.2.{number}" for number in (1, 2, 3, 4, 5, 6, 7, 20, 30, 31)}
    assert all(keeper.stored[f"1.2.{number}"] == data_of(number) for number in (1, 2, 3, 4, 5, 6, 7, 20))
    sources = {sent.sop_instance_uid: sent.source for sent in results}
    assert sources["1.2.1"] == files[0].path
    assert sources["1.2.20"] == inside.path
    assert sources["1.2.3"] is seekable
    assert sources["1.2.4"] is once
    assert sources["1.2.30"] is a_data_set
    paths = {sent.sop_instance_uid: sent.path for sent in results}
    assert paths["1.2.7"] == files[6].path
    assert paths["1.2.30"] is None


async def test_what_can_be_sent_only_once_does_not_go_on_an_association_that_may_be_dead(tmp_path: Path) -> None:
    """The peer is gone from the one that was kept, and this side has not heard of it yet."""
    connections = 0

    async def script(peer: RawPeer) -> None:
        nonlocal connections
        connections += 1
        await peer.accept()
        message = await peer.read_message()
        assert isinstance(message.command, CStoreRQ)
        response = CStoreRSP(message_id_being_responded_to=message.command.message_id, status=0)
        await peer.send(command_pdu(message.context_id, response))
        await peer.read(6)  # a release, or what meets the end
        peer.reset()

    files = [write_file(tmp_path, number) for number in (1, 2)]
    async with raw_acceptor(script) as port, peer_of(port, release_timeout=5) as peer:
        (first,) = await send(peer, files[0].path)
        (second,) = await send(peer, Once(files[1].path.read_bytes()))
    assert (first.status, second.status, connections) == (0, 0, 2)


async def test_what_the_data_set_says_arrives(server: Server, keeper: Keeper) -> None:
    async with peer_of(server) as peer:
        await send(peer, data_set(1, PatientID="P1", Rows=3))
    received = dcmread(io.BytesIO(keeper.stored["1.2.1"]), force=True)
    assert (received.PatientID, received.Rows) == ("P1", 3)


async def test_a_data_set_is_written_as_the_peer_wants_it(keeper: Keeper) -> None:
    """One that was made here may go out in either uncompressed transfer syntax, whichever is taken."""
    service = Storage(keeper.keep, transfer_syntaxes={IMPLICIT_VR_LITTLE_ENDIAN})
    async with listen(LOOPBACK, 0, services=[service]) as server, peer_of(server) as peer:
        (sent,) = await send(peer, data_set(1, PatientID="P1"))
    assert sent.status == 0
    assert b"PNP" not in keeper.stored["1.2.1"]
    assert dcmread(io.BytesIO(keeper.stored["1.2.1"]), force=True).PatientID == "P1"


async def test_generators_are_asked_as_objects_are_sent(server: Server, keeper: Keeper) -> None:
    """Of a thousand data sets no more are made than some ahead of those that have been taken."""
    made = 0
    ahead: list[int] = []

    def several() -> Iterator[Dataset]:
        nonlocal made
        for number in range(1000):
            made += 1
            ahead.append(made - len(keeper.stored))
            yield data_set(number)

    async with peer_of(server) as peer:
        results = await send(peer, several(), associations=2)
    assert [sent.status for sent in results] == [0] * 1000
    assert len(keeper.stored) == 1000
    assert max(ahead) <= 150


async def test_an_asynchronous_iterator_of_anything(server: Server, keeper: Keeper, tmp_path: Path) -> None:
    file = write_file(tmp_path, 2)
    closed = asyncio.Event()

    async def several() -> AsyncIterator[Any]:
        try:
            yield data_set(1)
            await asyncio.sleep(0)
            yield [file.path, data_set(3, MR)]
            yield (data_set(number) for number in (4, 5))
        finally:
            closed.set()

    async with peer_of(server) as peer:
        results = await send(peer, several(), data_set(6))
    assert sorted((sent.sop_instance_uid, int(sent.status or 0)) for sent in results) == [
        (f"1.2.{number}", 0) for number in range(1, 7)
    ]
    assert keeper.stored.keys() == {f"1.2.{number}" for number in range(1, 7)}
    assert closed.is_set()


async def test_a_stream_that_comes_in_pieces_is_one_thing(server: Server, keeper: Keeper, tmp_path: Path) -> None:
    content = write_file(tmp_path, 1, bytes(100_000)).path.read_bytes()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 7777):
            yield content[start : start + 7777]

    async with peer_of(server) as peer:
        (sent,) = await send(peer, await as_source(pieces()))
    assert sent.status == 0
    assert keeper.stored["1.2.1"] == bytes(100_000)


async def test_what_cannot_be_sent_is_a_failure_and_stops_nobody(
    server: Server, keeper: Keeper, tmp_path: Path
) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            raise ZeroDivisionError("the stream's own trouble")

    nameless, number, broken, text = Dataset(), 17, Broken(), io.BytesIO(b"this is not DICOM" * 100)
    missing = tmp_path / "missing.dcm"
    unwritable = data_set(2)
    unwritable.add_new(0x00280010, "US", "many")
    things = (nameless, number, broken, text, missing, unwritable, data_set(1))
    for given in (things, iter(things)):
        async with peer_of(server) as peer:
            results = {id(sent.source): sent for sent in await send(peer, given)}
        assert len(results) == len(things)
        assert isinstance(results[id(nameless)].error, UsageError)
        assert isinstance(results[id(number)].error, UsageError)
        assert isinstance(results[id(broken)].error, ZeroDivisionError)
        assert isinstance(results[id(text)].error, FileFormatError)
        assert isinstance(results[id(unwritable)].error, DataSetError)
        (lost,) = (sent for sent in results.values() if sent.path == missing)
        assert isinstance(lost.error, FileNotFoundError)
        assert results[id(things[-1])].status == 0


async def test_what_an_iterable_raises_is_raised_after_what_it_gave(server: Server, keeper: Keeper) -> None:
    def several() -> Iterator[Dataset]:
        yield data_set(1)
        raise ZeroDivisionError

    async with peer_of(server) as peer, aclosing(peer.send(several())) as results:
        assert (await anext(results)).status == 0
        with pytest.raises(ZeroDivisionError):
            await anext(results)


async def test_a_stream_that_breaks_off_costs_only_itself(server: Server, keeper: Keeper, tmp_path: Path) -> None:
    content = write_file(tmp_path, 1, bytes(3 << 20)).path.read_bytes()

    class Breaking(Once):
        def readinto(self, buffer: Any) -> int:
            if self._data.tell() > 1 << 20:
                raise ZeroDivisionError("gone")
            return super().readinto(buffer)

    stream = Breaking(content)
    async with peer_of(server) as peer:
        results = await send(peer, stream, *(data_set(number) for number in range(2, 12)), retries=1)
    failed = [sent for sent in results if sent.is_failure]
    assert [(sent.source, type(sent.error)) for sent in failed] == [(stream, ZeroDivisionError)]
    assert keeper.stored.keys() == {f"1.2.{number}" for number in range(2, 12)}


async def test_a_silent_stream_is_given_up(server: Server) -> None:
    class Silent:
        async def read(self, size: int) -> bytes:
            await asyncio.sleep(3600)
            return b""

    async with peer_of(server) as peer:
        results = await send(peer, Silent(), data_set(1), timeout=0.3)
    assert sorted(str(type(sent.outcome).__name__) for sent in results) == [OperationTimeout.__name__, "Status"]


@pytest.mark.parametrize("nested", [False, True])
async def test_leaving_early_closes_the_iterators(server: Server, keeper: Keeper, nested: bool) -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[Dataset]:
        number = 0
        try:
            while True:
                number += 1
                yield data_set(number)
        finally:
            closed.set()

    async with peer_of(server) as peer:
        async with aclosing(peer.send([[endless()]] if nested else endless())) as results:
            assert not (await anext(results)).is_failure
        assert closed.is_set()


async def test_more_kinds_than_one_association_has_room_for(keeper: Keeper) -> None:
    service = Storage(keeper.keep, any_sop_class=True)
    async with listen(LOOPBACK, 0, services=[service]) as server, peer_of(server) as peer:
        many = [data_set(number, f"1.2.3.{number}") for number in range(150)]
        assert {sent.status for sent in await send(peer, many)} == {0}
        assert {sent.status for sent in await send(peer, iter(many))} == {0}
    assert len(keeper.stored) == 150


async def test_a_class_that_the_peer_does_not_take(keeper: Keeper) -> None:
    service = Storage(keeper.keep, sop_classes={CT})
    async with listen(LOOPBACK, 0, services=[service]) as server, peer_of(server) as peer:
        results = await send(peer, data_set(1, MR), data_set(2))
    assert [type(sent.outcome).__name__ for sent in sorted(results, key=lambda sent: sent.sop_instance_uid)] == [
        NoAcceptedContext.__name__,
        "Status",
    ]


# What is not repeatable


@pytest.mark.parametrize("aborts", [True, False])
async def test_a_stream_that_cannot_be_wound_back_is_sent_once(aborts: bool, tmp_path: Path) -> None:
    scp = StorePeer(lambda _: close if aborts else 0xA700)
    content = write_file(tmp_path, 1).path.read_bytes()
    async with raw_acceptor(scp) as port, peer_of(port) as peer:
        (sent,) = await send(peer, Once(content), retries=3)
        assert scp.requests == 1
        assert isinstance(sent.error, AssociationError) if aborts else sent.status == 0xA700


async def test_one_that_can_be_wound_back_is_sent_again(tmp_path: Path) -> None:
    scp = StorePeer(lambda _: close)
    content = write_file(tmp_path, 1).path.read_bytes()
    async with raw_acceptor(scp) as port, peer_of(port) as peer:
        (sent,) = await send(peer, io.BytesIO(content), retries=1)
    assert sent.is_failure
    assert scp.requests == 2


@pytest.mark.parametrize("associations", [0, -1, None, "all"])
async def test_a_number_of_associations_that_is_none(associations: Any) -> None:
    peer = Peer(PeerAddress("ANY", LOOPBACK, 104))
    with pytest.raises(UsageError, match=f"not {associations!r}"):
        await send(peer, b"something", associations=associations)


async def test_who_does_not_read_the_results_is_not_sent_ahead_of(server: Server, keeper: Keeper) -> None:
    """Each result holds the data set that was given: all of them would be in memory."""
    given, exhausted = 0, asyncio.Event()

    def data_sets() -> Iterator[Dataset]:
        nonlocal given
        for given in range(1, 601):
            yield data_set(given)
        exhausted.set()

    async with peer_of(server) as peer, aclosing(peer.send(data_sets())) as results:
        await anext(results)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await exhausted.wait()
        assert given < 200
        assert len([sent async for sent in results if not sent.is_failure]) == 599
    assert len(keeper.stored) == 600


async def test_an_association_that_ends_while_the_results_are_not_read_costs_no_object() -> None:
    """The peer closes the connection when nothing is under way: what comes next goes on a new one, also without retries."""
    closed = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        for number in range(1, 101):
            try:
                message = await peer.read_message()
            except Unexpected:
                await peer.send(RELEASE_RP)
                return
            assert isinstance(message.command, CStoreRQ)
            answer = CStoreRSP(message_id_being_responded_to=message.command.message_id, status=0)
            await peer.send(command_pdu(message.context_id, answer))
            if number == 65 and not closed.is_set():  # one has been read, and 64 may wait
                peer.close()
                closed.set()
                return

    async with raw_acceptor(script) as port, peer_of(port, window=1) as peer:
        sending = peer.send((data_set(number) for number in range(1, 101)), associations=1, retries=0)
        async with aclosing(sending) as results:
            first = await anext(results)
            await asyncio.wait_for(closed.wait(), 30)
            rest = [sent async for sent in results]
    assert [sent.outcome for sent in (first, *rest)] == [0] * 100
