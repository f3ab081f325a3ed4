"""Compression without loss: decoded by other programs the samples are those that there were, and nothing else has changed."""

from __future__ import annotations

import asyncio
import io
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames

from tomowire.errors import DataSetError, TranscodingFailed
from tomowire.services import compressing
from tomowire.services.compressing import JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS, LOSSLESS, can_compress, compressed
from tomowire.services.dataset_source import DatasetSource
from tomowire.services.decoding import RLE_LOSSLESS
from tomowire.services.dicom_file import inspect
from tomowire.services.transcoding import can_transcode, transcode
from tomowire.uids import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.part10 import FileMeta, encode_file_meta

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def image(
    samples: Any,
    *,
    stored: int | None = None,
    signed: bool = False,
    by_plane: bool = False,
    interpretation: str | None = None,
    frames: int = 1,
) -> Dataset:
    """`samples` as (frames, rows, columns[, colours])."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SECONDARY_CAPTURE, "1.2.3"
    colours = samples.shape[3] if samples.ndim == 4 else 1
    bits = samples.dtype.itemsize * 8
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = samples.shape[1], samples.shape[2], frames
    dataset.SamplesPerPixel = colours
    dataset.PhotometricInterpretation = interpretation or ("RGB" if colours > 1 else "MONOCHROME2")
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, stored or bits, (stored or bits) - 1
    dataset.PixelRepresentation = int(signed)
    if colours > 1:
        dataset.PlanarConfiguration = int(by_plane)
    if by_plane:
        samples = samples.transpose(0, 3, 1, 2)
    dataset.PixelData = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    dataset.add_new(0xFFFCFFFC, "OB", b"ab")
    return dataset


def noise(*shape: int, bits: int = 8, stored: int | None = None, signed: bool = False) -> Any:
    top = 1 << (stored or bits)
    low = -top // 2 if signed else 0
    values = numpy.random.default_rng(7).integers(low, low + top, shape)
    return values.astype(f"{'i' if signed else 'u'}{bits // 8}")


IMAGES: dict[str, Dataset] = {
    "8 bits, odd": image(noise(1, 7, 9)),
    "12 of 16 bits": image(noise(1, 30, 20, bits=16, stored=12), stored=12),
    "16 bits": image(noise(1, 30, 20, bits=16)),
    "16 bits, signed": image(noise(1, 30, 20, bits=16, signed=True), signed=True),
    "12 of 16 bits, signed": image(noise(1, 30, 20, bits=16, stored=12, signed=True), stored=12, signed=True),
    "something above the stored bits": image(noise(1, 30, 20, bits=16), stored=12),
    "colours by pixel": image(noise(1, 9, 11, 3)),
    "colours by plane": image(noise(1, 9, 11, 3), by_plane=True),
    "frames": image(noise(5, 9, 11), frames=5),
    "one colour all over": image(numpy.zeros((1, 300, 300), numpy.uint16)),
}

FOR_DCMTK: dict[str, Dataset] = {
    "palette": image(noise(1, 9, 11), interpretation="PALETTE COLOR"),
    "YBR": image(noise(1, 9, 11, 3), interpretation="YBR_FULL"),
    "YBR by plane, frames": image(noise(3, 9, 11, 3), interpretation="YBR_FULL", by_plane=True, frames=3),
    "32 bits": image(noise(1, 9, 11, bits=32)),
    "16 bits of colour, by plane": image(noise(1, 9, 11, 3, bits=16), by_plane=True),
}
for keyword in ("Red", "Green", "Blue"):
    setattr(FOR_DCMTK["palette"], f"{keyword}PaletteColorLookupTableDescriptor", [256, 0, 8])
    setattr(FOR_DCMTK["palette"], f"{keyword}PaletteColorLookupTableData", bytes(range(256)))


async def bytes_of(dataset: Dataset) -> bytes:
    return await DatasetSource(dataset).encoded()


def read(data: bytes, transfer_syntax: str) -> Any:
    return dcmread(io.BytesIO(encode_file_meta(FileMeta(SECONDARY_CAPTURE, "1.2.3", transfer_syntax)) + data))


def samples_of(dataset: Any, *, by_plane: bool | None = None) -> Any:
    """The samples as stored, by pixel: the bytes in `PixelData`, not what a reader makes of the bits above."""
    shape = [int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns]
    flat = numpy.frombuffer(dataset.PixelData, f"<u{dataset.BitsAllocated // 8}")
    flat = flat[: numpy.prod(shape) * dataset.SamplesPerPixel]
    if dataset.SamplesPerPixel == 1:
        return flat.reshape(shape)
    if dataset.PlanarConfiguration:
        return flat.reshape(shape[0], 3, *shape[1:]).transpose(0, 2, 3, 1)
    return flat.reshape(*shape, 3)


def decoded_by_others(made: Any, transfer_syntax: str) -> Any:
    """The samples that pydicom's RLE decoder, or Pillow (JPEG 2000), finds."""
    if transfer_syntax == RLE_LOSSLESS:
        made.decompress(as_rgb=False, decoding_plugin="pydicom")
        return samples_of(made)
    from PIL import Image

    frames = [
        numpy.asarray(Image.open(io.BytesIO(each)))
        for each in generate_frames(made.PixelData, number_of_frames=int(made.NumberOfFrames))
    ]
    # Pillow moves samples of 12 bits to the top of their 16.
    return numpy.stack(frames) >> (made.BitsAllocated - made.BitsStored)


@pytest.mark.parametrize("name", [name for name in IMAGES if "signed" not in name and "above" not in name])
@pytest.mark.parametrize("syntax", [RLE_LOSSLESS, JPEG_2000_LOSSLESS])
async def test_other_decoders_find_the_same_samples(name: str, syntax: str) -> None:
    dataset = IMAGES[name]
    made = read(compressed(await bytes_of(dataset), syntax), syntax)
    assert (decoded_by_others(made, syntax) == samples_of(dataset)).all()


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("syntax", sorted(LOSSLESS))
async def test_there_and_back_the_bytes_are_the_same(name: str, syntax: str, tmp_path: Path) -> None:
    """All samples, with all their bits, sign and what lies above the bits that are stored; and all the other elements."""
    dataset = IMAGES[name]
    original = await bytes_of(dataset)
    path = tmp_path / "made"
    path.write_bytes(encode_file_meta(FileMeta(SECONDARY_CAPTURE, "1.2.3", syntax)) + compressed(original, syntax))
    back = read(await transcode(inspect(path), EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN)
    assert (samples_of(back) == samples_of(dataset)).all()
    for element in dataset:
        if element.keyword not in ("PixelData", "PlanarConfiguration"):
            assert back[element.tag].value == element.value, element


async def test_only_the_pixel_data_is_touched() -> None:
    dataset = IMAGES["12 of 16 bits"]
    original = await bytes_of(dataset)
    at = original.index(struct.pack("<HH", 0x7FE0, 0x10))
    for syntax in LOSSLESS:
        made = compressed(original, syntax)
        assert made[:at] == original[:at]
        assert made[at : at + 20] == b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\0\0\0\0"
        assert made.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0" + original[-14:])


async def test_what_has_no_pixel_data_stays_as_it_is() -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SECONDARY_CAPTURE, "1.2.3"
    original = await bytes_of(dataset)
    assert compressed(original, RLE_LOSSLESS) == original


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        (image(noise(1, 4, 4, 3).astype("u8")), "3 samples of 64 bits"),
        (image(noise(1, 4, 4, 3), interpretation="YBR_FULL_422"), "YBR_FULL_422 is not compressed here"),
        (image(noise(1, 4, 4), frames=2), "it has 16 bytes of pixel data and should have 32"),
    ],
)
async def test_what_is_not_compressed_says_why(dataset: Dataset, text: str) -> None:
    with pytest.raises(DataSetError, match=text):
        compressed(await bytes_of(dataset), RLE_LOSSLESS)


@pytest.mark.parametrize("syntax", [JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS])
async def test_32_bits_only_rle_brings_back(syntax: str) -> None:
    with pytest.raises(DataSetError, match="1 samples of 32 bits are not compressed here"):
        compressed(await bytes_of(image(noise(1, 4, 4, bits=32))), syntax)


async def test_what_describes_the_pixels_must_be_there() -> None:
    dataset = image(noise(1, 4, 4))
    del dataset.BitsStored, dataset.Rows
    with pytest.raises(DataSetError, match="has pixel data and no Rows, BitsStored"):
        compressed(await bytes_of(dataset), RLE_LOSSLESS)


async def test_floating_point_numbers_are_not_compressed() -> None:
    """And no data set says that it is compressed while they are in it."""
    dataset = image(noise(1, 4, 4))
    del dataset.PixelData
    dataset.FloatPixelData = bytes(64)
    with pytest.raises(DataSetError, match="floating point"):
        compressed(await bytes_of(dataset), RLE_LOSSLESS)


@pytest.mark.parametrize("frames", [1, 3])
async def test_images_of_one_bit(frames: int, tmp_path: Path) -> None:
    """A segmentation: frames of 77 bits follow one another within bytes (PS3.5 8.1.1)."""
    from PIL import Image

    bits = numpy.random.default_rng(5).integers(0, 2, (frames, 7, 11)).astype("u1")
    dataset = image(bits, frames=frames, stored=1)
    dataset.BitsAllocated, dataset.HighBit = 1, 0
    packed = numpy.packbits(bits.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + bytes(len(packed) % 2)
    made = compressed(await bytes_of(dataset), JPEG_2000_LOSSLESS)
    found = read(made, JPEG_2000_LOSSLESS)
    for number, each in enumerate(generate_frames(found.PixelData, number_of_frames=frames)):
        assert ((numpy.asarray(Image.open(io.BytesIO(each))) > 0) == (bits[number] > 0)).all()
    (tmp_path / "made").write_bytes(encode_file_meta(FileMeta(SECONDARY_CAPTURE, "1.2.3", JPEG_2000_LOSSLESS)) + made)
    back = await transcode(inspect(tmp_path / "made"), EXPLICIT_VR_LITTLE_ENDIAN)
    assert read(back, EXPLICIT_VR_LITTLE_ENDIAN).PixelData == dataset.PixelData


@pytest.mark.interop
@pytest.mark.parametrize(
    ("name", "syntax", "program"),
    [(name, RLE_LOSSLESS, "dcmdrle") for name in (*IMAGES, *FOR_DCMTK)]
    + [(name, JPEG_LS_LOSSLESS, "dcmdjpls") for name in (*IMAGES, *FOR_DCMTK) if name != "32 bits"],
)
async def test_dcmtk_finds_the_same_samples(
    name: str, syntax: str, program: str, tmp_path: Path, dcmtk: Callable[[str], Path]
) -> None:
    """Signed, with something above the stored bits, palette and YBR too."""
    dataset = (IMAGES | FOR_DCMTK)[name]
    made, back = tmp_path / "made", tmp_path / "back"
    meta = encode_file_meta(FileMeta(SECONDARY_CAPTURE, "1.2.3", syntax))
    made.write_bytes(meta + compressed(await bytes_of(dataset), syntax))
    await asyncio.to_thread(subprocess.run, [dcmtk(program), made, back], check=True, timeout=60)
    found = dcmread(back)
    assert (samples_of(found) == samples_of(dataset)).all()
    for keyword in ("PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation"):
        assert found.get(keyword) == dataset.get(keyword)


@pytest.mark.parametrize("syntax", sorted(LOSSLESS))
async def test_from_one_compression_to_another(syntax: str) -> None:
    """And from big endian: the samples are those of the file it all began with."""
    expected = dcmread(get_testdata_file("MR_small.dcm")).pixel_array
    for name in ("MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_bigendian.dcm"):
        made = await transcode(inspect(Path(get_testdata_file(name))), syntax)
        back = read(made, syntax)
        if syntax != JPEG_LS_LOSSLESS:  # for which pydicom has no decoder here
            assert (back.pixel_array == expected).all()
        assert len(made) < 9000


async def test_a_codec_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressing, "find_spec", lambda _: None)
    file = inspect(Path(get_testdata_file("MR_small.dcm")))
    for syntax in LOSSLESS:
        assert not can_compress(syntax)
        assert not can_transcode(EXPLICIT_VR_BIG_ENDIAN, syntax)
        with pytest.raises(
            TranscodingFailed, match=r"no codec is installed for it; try `pip install .tomowire\[images\]"
        ):
            await transcode(file, syntax)
