"""What the programs in the documentation find where they run: an archive that holds something, a folder of scans, a destination."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from support.network import LOOPBACK
from tomowire import Folder, Peer, Storage, Verification, listen
from tomowire.server.app import Archive, Settings
from tomowire.server.nodes import Node

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
DESTINATIONS = ("RECEIVER", "VIEWER")
SIDE = 64


@dataclass(frozen=True)
class Surroundings:
    """`archive` is how to call it, `at` the folder to run in, `received` what came to its destinations."""

    archive: str
    at: Path
    received: Path


def image(sop_class_uid: str, uid: str, **values: Any) -> Dataset:
    """A small image with all that a viewer needs. The UIDs of series and study are the beginning of its own."""
    modality = {CT: "CT", MR: "MR"}[sop_class_uid]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class_uid
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.SeriesInstanceUID = uid.rpartition(".")[0]
    dataset.StudyInstanceUID = dataset.SeriesInstanceUID.rpartition(".")[0]
    dataset.PatientName, dataset.PatientID = "Smith^John", "P1"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "M"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260115", "101500", "1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = f"A{dataset.StudyInstanceUID[-1]}", ""
    dataset.Modality, dataset.SeriesNumber = modality, int(uid.split(".")[-2])
    dataset.SeriesDescription, dataset.InstanceNumber = f"{modality} series", int(uid.split(".")[-1])
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = SIDE
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = bytes(range(256)) * (SIDE * SIDE * 2 // 256)
    return dataset


def write(folder: Path, images: dict[str, Dataset]) -> None:
    folder.mkdir(parents=True)
    for name, dataset in images.items():
        dataset.save_as(folder / name, enforce_file_format=True)


def stored() -> dict[str, Dataset]:
    """What the archive holds: two studies of one patient and one of another."""
    jane = {"PatientName": "Doe^Jane", "PatientID": "P2", "PatientSex": "F"}
    return {
        "1.dcm": image(CT, "1.2.3.1.1"),
        "2.dcm": image(CT, "1.2.3.1.2"),
        "3.dcm": image(CT, "1.2.3.2.1"),
        "4.dcm": image(MR, "1.2.4.1.1", StudyDate="20260210"),
        "5.dcm": image(CT, "1.2.5.1.1", StudyDate="20251231", **jane),
    }


async def make_data_directory(at: Path) -> None:
    """An archive's data directory with all of `stored` in it."""
    write(at.parent / "stored", stored())
    async with Archive(Settings(at, ae_title="ARCHIVE", port=0)) as archive, _peer(archive) as peer:
        sent = [each async for each in peer.send(at.parent / "stored")]
    assert [each.outcome for each in sent if each.is_failure] == []


def _peer(archive: Archive) -> Peer:
    # One after the other: the order in which an archive answers is that in which things came.
    return Peer(f"ARCHIVE@{LOOPBACK}:{archive.port}", window=1)


@asynccontextmanager
async def surroundings(at: Path, data: Path) -> AsyncIterator[Surroundings]:
    """All of it, while the block lasts; `data` is a data directory, which is copied. The archive knows RECEIVER and VIEWER."""
    work = at / "work"
    write(work / "scans", {"ct.dcm": image(CT, "1.2.6.1.1"), "mr.dcm": image(MR, "1.2.7.1.1")})
    write(work / "more", {"image.dcm": image(CT, "1.2.8.1.1")})
    await asyncio.to_thread(shutil.copytree, data, at / "data", ignore=shutil.ignore_patterns("*.bell"))  # a pipe
    received = at / "received"
    keep = Folder(received)
    services = [Verification(), Storage(keep.keep)]
    try:
        async with listen(LOOPBACK, 0, aet=DESTINATIONS, services=services, shutdown_grace=1) as receiver:
            nodes = tuple(Node(title, LOOPBACK, receiver.port) for title in DESTINATIONS)
            settings = Settings(at / "data", ae_title="ARCHIVE", port=0, nodes=nodes, shutdown_grace=1)
            async with Archive(settings) as archive:
                yield Surroundings(f"ARCHIVE@{LOOPBACK}:{archive.port}", work, received)
    finally:
        keep.close()
