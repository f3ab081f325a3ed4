"""Objects in another transfer syntax. DCMTK's converters say, byte by byte, what must come out."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import threading
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pydicom.data
import pytest
from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.pixels.utils import as_pixel_options

from support.data_sets import BIG, ENCODERS, EXPLICIT, IMPLICIT, Encoder, elements_of_an_image, pydicom_data_sets
from tomowire.errors import DataSetError, FileFormatError, TranscodingFailed
from tomowire.services import reencoding, transcoding
from tomowire.services.decoding import decoded, decoders_of
from tomowire.services.dicom_file import DicomFile, inspect
from tomowire.services.transcoding import can_transcode, transcode
from tomowire.wire.part10 import FileMeta, encode_file_meta

DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"
MPEG2 = "1.2.840.10008.1.2.4.100"
JPEG_BASELINE, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
PLAIN = {IMPLICIT.transfer_syntax: "+ti", EXPLICIT.transfer_syntax: "+te", BIG.transfer_syntax: "+tb"}
CT = "1.2.840.10008.5.1.4.1.1.2"
CUT_SHORT = {"MR_truncated.dcm", "rtplan_truncated.dcm"}

Dcmtk = Callable[[str], Path]


def uncompressed_files() -> list[Path]:
    """Those that come with pydicom itself and are whole."""
    home = Path(pydicom.__file__).parent
    found = [each.path for each in pydicom_data_sets() if each.transfer_syntax in (*PLAIN, DEFLATED)]
    return [path for path in found if home in path.parents and is_object(path) and path.name not in CUT_SHORT]


def is_object(path: Path) -> bool:
    try:
        return bool(inspect(path))
    except FileFormatError:
        return False


def example(name: str) -> DicomFile:
    path = pydicom.data.get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return inspect(Path(path))


def written(folder: Path, syntax: str, data: bytes) -> DicomFile:
    meta = encode_file_meta(FileMeta(CT, "1.2.3.4", syntax))
    path = folder / "object.dcm"
    path.write_bytes(meta + data)
    return DicomFile(path, CT, "1.2.3.4", syntax, len(meta), len(data))


def inflated(data: bytes) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data)


def converted(program: Path, *options: str | Path) -> bytes:
    """The data set that one of DCMTK's converters makes: no group lengths, and sequences of undefined length as ours are."""
    *most, source = options
    target = f"/dev/shm/tomowire-{threading.get_native_id()}.dcm"
    try:
        subprocess.run([program, "-F", "-e", "-g", *most, source, target], check=True, capture_output=True, timeout=60)
        return Path(target).read_bytes()
    finally:
        Path(target).unlink(missing_ok=True)


@pytest.mark.interop
@pytest.mark.parametrize("target", PLAIN)
@pytest.mark.parametrize("path", uncompressed_files(), ids=lambda path: path.name)
async def test_the_same_bytes_as_from_dcmconv(path: Path, target: str, dcmtk: Dcmtk) -> None:
    assert await transcode(inspect(path), target) == converted(dcmtk("dcmconv"), PLAIN[target], path)


@pytest.mark.parametrize("path", uncompressed_files()[:5], ids=lambda path: path.name)
async def test_deflated_is_explicit_vr_little_endian_deflated(path: Path) -> None:
    file = inspect(path)
    data = await transcode(file, DEFLATED)
    assert len(data) % 2 == 0
    assert inflated(data) == await transcode(file, EXPLICIT.transfer_syntax)


def values(encoder: Encoder) -> list[bytes]:
    """An element of each width of word, and some whose VR depends on others: PS3.5 7.3, PS3.6, PS3.5 A.1."""
    number = encoder.number
    quad = bytes(range(1, 9)) if encoder.mark == "<" else bytes(range(8, 0, -1))
    long = bytes(range(1, 5)) if encoder.mark == "<" else bytes(range(4, 0, -1))
    return [
        encoder.element(0x00080016, "UI", CT.encode() + b"\0"),
        encoder.element(0x00080018, "UI", b"1.2.3.4\0"),
        encoder.element(0x00100010, "PN", b"M\xfcller^J\xf6rg "),
        encoder.element(0x00186018, "UL", long * 2),
        encoder.element(0x0018602C, "FD", quad),
        encoder.element(0x0018605A, "FL", long),
        encoder.element(0x00209165, "AT", number(0x0018) + number(0x9087)),
        encoder.element(0x00280010, "US", number(1)),
        encoder.element(0x00280011, "US", number(2)),
        encoder.element(0x00280100, "US", number(16)),
        encoder.element(0x00280103, "US", number(1)),
        encoder.element(0x00280106, "SS", number(0xFFFE)),
        encoder.element(0x00281201, "OW", number(0x0102) + number(0x0304)),
        encoder.element(0x7FE00010, "OW", number(0x1234) + number(0x5678)),
    ]


@pytest.mark.parametrize("target", ENCODERS)
@pytest.mark.parametrize("source", ENCODERS)
async def test_words_change_their_byte_order_and_text_does_not(
    source: Encoder, target: Encoder, tmp_path: Path
) -> None:
    file = written(tmp_path, source.transfer_syntax, b"".join(values(source)))
    assert await transcode(file, target.transfer_syntax) == b"".join(values(target))


async def test_a_value_too_long_for_its_vr_becomes_un(tmp_path: Path) -> None:
    """PS3.5 6.2.2: 16 bits of length do not suffice for it in explicit VR."""
    text = b"x" * 70_000
    file = written(tmp_path, IMPLICIT.transfer_syntax, IMPLICIT.element(0x00104000, "LT", text))
    assert await transcode(file, EXPLICIT.transfer_syntax) == EXPLICIT.element(0x00104000, "UN", text)


async def test_odd_values_are_padded(tmp_path: Path) -> None:
    """PS3.5 6.2 and 7.1.1: text with a space, bytes with a null."""
    odd = EXPLICIT.element(0x00100020, "LO", b"471") + EXPLICIT.element(0x00420011, "OB", b"%PDF-")
    even = IMPLICIT.element(0x00100020, "LO", b"471 ") + IMPLICIT.element(0x00420011, "OB", b"%PDF-\0")
    assert await transcode(written(tmp_path, EXPLICIT.transfer_syntax, odd), IMPLICIT.transfer_syntax) == even


async def test_what_no_dictionary_knows_becomes_un(tmp_path: Path) -> None:
    """PS3.5 6.2.2."""
    creator, unknown = (0x00090010, "LO", b"NOBODY"), (0x00091001, b"\1\2\3\4")
    data = IMPLICIT.element(*creator) + IMPLICIT.element(unknown[0], "UN", unknown[1])
    expected = EXPLICIT.element(*creator) + EXPLICIT.element(unknown[0], "UN", unknown[1])
    assert await transcode(written(tmp_path, IMPLICIT.transfer_syntax, data), EXPLICIT.transfer_syntax) == expected


@pytest.mark.interop
@pytest.mark.parametrize("target", PLAIN)
@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "rtdose_rle.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit_2frame.dcm"]
)
async def test_rle_is_decoded_without_any_codec(name: str, target: str, dcmtk: Dcmtk) -> None:
    file = example(name)
    assert await transcode(file, target) == converted(dcmtk("dcmdrle"), PLAIN[target], file.path)


@pytest.mark.interop
@pytest.mark.parametrize("name", ["SC_rgb_rle.dcm", "SC_rgb_rle_2frame.dcm"])
async def test_rle_of_eight_bits(name: str, dcmtk: Dcmtk) -> None:
    """In explicit VR it is OW in DCMTK and OB here, and may be both (PS3.5 A.2)."""
    file = example(name)
    assert await transcode(file, IMPLICIT.transfer_syntax) == converted(dcmtk("dcmdrle"), "+ti", file.path)


def needs_codec(file: DicomFile) -> None:
    if not can_transcode(file.transfer_syntax_uid, EXPLICIT.transfer_syntax):
        pytest.skip("needs tomowire[images]")


@pytest.mark.interop
@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("SC_rgb_small_odd_jpeg.dcm", "dcmdjpeg"),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", "dcmdjpeg"),
        ("SC_rgb_jpeg_app14_dcmd.dcm", "dcmdjpeg"),
        ("JPGExtended.dcm", "dcmdjpeg"),
        ("SC_rgb_jpeg_gdcm.dcm", "dcmdjpeg"),
        ("MR_small_jpeg_ls_lossless.dcm", "dcmdjpls"),
        ("SC_rgb_jls_lossy_line.dcm", "dcmdjpls"),
    ],
)
async def test_what_a_codec_decodes_is_what_dcmtk_decodes(name: str, program: str, dcmtk: Dcmtk) -> None:
    """JPEG of 8 and 12 bits, lossless, JPEG-LS; colours stay as they are (`+cn`)."""
    file = example(name)
    needs_codec(file)
    options = ("+cn",) if program == "dcmdjpeg" else ()
    ours = await transcode(file, EXPLICIT.transfer_syntax)
    check_same(
        parsed(ours, EXPLICIT.transfer_syntax),
        parsed(converted(dcmtk(program), *options, "+te", file.path), EXPLICIT.transfer_syntax),
    )


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
async def test_lossless_loses_nothing(name: str) -> None:
    """The same image, uncompressed, comes with pydicom too."""
    file = example(name)
    needs_codec(file)
    ours = parsed(await transcode(file, EXPLICIT.transfer_syntax), EXPLICIT.transfer_syntax)
    assert ours.PixelData == pydicom.dcmread(example("MR_small.dcm").path).PixelData
    assert ours.SOPInstanceUID == file.sop_instance_uid


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("pydicom-data/HTJ2KLossless_08_RGB.dcm", 480 * 640 * 3),
        ("pydicom-data/liver_nonbyte_aligned_j2k.dcm", 510 * 510 * 3 // 8 + 1),
    ],
)
async def test_newer_and_stranger_ones(name: str, pixels: int, shared_data: Path) -> None:
    """HTJ2K; and bits, which stay eight in a byte (PS3.5 8.1.1): three frames of 510 by 510 are 97,537.5 bytes."""
    file = inspect(shared_data / name)
    needs_codec(file)
    ours = parsed(await transcode(file, EXPLICIT.transfer_syntax), EXPLICIT.transfer_syntax)
    assert len(ours.PixelData) == pixels + pixels % 2
    assert ours.BitsAllocated == pydicom.dcmread(file.path, stop_before_pixels=True).BitsAllocated


def parsed(data: bytes, syntax: str) -> Dataset:
    return read_dataset(BytesIO(data), syntax == IMPLICIT.transfer_syntax, syntax != BIG.transfer_syntax)


def check_same(ours: Dataset, theirs: Dataset) -> None:
    keywords = ("PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored", "Rows", "Columns")
    assert [ours.get(keyword) for keyword in keywords] == [theirs.get(keyword) for keyword in keywords]
    assert ours.PixelData == theirs.PixelData


async def test_icons_are_decoded_too(tmp_path: Path) -> None:
    """PS3.5 A.4: what is encapsulated in an item has no place in an uncompressed transfer syntax either."""
    # Three bytes of 7 in PS3.5 Annex G's RLE: a header of 64 bytes that names one segment, then a run.
    frame = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + bytes([256 - 3, 7])
    icon = [
        EXPLICIT.element(0x00280002, "US", b"\1\0"),
        EXPLICIT.element(0x00280004, "CS", b"MONOCHROME2 "),
        EXPLICIT.element(0x00280010, "US", b"\2\0"),
        EXPLICIT.element(0x00280011, "US", b"\2\0"),
        EXPLICIT.element(0x00280100, "US", b"\x08\0"),
        EXPLICIT.element(0x00280101, "US", b"\x08\0"),
        EXPLICIT.element(0x00280102, "US", b"\x07\0"),
        EXPLICIT.element(0x00280103, "US", b"\0\0"),
    ]
    pixels = EXPLICIT.sequence(0x7FE00010, EXPLICIT.item(b""), EXPLICIT.item(frame), defined=False, vr="OB")
    native = EXPLICIT.element(0x7FE00010, "OB", bytes([7] * 4))
    data = EXPLICIT.sequence(0x00880200, EXPLICIT.item(b"".join([*icon, pixels])))
    expected = EXPLICIT.sequence(0x00880200, EXPLICIT.item(b"".join([*icon, native]), defined=False), defined=False)
    assert await transcode(written(tmp_path, RLE, data), EXPLICIT.transfer_syntax) == expected


@pytest.mark.parametrize("syntax", [*PLAIN, DEFLATED])
async def test_a_data_set_that_is_cut_short_is_refused(syntax: str, tmp_path: Path) -> None:
    """At whatever byte: half an object must not be taken for a whole."""
    encoder = next((each for each in ENCODERS if each.transfer_syntax == syntax), EXPLICIT)
    elements = elements_of_an_image(encoder)[:-2]
    whole = b"".join(elements)
    ends = {len(b"".join(elements[:count])) for count in range(1, len(elements) + 1)}
    if syntax == DEFLATED:
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        whole, ends = compressor.compress(whole) + compressor.flush(), set()
    for length in range(len(whole)):
        # One null byte more may be padding (PS3.8 E.1), or the beginning of a tag.
        if length not in ends and not (length - 1 in ends and whole[length - 1] == 0):
            with pytest.raises(TranscodingFailed, match=r"1\.2\.3\.4 from .* to Implicit VR Little Endian"):
                await transcode(written(tmp_path, syntax, whole[:length]), IMPLICIT.transfer_syntax)


async def test_compressed_pixel_data_in_an_uncompressed_transfer_syntax_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, EXPLICIT.transfer_syntax, b"".join(elements_of_an_image(EXPLICIT)))
    with pytest.raises(TranscodingFailed, match="compressed, against its transfer syntax"):
        await transcode(file, IMPLICIT.transfer_syntax)


async def test_pixel_data_that_is_not_encapsulated_in_a_compressed_transfer_syntax_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, JPEG_BASELINE, EXPLICIT.element(0x7FE00010, "OB", b"\xff\xd8"))
    with pytest.raises(TranscodingFailed, match="not encapsulated, against its transfer syntax"):
        await transcode(file, IMPLICIT.transfer_syntax)


def test_when_a_codec_fails_the_next_is_tried() -> None:
    data_set = pydicom.dcmread(example("MR_small_RLE.dcm").path)
    (decoder,) = decoders_of(RLE)
    broken = SimpleNamespace(UID=RLE, iter_buffer=lambda _: iter([(b"too short", as_pixel_options(data_set))]))
    assert decoded(data_set, (broken, decoder)) == decoded(data_set, (decoder,))  # type: ignore[arg-type]
    with pytest.raises(DataSetError, match="another size"):
        decoded(data_set, (broken,))  # type: ignore[arg-type]


async def test_missing_frames_are_a_failure(tmp_path: Path) -> None:
    file = example("SC_rgb_rle_2frame.dcm")
    content = file.path.read_bytes()
    assert content.count(b"IS\x02\x002 ") == 1
    path = tmp_path / "three.dcm"
    path.write_bytes(content.replace(b"IS\x02\x002 ", b"IS\x02\x003 "))
    with pytest.raises(TranscodingFailed):
        await transcode(dataclasses.replace(file, path=path), EXPLICIT.transfer_syntax)


async def test_no_codec_is_said_with_what_to_install() -> None:
    file = example("MR_small.dcm")
    assert not can_transcode(MPEG2, EXPLICIT.transfer_syntax)
    with pytest.raises(TranscodingFailed, match=r'MPEG2 .* no codec .*`pip install "tomowire\[images\]"`'):
        await transcode(dataclasses.replace(file, transfer_syntax_uid=MPEG2), EXPLICIT.transfer_syntax)


async def test_a_file_that_has_gone_is_a_failure_too(tmp_path: Path) -> None:
    file = written(tmp_path, EXPLICIT.transfer_syntax, EXPLICIT.element(0x00080018, "UI", b"1.2.3.4\0"))
    file.path.unlink()
    with pytest.raises(TranscodingFailed, match="No such file"):
        await transcode(file, IMPLICIT.transfer_syntax)


@pytest.mark.parametrize("source", [*PLAIN, DEFLATED, RLE])
def test_what_it_can_do(source: str) -> None:
    assert all(can_transcode(source, target) for target in (*PLAIN, DEFLATED))
    assert not any(can_transcode(source, target) for target in (JPEG_BASELINE, JPEG_LOSSLESS, ""))


async def test_nothing_is_compressed_with_a_loss() -> None:
    with pytest.raises(TranscodingFailed, match="not written here"):
        await transcode(example("MR_small.dcm"), JPEG_BASELINE)


async def test_a_small_file_that_inflates_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reencoding, "LARGEST", 1 << 20)
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = compressor.compress(bytes(64 << 20)) + compressor.flush()
    with pytest.raises(TranscodingFailed, match="more than 1 MB"):
        await transcode(written(tmp_path, DEFLATED, data), EXPLICIT.transfer_syntax)


async def test_pixel_data_that_claims_to_be_endless_is_not_decoded(tmp_path: Path) -> None:
    file = example("MR_small_RLE.dcm")
    data = bytearray(file.path.read_bytes()[file.offset :])
    rows = data.index(b"\x28\x00\x10\x00US\x02\x00") + 8
    data[rows : rows + 2] = b"\xff\xff"
    columns = data.index(b"\x28\x00\x11\x00US\x02\x00") + 8
    data[columns : columns + 2] = b"\xff\xff"
    with pytest.raises(TranscodingFailed, match="more than 1024 MB"):
        await transcode(written(tmp_path, RLE, bytes(data)), EXPLICIT.transfer_syntax)


class Gate:
    """Stands for the work: counts who is in it, and lets them out when it is opened."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, *_: object) -> bytes:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.entered.release()
        self.open.wait(30)
        with self._lock:
            self.inside -= 1
        return b""


@pytest.mark.parametrize(("large", "most"), [(True, 1), (False, 3)])
async def test_large_ones_wait_for_one_another(large: bool, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    monkeypatch.setattr(transcoding, "reencode", gate)
    file = example("MR_small.dcm")
    if large:
        monkeypatch.setattr(transcoding, "_LARGE", file.size - 1)
    tasks = [asyncio.create_task(transcode(file, IMPLICIT.transfer_syntax)) for _ in range(3)]
    for _ in range(most):
        assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
    gate.open.set()
    assert await asyncio.gather(*tasks) == [b""] * 3
    assert gate.most == most


async def test_the_event_loop_goes_on_and_cancelling_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    monkeypatch.setattr(transcoding, "reencode", gate)
    task = asyncio.create_task(transcode(example("MR_small.dcm"), IMPLICIT.transfer_syntax))
    assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.inside == 1
    gate.open.set()
