"""The SCU of C-STORE with every kind of source, and against peers that answer in every way."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from support.cancelling import cancelled_after_each_step, cancelled_at_each_await
from support.files import data_of, write_file
from support.network import LOOPBACK
from support.raw_peer import CT, RELEASE_RP, RawPeer, command_pdu, raw_acceptor
from support.services import Keeper, serve
from tomowire.aio.connect import associate
from tomowire.errors import (
    AssociationAborted,
    AssociationLost,
    DataSetError,
    NoAcceptedContext,
    OperationTimeout,
    PeerMisbehaved,
    TranscodingFailed,
    UsageError,
)
from tomowire.services import converting, stream_transcoding
from tomowire.services.dataset_source import DatasetSource
from tomowire.services.dicom_file import inspect
from tomowire.services.pixel_source import WithPixels
from tomowire.services.storage import CStoreScu, MoveOriginator, storage
from tomowire.services.stream_source import BareDataSet
from tomowire.services.transcoding import transcode
from tomowire.services.transfer_progress import ProgressMeter, TransferProgress
from tomowire.services.verification import CEchoScu, verification
from tomowire.uids import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.messages import CStoreRQ, CStoreRSP
from tomowire.wire.pdu import AReleaseRQ

pytestmark = pytest.mark.usefixtures("no_leaks")

MB = 1 << 20
JPEG_2000 = "1.2.840.10008.1.2.4.91"


@asynccontextmanager
async def scu_of(port: int, *syntaxes: str, **options: Any) -> AsyncIterator[CStoreScu]:
    proposal = [verification(), storage(CT, syntaxes or [EXPLICIT_VR_LITTLE_ENDIAN])]
    async with associate(f"ANY@{LOOPBACK}:{port}", proposal, **options) as association:
        yield CStoreScu(association)


async def is_usable(scu: CStoreScu) -> bool:
    try:
        async with asyncio.timeout(20):
            return (await CEchoScu(scu._association).echo()).is_success
    except AssociationAborted:
        return False


def dataset_of(size: int = 100, number: int = 1) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = f"1.2.{number}"
    dataset.BitsAllocated = 8
    if size:
        dataset.PixelData = bytes(size)
    return dataset


async def chunks(*parts: bytes | BaseException) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, BaseException):
            raise part
        yield part


def bare(stream: Any, size: int | None = None) -> BareDataSet:
    return BareDataSet(
        stream, sop_class_uid=CT, sop_instance_uid="1.2.1", transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN, size=size
    )


# What is sent


async def test_every_kind_of_source_arrives(tmp_path: Path) -> None:
    data = data_of(1) * 200_000
    file = write_file(tmp_path, 1, data)
    keeper = Keeper()
    async with serve(keeper) as server, scu_of(server.port) as scu:
        with file.path.open("rb") as opened:
            for source in (
                file.path,
                opened,
                file.path.read_bytes(),
                chunks(file.path.read_bytes()),
                bare(io.BytesIO(data)),
            ):
                keeper.stored.clear()
                response = await scu.send(source)
                assert response.is_success
                assert response.sop_instance_uid == "1.2.1"
                assert keeper.stored == {"1.2.1": data}
        for source in (dataset_of(3 * MB), WithPixels(dataset_of(0), bytes(3 * MB))):
            keeper.stored.clear()
            assert (await scu.send(source)).is_success
            assert keeper.stored["1.2.1"].endswith(b"\xe0\x7f\x10\x00OB\0\0\0\0\x30\0" + bytes(3 * MB))


async def test_a_data_set_is_written_as_was_agreed() -> None:
    """It is in Explicit VR Little Endian, which this peer did not take."""
    dataset = dcmread(get_testdata_file("CT_small.dcm"))
    keeper = Keeper()
    for syntax in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN):
        async with serve(keeper) as server, scu_of(server.port, syntax) as scu:
            assert (await scu.send(dataset)).is_success
            request = await keeper.next_begun()
            assert request.transfer_syntax_uid == syntax
            expected = await DatasetSource(dataset).written_in(syntax).encoded()
            assert keeper.stored[dataset.SOPInstanceUID] == expected


async def test_the_transfer_syntax_can_be_chosen(tmp_path: Path) -> None:
    dataset = dcmread(get_testdata_file("CT_small.dcm"))
    keeper = Keeper()
    syntaxes = [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]
    async with serve(keeper) as server, scu_of(server.port, *syntaxes) as scu:
        for source in (dataset, Path(get_testdata_file("CT_small.dcm"))):
            for syntax in reversed(syntaxes):
                assert (await scu.send(source, transfer_syntax=syntax)).is_success
                assert (await keeper.next_begun()).transfer_syntax_uid == syntax
        with pytest.raises(NoAcceptedContext, match="Big Endian"):
            await scu.send(dataset, transfer_syntax=EXPLICIT_VR_BIG_ENDIAN)
        assert await is_usable(scu)


async def test_what_the_peer_does_not_take_is_transcoded_on_request_only() -> None:
    path = Path(get_testdata_file("MR_small_RLE.dcm"))
    dataset = dcmread(path)
    original = dcmread(get_testdata_file("MR_small.dcm"))
    keeper = Keeper()
    proposal = [verification(), storage(dataset.SOPClassUID, [EXPLICIT_VR_LITTLE_ENDIAN])]
    async with serve(keeper) as server, associate(f"ANY@{LOOPBACK}:{server.port}", proposal) as association:
        scu = CStoreScu(association)
        content = await asyncio.to_thread(path.read_bytes)
        sources: tuple[Callable[[], Any], ...] = (lambda: path, lambda: dataset, lambda: chunks(content))
        for source in sources:
            with pytest.raises(NoAcceptedContext, match="RLE Lossless"):
                await scu.send(source())
            assert (await scu.send(source(), transcode=True)).is_success
            assert original.PixelData in keeper.stored.pop(dataset.SOPInstanceUID)
        broken = content.replace(b"\x28\0\x10\0US\2\0", b"\x28\0\x10\0XX\2\0")
        with pytest.raises(TranscodingFailed, match="RLE Lossless to Explicit VR Little Endian"):
            await scu.send(chunks(broken), transcode=True)
        assert await is_usable(scu)


@pytest.mark.parametrize(("most_attributes", "in_pieces"), [(64 << 20, True), (100, False)])
async def test_a_large_file_of_which_only_the_layout_changes_goes_in_pieces(
    monkeypatch: pytest.MonkeyPatch, most_attributes: int, in_pieces: bool
) -> None:
    """If it is large because of its pixels. A document in it has to be held anyhow, and then waits for the memory as others do."""
    monkeypatch.setattr(converting, "_LARGE", 1000)
    monkeypatch.setattr(stream_transcoding, "MOST_ATTRIBUTES", most_attributes)
    file = inspect(Path(get_testdata_file("MR_small.dcm")))
    expected = await transcode(file, IMPLICIT_VR_LITTLE_ENDIAN)
    held: list[int] = []

    def memory(size: int) -> nullcontext[None]:
        held.append(size)
        return nullcontext()

    monkeypatch.setattr(converting, "transcoding_memory", memory)
    keeper = Keeper()
    proposal = [storage(file.sop_class_uid, [IMPLICIT_VR_LITTLE_ENDIAN])]
    async with serve(keeper) as server, associate(f"ANY@{LOOPBACK}:{server.port}", proposal) as association:
        assert (await CStoreScu(association).send(file, transcode=True)).is_success
    assert keeper.stored[file.sop_instance_uid] == expected
    assert bool(held) is not in_pieces


async def test_priority_and_originator_are_told() -> None:
    """PS3.7 9.3.1.1: 0 is medium, 1 high, 2 low."""
    seen: list[CStoreRQ] = []

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        for _ in range(3):
            message = await peer.read_message()
            assert isinstance(message.command, CStoreRQ)
            seen.append(message.command)
            await peer.send(success(message.command))
        await peer.answer_release()

    async with raw_acceptor(script) as port, scu_of(port) as scu:
        await scu.send(dataset_of())
        await scu.send(dataset_of(), priority="high")
        await scu.send(dataset_of(), priority="low", originator=MoveOriginator("ASKER", 7))
        with pytest.raises(UsageError, match="'low', 'medium', 'high': not 'urgent'"):
            await scu.send(dataset_of(), priority="urgent")  # type: ignore[arg-type]
    assert [each.priority for each in seen] == [0, 1, 2]
    originators = [(each.move_originator_application_entity_title, each.move_originator_message_id) for each in seen]
    assert originators == [(None, None), (None, None), ("ASKER", 7)]


# What is answered


def answer(request: Any, status: int, **fields: Any) -> bytes:
    return command_pdu(3, CStoreRSP(message_id_being_responded_to=request.message_id, status=status, **fields))


def success(request: Any) -> bytes:
    return answer(request, 0)


def answering(*statuses: int, **fields: Any) -> Callable[[RawPeer], Awaitable[None]]:
    """A peer that answers whole objects with these statuses, one after the other."""

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        for status in statuses:
            message = await peer.read_message()
            await peer.send(answer(message.command, status, **fields))
        await peer.answer_release()

    return script


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long an SCU waits before it sends an object again; it does not wait."""
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr("tomowire.services.storage.sleep", sleep)
    return asked


async def test_out_of_resources_is_tried_again(waits: list[float]) -> None:
    """PS3.4 B.2.3: A7xx. The waits are 1 s, 2 s and 4 s, give or take a quarter."""
    async with raw_acceptor(answering(0xA700, 0xA701, 0xA7FF, 0)) as port, scu_of(port) as scu:
        assert (await scu.send(dataset_of())).is_success
    assert len(waits) == 3
    assert all(0.75 * base <= wait <= 1.25 * base for base, wait in zip((1, 2, 4), waits, strict=True))


async def test_three_retries_and_no_more(waits: list[float]) -> None:
    async with raw_acceptor(answering(*[0xA700] * 4)) as port, scu_of(port) as scu:
        assert (await scu.send(dataset_of())).status == 0xA700
    assert len(waits) == 3


@pytest.mark.parametrize("retries", [0, 1])
async def test_the_number_of_retries_can_be_set(retries: int, waits: list[float]) -> None:
    async with raw_acceptor(answering(*[0xA700] * (retries + 1))) as port, scu_of(port) as scu:
        assert (await scu.send(dataset_of(), retries=retries)).status == 0xA700
    assert len(waits) == retries


async def test_a_stream_that_cannot_be_wound_back_is_not_tried_again(waits: list[float]) -> None:
    async with raw_acceptor(answering(0xA700)) as port, scu_of(port) as scu:
        assert (await scu.send(bare(chunks(b"data")))).status == 0xA700
    assert waits == []


async def test_the_answer_counts_when_the_peer_goes_before_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        message = await peer.read_message()
        await peer.send(answer(message.command, 0xA700))

    async def sleep(_: float) -> None:
        await scu._association.wait_closed()
        gone.set()

    monkeypatch.setattr("tomowire.services.storage.sleep", sleep)
    async with raw_acceptor(script) as port, scu_of(port) as scu:
        assert (await scu.send(dataset_of())).status == 0xA700
        assert gone.is_set()


@pytest.mark.parametrize(
    ("status", "kind", "meaning"),
    [
        (0x0000, "success", "success"),
        (0xB000, "warning", "coercion of data elements, or some sub-operations failed"),
        (0xB006, "warning", "elements discarded"),
        (0xB007, "warning", "data set does not match SOP class"),
        (0xA900, "failure", "data set does not match SOP class"),
        (0xC123, "failure", "cannot understand"),
        (0x0124, "failure", "not authorized"),
        (0xD00F, "failure", "status unknown to the standard"),
        (0x4711, "failure", "status unknown to the standard"),
        (0xFE00, "failure", "cancelled"),
    ],
)
async def test_each_status_has_its_class_and_meaning(status: int, kind: str, meaning: str, waits: list[float]) -> None:
    """PS3.4 B.2.3, PS3.7 Annex C. What nobody has defined must not pass for a success, and is not tried again."""
    async with raw_acceptor(answering(status)) as port, scu_of(port) as scu:
        response = await scu.send(dataset_of())
    assert (response.is_success, response.is_warning, response.is_failure) == tuple(
        kind == each for each in ("success", "warning", "failure")
    )
    assert (response.status, response.status.meaning) == (status, meaning)
    assert waits == []


async def test_the_response_says_what_is_wrong() -> None:
    script = answering(0xA900, error_comment="no Rows", offending_element=(0x00280010, 0x00280011))
    async with raw_acceptor(script) as port, scu_of(port) as scu:
        response = await scu.send(dataset_of())
    assert response.error_comment == "no Rows"
    assert response.offending_elements == (0x00280010, 0x00280011)
    assert (response.sop_class_uid, response.sop_instance_uid) == (CT, "1.2.1")


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (CStoreRSP(message_id_being_responded_to=999, status=0), "Message ID 999, which is not in use"),
        (CStoreRSP(message_id_being_responded_to=1, status=0xFF00), "a status of pending"),
    ],
)
async def test_a_response_that_breaks_the_standard_ends_the_association(response: CStoreRSP, text: str) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_message()
        await peer.send(command_pdu(3, response))
        await peer.expect_abort()

    async with raw_acceptor(script) as port, scu_of(port) as scu:
        with pytest.raises(PeerMisbehaved, match=text):
            await scu.send(dataset_of())
        assert not await is_usable(scu)


# Time


async def test_an_answer_after_the_time_out_finds_the_association_closed() -> None:
    """It could be taken for that to a later request."""
    late = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        message = await peer.read_message()
        await late.wait()
        await peer.send(success(message.command))
        await peer.expect_abort()

    async with raw_acceptor(script) as port, scu_of(port) as scu:
        with pytest.raises(OperationTimeout, match=r"C-STORE of 1\.2\.1: nothing moved for 0\.1 s"):
            await scu.send(dataset_of(), timeout=0.1)
        late.set()
        assert not await is_usable(scu)
        with pytest.raises(AssociationAborted):
            await scu.send(dataset_of())


class Blocking(io.RawIOBase):
    """A stream that gives `data` and then nothing until it is let go."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = io.BytesIO(data)
        self.may_end = threading.Event()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = self._data.readinto(buffer)
        if not got:
            self.may_end.wait(30)
        return got


async def test_a_source_that_gives_nothing_at_the_beginning_harms_nobody() -> None:
    keeper = Keeper()
    async with serve(keeper) as server, scu_of(server.port) as scu:
        for wrap in (lambda stream: stream, bare):
            stream = Blocking()
            with pytest.raises(OperationTimeout, match=r"gave nothing for 0\.1 s; nothing was sent"):
                await scu.send(wrap(stream), timeout=0.1)
            stream.may_end.set()
        assert await is_usable(scu)
    assert keeper.begun.empty()


async def test_a_source_that_blocks_in_the_middle_is_given_up_and_named() -> None:
    keeper = Keeper()
    stream = Blocking(bytes(3 * MB))
    async with serve(keeper) as server, scu_of(server.port) as scu:
        with pytest.raises(
            OperationTimeout, match=r"the stream of 1\.2\.1 gave nothing for 0\.3 s; the association was"
        ):
            await scu.send(bare(stream), timeout=0.3)
        stream.may_end.set()
        assert not await is_usable(scu)
    assert keeper.stored == {}


async def test_a_source_that_is_slow_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes several times the timeout, and always something moves."""
    monkeypatch.setattr("tomowire.services.stream_pieces._PATIENCE", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(30):
            await asyncio.sleep(0.05)  # this is how slow it is
            yield bytes(1000)

    keeper = Keeper()
    async with serve(keeper) as server, scu_of(server.port) as scu:
        assert (await scu.send(bare(slow()), timeout=0.7)).is_success
    assert keeper.stored == {"1.2.1": bytes(30_000)}


@pytest.mark.parametrize(("then", "error"), [("close", AssociationLost), ("abort", AssociationAborted)])
async def test_a_peer_that_goes_away_while_the_source_is_waited_for_is_noticed(
    then: str, error: type[Exception]
) -> None:
    """At once, not when the source gives something again."""
    never = asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        yield bytes(3 * MB)
        await never.wait()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        for _ in range(2):
            await peer.read_pdu()
        if then == "abort":
            from tomowire.wire.pdu import AAbort

            await peer.send(AAbort(0, 0))

    async with raw_acceptor(script) as port, scu_of(port) as scu:
        with pytest.raises(error):
            await scu.send(bare(waiting()))


async def test_an_answer_that_comes_while_the_source_is_waited_for(waits: list[float]) -> None:
    """The rest is sent all the same: without it no other message can follow."""
    answered = asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        yield bytes(3 * MB)
        await answered.wait()
        yield b"rest"

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_pdu()
        await peer.send(command_pdu(3, CStoreRSP(message_id_being_responded_to=1, status=0xA900)))
        answered.set()
        while True:
            pdu = await peer.read_pdu()
            if isinstance(pdu, AReleaseRQ):
                break
        await peer.send(RELEASE_RP)
        await peer.read_until_closed()

    async with raw_acceptor(script) as port, scu_of(port) as scu:
        assert (await scu.send(bare(waiting()))).status == 0xA900
        assert scu._association.is_established


# Sources that fail


@pytest.mark.parametrize("kind", ["ends early", "raises", "shrinks"])
async def test_a_source_that_fails_in_the_middle_ends_the_association(kind: str, tmp_path: Path) -> None:
    keeper = Keeper()
    path = tmp_path / "pixels"
    path.write_bytes(bytes(64 * MB))

    def shrink(_: int) -> None:
        os.truncate(path, 3 * MB)

    sources: dict[str, Any] = {
        "ends early": bare(chunks(bytes(5 * MB)), size=6 * MB),
        "raises": bare(chunks(bytes(5 * MB), OSError("the disk is gone"))),
        "shrinks": WithPixels(dataset_of(0), path),
    }
    async with serve(keeper) as server, scu_of(server.port) as scu:
        with pytest.raises(OSError, match=r"bytes early|the disk is gone"):
            await scu.send(sources[kind], on_bytes=shrink)
        assert not await is_usable(scu)
        assert isinstance(await keeper.next_end(), BaseException)
    assert keeper.stored == {}


async def test_a_file_that_grows_while_it_is_sent_ends_the_association(tmp_path: Path) -> None:
    """Somebody writes it: what has gone out is no whole object, and must not be stored as one."""
    file = write_file(tmp_path, 1, bytes(5 * MB))
    keeper = Keeper()

    def grow(_: int) -> None:
        with file.path.open("ab") as more:
            more.write(b"more")

    async with serve(keeper) as server, scu_of(server.port) as scu:
        with pytest.raises(OSError, match="has become longer while it was sent"):
            await scu.send(file, on_bytes=grow)
        assert not await is_usable(scu)
        assert isinstance(await keeper.next_end(), BaseException)
    assert keeper.stored == {}


async def test_a_source_that_fails_at_the_beginning_does_not() -> None:
    """Nothing has been sent of a data set that cannot be encoded, of pixels that do not fit, of a stream that is broken."""
    wrong = dataset_of()
    wrong.add_new(0x00280010, "US", -1)
    keeper = Keeper()
    async with serve(keeper) as server, scu_of(server.port) as scu:
        for source, error in [
            (wrong, DataSetError),
            (WithPixels(dataset_of(0), chunks()), DataSetError),
            (bare(chunks(ZeroDivisionError())), ZeroDivisionError),
            (chunks(ZeroDivisionError()), ZeroDivisionError),
        ]:
            with pytest.raises(error):
                await scu.send(source)
        assert await is_usable(scu)
        assert (await scu.send(dataset_of())).is_success
    assert list(keeper.stored) == ["1.2.1"]


# Cancellation


class Reopened:
    """An SCU whose association is opened anew whenever it was lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._context: Any = None
        self.scu: CStoreScu
        self.kept = self.lost = 0

    async def __aenter__(self) -> Reopened:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._context.__aexit__(None, None, None)

    async def _open(self) -> None:
        self._context = scu_of(self._port)
        self.scu = await self._context.__aenter__()

    async def check(self) -> None:
        """It can be used, or it is over."""
        if await is_usable(self.scu):
            self.kept += 1
        else:
            await self._context.__aexit__(None, None, None)
            assert self.scu._association.connection.is_closed
            self.lost += 1
            await self._open()


SOURCES: dict[str, Callable[[], Any]] = {
    "data set": lambda: dataset_of(5 * MB),
    "small data set": lambda: dataset_of(),
    "stream": lambda: bare(io.BytesIO(bytes(5 * MB))),
    "generator": lambda: bare(chunks(bytes(2 * MB), bytes(3 * MB))),
    "pixels": lambda: WithPixels(dataset_of(0), bytes(5 * MB)),
}


@pytest.mark.parametrize("way", [cancelled_at_each_await, cancelled_after_each_step])
@pytest.mark.parametrize("kind", SOURCES)
async def test_cancelled_at_each_await_the_association_is_usable_or_closed(kind: str, way: Any) -> None:
    """Before the first byte it stays as it was, in the middle of the data set it is aborted, after the last byte it can be used."""
    keeper = Keeper()
    async with serve(keeper) as server, Reopened(server.port) as it:
        work: Callable[[], Coroutine[Any, Any, Any]] = lambda: it.scu.send(SOURCES[kind]())  # noqa: E731
        async for _ in way(work):
            await it.check()
        assert it.kept >= 2
        assert it.lost >= 1 or kind == "small data set"
    assert len(keeper.stored) == 1


async def test_cancelled_at_any_moment_the_association_is_usable_or_closed(tmp_path: Path) -> None:
    """Two dozen random moments, with several objects under way."""
    chance = random.Random(4711)
    file = write_file(tmp_path, 1, bytes(4 * MB))
    async with serve(Keeper(), window=4) as server, Reopened(server.port) as it:
        for _ in range(24):
            sources = [make() for make in SOURCES.values()] + [file.path]
            chance.shuffle(sources)
            tasks = [asyncio.ensure_future(it.scu.send(each)) for each in sources[:3]]
            await asyncio.sleep(chance.random() * 0.02)
            for task in chance.sample(tasks, 2):
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert not isinstance(result, Exception) or isinstance(result, AssociationAborted), result
            await it.check()


# Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_told_ten_times_a_second_at_most_and_at_the_end() -> None:
    clock, told = Clock(), list[TransferProgress]()
    meter = ProgressMeter(told.append, 1000, clock=clock)
    for _ in range(100):
        clock.now += 0.01
        meter.add(10)
    meter.finish()
    assert 9 <= len(told) <= 11
    assert [each.bytes_done for each in told] == sorted(each.bytes_done for each in told)
    assert all(each.bytes_per_second == pytest.approx(1000) for each in told)
    for each in told:
        assert each.bytes_total == 1000
        assert each.seconds_left == pytest.approx((1000 - each.bytes_done) / 1000, abs=1e-6)
    assert told[-1] == TransferProgress(1000, 1000, pytest.approx(1000), 0.0)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """A transfer that was fast for a minute and is slow now."""
    clock, told = Clock(), list[TransferProgress]()
    meter = ProgressMeter(told.append, 1_000_000, clock=clock)
    for rate in (10_000, 1000):
        for _ in range(100):
            clock.now += 0.2
            meter.add(rate // 5)
    assert told[99].bytes_per_second == pytest.approx(10_000)
    assert told[-1].bytes_per_second == pytest.approx(1000)
    assert told[-1].seconds_left == pytest.approx((1_000_000 - 220_000) / 1000)


def test_where_the_size_is_not_known_no_time_is_left() -> None:
    clock, told = Clock(), list[TransferProgress]()
    meter = ProgressMeter(told.append, None, clock=clock)
    clock.now += 1
    meter.add(500)
    assert told == [TransferProgress(500, None, 500.0, None)]
    meter.finish()
    assert told[-1] == TransferProgress(500, 500, 500.0, 0.0)


def test_what_stands_still_has_no_time_left_to_tell() -> None:
    clock, told = Clock(), list[TransferProgress]()
    meter = ProgressMeter(told.append, 500, clock=clock)
    clock.now += 1
    meter.add(0)
    assert told == [TransferProgress(0, 500, 0.0, None)]


@pytest.mark.parametrize("kind", SOURCES)
async def test_progress_of_each_kind_of_source_ends_with_all_of_it(kind: str) -> None:
    keeper = Keeper()
    told: list[TransferProgress] = []
    async with serve(keeper) as server, scu_of(server.port) as scu:
        assert (await scu.send(SOURCES[kind](), progress=told.append)).is_success
    total = len(keeper.stored["1.2.1"])
    assert (told[-1].bytes_done, told[-1].bytes_total, told[-1].seconds_left) == (total, total, 0.0)
    assert all(each.bytes_total in (None, total) for each in told)
    assert sum(each.bytes_done == total for each in told) <= 2


async def test_no_progress_is_finished_when_the_object_is_not(tmp_path: Path) -> None:
    told: list[TransferProgress] = []
    async with serve() as server, scu_of(server.port) as scu:
        with pytest.raises(OSError, match="early"):
            await scu.send(bare(chunks(bytes(3 * MB)), size=4 * MB), progress=told.append)
    assert all(each.bytes_done < 4 * MB for each in told)


# Memory

MEMORY = """
import asyncio, io, json, os, resource, sys, tempfile
from pathlib import Path
from pydicom import Dataset
from tomowire import CStoreScu, Storage, associate, listen, storage
from tomowire.services.pixel_source import WithPixels
from tomowire.services.stream_source import BareDataSet
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN as EXPLICIT

CT, SIZE, JPEG_LS = "1.2.840.10008.5.1.4.1.1.2", 300 << 20, "1.2.840.10008.1.2.4.80"
largest = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
received = 0

async def keep(request):
    global received
    async for chunk in request.data:
        received += chunk.nbytes
    return 0

async def chunks(size):
    for _ in range(size >> 16):
        yield bytes(1 << 16)

def metadata():
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.BitsAllocated, dataset.NumberOfFrames = CT, "1.2.3", 8, 1
    return dataset

def sources(folder, size):
    path = folder / "pixels"
    with path.open("wb") as file:
        file.truncate(size)
    opened = path.open("rb")
    bare = dict(sop_class_uid=CT, sop_instance_uid="1.2.3", transfer_syntax_uid=EXPLICIT)
    yield BareDataSet(opened, **bare)
    yield BareDataSet(chunks(size), **bare)
    yield WithPixels(metadata(), path)
    yield WithPixels(metadata(), chunks(size), length=size)
    opened.seek(0)
    yield WithPixels(metadata(), opened, transfer_syntax_uid=JPEG_LS)
    opened.close()

async def main(folder):
    global received
    async with listen(port=0, services=[Storage(keep)]) as server:
        contexts = [storage(CT, [EXPLICIT, JPEG_LS])]
        async with associate(f"ANY@127.0.0.1:{server.port}", contexts) as association:
            added = []
            for source in sources(folder, 1 << 16):
                assert (await CStoreScu(association).send(source)).is_success
            for source in sources(folder, SIZE):
                received, before = 0, largest()
                assert (await CStoreScu(association).send(source)).is_success
                assert received >= SIZE
                added.append(largest() - before)
    print(json.dumps(added))

with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(Path(folder)))
"""


def test_a_source_of_several_hundred_megabytes_is_never_in_memory() -> None:
    """Sender and receiver in one process: together they add less than 40 MB to it."""
    source = str(Path(__file__).parents[2] / "src")
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, env={"PYTHONPATH": source}, stdout=subprocess.PIPE, check=True, timeout=80)
    added = json.loads(done.stdout)
    assert len(added) == 5
    assert max(added) < 40 << 20, added
