"""Every kind of source, sent to DCMTK's `storescp` and to pynetdicom: what they write is what was meant."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames

from support.dcmtk import objects_below, storescp
from support.network import LOOPBACK
from tomowire import CStoreScu, associate, storage
from tomowire.services.dicom_file import inspect
from tomowire.services.pixel_source import WithPixels
from tomowire.services.stream_source import BareDataSet
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

CT = "1.2.840.10008.5.1.4.1.1.2"
RLE = "1.2.840.10008.1.2.5"
# These come back from pydicom and DCMTK bit by bit as they are.
NAMES = ("CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "MR_small_implicit.dcm", "SC_rgb_small_odd_jpeg.dcm")


async def portions(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


def sources_of(path: Path) -> list[Any]:
    """One object in every form."""
    file = inspect(path)
    content = path.read_bytes()
    said = {
        "sop_class_uid": file.sop_class_uid,
        "sop_instance_uid": file.sop_instance_uid,
        "transfer_syntax_uid": file.transfer_syntax_uid,
    }
    return [path, io.BytesIO(content), portions(content), dcmread(path), BareDataSet(content[file.offset :], **said)]


async def send(port: int, contexts: list[Any], sources: list[Any]) -> None:
    async with associate(f"STORESCP@{LOOPBACK}:{port}", contexts) as association:
        for source in sources:
            response = await CStoreScu(association).send(source)
            assert response.is_success, (source, response)


@pytest.mark.parametrize("name", NAMES)
async def test_storescp_gets_the_same_bytes_from_every_kind_of_source(
    name: str, dcmtk: Callable[[str], Path], tmp_path: Path
) -> None:
    path = Path(get_testdata_file(name))
    file = inspect(path)
    sources = sources_of(path)
    with storescp(dcmtk("storescp"), tmp_path / "received") as port:
        await send(port, [storage(file.sop_class_uid, [file.transfer_syntax_uid])], sources)
    received = objects_below(tmp_path / "received")
    data = path.read_bytes()[file.offset :]  # noqa: ASYNC240
    assert [each.data_set for each in received] == [data + b"\0" * (len(data) % 2)] * len(sources)
    assert {each.sop_instance_uid for each in received} == {file.sop_instance_uid}


def image(transfer_syntax: str, frames: int = 1) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = "1.2.3"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 700, 900, frames
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    return dataset


@pytest.mark.parametrize("syntax", [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
async def test_storescp_gets_attributes_and_pixels_as_one_object(
    syntax: str, dcmtk: Callable[[str], Path], tmp_path: Path
) -> None:
    pixels = os.urandom(700 * 900 * 2 * 3)
    with storescp(dcmtk("storescp"), tmp_path / "received") as port:
        await send(port, [storage(CT, [syntax])], [WithPixels(image(syntax, 3), portions(pixels))])
    (path,) = (tmp_path / "received").iterdir()
    made = dcmread(path)
    assert made.PixelData == pixels
    assert made.NumberOfFrames == 3


async def test_storescp_gets_compressed_frames_as_they_were_given(dcmtk: Callable[[str], Path], tmp_path: Path) -> None:
    frames = list(generate_frames(dcmread(get_testdata_file("SC_rgb_rle_2frame.dcm")).PixelData, number_of_frames=2))

    async def made_one_by_one() -> AsyncIterator[bytes]:
        for frame in frames:
            await asyncio.sleep(0)
            yield frame

    with storescp(dcmtk("storescp"), tmp_path / "received") as port:
        await send(port, [storage(CT, [RLE])], [WithPixels(image(RLE, 2), made_one_by_one())])
    (path,) = (tmp_path / "received").iterdir()
    assert list(generate_frames(dcmread(path).PixelData, number_of_frames=2)) == frames


async def test_pynetdicom_gets_every_kind_of_source(pynetdicom: ModuleType) -> None:
    """And says what it thinks of them: a warning and its comment come back."""
    from pynetdicom import AE, evt

    received: list[Any] = []

    def keep(event: Any) -> Any:
        received.append(event.dataset)
        answer = Dataset()
        answer.Status = 0xB007
        answer.ErrorComment = "seen"
        answer.OffendingElement = 0x00100010
        return answer

    entity = AE(ae_title="PYNETDICOM")
    entity.add_supported_context(CT, [EXPLICIT_VR_LITTLE_ENDIAN])
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    path = Path(get_testdata_file("CT_small.dcm"))
    sources = sources_of(path)
    try:
        port = server.server_address[1]
        async with associate(
            f"PYNETDICOM@{LOOPBACK}:{port}", [storage(CT, [EXPLICIT_VR_LITTLE_ENDIAN])]
        ) as association:
            for source in sources:
                response = await CStoreScu(association).send(source, priority="high")
                assert response.is_warning
                assert (response.status, response.error_comment) == (0xB007, "seen")
                assert response.offending_elements == (0x00100010,)
    finally:
        await asyncio.to_thread(server.shutdown)
    original = dcmread(path)
    del original.file_meta
    assert len(received) == len(sources)
    for dataset in received:
        assert dataset == original


@pytest.mark.parametrize(("syntax", "tool"), [(RLE, "dcmdrle"), ("1.2.840.10008.1.2.4.80", "dcmdjpls")])
@pytest.mark.parametrize("name", ["CT_small.dcm", "SC_rgb_small_odd.dcm", "examples_palette.dcm"])
async def test_dcmtk_decodes_what_was_compressed_for_it(
    name: str, syntax: str, tool: str, dcmtk: Callable[[str], Path], tmp_path: Path
) -> None:
    """From a file and from a data set, in the transfer syntax that was asked for: the samples are the same."""
    path = Path(get_testdata_file(name))
    original = dcmread(path)
    contexts = [storage(original.SOPClassUID, [syntax])]
    with storescp(dcmtk("storescp"), tmp_path / "received") as port:
        async with associate(f"STORESCP@{LOOPBACK}:{port}", contexts) as association:
            for source in (path, original):
                assert (await CStoreScu(association).send(source, transfer_syntax=syntax)).is_success
    received = sorted((tmp_path / "received").iterdir())
    assert len(received) == 2
    for each in received:
        assert dcmread(each).file_meta.TransferSyntaxUID == syntax
        made = tmp_path / "decoded"
        decoding = await asyncio.create_subprocess_exec(dcmtk(tool), each, made)
        assert await decoding.wait() == 0
        assert (dcmread(made).pixel_array == original.pixel_array).all()
