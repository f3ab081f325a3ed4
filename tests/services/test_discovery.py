"""From what a person names to DICOM files, and to a reason for everything that is left out."""

from __future__ import annotations

import os
from errno import ENOENT
from pathlib import Path

import pytest

from support.objects import Sample
from tomowire.services.dicom_file import DicomFile
from tomowire.services.discovery import Skipped, discover
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.part10 import FileMeta, encode_file_meta

DIRECTORY = encode_file_meta(FileMeta("1.2.840.10008.1.3.10", "1.2.3", "1.2.840.10008.1.2.1"))


def write(path: Path, number: int = 1) -> Path:
    sample = Sample(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sample.header + sample.data_set)
    return path


def found(*paths: Path | str) -> list[str]:
    return [str(each.path) for each in discover(paths) if isinstance(each, DicomFile)]


def skipped(*paths: Path | str) -> list[tuple[str, bool]]:
    return [(each.path.name, each.is_error) for each in discover(paths) if isinstance(each, Skipped)]


def test_folders_are_walked_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["b/2.dcm", "b/10.dcm", "a/z/1.dcm", "c.dcm", "a/y"]
    for name in names:
        write(tmp_path / name)
    assert found(tmp_path) == [str(tmp_path / name) for name in ("a/y", "a/z/1.dcm", "b/10.dcm", "b/2.dcm", "c.dcm")]
    assert found(str(tmp_path / "b"), tmp_path / "c.dcm") == [
        str(tmp_path / name) for name in ("b/10.dcm", "b/2.dcm", "c.dcm")
    ]


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "1")
    search = discover([tmp_path])
    write(tmp_path / "2")
    assert [each.path.name for each in search] == ["1", "2"]


def test_what_is_not_dicom_is_an_error_only_where_it_was_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert skipped(tmp_path) == [("notes.txt", False)]
    assert skipped(tmp_path / "notes.txt") == [("notes.txt", True)]


def test_a_damaged_dicom_file_is_an_error_everywhere(tmp_path: Path) -> None:
    (tmp_path / "1.dcm").write_bytes(Sample().header[:180])
    assert skipped(tmp_path) == skipped(tmp_path / "1.dcm") == [("1.dcm", True)]


@pytest.mark.parametrize(
    "content",
    [
        encode_file_meta(FileMeta("", "", EXPLICIT_VR_LITTLE_ENDIAN)) + b"\x08\0\x60\0CS\2\0CT",
        b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + b"\x10\0\x10\0PN\2\0A ",
        b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100" + b"\x10\0\x10\0\2\0\0\0A ",
        b"\0\x08\0\x05CS\0\x0aISO_IR 100" + b"\0\x10\0\x10PN\0\2A ",
        encode_file_meta(FileMeta("", "", EXPLICIT_VR_LITTLE_ENDIAN))[132:],
    ],
    ids=["Part 10", "explicit", "implicit", "big endian", "no preamble"],
)
def test_an_image_without_uids_is_not_lost_unnoticed(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "1.dcm").write_bytes(content)
    assert skipped(tmp_path) == [("1.dcm", True)]


@pytest.mark.parametrize("content", [b"", b"\x08", b"\x08\0" + b"\xff" * 100, b"\2\0\0\0" * 50, b"ID3" + bytes(500)])
def test_bytes_that_happen_to_begin_like_it_are_not_dicom(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(content)
    assert skipped(tmp_path) == [("1", False)]


def test_links_lead_to_files_but_not_to_folders(tmp_path: Path) -> None:
    write(tmp_path / "real" / "1.dcm")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link.dcm").symlink_to(tmp_path / "real" / "1.dcm")
    (tmp_path / "folder" / "up").symlink_to(tmp_path)
    (tmp_path / "folder" / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "folder" / "pipe")
    assert found(tmp_path / "folder") == [str(tmp_path / "folder" / "link.dcm")]
    assert skipped(tmp_path / "folder") == [("broken", True), ("pipe", False), ("up", False)]
    assert found(tmp_path / "folder" / "up" / "real") == [str(tmp_path / "folder" / "up" / "real" / "1.dcm")]
    assert skipped(tmp_path / "folder" / "pipe") == [("pipe", True)]  # opening it would wait for ever


def test_what_is_not_there(tmp_path: Path) -> None:
    (missing,) = discover([tmp_path / "missing"])
    assert missing == Skipped(tmp_path / "missing", "No such file or directory", is_error=True, errno=ENOENT)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "1.dcm")
    (tmp_path / "gone").mkdir()
    search = discover([tmp_path])
    assert isinstance(next(search), DicomFile)
    (tmp_path / "gone").rmdir()
    assert list(search) == [Skipped(tmp_path / "gone", "No such file or directory", is_error=True, errno=ENOENT)]


class TestDicomdir:
    @pytest.fixture
    def dicomdir(self, tmp_path: Path) -> Path:
        write(tmp_path / "IMAGES" / "1")
        write(tmp_path / "IMAGES" / "2")
        (tmp_path / "DICOMDIR").write_bytes(DIRECTORY)
        return tmp_path / "DICOMDIR"

    def test_it_stands_for_what_it_names(self, dicomdir: Path) -> None:
        image, missing = dicomdir.parent / "IMAGES" / "2", dicomdir.parent / "IMAGES" / "3"
        files = list(discover([dicomdir], read_dicomdir=lambda path: [image, missing]))
        assert [each.path for each in files] == [image, missing]
        assert isinstance(files[0], DicomFile)
        assert files[1] == Skipped(missing, "No such file or directory", is_error=True, errno=ENOENT)

    def test_in_a_folder_it_is_passed_over(self, dicomdir: Path) -> None:
        assert found(dicomdir.parent) == [str(dicomdir.parent / "IMAGES" / name) for name in "12"]
        assert skipped(dicomdir.parent) == [("DICOMDIR", False)]

    def test_without_a_reader_it_cannot_be_used(self, dicomdir: Path) -> None:
        (only,) = discover([dicomdir])
        assert only == Skipped(dicomdir, "a DICOMDIR: name the folder it lies in", is_error=True)

    def test_a_reader_that_fails_is_told(self, dicomdir: Path) -> None:
        def fail(path: Path) -> list[Path]:
            raise KeyError("offset")

        (only,) = discover([dicomdir], read_dicomdir=fail)
        assert only == Skipped(dicomdir, "the DICOMDIR cannot be read: 'offset'", is_error=True)
