"""What is not in memory, in another transfer syntax. It must be, byte by byte, what a file becomes, whose oracle is DCMTK."""

from __future__ import annotations

import asyncio
import io
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, encapsulate_extended

from support.data_sets import BIG, EXPLICIT, IMPLICIT
from tomowire.errors import TranscodingFailed
from tomowire.services import stream_transcoding
from tomowire.services.compressing import JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS
from tomowire.services.decoding import RLE_LOSSLESS
from tomowire.services.dicom_file import inspect
from tomowire.services.pixel_source import WithPixels
from tomowire.services.sources import Source, as_source
from tomowire.services.stream_source import BareDataSet
from tomowire.services.stream_transcoding import TranscodedSource
from tomowire.services.transcoding import can_transcode, transcode

pytestmark = pytest.mark.usefixtures("no_leaks")

CT = "1.2.840.10008.5.1.4.1.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
PLAIN = [IMPLICIT.transfer_syntax, EXPLICIT.transfer_syntax, BIG.transfer_syntax, DEFLATED]
FILES = [
    "MR_small.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "image_dfl.dcm",
    "rtplan.dcm",  # no pixel data
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_rle_32bit_2frame.dcm",
    "SC_rgb_jpeg.dcm",  # in implicit VR, against its transfer syntax
    "SC_rgb_small_odd_jpeg.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "693_J2KI.dcm",  # with a group length before its pixel data
]


async def portions(data: bytes, size: int = 999) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def whole(source: Source) -> bytes:
    async with source.pieces(16378) as pieces:
        return b"".join([bytes(piece) async for piece, _ in pieces])


def bare(data: bytes | AsyncIterator[bytes], syntax: str) -> BareDataSet:
    return BareDataSet(data, sop_class_uid=CT, sop_instance_uid="1.2.3", transfer_syntax_uid=syntax)


def needs_codec(from_ts: str, to_ts: str) -> None:
    if not can_transcode(from_ts, to_ts):
        pytest.skip("needs tomowire[images]")


@pytest.mark.parametrize("target", [*PLAIN, RLE_LOSSLESS, JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS])
@pytest.mark.parametrize("name", FILES)
async def test_a_stream_becomes_what_a_file_becomes(name: str, target: str) -> None:
    file = inspect(Path(str(get_testdata_file(name, download=False))))
    if file.transfer_syntax_uid == target:
        return
    needs_codec(file.transfer_syntax_uid, target)
    try:
        expected = await transcode(file, target)
    except TranscodingFailed as error:
        with pytest.raises(TranscodingFailed) as caught:
            await whole(
                TranscodedSource(await as_source(portions(await asyncio.to_thread(file.path.read_bytes))), target)
            )
        assert str(caught.value).rpartition(": ")[2] == str(error).rpartition(": ")[2]
        return
    source = await as_source(portions(await asyncio.to_thread(file.path.read_bytes)))
    assert await whole(TranscodedSource(source, target)) == expected


def image(frames: int, **attributes: Any) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, "1.2.3"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 16, 16, frames
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize("target", [EXPLICIT.transfer_syntax, BIG.transfer_syntax])
async def test_attributes_with_pixels_from_elsewhere(target: str) -> None:
    samples = numpy.arange(16 * 16 * 3, dtype="<u2")
    source = WithPixels(image(3), portions(samples.tobytes(), 33), transfer_syntax_uid=IMPLICIT.transfer_syntax)
    made = await whole(TranscodedSource(source, target))
    kind = "<u2" if target == EXPLICIT.transfer_syntax else ">u2"
    assert made.endswith(samples.astype(kind).tobytes())


def encapsulated(kind: str, frames: list[bytes]) -> tuple[dict[str, Any], bytes]:
    """Elements before the pixel data, and its items without the delimiter."""
    if kind == "no table":
        return {}, encapsulate(frames, has_bot=False)
    if kind == "basic offset table":
        return {}, encapsulate(frames, fragments_per_frame=2, has_bot=True)
    if kind == "several fragments, no table":
        return {}, encapsulate(frames, fragments_per_frame=3, has_bot=False)
    items, offsets, lengths = encapsulate_extended(frames)
    return {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}, items


@pytest.mark.parametrize(
    "kind", ["no table", "basic offset table", "several fragments, no table", "extended offset table"]
)
async def test_frames_are_found_however_they_are_marked(kind: str) -> None:
    """PS3.5 A.4."""
    needs_codec(JPEG_LS_LOSSLESS, EXPLICIT.transfer_syntax)
    import imagecodecs

    samples = numpy.random.default_rng(3).integers(0, 1 << 16, (4, 16, 16)).astype("<u2")
    attributes, items = encapsulated(kind, [imagecodecs.jpegls_encode(each, level=0) for each in samples])
    dataset = image(4, PixelData=items, **attributes)
    dataset["PixelData"].is_undefined_length = True
    content = io.BytesIO()
    dataset.save_as(content, implicit_vr=False, little_endian=True)
    source = bare(portions(content.getvalue()), JPEG_LS_LOSSLESS)
    made = await whole(TranscodedSource(source, BIG.transfer_syntax))
    assert made.endswith(samples.astype(">u2").tobytes())
    assert b"\x7f\xe0\x00\x01" not in made  # the Extended Offset Table


PREFIX = EXPLICIT.element(0x00080016, "UI", CT.encode() + b"\0") + EXPLICIT.element(0x00080018, "UI", b"1.2.3\0")
PIXELS = EXPLICIT.tag(0x7FE00010)


def rle(content: bytes, *, frames: int = 2) -> bytes:
    described = io.BytesIO()
    image(frames).save_as(described, implicit_vr=False, little_endian=True)
    return described.getvalue() + content


@pytest.mark.parametrize(
    ("data", "syntax", "text"),
    [
        (PREFIX + EXPLICIT.element(0x00100010, "PN", b"Doe", 400), EXPLICIT.transfer_syntax, "ends inside"),
        (b"no data set at all", EXPLICIT.transfer_syntax, "from Explicit VR Little Endian to"),
        (PREFIX + EXPLICIT.sequence(0x7FE00010, vr="OB", defined=False), EXPLICIT.transfer_syntax, "is compressed, against"),
        (PREFIX + EXPLICIT.element(0x7FE00010, "OW", b"123"), EXPLICIT.transfer_syntax, "no words of 2"),
        (rle(EXPLICIT.element(0x7FE00010, "OB", b"12")), RLE_LOSSLESS, "not encapsulated, against"),
        (rle(PIXELS + b"OB\0\0\xff\xff\xff\xff" + b"garbage!"), RLE_LOSSLESS, "where an item of its pixel data belongs"),
        (rle(PIXELS + b"OB\0\0\xff\xff\xff\xff"), RLE_LOSSLESS, "ends inside its pixel data"),
        (
            rle(EXPLICIT.sequence(0x7FE00010, EXPLICIT.item(b""), defined=False, vr="OB")),
            RLE_LOSSLESS,
            "has 0 frames of pixel data and should have 2",
        ),
        (
            rle(EXPLICIT.sequence(0x7FE00010, EXPLICIT.item(b""), EXPLICIT.item(b"no RLE"), vr="OB", defined=False)),
            RLE_LOSSLESS,
            "from RLE Lossless to",
        ),
        (zlib.compress(PREFIX), DEFLATED, "deflated data set is damaged"),
        (b"\0\0", DEFLATED, "deflated data set is cut short"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)  # fmt: skip
async def test_what_is_known_to_be_wrong_is_told_before_anything_is_sent(data: bytes, syntax: str, text: str) -> None:
    with pytest.raises(TranscodingFailed, match=text):
        async with TranscodedSource(bare(portions(data), syntax), BIG.transfer_syntax).pieces(16378):
            pytest.fail("it is taken for whole")


@pytest.mark.parametrize(
    ("syntax", "target", "text"),
    [
        ("1.2.840.10008.1.2.4.100", EXPLICIT.transfer_syntax, "no codec is installed for it"),
        (EXPLICIT.transfer_syntax, "1.2.840.10008.1.2.4.50", "JPEG Baseline .*: that is not written here"),
    ],
)
async def test_what_nobody_can_do_is_told_before_anything_is_read(syntax: str, target: str, text: str) -> None:
    with pytest.raises(TranscodingFailed, match=text):
        await whole(TranscodedSource(bare(PREFIX, syntax), target))


async def test_too_many_attributes_are_told_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_transcoding, "MOST_ATTRIBUTES", 1 << 20)
    document = PREFIX + EXPLICIT.element(0x00420011, "OB", bytes(5 << 20))
    with pytest.raises(TranscodingFailed, match="more than 1 MB of attributes before its pixel data"):
        await whole(TranscodedSource(bare(portions(document, 1 << 16), EXPLICIT.transfer_syntax), BIG.transfer_syntax))


@pytest.mark.parametrize("cut", [2, 62, 8000])
@pytest.mark.parametrize("target", [BIG.transfer_syntax, RLE_LOSSLESS])
async def test_half_an_object_is_never_a_whole_one(cut: int, target: str) -> None:
    needs_codec(EXPLICIT.transfer_syntax, target)
    content = await asyncio.to_thread(Path(str(get_testdata_file("MR_small.dcm"))).read_bytes)
    dataset = dcmread(io.BytesIO(content))
    end = content.index(dataset.PixelData) + len(dataset.PixelData)
    with pytest.raises(OSError, match=r"ended \d+ bytes early"):
        await whole(TranscodedSource(await as_source(portions(content[: end - cut])), target))


@pytest.mark.parametrize("frames", [1, 3])
async def test_more_or_fewer_frames_than_there_should_be(frames: int) -> None:
    path = Path(str(get_testdata_file("SC_rgb_rle_2frame.dcm")))
    content = (await asyncio.to_thread(path.read_bytes)).replace(b"IS\x02\x002 ", b"IS\x02\x00%d " % frames)
    with pytest.raises(TranscodingFailed):
        await whole(TranscodedSource(await as_source(portions(content)), BIG.transfer_syntax))


@pytest.mark.parametrize("source_syntax", [IMPLICIT.transfer_syntax, DEFLATED])
async def test_memory_is_flat(source_syntax: str) -> None:
    """96 MB of pixels, in the other byte order; deflated they are 100 kB."""
    size = 96 << 20
    layout = IMPLICIT if source_syntax == IMPLICIT.transfer_syntax else EXPLICIT
    head = layout.element(0x00080016, "UI", CT.encode() + b"\0") + layout.element(0x00080018, "UI", b"1.2.3\0")
    head += layout.element(0x7FE00010, "OW", b"", size)

    async def data() -> AsyncIterator[bytes]:
        compressor = zlib.compressobj(1, wbits=-zlib.MAX_WBITS) if source_syntax == DEFLATED else None
        for number in range(97):
            part = bytes(1 << 20) if number else head
            yield compressor.compress(part) if compressor is not None else part
        yield compressor.flush() if compressor is not None else b""

    tracemalloc.start()
    try:
        count = 0
        async with TranscodedSource(bare(data(), source_syntax), BIG.transfer_syntax).pieces(16378) as pieces:
            async for piece, _ in pieces:
                count += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 60 + size  # what is before the pixels, in explicit VR
    assert peak < 24 << 20
