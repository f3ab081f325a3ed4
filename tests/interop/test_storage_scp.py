"""Both modes of the Storage SCP with foreign senders: one object of each kind that the shared collection has."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from support.dcmtk import storescu, write_profile
from support.network import LOOPBACK
from tomowire.aio.listen import listen
from tomowire.services.buffered import BufferedStorage
from tomowire.services.dicom_file import DicomFile, inspect
from tomowire.services.discovery import discover
from tomowire.services.storage_scp import Storage, StoreRequest
from tomowire.services.store_request import BufferedStoreRequest
from tomowire.wire.part10 import FileMeta, encode_file_meta

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

OF_PYDICOM = (
    "MR_small_implicit.dcm",
    "CT_small.dcm",
    "MR_small_bigendian.dcm",
    "image_dfl.dcm",
    "MR_small_RLE.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "MR_small_jp2klossless.dcm",
    "waveform_ecg.dcm",
    "test-SR.dcm",
    "rtplan.dcm",
)


@dataclass
class Received:
    """One object, as a handler got it."""

    uid: str
    transfer_syntax: str
    data: bytes
    dataset: Dataset
    head_length: int | None = None


@dataclass
class Handlers:
    """Both kinds, and what they got."""

    received: list[Received] = field(default_factory=list)

    async def with_metadata(self, request: StoreRequest) -> int:
        dataset = await request.metadata()
        head = request.encoded_metadata
        data = head + await request.data.read()
        self.received.append(Received(request.sop_instance_uid, request.transfer_syntax_uid, data, dataset, len(head)))
        return 0

    async def buffered(self, request: BufferedStoreRequest) -> int:
        dataset = await request.dataset()
        self.received.append(Received(request.sop_instance_uid, request.transfer_syntax_uid, request.content, dataset))
        return 0


def as_file(received: Received, **options: Any) -> Dataset:
    """What pydicom makes of a file with these bytes."""
    head = encode_file_meta(FileMeta("1.2.840.10008.5.1.4.1.1.7", received.uid, received.transfer_syntax))
    return dcmread(BytesIO(head + received.data), **options)


async def received_with(
    send: Callable[[int], None], *, any_sop_class: bool = True
) -> tuple[list[Received], list[Received]]:
    """What the streaming and the buffered handler get when `send(port)` has sent the same to both."""
    both = []
    for mode in ("metadata", "buffered"):
        handlers = Handlers()
        service = (
            Storage(handlers.with_metadata, any_sop_class=any_sop_class)
            if mode == "metadata"
            else BufferedStorage(handlers.buffered, any_sop_class=any_sop_class)
        )
        async with listen(port=0, services=[service]) as server:
            await asyncio.to_thread(send, server.port)
        both.append(handlers.received)
    return both[0], both[1]


def check(streamed: list[Received], buffered: list[Received]) -> None:
    assert [(each.uid, each.transfer_syntax) for each in streamed] == [
        (each.uid, each.transfer_syntax) for each in buffered
    ]
    for one, other in zip(streamed, buffered, strict=True):
        assert one.data == other.data, one.uid
        assert other.dataset == as_file(other), other.uid
        before_pixels = as_file(one, stop_before_pixels=True)
        before_pixels.pop(0x7FE00000, None)  # a group length (PS3.5 7.2, retired) belongs to what follows it
        assert one.dataset == before_pixels, one.uid


@pytest.fixture(scope="module")
def one_of_each_kind(shared_data: Path) -> list[DicomFile]:
    """One file for each SOP class and transfer syntax; with the environment variable below all there are."""
    files = [each for each in discover([shared_data]) if isinstance(each, DicomFile)]
    if os.environ.get("TOMOWIRE_ALL_OBJECTS"):
        return files
    return [*{(each.sop_class_uid, each.transfer_syntax_uid): each for each in files}.values()]


async def test_dcmtk_sends_one_object_of_each_kind(
    one_of_each_kind: list[DicomFile], dcmtk: Callable[[str], Path], tmp_path: Path
) -> None:
    pairs = [(each.sop_class_uid, each.transfer_syntax_uid) for each in one_of_each_kind]
    profile = write_profile(tmp_path / "scu.cfg", pairs, together=False)
    program = dcmtk("storescu")
    answers: list[dict[str, str | None]] = []

    def send(port: int) -> None:
        answers.append(storescu(program, port, [each.path for each in one_of_each_kind], profile=profile))

    streamed, buffered = await received_with(send)
    assert answers[0] == answers[1]
    # None is what DCMTK itself could not read; 0117H is for instances whose UID is none.
    assert {*answers[0].values()} <= {"Success", "Unknown Status: 0x117", None}
    stored = [path for path, answer in answers[0].items() if answer == "Success"]
    assert len(stored) == len(streamed) > len(one_of_each_kind) * 0.85
    check(streamed, buffered)


async def test_pynetdicom_sends_one_object_of_each_kind(pynetdicom: ModuleType) -> None:
    paths = [str(get_testdata_file(name, download=False)) for name in OF_PYDICOM]

    def send(port: int) -> None:
        entity = pynetdicom.AE("PYNETDICOM")
        for pair in dict.fromkeys(
            (inspect(Path(path)).sop_class_uid, inspect(Path(path)).transfer_syntax_uid) for path in paths
        ):
            entity.add_requested_context(*pair)
        association = entity.associate(LOOPBACK, port)
        assert association.is_established
        for path in paths:
            # Its own thread takes the answer, and loses it, if it has not noticed that the operation before is over (3.0.4).
            while association._is_paused and association.is_established:
                time.sleep(0.001)
            assert association.send_c_store(dcmread(path)).Status == 0x0000, path
        association.release()

    streamed, buffered = await received_with(send)
    assert len(streamed) == len(paths)
    check(streamed, buffered)


@pytest.mark.parametrize("mode", ["streaming", "buffered"])
async def test_dcmtk_is_told_status_and_goes_on(
    dcmtk: Callable[[str], Path], shared_data: Path, tmp_path: Path, mode: str
) -> None:
    """The first is refused for want of memory or by the handler, the second is taken, on the same association."""
    folder = shared_data / "dcm_qa_nih" / "20180918GE" / "mr_0004"
    paths = sorted(folder.iterdir())[:2]
    profile = write_profile(
        tmp_path / "scu.cfg",
        [(each.sop_class_uid, each.transfer_syntax_uid) for each in map(inspect, paths)],
        together=False,
    )
    handled: list[str] = []

    async def keep(request: Any) -> tuple[int, str | None]:
        handled.append(request.sop_instance_uid)
        return (0xA700, "no room") if len(handled) == 1 else (0, None)

    service = Storage(keep) if mode == "streaming" else BufferedStorage(keep)
    program = dcmtk("storescu")
    async with listen(port=0, services=[service]) as server:
        answers = await asyncio.to_thread(storescu, program, server.port, paths, profile=profile)
    assert [*answers.values()] == ["Refused: OutOfResources", "Success"]
    assert len(handled) == 2
