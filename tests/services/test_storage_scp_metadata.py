"""The Storage SCP's handler asks for the attributes before the pixel data: `await request.metadata()`."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread

from support.data_sets import ENCODERS, EXPLICIT, IMPLICIT, Encoder, elements_of_an_image
from support.raw_peer import CT, RawPeer, associate_rq, command_pdu, message_pdus, p_data, store_rq
from tomowire.aio.listen import listen
from tomowire.errors import StoreFailed, UsageError
from tomowire.services.folder import Folder
from tomowire.services.storage_scp import Storage, StoreRequest
from tomowire.testing.raw import data_pdus
from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CStoreRSP
from tomowire.wire.part10 import FileMeta, encode_file_meta

pytestmark = pytest.mark.usefixtures("no_leaks")

PIXELS = os.urandom(200_000)


class Taker:
    """A handler that takes the metadata and then the rest; what it got is compared with what was sent."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.metadata: Dataset | None = None
        self.head = self.rest = b""
        self.lasts: list[bool] = []

    async def keep(self, request: StoreRequest) -> int:
        self.metadata = await request.metadata(**self.options)
        self.head = request.encoded_metadata
        async for chunk in request.data:
            self.lasts.append(chunk.last)
            piece = b"".join(chunk.buffers)
            assert len(piece) == chunk.nbytes
            self.rest += piece
        return 0


@asynccontextmanager
async def peer_of(
    keep: Callable[[StoreRequest], Awaitable[Any]], syntax: str = EXPLICIT_VR_LITTLE_ENDIAN, **options: Any
) -> AsyncIterator[RawPeer]:
    async with (
        listen(port=0, services=[Storage(keep)], **options) as server,
        await RawPeer.connect(server.port) as peer,
    ):
        await peer.associate(associate_rq(PresentationContextRQ(3, CT, (syntax,))))
        yield peer
        await peer.release()


async def answer_of(peer: RawPeer) -> CStoreRSP:
    answer = (await peer.read_message()).command
    assert isinstance(answer, CStoreRSP)
    return answer


async def store(peer: RawPeer, data: bytes, *, fragment: int = 1 << 14, number: int = 1) -> CStoreRSP:
    sending = asyncio.ensure_future(peer.send(message_pdus(3, store_rq(number), data, fragment)))
    answer = await answer_of(peer)
    await sending
    return answer


async def taken(data: bytes, syntax: str, *, fragment: int = 1 << 14, **options: Any) -> Taker:
    taker = Taker(**options)
    async with peer_of(taker.keep, syntax) as peer:
        answer = await store(peer, data, fragment=fragment)
        assert (answer.status, answer.error_comment) == (0, None)
    assert taker.lasts[-1:] == [True]
    assert taker.lasts.count(True) == 1
    return taker


def before_pixels(encoder: Encoder) -> bytes:
    return b"".join(elements_of_an_image(encoder)[:-2])


def read_by_pydicom(data: bytes, syntax: str) -> Dataset:
    """What pydicom makes of it, as the content of a file."""
    return dcmread(BytesIO(encode_file_meta(FileMeta(CT, "1.2.3", syntax)) + data), stop_before_pixels=True)


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda each: each.transfer_syntax)
async def test_the_attributes_come_first_and_the_bytes_of_the_pixel_data_after_them(encoder: Encoder) -> None:
    head = before_pixels(encoder)
    rest = encoder.element(0x7FE00010, "OW", PIXELS)
    taker = await taken(head + rest, encoder.transfer_syntax)
    assert taker.metadata == read_by_pydicom(head + rest, encoder.transfer_syntax)
    assert taker.metadata is not None
    assert taker.metadata.PatientName == "Müller^Jörg"
    assert (taker.head, taker.rest) == (head, rest)


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda each: each.transfer_syntax)
async def test_encapsulated_pixel_data_of_undefined_length(encoder: Encoder) -> None:
    head, rest = before_pixels(encoder), b"".join(elements_of_an_image(encoder)[-2:])
    taker = await taken(head + rest, encoder.transfer_syntax)
    assert (taker.head, taker.rest) == (head, rest)


@pytest.mark.parametrize("tag", [0x7FE00001, 0x7FE00008, 0x7FE00009, 0x7FE00010, 0x7FE10010])
async def test_all_of_the_groups_of_pixels_end_the_attributes(tag: int) -> None:
    """Extended Offset Table, Float and Double Float Pixel Data, Pixel Data, and the private pixels of some vendors."""
    head, rest = before_pixels(EXPLICIT), EXPLICIT.element(tag, "OB", bytes(100))
    taker = await taken(head + rest, EXPLICIT_VR_LITTLE_ENDIAN)
    assert (taker.head, taker.rest) == (head, rest)


@pytest.mark.parametrize("defined", [True, False])
async def test_the_pixel_data_of_an_icon_do_not_end_the_attributes(defined: bool) -> None:
    e = EXPLICIT
    icon = e.item(e.element(0x00280010, "US", b"\x40\0") + e.element(0x7FE00010, "OW", bytes(64)), defined=defined)
    head = before_pixels(e)[: -len(e.element(0x00400555, "SQ", b""))] + e.sequence(0x00880200, icon, defined=defined)
    rest = e.element(0x7FE00010, "OW", PIXELS)
    taker = await taken(head + rest, EXPLICIT_VR_LITTLE_ENDIAN)
    assert (taker.head, taker.rest) == (head, rest)
    assert taker.metadata is not None
    assert taker.metadata.IconImageSequence[0].PixelData == bytes(64)
    assert "PixelData" not in taker.metadata


@pytest.mark.parametrize("size", [0, 2, 200_000])
async def test_a_data_set_without_pixel_data_is_all_attributes(size: int) -> None:
    head = before_pixels(EXPLICIT) if size else b""
    if size > 2:
        head += EXPLICIT.element(0x00420011, "OB", bytes(size))
    taker = await taken(head, EXPLICIT_VR_LITTLE_ENDIAN)
    assert (taker.head, taker.rest) == (head, b"")
    assert taker.metadata == (read_by_pydicom(head, EXPLICIT_VR_LITTLE_ENDIAN) if head else Dataset())


@pytest.mark.parametrize("pixels", [0, 1000, 3_000_000])
async def test_of_a_deflated_data_set_the_attributes_are_inflated_and_the_bytes_stay_as_they_came(pixels: int) -> None:
    """PS3.5 A.5."""
    head = before_pixels(EXPLICIT)
    plain = head + EXPLICIT.element(0x7FE00010, "OW", os.urandom(pixels))
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = deflater.compress(plain) + deflater.flush()
    data += b"\0" * (len(data) % 2)
    taker = await taken(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert taker.metadata == read_by_pydicom(plain, EXPLICIT_VR_LITTLE_ENDIAN)
    assert taker.head + taker.rest == data
    assert len(taker.head) <= 64 * 1024


async def test_the_encoding_may_be_another_than_its_name_says() -> None:
    """Some writers name implicit VR and use explicit VR, or the other way round. (pydicom reads both.)"""
    for encoder, syntax in [(EXPLICIT, IMPLICIT_VR_LITTLE_ENDIAN), (IMPLICIT, EXPLICIT_VR_LITTLE_ENDIAN)]:
        head, rest = before_pixels(encoder), encoder.element(0x7FE00010, "OW", PIXELS)
        taker = await taken(head + rest, syntax)
        assert (taker.head, taker.rest) == (head, rest)


@settings(max_examples=25)
@given(st.integers(0, 3_000_000), st.integers(1, 300_000), st.sampled_from([1 << 10, 1 << 14, 1 << 17]), st.booleans())
async def test_wherever_the_pixel_data_begin_nothing_is_lost(long: int, pixels: int, fragment: int, ob: bool) -> None:
    """Attributes of any length, around the sizes at which they are looked for, gathered, and received."""
    head = before_pixels(EXPLICIT) + EXPLICIT.element(0x00420011, "OB", bytes(long + long % 2))
    rest = EXPLICIT.element(0x7FE00010, "OB" if ob else "OW", os.urandom(pixels + pixels % 2))
    taker = await taken(head + rest, EXPLICIT_VR_LITTLE_ENDIAN, fragment=fragment)
    assert (len(taker.head), len(taker.rest)) == (len(head), len(rest))
    assert taker.head + taker.rest == head + rest


async def test_the_attributes_are_there_before_the_pixel_data_have_come() -> None:
    taker = Taker()
    told = asyncio.Event()

    async def keep(request: StoreRequest) -> int:
        await request.metadata()
        told.set()
        return await taker.keep(request)  # a second time they are just given

    head = before_pixels(EXPLICIT)
    pixels = EXPLICIT.element(0x7FE00010, "OW", bytes(4 << 20))
    async with peer_of(keep, maximum_length=0) as peer:
        await peer.send(command_pdu(3, store_rq()))
        await peer.send(p_data(3, head + pixels[: 2 << 20], command=False, last=False))
        async with asyncio.timeout(10):
            await told.wait()
        await peer.send(p_data(3, pixels[2 << 20 :], command=False, last=True))
        assert (await answer_of(peer)).status == 0
    assert taker.head + taker.rest == head + pixels


@pytest.mark.parametrize("too_much", [0, 2])
@pytest.mark.parametrize("deflated", [False, True])
async def test_too_many_attributes_are_refused_and_not_held(too_much: int, deflated: bool) -> None:
    """A700H, with a comment; then the next object comes."""
    limit = 300_000
    head = before_pixels(EXPLICIT)
    head += EXPLICIT.element(0x00420011, "OB", bytes(limit + too_much - len(head) - 12))
    data = head + EXPLICIT.element(0x7FE00010, "OW", PIXELS)
    syntax = EXPLICIT_VR_LITTLE_ENDIAN
    if deflated:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data, syntax = deflater.compress(data) + deflater.flush(), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    async with peer_of(Taker(limit=limit).keep, syntax) as peer:
        answer = await store(peer, data)
        if too_much:
            assert answer.status == 0xA700
            assert answer.error_comment == "more than 300000 bytes of attributes before the pixel data"
        else:
            assert answer.status == 0
        assert (await store(peer, data, number=2)).status == answer.status


async def test_a_bomb_is_inflated_no_further_than_the_limit() -> None:
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    head = before_pixels(EXPLICIT) + EXPLICIT.element(0x00420011, "OB", b"", length=1 << 30)
    data = deflater.compress(head)
    for _ in range(256):
        data += deflater.compress(bytes(1 << 20))
    data += deflater.flush()
    async with peer_of(Taker().keep, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, memory=64 << 20) as peer:
        assert (await store(peer, data)).status == 0xA700


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (before_pixels(EXPLICIT)[:-2], EXPLICIT_VR_LITTLE_ENDIAN),
        (EXPLICIT.element(0x00100020, "LO", b"4711", length=5000), EXPLICIT_VR_LITTLE_ENDIAN),
        (EXPLICIT.tag(0x00081140) + b"SQ\0\0\xff\xff\xff\xff" + EXPLICIT.tag(0xFFFEE000), EXPLICIT_VR_LITTLE_ENDIAN),
        (b"no deflate", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
        (zlib.compress(before_pixels(EXPLICIT))[2:40], DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
    ],
)
async def test_attributes_that_cannot_be_read_are_answered_so(data: bytes, syntax: str) -> None:
    """PS3.4 B.2.3: C000H, cannot understand."""
    async with peer_of(Taker().keep, syntax) as peer:
        answer = await store(peer, data)
        assert answer.status == 0xC000
        assert answer.error_comment


async def test_who_has_begun_to_read_cannot_ask_for_the_attributes_any_more() -> None:
    raised: list[Exception] = []

    async def keep(request: StoreRequest) -> int:
        await anext(request.data)
        for ask in (request.metadata(), request.write_to("nowhere")):
            try:
                await ask
            except UsageError as error:
                raised.append(error)
        return 0

    async with peer_of(keep) as peer:
        assert (await store(peer, before_pixels(EXPLICIT))).status == 0
    assert len(raised) == 2


async def test_two_tasks_that_ask_for_the_attributes_at_once_leave_nothing_held() -> None:
    begun = asyncio.Event()
    held: list[int] = []
    results: list[Dataset | BaseException] = []

    async def keep(request: StoreRequest) -> int:
        budget = request.association.budget
        assert budget is not None
        asking = [asyncio.create_task(request.metadata()) for _ in range(2)]
        await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)  # the second, at once
        begun.set()
        results.extend(await asyncio.gather(*asking, return_exceptions=True))
        asyncio.get_running_loop().call_soon(lambda: held.append(budget.data.used))
        return 0

    async with peer_of(keep) as peer:
        await peer.send(command_pdu(3, store_rq(1)))
        async with asyncio.timeout(10):
            await begun.wait()
        (data,) = data_pdus(3, before_pixels(EXPLICIT))
        await peer.send(data)
        assert (await answer_of(peer)).status == 0
    assert [type(each) for each in results] == [Dataset, UsageError]
    assert held == [0]


@pytest.mark.parametrize("with_metadata", [False, True])
@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_a_file_is_written_whole_whether_the_attributes_were_read_or_not(
    tmp_path: Path, with_metadata: bool, size: int
) -> None:
    data = before_pixels(EXPLICIT) + EXPLICIT.element(0x7FE00010, "OW", os.urandom(size))

    async def keep(request: StoreRequest) -> int:
        if with_metadata:
            await request.metadata()
        await request.write_to(tmp_path / "object.dcm")
        return 0

    async with peer_of(keep) as peer:
        assert (await store(peer, data)).status == 0
    assert os.listdir(tmp_path) == ["object.dcm"]
    path = tmp_path / "object.dcm"
    assert path.read_bytes().endswith(data)
    written = dcmread(path)
    assert written.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert written.file_meta.SourceApplicationEntityTitle == "CALLING"
    assert len(written.PixelData) == size


async def test_a_folder_keeps_the_whole_object_though_the_attributes_have_been_read(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    data = before_pixels(EXPLICIT) + EXPLICIT.element(0x7FE00010, "OW", PIXELS)

    async def keep(request: StoreRequest) -> int:
        assert "1.2.3" in repr(request)
        await request.metadata()
        return await folder.keep(request)

    async with peer_of(keep) as peer:
        assert (await store(peer, data)).status == 0
    folder.close()
    assert (tmp_path / "1.2.3.dcm").read_bytes().endswith(data)
    assert dcmread(tmp_path / "1.2.3.dcm").PatientID == "4711"


async def test_a_file_that_cannot_be_written_leaves_nothing_and_is_out_of_resources(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    raised: list[int] = []

    async def keep(request: StoreRequest) -> int:
        try:
            await request.write_to(tmp_path / "taken")
        except StoreFailed as error:
            raised.append(error.status)
        await request.write_to(tmp_path / "missing" / "object.dcm")
        return 0

    async with peer_of(keep) as peer:
        assert (await store(peer, before_pixels(EXPLICIT))).status in (0x0110, 0xA700)
    assert raised == [0xA700]
    assert os.listdir(tmp_path) == ["taken"]


async def test_a_peer_that_goes_away_leaves_no_file_and_nothing_held(tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def keep(request: StoreRequest) -> int:
        try:
            await request.metadata()
            begun.set()
            await request.write_to(tmp_path / "object.dcm")
        finally:
            ended.set()
        return 0

    data = before_pixels(EXPLICIT) + EXPLICIT.element(0x7FE00010, "OW", bytes(3 << 20))
    async with listen(port=0, services=[Storage(keep)], maximum_length=0) as server:
        async with await RawPeer.connect(server.port) as peer:
            await peer.associate()
            (association,) = server.associations
            assert association.budget is not None
            await peer.send(command_pdu(3, store_rq()), p_data(3, data[: 2 << 20], command=False, last=False))
            async with asyncio.timeout(10):
                await begun.wait()
            assert association.budget.data.used >= 64 * 1024
            peer.reset()
            async with asyncio.timeout(10):
                await ended.wait()
        await association.close()
        assert association.budget.data.used == 0
    assert os.listdir(tmp_path) == []


async def test_a_handler_that_was_given_up_cannot_take_memory_any_more() -> None:
    let_go, asked = asyncio.Event(), asyncio.Event()
    raised: list[Exception] = []

    async def keep(request: StoreRequest) -> int:
        try:
            await let_go.wait()
        except asyncio.CancelledError:
            await let_go.wait()
        try:
            await request.metadata()
        except UsageError as error:
            raised.append(error)
        asked.set()
        return 0

    services = [Storage(keep, handler_timeout=0.1)]
    async with listen(port=0, services=services) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        (association,) = server.associations
        assert association.budget is not None
        assert (await store(peer, before_pixels(EXPLICIT))).status == 0x0110
        let_go.set()
        async with asyncio.timeout(10):
            await asked.wait()
        assert association.budget.data.used == 0
        await peer.release()
    assert [str(each) for each in raised] == ["the data set was read after the request had been answered"]
