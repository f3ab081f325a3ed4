"""Which files a DICOMDIR may refer to: those below its folder, and nothing else on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset

from support.objects import Sample
from support.programs import tomowire
from support.receiver import Receiver
from tomowire.cli.dicomdir import referenced_files
from tomowire.services.discovery import Skipped
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, MEDIA_STORAGE_DIRECTORY


@pytest.fixture(autouse=True)
def _write_anything() -> Iterator[None]:
    mode = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    yield
    config.settings.writing_validation_mode = mode


def write_dicomdir(folder: Path, *file_ids: list[str]) -> Path:
    """A File-set whose directory records refer to `file_ids`."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT_VR_LITTLE_ENDIAN
    dataset.file_meta.MediaStorageSOPClassUID = MEDIA_STORAGE_DIRECTORY
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    records = []
    for file_id in file_ids:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.add_new("ReferencedFileID", "CS", file_id)
        records.append(record)
    dataset.DirectoryRecordSequence = records
    path = folder / "DICOMDIR"
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_sample(path: Path, number: int) -> Sample:
    sample = Sample(number)
    path.write_bytes(sample.header + sample.data_set)
    return sample


WAYS_OUT = [
    ["..", "SECRET"],
    ["IMAGES", "..", "..", "SECRET"],
    ["../SECRET"],
    ["IMAGES/../../SECRET"],
    ["", "SECRET"],
    ["/SECRET"],
    [".", "SECRET"],
    ["LINK"],
    ["LINKED", "SECRET"],
]


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    folder = tmp_path / "disc"
    (folder / "IMAGES").mkdir(parents=True)
    write_sample(tmp_path / "SECRET", 99)
    (folder / "LINK").symlink_to(tmp_path / "SECRET")
    (folder / "LINKED").symlink_to(tmp_path)
    return folder


@pytest.mark.parametrize("file_id", WAYS_OUT)
def test_no_file_id_leads_out_of_the_folder(file_id: list[str], disc: Path) -> None:
    dicomdir = write_dicomdir(disc, file_id)
    (found,) = referenced_files(dicomdir)
    assert isinstance(found, Skipped), found
    assert found.is_error
    assert found.path == dicomdir


def test_a_link_within_the_folder_is_fine_and_so_is_a_folder_that_is_a_link(disc: Path, tmp_path: Path) -> None:
    write_sample(disc / "IMAGES" / "1", 1)
    (disc / "INNER").symlink_to(disc / "IMAGES")
    (tmp_path / "mounted").symlink_to(disc)
    write_dicomdir(disc, ["INNER", "1"])
    assert referenced_files(tmp_path / "mounted" / "DICOMDIR") == [tmp_path / "mounted" / "INNER" / "1"]


async def test_the_ways_out_are_failures_and_the_rest_is_sent(receiver: Receiver, disc: Path) -> None:
    sample = write_sample(disc / "IMAGES" / "1", 1)
    dicomdir = write_dicomdir(disc, *WAYS_OUT, ["IMAGES", "1"])
    done = await tomowire("send", receiver.peer, dicomdir, "--json")
    assert done.code == 1
    assert (done.json["stored"], done.json["failed"]) == (1, len(WAYS_OUT))
    assert receiver.times == [sample.uid]
    assert "'../SECRET', which is not below its folder" in done.stderr
