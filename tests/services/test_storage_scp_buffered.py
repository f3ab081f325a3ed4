"""The Storage SCP whose handler gets the whole data set, and the memory that all of them share."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from support.data_sets import ENCODERS, EXPLICIT, Encoder, elements_of_an_image
from support.raw_peer import CT, RawPeer, associate_rq, command_pdu, message_pdus, p_data, store_rq
from tomowire.aio.association import Association
from tomowire.aio.held import HeldMemory
from tomowire.aio.listen import Server, listen
from tomowire.errors import MemoryShort, StoreFailed
from tomowire.services.buffered import BufferedStorage
from tomowire.services.storage_scp import Storage, StoreRequest
from tomowire.services.store_request import BufferedStoreRequest
from tomowire.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CStoreRSP
from tomowire.wire.part10 import FileMeta, encode_file_meta

pytestmark = pytest.mark.usefixtures("no_leaks")

MB = 1 << 20
MEMORY = 16 * MB
"""Of a server, of which half is for data sets."""
LIMIT = MEMORY // 2
OUT_OF_MEMORY = "out of memory for data sets; try again later"


class Buffered:
    """A handler that keeps what it gets; it waits for `gate` first."""

    def __init__(self, *, decodes: bool = False) -> None:
        self.decodes = decodes
        self.contents: dict[str, bytes] = {}
        self.datasets: dict[str, Any] = {}
        self.running = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def keep(self, request: BufferedStoreRequest) -> int:
        self.running += 1
        self.begun.set()
        try:
            await self.gate.wait()
            if self.decodes:
                self.datasets[request.sop_instance_uid] = await request.dataset()
            self.contents[request.sop_instance_uid] = request.content
        finally:
            self.running -= 1
        return 0


def serve(buffered: Buffered, **options: Any) -> Server:
    defaults: dict[str, Any] = {"memory": MEMORY, "memory_wait": 600.0, "maximum_length": 0, "shutdown_grace": 2.0}
    return listen(port=0, services=[BufferedStorage(buffered.keep)], **defaults | options)


def memory_of(server: Server) -> HeldMemory:
    association = server.associations[0]
    assert association.budget is not None
    return association.budget.data


@asynccontextmanager
async def peers_of(
    server: Server, count: int = 1, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN
) -> AsyncIterator[list[RawPeer]]:
    """Associations; at the end they are released."""
    async with AsyncExitStack() as stack:
        peers = []
        for _ in range(count):
            peer = await stack.enter_async_context(await RawPeer.connect(server.port))
            await peer.associate(associate_rq(PresentationContextRQ(3, CT, (syntax,))))
            peers.append(peer)
        yield peers
        for peer in peers:
            if peer.socket.fileno() >= 0:
                await peer.release()


async def answer_of(peer: RawPeer) -> CStoreRSP:
    answer = (await peer.read_message()).command
    assert isinstance(answer, CStoreRSP)
    return answer


async def store(peer: RawPeer, data: bytes, number: int = 1) -> CStoreRSP:
    sending = asyncio.ensure_future(peer.send(message_pdus(3, store_rq(number, f"1.{number}"), data, 1 << 17)))
    try:
        return await answer_of(peer)
    finally:
        await sending


async def begin(peer: RawPeer, size: int, number: int = 1) -> None:
    """Send a request and the first `size` bytes of its data set."""
    await peer.send(command_pdu(3, store_rq(number, f"1.{number}")), p_data(3, bytes(size), command=False, last=False))


async def finish(peer: RawPeer, size: int = 0) -> CStoreRSP:
    """Send `size` bytes more, the last, and read the answer."""
    sending = asyncio.ensure_future(peer.send(p_data(3, bytes(size), command=False, last=True)))
    try:
        return await answer_of(peer)
    finally:
        await sending


async def until(condition: Any) -> None:
    """Wait for something that the server does in this event loop."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# One object


@pytest.mark.parametrize("size", [0, 100, MB - 12, MB, 5 * MB])
async def test_the_handler_gets_the_bytes_that_came(size: int) -> None:
    data = os.urandom(size)
    buffered = Buffered()
    async with serve(buffered) as server, peers_of(server) as (peer,):
        assert (await store(peer, data)).status == 0
        assert memory_of(server).used == 0
    assert buffered.contents == {"1.1": data}


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda each: each.transfer_syntax)
async def test_the_handler_gets_the_data_set_as_pydicom_reads_the_file(encoder: Encoder) -> None:
    data = b"".join(elements_of_an_image(encoder))
    buffered = Buffered(decodes=True)
    async with serve(buffered) as server, peers_of(server, syntax=encoder.transfer_syntax) as (peer,):
        assert (await store(peer, data)).status == 0
    dataset = buffered.datasets["1.1"]
    assert dataset == dcmread(BytesIO(encode_file_meta(FileMeta(CT, "1.1", encoder.transfer_syntax)) + data))
    assert dataset.PatientName == "Müller^Jörg"
    assert dataset.file_meta.TransferSyntaxUID == encoder.transfer_syntax
    assert dataset.file_meta.MediaStorageSOPInstanceUID == "1.1"
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    file.seek(0)
    assert dcmread(file).StudyInstanceUID == dataset.StudyInstanceUID


async def test_a_deflated_data_set_is_inflated_for_pydicom_and_its_bytes_stay_as_they_came() -> None:
    plain = b"".join(elements_of_an_image(EXPLICIT)[:-2]) + EXPLICIT.element(0x7FE00010, "OW", bytes(2 * MB))
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = deflater.compress(plain) + deflater.flush()
    data += b"\0" * (len(data) % 2)
    buffered = Buffered(decodes=True)
    async with serve(buffered) as server, peers_of(server, syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN) as (peer,):
        assert (await store(peer, data)).status == 0
    assert buffered.contents == {"1.1": data}
    assert buffered.datasets["1.1"].PixelData == bytes(2 * MB)


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (b"".join(elements_of_an_image(EXPLICIT))[:-2], EXPLICIT_VR_LITTLE_ENDIAN),
        (EXPLICIT.tag(0x00081140) + b"SQ\0\0\xff\xff\xff\xff" + EXPLICIT.tag(0xFFFEE000), EXPLICIT_VR_LITTLE_ENDIAN),
        (b"no deflate", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
        (zlib.compress(bytes(1000))[2:-6], DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
    ],
)
async def test_a_data_set_that_cannot_be_read_is_answered_so_to_who_asks_for_it(data: bytes, syntax: str) -> None:
    """PS3.4 B.2.3: C000H, cannot understand. Who wants the bytes alone gets them."""
    buffered = Buffered(decodes=True)
    async with serve(buffered) as server, peers_of(server, syntax=syntax) as (peer,):
        answer = await store(peer, data)
        assert answer.status == 0xC000
        assert answer.error_comment
        buffered.decodes = False
        assert (await store(peer, data)).status == 0


@pytest.mark.parametrize("size", [100, 3 * MB])
async def test_a_file_is_written(tmp_path: Path, size: int) -> None:
    data = b"".join(elements_of_an_image(EXPLICIT)[:-2]) + EXPLICIT.element(0x7FE00010, "OW", os.urandom(size))

    async def keep(request: BufferedStoreRequest) -> int:
        await request.write_to(tmp_path / "object.dcm")
        assert (request.calling_ae_title, request.called_ae_title) == ("CALLING", "CALLED")
        return 0

    async with listen(port=0, services=[BufferedStorage(keep)]) as server, peers_of(server) as (peer,):
        assert (await store(peer, data)).status == 0
    assert (tmp_path / "object.dcm").read_bytes().endswith(data)
    assert len(dcmread(tmp_path / "object.dcm").PixelData) == size


async def test_what_the_handler_answers_is_checked_as_in_streaming(caplog: pytest.LogCaptureFixture) -> None:
    outcomes: list[Any] = [None, (0xB000, "less"), StoreFailed(0xA702, "no")]

    async def keep(request: BufferedStoreRequest) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async with listen(port=0, services=[BufferedStorage(keep)]) as server, peers_of(server) as (peer,):
        answers = [await store(peer, b"data", number) for number in (1, 2, 3)]
    assert [each.status for each in answers] == [0x0110, 0xB000, 0xA702]
    assert f"{__name__}.test_what_the_handler_answers_is_checked_as_in_streaming" in caplog.text


async def test_a_handler_that_hangs_gives_back_the_memory_when_its_time_is_over() -> None:
    buffered = Buffered()
    buffered.gate.clear()
    services = [BufferedStorage(buffered.keep, handler_timeout=0.1)]
    async with listen(port=0, services=services, memory=MEMORY) as server, peers_of(server) as (peer,):
        assert (await store(peer, bytes(2 * MB))).status == 0x0110
        assert memory_of(server).used == 0


async def test_two_servers_do_not_share_their_memory() -> None:
    buffered = Buffered()
    buffered.gate.clear()
    async with serve(buffered) as one, serve(buffered) as other, peers_of(one) as (peer,), peers_of(other) as (second,):
        tasks = [asyncio.ensure_future(store(each, bytes(LIMIT))) for each in (peer, second)]
        await until(lambda: buffered.running == 2)
        assert memory_of(one).used == memory_of(other).used == LIMIT
        buffered.gate.set()
        assert [(await each).status for each in tasks] == [0, 0]


# More than there is memory for


async def test_an_object_larger_than_the_memory_is_refused_at_once_and_others_are_taken() -> None:
    buffered = Buffered()
    async with serve(buffered) as server, peers_of(server) as (peer,):
        answer = await store(peer, bytes(LIMIT + 1))
        assert (answer.status, answer.error_comment) == (0xA700, "larger than the memory for data sets")
        assert (await store(peer, bytes(LIMIT), 2)).status == 0
    assert [*buffered.contents] == ["1.2"]


async def test_an_object_larger_than_the_memory_flows_through_a_streaming_handler() -> None:
    async def keep(request: StoreRequest) -> int:
        size = 0
        async for chunk in request.data:
            size += chunk.nbytes
        return 0 if size == 2 * MEMORY else 0xC000

    async with listen(port=0, services=[Storage(keep)], memory=MEMORY) as server, peers_of(server) as (peer,):
        assert (await store(peer, bytes(2 * MEMORY))).status == 0


async def test_while_there_is_no_memory_peers_wait_and_then_it_goes_on() -> None:
    buffered = Buffered()
    buffered.gate.clear()
    async with serve(buffered) as server, peers_of(server, 4) as peers:
        tasks = [asyncio.ensure_future(store(each, bytes(3 * MB), number)) for number, each in enumerate(peers)]
        memory = memory_of(server)
        await until(lambda: memory.is_short and buffered.running == 2)
        waiting = [each for each in server.associations if each.connection.is_reading_held]
        await until(lambda: sum(each.connection.is_reading_held for each in server.associations) >= 2)
        assert memory.used <= memory.limit
        assert not any(each.done() for each in tasks), waiting
        buffered.gate.set()
        assert [(await each).status for each in tasks] == [0] * 4
        assert (memory.used, memory.is_short) == (0, False)
    assert len(buffered.contents) == 4


@pytest.mark.parametrize("senders", [3, 12])
async def test_half_received_objects_that_hold_all_the_memory_do_not_block_each_other(senders: int) -> None:
    """Each has sent as much as there is for all of them, and none is whole. No time passes: nobody waits for a timeout."""
    each_has = LIMIT // senders // MB * MB or MB // 2
    buffered = Buffered()
    async with serve(buffered, memory=MEMORY) as server, peers_of(server, senders) as peers:
        for number, peer in enumerate(peers):
            await begin(peer, each_has, number)
        memory = memory_of(server)
        await until(lambda: memory.used >= each_has * senders // 2)
        answers = await asyncio.gather(*(finish(peer, LIMIT - each_has - 2 * MB) for peer in peers))
        statuses = [each.status for each in answers]
        assert set(statuses) == {0, 0xA700}
        assert statuses[0] == 0, "the first that came"
        assert {each.error_comment for each in answers if each.status} == {OUT_OF_MEMORY}
        assert (memory.used, memory.is_short) == (0, False)
        again = [await store(peer, bytes(MB), number) for number, peer in enumerate(peers)]
        assert {each.status for each in again} == {0}, "the associations are good for more"
    assert all(len(each) == MB for each in buffered.contents.values())


async def test_one_that_waits_too_long_is_refused_and_what_still_comes_of_it_is_not_held() -> None:
    buffered = Buffered()
    buffered.gate.clear()
    async with serve(buffered, memory_wait=0.3) as server, peers_of(server, 2) as (first, second):
        storing = asyncio.ensure_future(store(first, bytes(LIMIT)))
        await until(lambda: buffered.running == 1)
        answer = await store(second, bytes(20 * MB))
        assert (answer.status, answer.error_comment) == (0xA700, OUT_OF_MEMORY)
        assert memory_of(server).used == LIMIT
        buffered.gate.set()
        assert (await storing).status == 0
        assert (await store(second, bytes(LIMIT))).status == 0


async def test_a_silent_peer_does_not_keep_the_memory_that_others_wait_for() -> None:
    buffered = Buffered()
    async with serve(buffered, memory_wait=0.3) as server, peers_of(server, 2) as (silent, other):
        await begin(silent, LIMIT)
        await until(lambda: memory_of(server).used >= LIMIT - MB)
        assert (await store(other, bytes(LIMIT // 2))).status == 0
        assert (await finish(silent, MB)).status == 0xA700


async def test_a_peer_that_is_not_read_from_is_not_silent() -> None:
    """Its data set keeps what it has; it is the other one that has waited too long."""
    async with serve(Buffered(), memory_wait=0.3) as server, peers_of(server, 2) as (held_up, other):
        await begin(held_up, LIMIT)
        await until(lambda: memory_of(server).used >= LIMIT - MB)
        connection = server.associations[0].connection
        connection.hold_reading("test")
        assert (await store(other, bytes(LIMIT // 2))).status == 0xA700
        connection.allow_reading("test")
        assert (await finish(held_up)).status == 0


async def test_the_memory_of_a_data_set_that_is_decoded_counts_twice() -> None:
    buffered = Buffered(decodes=True)
    data = EXPLICIT.element(0x7FE00010, "OW", bytes(LIMIT // 2))
    async with serve(buffered) as server, peers_of(server) as (peer,):
        answer = await store(peer, data)
        assert (answer.status, answer.error_comment) == (0xA700, "larger than the memory for data sets")
        buffered.decodes = False
        assert (await store(peer, data)).status == 0


async def test_of_two_that_both_want_to_decode_and_cannot_the_later_is_refused() -> None:
    buffered = Buffered(decodes=True)
    buffered.gate.clear()
    data = EXPLICIT.element(0x7FE00010, "OW", bytes(3 * MB))
    async with serve(buffered) as server, peers_of(server, 2) as (first, second):
        one = asyncio.ensure_future(store(first, data, 1))
        await until(lambda: buffered.running == 1)
        two = asyncio.ensure_future(store(second, data, 2))
        await until(lambda: buffered.running == 2)
        buffered.gate.set()
        assert (await one).status == 0
        assert (await two).status in (0, 0xA700)
        assert memory_of(server).used == 0
    assert "1.1" in buffered.datasets


async def test_associations_that_break_while_they_hold_memory_or_wait_for_it_leave_nothing() -> None:
    buffered = Buffered()
    buffered.gate.clear()
    async with serve(buffered) as server:
        async with peers_of(server, 5) as peers:
            memory = memory_of(server)
            associations: list[Association] = server.associations
            tasks = [asyncio.ensure_future(store(peers[0], bytes(LIMIT - 2 * MB)))]
            await until(lambda: buffered.running == 1)
            for peer in peers[1:]:
                await begin(peer, MB)
            sending = [asyncio.ensure_future(peer.send_until_stalled(FRAGMENT, limit=200 * MB)) for peer in peers[1:]]
            await until(lambda: memory.is_short)
            await asyncio.gather(*sending)
            await asyncio.gather(*(each.close(grace=0) for each in associations))
            await asyncio.gather(*tasks, return_exceptions=True)
            for peer in peers:
                peer.close()
        assert (memory.used, memory.is_short) == (0, False)
        buffered.gate.set()
        async with peers_of(server) as (peer,):
            assert (await store(peer, bytes(LIMIT))).status == 0


FRAGMENT = p_data(3, bytes(128 * 1024 - 12), command=False, last=False)


async def test_without_a_server_there_is_a_limit_too() -> None:
    """For what comes with C-GET."""
    memory = Storage(Buffered().keep)._memory.own  # type: ignore[arg-type]
    assert memory.limit == 512 * MB


# What is held


async def test_held_data_are_gone_when_they_are_given_up() -> None:
    memory = HeldMemory(100, wait=0.0)
    with memory.hold(lambda: 0.0) as silent, memory.hold(lambda: 0.0) as other:
        await silent.write([memoryview(bytes(60))], 60)
        await other.write([memoryview(bytes(60))], 60)
        assert other.whole() == bytes(60)
        with pytest.raises(MemoryShort):
            silent.whole()
        with pytest.raises(MemoryShort):
            await silent.write([memoryview(b"x")], 1)
    assert memory.used == 0


async def test_who_is_cancelled_while_it_waits_lets_others_by() -> None:
    memory = HeldMemory(100)
    with memory.hold(lambda: 0.0) as holder, memory.hold(lambda: 0.0) as first, memory.hold(lambda: 0.0) as second:
        await holder.reserve(60)
        holder.whole()
        waiting = [asyncio.ensure_future(first.reserve(60)), asyncio.ensure_future(second.reserve(30))]
        await until(lambda: memory.is_short)
        waiting[0].cancel()
        await waiting[1]
        assert (memory.used, memory.is_short) == (90, False)
        assert waiting[0].cancelled()
