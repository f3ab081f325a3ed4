"""What can be sent: paths, streams, data sets, attributes with pixels from elsewhere. What goes out is what pydicom reads."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import os
import re
import socket
import struct
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset

from support.data_sets import BIG, EXPLICIT, IMPLICIT, pydicom_data_sets
from support.files import data_of, write_file
from support.raw_peer import CT
from tomowire.errors import DataSetError, FileFormatError, UsageError
from tomowire.services.byte_readers import reader_of
from tomowire.services.dataset_source import DatasetSource
from tomowire.services.dicom_file import DicomFile
from tomowire.services.pixel_source import WithPixels
from tomowire.services.sources import Source, as_source
from tomowire.services.stream_pieces import StreamPieces
from tomowire.services.stream_source import BareDataSet
from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tomowire.wire.part10 import FileMeta, encode_file_meta

pytestmark = pytest.mark.usefixtures("no_leaks")

MB = 1 << 20
JPEG_LS = "1.2.840.10008.1.2.4.80"
RLE = "1.2.840.10008.1.2.5"
MPEG_4 = "1.2.840.10008.1.2.4.102"
EXPLICIT_UID = EXPLICIT_VR_LITTLE_ENDIAN


async def whole(source: Source, payload: int = 16378) -> bytes:
    """The bytes of the data set; that the pieces are as they should be is looked at on the way."""
    async with source.pieces(payload) as pieces:
        found = [(bytes(piece), last) async for piece, last in pieces]
    assert [last for _, last in found] == [False] * (len(found) - 1) + [True]
    assert all(len(piece) % 2 == 0 for piece, _ in found)
    return b"".join(piece for piece, _ in found)


def read_back(source: Source, data: bytes) -> Any:
    """What pydicom makes of the bytes."""
    meta = FileMeta(source.sop_class_uid, source.sop_instance_uid, source.transfer_syntax_uid)
    return dcmread(io.BytesIO(encode_file_meta(meta) + data))


def small_dataset(**elements: Any) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = "1.2.3"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def image(rows: int = 4, columns: int = 6, frames: int = 1, bits: int = 16) -> Dataset:
    return small_dataset(
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=rows,
        Columns=columns,
        NumberOfFrames=frames,
        BitsAllocated=bits,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=0,
    )


def with_syntax(dataset: Dataset, transfer_syntax: str) -> Dataset:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    return dataset


async def portions(data: bytes, *sizes: int) -> AsyncIterator[bytes]:
    """`data` in portions of these sizes, again and again."""
    position = number = 0
    while position < len(data):
        size = sizes[number % len(sizes)]
        yield data[position : position + size]
        position, number = position + size, number + 1
        await asyncio.sleep(0)


class Unseekable(io.RawIOBase):
    """A stream that blocks, and cannot be wound back; a pipe, for one."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(memoryview(buffer)[:1000])


async def stream_reader(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


# The pieces of a stream


async def drained(pieces: StreamPieces) -> None:
    async with pieces:
        async for _ in pieces:
            pass


@given(
    size=st.integers(0, 3000),
    portion=st.integers(1, 700),
    payload=st.integers(1, 300),
    known=st.booleans(),
)
async def test_the_pieces_are_the_stream(size: int, portion: int, payload: int, known: bool) -> None:
    data = os.urandom(size)
    pieces = StreamPieces(reader_of(portions(data, portion)), size if known else None, payload, "it")
    async with pieces:
        found = [(bytes(piece), last) async for piece, last in pieces]
    assert b"".join(piece for piece, _ in found) == data + b"\0" * (size % 2)
    assert [last for _, last in found] == [False] * (len(found) - 1) + [True]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [MB - 1, MB, MB + 1, 3 * MB, 3 * MB + 7])
async def test_large_pieces_are_as_large_as_pdus_make_them(size: int, known: bool) -> None:
    data = os.urandom(size)
    pieces = StreamPieces(reader_of(io.BytesIO(data)), size if known else None, 16378, "it")
    async with pieces:
        found = [(bytes(piece), last) async for piece, last in pieces]
    assert b"".join(piece for piece, _ in found) == data + b"\0" * (size % 2)
    assert all(len(piece) % 16378 == 0 and len(piece) <= MB for piece, last in found if not last)


async def test_no_more_is_read_than_was_said() -> None:
    stream = io.BytesIO(b"0123456789and more")
    async with StreamPieces(reader_of(stream), 10, 100, "it") as pieces:
        assert [bytes(piece) async for piece, _ in pieces] == [b"0123456789"]
    assert stream.read() == b"and more"


async def test_a_stream_that_ends_early() -> None:
    with pytest.raises(OSError, match="it ended 3 bytes early"):
        await drained(StreamPieces(reader_of(io.BytesIO(b"1234567")), 10, 100, "it"))


async def test_what_comes_slowly_is_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece does not wait until it is full: what moves at the source should move on the association too."""
    monkeypatch.setattr("tomowire.services.stream_pieces._PATIENCE", -1.0)
    more = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        yield b"second!"
        yield b"third!"
        await more.wait()
        yield b"last"

    async with StreamPieces(reader_of(slow()), None, 16378, "it") as pieces:
        async with asyncio.timeout(10):
            assert bytes((await anext(pieces))[0]) == b"firstsecond!"
        more.set()
        assert [bytes(piece) async for piece, _ in pieces] == [b"third!", b"last"]


async def test_left_early_an_asynchronous_generator_is_closed() -> None:
    closed = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(MB)
        finally:
            closed.append(asyncio.current_task())

    async with StreamPieces(reader_of(endless()), None, 16378, "it") as pieces:
        await anext(pieces)
    assert len(closed) == 1


async def test_a_generator_that_does_not_hear_its_cancellation_does_not_hold_up_the_end() -> None:
    async def deaf() -> AsyncIterator[bytes]:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
            yield bytes(MB)

    async with asyncio.timeout(10):
        async with StreamPieces(reader_of(deaf()), None, 16378, "it") as pieces:
            waiting = asyncio.ensure_future(anext(pieces))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])


@pytest.mark.parametrize("error", [OSError("gone"), ZeroDivisionError(), asyncio.CancelledError()])
async def test_what_the_source_raises_is_raised(error: BaseException) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise error

    with pytest.raises(type(error)):
        await drained(StreamPieces(reader_of(broken()), None, 16378, "it"))


# Streams of DICOM files


async def test_every_kind_of_stream_gives_what_is_in_the_file(tmp_path: Path) -> None:
    for size in (1, 2, 999, 5000, 3 * MB + 1):
        data = (data_of(1) * (size // 10 + 1))[:size]
        file = write_file(tmp_path, 1, data)
        content = file.path.read_bytes()
        read_end, write_end = socket.socketpair()
        with file.path.open("rb") as opened, file.path.open("rb", buffering=0) as unbuffered, read_end, write_end:
            things: list[Any] = [
                file,
                file.path,
                str(file.path),
                content,
                bytearray(content),
                io.BytesIO(content),
                opened,
                unbuffered,
                Unseekable(content),
                io.BufferedReader(Unseekable(content)),
                await stream_reader(content),
                portions(content, 1, 700, 3),
            ]
            for thing in things:
                source = await as_source(thing)
                assert isinstance(source, Source)
                assert (source.sop_class_uid, source.sop_instance_uid) == (CT, "1.2.1")
                assert source.transfer_syntax_uid == EXPLICIT_UID
                assert source.size in (None, size)
                assert await whole(source) == data + b"\0" * (size % 2), thing


async def test_what_can_be_wound_back_can_be_sent_again(tmp_path: Path) -> None:
    """From where it stood, which need not be its beginning."""
    file = write_file(tmp_path, 1, data_of(1))
    content = file.path.read_bytes()
    stream = io.BytesIO(b"something else" + content)
    stream.seek(14)
    for thing in (file.path, content, stream):
        source = await as_source(thing)
        assert source.repeatable
        assert source.size == len(data_of(1))
        assert await whole(source) == await whole(source) == data_of(1)


async def test_what_cannot_be_wound_back_is_sent_once(tmp_path: Path) -> None:
    content = write_file(tmp_path, 1, data_of(1)).path.read_bytes()
    for thing in (Unseekable(content), portions(content, 100), await stream_reader(content)):
        source = await as_source(thing)
        assert not source.repeatable
        assert source.size is None
        assert await whole(source) == data_of(1)
        with pytest.raises(UsageError, match="read already"):
            await whole(source)


class AsyncFile:
    """As libraries for asynchronous files make them: all that it can do is a coroutine."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    async def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    async def seekable(self) -> bool:
        return True


async def test_an_asynchronous_file_is_sent_once(tmp_path: Path) -> None:
    content = write_file(tmp_path, 1, data_of(1)).path.read_bytes()
    source = await as_source(AsyncFile(content))  # a coroutine that nobody awaited would be complained about
    assert not source.repeatable
    assert await whole(source) == data_of(1)


async def test_a_file_meta_information_that_is_longer_than_the_first_look(tmp_path: Path) -> None:
    meta = FileMeta(CT, "1.2.3", EXPLICIT_UID, private_information_creator_uid="1.2", private_information=bytes(5000))
    content = encode_file_meta(meta) + data_of(1)
    for thing in (io.BytesIO(content), Unseekable(content), portions(content, 333)):
        assert await whole(await as_source(thing)) == data_of(1)


@pytest.mark.parametrize(
    ("thing", "error", "text"),
    [
        (io.BytesIO(b"not DICOM" * 100), FileFormatError, "not a DICOM file"),
        (b"", FileFormatError, "not a DICOM file"),
        (Unseekable(encode_file_meta(FileMeta(CT, "1.2.3", EXPLICIT_UID))[:200]), FileFormatError, "ends inside"),
        (io.StringIO("text" * 1000), UsageError, "text mode"),
        (5, UsageError, "int cannot be sent"),
        (Dataset(), UsageError, "no SOPClassUID"),
        ("/nowhere", FileNotFoundError, "nowhere"),
        ("no\0where", UsageError, "null character"),
        (io.BytesIO, UsageError, "type cannot be sent"),
        (memoryview(bytes(400))[::2], UsageError, "has gaps"),
        (small_dataset(SOPInstanceUID=["1.2", "1.3"]), UsageError, "SOPInstanceUID of the data set is no UID"),
        (small_dataset(SOPInstanceUID="1." * 32 + "1"), UsageError, "SOPInstanceUID of the data set is no UID"),
        (small_dataset(SOPClassUID="1.2\\1.3 "), UsageError, "SOPClassUID of the data set is no UID"),
    ],
)
async def test_what_cannot_be_a_source(thing: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        await as_source(thing)


@pytest.mark.parametrize("size", [None, 1024])
async def test_a_file_without_a_data_set_is_not_sent(size: int | None, tmp_path: Path) -> None:
    """Cut short where the file meta information ends, also where that is as long as the first look."""
    content = encode_file_meta(FileMeta(CT, "1.2.3", EXPLICIT_UID))
    if size is not None:
        meta = FileMeta(CT, "1.2.3", EXPLICIT_UID, private_information_creator_uid="1.2", private_information=b"")
        missing = size - len(encode_file_meta(meta))
        content = encode_file_meta(dataclasses.replace(meta, private_information=bytes(missing)))
        assert len(content) == size
    path = tmp_path / "cut"
    path.write_bytes(content)
    for thing in (path, content, io.BytesIO(content), Unseekable(content), portions(content, 100)):
        with pytest.raises(FileFormatError, match="there is no data set"):
            await as_source(thing)


async def test_a_pixel_buffer_that_is_closed(tmp_path: Path) -> None:
    dataset = image()
    dataset.PixelData = buffer = io.BytesIO(bytes(48))
    source = await as_source(dataset)
    buffer.close()
    with pytest.raises(UsageError, match="stream is closed"):
        await whole(source)


async def test_a_stream_that_cannot_be_read_from(tmp_path: Path) -> None:
    with (tmp_path / "closed").open("wb") as stream, pytest.raises(UsageError, match="only be written to"):
        await as_source(stream)
    with pytest.raises(UsageError, match="stream is closed"):
        await as_source(stream)
    source = await as_source(opened := io.BytesIO(write_file(tmp_path, 1, data_of(1)).path.read_bytes()))
    opened.close()
    with pytest.raises(UsageError, match="stream is closed"):
        await whole(source)


async def test_a_stream_in_non_blocking_mode() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    with (
        os.fdopen(read_end, "rb", buffering=0) as stream,
        os.fdopen(write_end, "wb"),
        pytest.raises(UsageError, match="non-blocking"),
    ):
        await as_source(stream)


async def test_a_stream_that_cannot_go_to_its_end_is_read_once(tmp_path: Path) -> None:
    content = write_file(tmp_path, 1, data_of(1)).path.read_bytes()

    class OnlyBack(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            if whence:
                raise io.UnsupportedOperation("only back")
            return super().seek(offset)

    source = await as_source(OnlyBack(content))
    assert not source.repeatable
    assert await whole(source) == data_of(1)


async def test_a_stream_that_gives_more_than_it_was_asked_for() -> None:
    class Generous(Unseekable):
        def read(self, size: int = -1) -> bytes:
            return bytes(size + 1)

    with pytest.raises(UsageError, match="gave 1025 bytes when 1024 were asked for"):
        await as_source(Generous(b""))


# Bare data sets


async def test_a_bare_data_set_is_what_it_is_said_to_be() -> None:
    data = data_of(1) * 500
    said = {"sop_class_uid": CT, "sop_instance_uid": "1.2.9", "transfer_syntax_uid": IMPLICIT_VR_LITTLE_ENDIAN}
    for stream in (data, io.BytesIO(data), Unseekable(data), await stream_reader(data), portions(data, 7)):
        source = BareDataSet(stream, **said)
        assert await as_source(source) is source
        assert isinstance(source, Source)
        assert source.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
        assert await whole(source) == data
        if not source.repeatable:
            with pytest.raises(UsageError, match="read already"):
                await whole(source)
    stream = io.BytesIO(data)
    assert await whole(BareDataSet(stream, size=10, **said)) == data[:10]
    assert stream.tell() == 10  # what follows belongs to somebody else


async def test_a_generator_of_what_cannot_be_sent_is_closed(tmp_path: Path) -> None:
    closed: list[str] = []

    async def giving(name: str, content: bytes) -> AsyncIterator[bytes]:
        try:
            for _ in range(1000):
                yield content
        finally:
            closed.append(name)

    garbage, file = giving("garbage", bytes(100)), giving("file", write_file(tmp_path).path.read_bytes())
    with pytest.raises(FileFormatError):
        await as_source(garbage)
    with pytest.raises(FileFormatError):
        await whole(BareDataSet(file, sop_class_uid=CT, sop_instance_uid="1.2", transfer_syntax_uid=EXPLICIT_UID))
    assert closed == ["garbage", "file"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sop_instance_uid": None}, "sop_instance_uid is no UID: None"),
        ({"sop_class_uid": ""}, "sop_class_uid is no UID"),
        ({"transfer_syntax_uid": "Explicit VR"}, "transfer_syntax_uid is no UID"),
        ({"size": -1}, "`size` is a number of bytes, not -1"),
        ({"size": "4"}, "`size` is a number of bytes, not '4'"),
        ({"size": 5}, "has 4 bytes, and `size` is 5"),
    ],
)
def test_what_is_said_of_a_bare_data_set_must_be_possible(options: dict[str, Any], text: str) -> None:
    said = {"sop_class_uid": CT, "sop_instance_uid": "1.2.3", "transfer_syntax_uid": EXPLICIT_UID}
    with pytest.raises(UsageError, match=text):
        BareDataSet(b"abcd", **(said | options))


async def test_nothing_is_no_data_set() -> None:
    """It would be answered with Success by those who only write files."""
    source = BareDataSet(io.BytesIO(), sop_class_uid=CT, sop_instance_uid="1.2.3", transfer_syntax_uid=EXPLICIT_UID)
    with pytest.raises(DataSetError, match="is empty"):
        await whole(source)


async def test_a_bare_data_set_that_is_a_file_is_refused(tmp_path: Path) -> None:
    content = write_file(tmp_path).path.read_bytes()
    source = BareDataSet(content, sop_class_uid=CT, sop_instance_uid="1.2", transfer_syntax_uid=EXPLICIT_UID)
    with pytest.raises(FileFormatError, match="no bare data set"):
        await whole(source)
    with pytest.raises(UsageError, match="int is no binary stream"):
        BareDataSet(5, sop_class_uid=CT, sop_instance_uid="1.2", transfer_syntax_uid=EXPLICIT_UID)


# Data sets


# A file whose data set is not what pydicom would write: why.
NOT_AS_WRITTEN = {
    "693_J2KI.dcm": "a group length",
    "ExplVR_BigEnd.dcm": "group lengths",
    "MR_small_jp2klossless.dcm": "OW for encapsulated pixel data, which is OB (PS3.5 A.4)",
    "MR_small_jpeg_ls_lossless.dcm": "the same",
    "SC_rgb_rle_16bit.dcm": "the same",
    "SC_rgb_rle_16bit_2frame.dcm": "the same",
    "SC_rgb_jpeg.dcm": "implicit VR against its transfer syntax",
    "image_dfl.dcm": "deflated by another program",
    "rtdose_rle.dcm": "UIDs of VR UN",
    "rtdose_rle_1frame.dcm": "the same",
}


CUT_SHORT = {"MR_truncated.dcm": "PixelData", "rtplan_truncated.dcm": "BeamSequence"}
"""Files of which the end is missing, and the element in which they end."""


def readable_files() -> Iterator[tuple[Path, Any]]:
    for stored in pydicom_data_sets():
        dataset = dcmread(stored.path)
        if stored.path.name not in CUT_SHORT and "SOPClassUID" in dataset and "SOPInstanceUID" in dataset:
            yield stored.path, dataset


async def test_a_data_set_that_was_read_goes_out_as_it_came_in() -> None:
    """Whatever its transfer syntax."""
    syntaxes = set()
    different = set()
    for path, dataset in readable_files():
        source = await as_source(dataset)
        file = await as_source(path)
        assert (source.sop_instance_uid, source.transfer_syntax_uid) == (
            file.sop_instance_uid,
            file.transfer_syntax_uid,
        )
        if await whole(source) != await whole(file):
            different.add(path.name)
        syntaxes.add(source.transfer_syntax_uid)
    assert different == set(NOT_AS_WRITTEN)
    assert len(syntaxes) >= 12


@pytest.mark.parametrize("target", [None, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN])
@pytest.mark.parametrize("name", CUT_SHORT)
async def test_a_data_set_that_was_cut_short_is_not_sent_as_if_it_were_whole(name: str, target: str | None) -> None:
    """pydicom takes what is left of a value for all of it, and would write it with the length that it has now."""
    source = DatasetSource(dcmread(get_testdata_file(name)), target)
    with pytest.raises(DataSetError, match=rf"{CUT_SHORT[name]}: it was cut short, \d+ of \d+ bytes are there"):
        await whole(source)


@pytest.mark.parametrize(
    "target", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_UID, EXPLICIT_VR_BIG_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN]
)
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "image_dfl.dcm"])
async def test_a_data_set_in_another_transfer_syntax_says_the_same(name: str, target: str) -> None:
    """pydicom reads the same elements, and the same samples, from what is sent."""
    original = dcmread(get_testdata_file(name))
    source = DatasetSource(original).written_in(target)
    made = read_back(source, await whole(source))
    assert made.file_meta.TransferSyntaxUID == target
    keys = [tag for tag in sorted(original.keys()) if tag.element and tag.group > 7 and tag != 0x7FE00010]
    assert len(keys) > 25
    assert [tag for tag in sorted(made.keys()) if tag != 0x7FE00010] == keys
    for tag in keys:
        if tag.group % 2 == 0 and original[tag].VR not in ("UN", "OW"):
            assert made[tag].value == original[tag].value, tag
    assert (made.pixel_array == original.pixel_array).all()


async def test_the_transfer_syntax_of_a_data_set_that_says_nothing() -> None:
    """What it was read in, or else Explicit VR Little Endian."""
    assert DatasetSource(small_dataset()).transfer_syntax_uid == EXPLICIT_UID
    for encoder, expected in (
        (IMPLICIT, IMPLICIT_VR_LITTLE_ENDIAN),
        (BIG, EXPLICIT_VR_BIG_ENDIAN),
        (EXPLICIT, EXPLICIT_UID),
    ):
        read = small_dataset()
        read.set_original_encoding(encoder.implicit, encoder.mark == "<")
        assert DatasetSource(read).transfer_syntax_uid == expected
    assert DatasetSource(with_syntax(small_dataset(), JPEG_LS)).transfer_syntax_uid == JPEG_LS


async def test_encapsulated_pixel_data_must_say_what_it_is() -> None:
    dataset = dcmread(get_testdata_file("JPEG2000.dcm"))
    del dataset.file_meta
    with pytest.raises(UsageError, match="does not say how"):
        await as_source(dataset)


@pytest.mark.parametrize(
    ("name", "syntax", "text"),
    [
        ("JPEG2000.dcm", EXPLICIT_UID, "is encapsulated, against Explicit"),
        ("CT_small.dcm", JPEG_LS, "is not encapsulated, against JPEG-LS"),
    ],
)
async def test_pixel_data_against_its_transfer_syntax(name: str, syntax: str, text: str) -> None:
    source = await as_source(with_syntax(dcmread(get_testdata_file(name)), syntax))
    with pytest.raises(DataSetError, match=text):
        await whole(source)


async def test_commands_file_meta_and_group_lengths_are_not_sent() -> None:
    dataset = small_dataset(PatientName="Doe^Jane")
    dataset.add_new(0x00000110, "US", 7)
    dataset.add_new(0x00020010, "UI", EXPLICIT_UID)
    dataset.add_new(0x00080000, "UL", 4711)
    dataset.add_new(0x00100000, "UL", 4712)
    source = await as_source(dataset)
    made = read_back(source, await whole(source))
    assert list(made.keys()) == [0x00080016, 0x00080018, 0x00100010]
    assert (0x0010, 0x0000) in dataset  # the caller's is not touched


async def test_a_data_set_that_cannot_be_encoded_names_the_element_and_no_value() -> None:
    deep = Dataset()
    deep.add_new(0x00400007, "LO", "fine")
    deep.add_new(0x00280010, "US", 1_000_000)
    dataset = small_dataset(PatientName="Secret^Name", RequestAttributesSequence=[deep])
    with pytest.raises(DataSetError) as caught:
        await whole(await as_source(dataset))
    assert str(caught.value) == (
        "data set 1.2.3: (0040,0275) RequestAttributesSequence: (0028,0010) Rows: its value cannot be encoded as US"
    )
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("character_set", "text"),
    [(None, "a data set without Specific Character Set"), ("ISO_IR 100", "Specific Character Set ISO_IR 100")],
)
async def test_text_that_the_character_set_cannot_hold_is_not_replaced(character_set: str | None, text: str) -> None:
    """pydicom would write question marks."""
    item = Dataset()
    item.PatientName = "Смирнов"
    dataset = small_dataset(OtherPatientIDsSequence=[item])
    if character_set is not None:
        dataset.SpecificCharacterSet = character_set
    with pytest.raises(DataSetError, match=rf"\(0010,0010\) PatientName: {text} cannot hold its text"):
        await whole(await as_source(dataset))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    source = await as_source(dataset)
    assert read_back(source, await whole(source)).OtherPatientIDsSequence[0].PatientName == "Смирнов"


@pytest.mark.parametrize("depth", [50, 400])
async def test_a_wrong_value_deep_in_sequences_is_told_at_once(depth: int) -> None:
    """pydicom puts each exception's text twice into the next: five levels took a minute, more all the memory there is."""
    item = small_dataset()
    item.add_new(0x00280010, "US", 1_000_000)
    for _ in range(depth):
        item = small_dataset(ReferencedImageSequence=[item])
    text = r"Rows: its value cannot be encoded as US$" if depth < 64 else "more than 64 deep$"
    with pytest.raises(DataSetError, match=text) as caught:
        await whole(await as_source(item))
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("layout", [EXPLICIT, IMPLICIT, BIG], ids=["explicit", "implicit", "big"])
async def test_sequences_are_written_as_pydicom_writes_them(layout: Any) -> None:
    """50 deep, of defined and undefined length, with text in two character sets."""
    item = small_dataset(SpecificCharacterSet="ISO_IR 192", PatientName="Смирнов")
    for number in range(50):
        item.is_undefined_length_sequence_item = bool(number % 3)
        item = small_dataset(ReferencedImageSequence=[item, Dataset()], PatientName=f"Nr^{number}")
        item["ReferencedImageSequence"].is_undefined_length = bool(number % 2)
    source = DatasetSource(item, layout.transfer_syntax)
    target = io.BytesIO()
    item.save_as(target, implicit_vr=layout.implicit, little_endian=layout.mark == "<")
    assert await whole(source) == target.getvalue()


@pytest.mark.parametrize(("keyword", "vr"), [("Modality", "CS"), ("StudyInstanceUID", "UI")])
async def test_what_is_ascii_alone_is_not_replaced_either(keyword: str, vr: str) -> None:
    """PS3.5 6.2: no Specific Character Set helps these."""
    dataset = small_dataset(SpecificCharacterSet="ISO_IR 192", **{keyword: "Ü"})
    with pytest.raises(DataSetError, match=f"{keyword}: {vr} cannot hold its text"):
        await whole(await as_source(dataset))


async def test_a_character_set_that_nobody_knows_holds_nothing() -> None:
    dataset = small_dataset(SpecificCharacterSet="NONE SUCH", PatientName="Müller")
    with pytest.raises(DataSetError, match="Specific Character Set NONE SUCH cannot hold its text"):
        await whole(await as_source(dataset))


async def test_something_that_is_no_element_is_named() -> None:
    """A stray delimiter, as pydicom reads it."""
    data = EXPLICIT.element(0x00080016, "UI", CT.encode() + b"\0") + EXPLICIT.element(0x00080018, "UI", b"1.2.3\0")
    data += EXPLICIT.sequence_delimiter
    dataset = dcmread(io.BytesIO(encode_file_meta(FileMeta(CT, "1.2.3", EXPLICIT_UID)) + data))
    with pytest.raises(DataSetError, match=r"\(FFFE,E0DD\)"):
        await whole(await as_source(dataset))


async def test_pixel_data_that_is_no_bytes() -> None:
    dataset = image()
    dataset.add_new(0x7FE00010, "OW", [1, 2])
    with pytest.raises(DataSetError, match=r"\(7FE0,0010\) PixelData: its value is bytes, not"):
        await whole(await as_source(dataset))


async def test_text_that_was_read_without_a_character_set_goes_out_as_it_came_in() -> None:
    data = EXPLICIT.element(0x00080016, "UI", CT.encode() + b"\0") + EXPLICIT.element(0x00080018, "UI", b"1.2.3\0")
    data += EXPLICIT.element(0x00100010, "PN", b"M\xfcller")
    dataset = dcmread(io.BytesIO(encode_file_meta(FileMeta(CT, "1.2.3", EXPLICIT_UID)) + data))
    assert dataset.PatientName == "Müller"  # which makes an element of it
    assert await whole(await as_source(dataset)) == data


async def test_large_pixel_data_in_memory_is_not_copied_whole() -> None:
    dataset = image(8000, 8000, bits=8)
    dataset.PixelData = bytes(64_000_000)
    source = await as_source(dataset)
    tracemalloc.start()
    try:
        async with source.pieces(16378) as pieces:
            sizes = [len(piece) async for piece, _ in pieces]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(sizes) > 64_000_000
    assert most < 8 * MB


async def test_pixel_data_of_odd_length_is_padded_in_the_other_byte_order_too() -> None:
    data = EXPLICIT.element(0x00080016, "UI", CT.encode() + b"\0") + EXPLICIT.element(0x00080018, "UI", b"1.2.3\0")
    content = encode_file_meta(FileMeta(CT, "1.2.3", EXPLICIT_UID)) + data + EXPLICIT.element(0x7FE00010, "OW", b"abc")
    source = (await as_source(dcmread(io.BytesIO(content)))).written_in(EXPLICIT_VR_BIG_ENDIAN)  # type: ignore[attr-defined]
    assert (await whole(source)).endswith(BIG.element(0x7FE00010, "OW", b"ba\0c"))


async def test_pixel_data_of_odd_length_is_padded() -> None:
    dataset = image(3, 3, bits=8)
    dataset.PixelData = b"123456789"
    dataset.add_new(0xFFFCFFFC, "OB", b"ab")
    source = await as_source(dataset)
    data = await whole(source)
    assert data.endswith(
        struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 10)
        + b"123456789\0"
        + struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 2)
        + b"ab"
    )


async def test_pixel_data_that_is_a_buffer(tmp_path: Path) -> None:
    """pydicom lets a file stand for the value; it can be sent again."""
    (tmp_path / "pixels").write_bytes(b"junk" + bytes(range(48)))
    with (tmp_path / "pixels").open("rb") as stream:
        stream.seek(4)
        dataset = image()
        dataset.PixelData = stream
        source = await as_source(dataset)
        for _ in range(2):
            assert read_back(source, await whole(source)).PixelData == bytes(range(48))


# Attributes with pixels from elsewhere


async def sources_of_pixels(folder: Path, pixels: bytes) -> list[tuple[Any, dict[str, Any]]]:
    (folder / "raw").write_bytes(b"a header" + pixels + b"and a trailer")
    return [
        (pixels, {}),
        (memoryview(pixels), {}),
        (folder / "raw", {"offset": 8}),
        (str(folder / "raw"), {"offset": 8, "length": len(pixels)}),
        (io.BytesIO(pixels + b"what follows"), {}),
        (Unseekable(pixels), {}),
        (await stream_reader(pixels), {"length": len(pixels)}),
        (portions(pixels, 5, 300), {}),
    ]


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_UID, EXPLICIT_VR_BIG_ENDIAN])
@pytest.mark.parametrize(("rows", "columns", "bits"), [(3, 3, 8), (4, 6, 16), (1500, 1001, 8)])
async def test_attributes_with_pixels_are_one_data_set(
    tmp_path: Path, rows: int, columns: int, bits: int, syntax: str
) -> None:
    pixels = os.urandom(rows * columns * bits // 8)
    metadata = with_syntax(image(rows, columns, bits=bits), syntax)
    metadata.add_new(0xFFFCFFFC, "OB", b"ab")
    for thing, options in await sources_of_pixels(tmp_path, pixels):
        source = WithPixels(metadata, thing, **options)
        assert isinstance(source, Source)
        data = await whole(source)
        made = read_back(source, data)
        assert made.PixelData == pixels + b"\0" * (len(pixels) % 2)
        assert ("OB" if bits == 8 and syntax != IMPLICIT_VR_LITTLE_ENDIAN else "OW") == made["PixelData"].VR
        assert (made.Rows, made[0xFFFCFFFC].value) == (rows, b"ab")
        if source.repeatable:
            assert await whole(source) == data
        else:
            with pytest.raises(UsageError, match="read already"):
                await whole(source)
    assert "PixelData" not in metadata


async def test_compressed_frames_are_encapsulated(tmp_path: Path) -> None:
    """One frame as bytes, path or stream, or several one by one, as they are made: pydicom finds the frames again."""
    from pydicom.encaps import generate_frames

    frames = [b"\xff\xd8first frame\xff\xd9", b"\xff\xd8second\xff\xd9", b"\xff\xd8third, odd\xff\xd9"]

    async def made_one_by_one() -> AsyncIterator[bytes]:
        for frame in frames:
            await asyncio.sleep(0)
            yield frame

    for several in (frames, tuple(frames), iter(frames), made_one_by_one()):
        source = WithPixels(image(frames=3), several, transfer_syntax_uid=JPEG_LS)
        made = read_back(source, await whole(source))
        assert [frame.rstrip(b"\0") for frame in generate_frames(made.PixelData, number_of_frames=3)] == frames
        assert made["PixelData"].VR == "OB"
    large = b"\xff\xd8" + os.urandom(2 * MB + 1) + b"\xff\xd9"
    (tmp_path / "frame").write_bytes(large)
    for one, repeatable in (
        (large, True),
        (tmp_path / "frame", True),
        (io.BytesIO(large), False),
        (await stream_reader(large), False),
    ):
        source = WithPixels(image(), one, transfer_syntax_uid=JPEG_LS)
        assert source.repeatable == repeatable
        made = read_back(source, await whole(source))
        assert next(generate_frames(made.PixelData, number_of_frames=1)) == large + b"\0"


async def test_frames_from_streams_can_be_had_once() -> None:
    """A list can be looked at again, the streams in it cannot."""
    frames = [b"\xff\xd8one\xff\xd9", b"\xff\xd8two\xff\xd9"]
    source = WithPixels(image(frames=2), list(map(io.BytesIO, frames)), transfer_syntax_uid=JPEG_LS)
    assert not source.repeatable
    await whole(source)
    with pytest.raises(UsageError, match="read already"):
        await whole(source)


async def test_a_frame_in_a_file_is_one_fragment(tmp_path: Path) -> None:
    """As RLE Lossless and video have to be (PS3.5 A.4.2, A.4.5)."""
    from pydicom.encaps import generate_fragments

    frame = os.urandom(2 * MB + 1)
    (tmp_path / "frame").write_bytes(b"skip" + frame)
    source = WithPixels(image(), tmp_path / "frame", offset=4, transfer_syntax_uid=RLE)
    made = read_back(source, await whole(source))
    assert list(generate_fragments(made.PixelData))[1:] == [frame + b"\0"]


async def test_the_frames_of_a_video_are_one_stream(tmp_path: Path) -> None:
    """PS3.5 8.2.5 to 8.2.9: Number of Frames is that of the pictures in it."""
    from pydicom.encaps import generate_fragments

    video = os.urandom(2 * MB)
    (tmp_path / "video").write_bytes(video)
    whole_ones: list[Any] = [video, [video], tmp_path / "video"]
    for thing in whole_ones:
        source = WithPixels(image(frames=250), thing, transfer_syntax_uid=MPEG_4)
        made = read_back(source, await whole(source))
        assert made.NumberOfFrames == 250
        assert list(generate_fragments(made.PixelData))[1:] == [video]
    for stream in (io.BytesIO(video), await stream_reader(video)):
        source = WithPixels(image(frames=250), stream, transfer_syntax_uid=MPEG_4 + ".1")
        made = read_back(source, await whole(source))
        assert b"".join(list(generate_fragments(made.PixelData))[1:]) == video


@pytest.mark.parametrize(
    ("pixels", "options", "text"),
    [
        (b"1234", {}, "there are 4 bytes of pixel data, and there should be 48"),
        (bytes(50), {}, "there are 50 bytes of pixel data, and there should be 48"),
        (bytes(48), {"length": 40}, "attributes make 48 bytes of pixel data, and `length` is 40"),
        ([b"a", b"b"], {"transfer_syntax_uid": JPEG_LS}, "there are more frames of pixel data, and there should be 1"),
        ([], {"transfer_syntax_uid": JPEG_LS}, "there are 0 frames"),
        ([b""], {"transfer_syntax_uid": JPEG_LS}, "frame 1 is empty"),
        ([b"a", b"b"], {"transfer_syntax_uid": MPEG_4}, "there are more frames of pixel data, and there should be 1"),
        (Path(os.devnull), {"transfer_syntax_uid": JPEG_LS}, "frame 1 is empty"),
    ],
)
async def test_pixels_that_do_not_fit_the_attributes(pixels: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(DataSetError, match=text):
        await whole(WithPixels(image(), pixels, **options))


async def test_pixels_that_end_early() -> None:
    with pytest.raises(OSError, match="ended 8 bytes early"):
        await whole(WithPixels(image(), portions(bytes(40), 7)))


async def test_pixels_of_which_nobody_knows_how_many() -> None:
    with pytest.raises(DataSetError, match="give `length`"):
        await whole(WithPixels(small_dataset(), Unseekable(b"1234")))
    source = WithPixels(small_dataset(BitsAllocated=8), Unseekable(b"1234"), length=4)
    assert read_back(source, await whole(source)).PixelData == b"1234"


@pytest.mark.parametrize(
    ("metadata", "pixels", "options", "text"),
    [
        (small_dataset(PixelData=b"ab"), b"ab", {}, "pixel data of its own"),
        (small_dataset(), b"ab", {"transfer_syntax_uid": DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN}, "not for pixels"),
        (small_dataset(), [b"ab"], {"transfer_syntax_uid": JPEG_LS, "length": 2}, "frames have their own"),
        (small_dataset(), b"ab", {"offset": 2}, "`offset` is for a file"),
        (
            small_dataset(),
            [b"ab"],
            {},
            "list cannot be where pixels come from: give bytes (of an array its `tobytes()`)",
        ),
        (
            small_dataset(),
            5,
            {"transfer_syntax_uid": JPEG_LS},
            "int cannot be where pixels come from: give compressed frames",
        ),
    ],
)
async def test_what_cannot_be_where_pixels_come_from(
    metadata: Dataset, pixels: Any, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(text)):
        WithPixels(metadata, pixels, **options)


async def test_something_that_is_no_frame() -> None:
    with pytest.raises(UsageError, match="int is no frame"):
        await whole(WithPixels(image(), [5], transfer_syntax_uid=JPEG_LS))


# Files


async def test_a_file_is_a_source_as_it_is(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    assert isinstance(file, Source)
    assert await as_source(file) is file
    assert (file.name, file.repeatable) == (str(file.path), True)


async def test_a_file_that_has_become_longer_is_not_sent(tmp_path: Path) -> None:
    """Somebody is writing it: what has been read is no whole object."""
    file = write_file(tmp_path, 1, bytes(3 * MB))
    with file.path.open("ab") as more:
        more.write(b"more")
    with pytest.raises(OSError, match="has become longer"):
        await whole(file)


async def test_a_file_that_becomes_longer_while_it_is_sent_is_noticed_before_its_last_piece(tmp_path: Path) -> None:
    file = write_file(tmp_path, 1, bytes(4 * MB))
    seen = []

    async def read(file: DicomFile) -> None:
        async with file.pieces(16378) as pieces:
            async for _, last in pieces:
                seen.append(last)
                if len(seen) == 1:
                    with file.path.open("ab") as more:
                        more.write(b"more")

    with pytest.raises(OSError, match="has become longer"):
        await read(file)
    assert True not in seen


def test_a_deflated_data_set_is_deflated() -> None:
    dataset = with_syntax(small_dataset(PatientComments="x" * 1000), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)

    async def sent() -> bytes:
        return await whole(await as_source(dataset))

    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(asyncio.run(sent()))
    assert inflated.endswith(b"x" * 1000)
