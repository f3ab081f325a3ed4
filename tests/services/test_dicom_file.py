"""Which object is in a file, however the file was written."""

from __future__ import annotations

import zlib
from pathlib import Path

import pydicom.data
import pytest
from pydicom import dcmread

from support.data_sets import ENCODERS, EXPLICIT, IMPLICIT, Encoder
from tomowire.errors import FileFormatError
from tomowire.services.dicom_file import DicomFile, inspect, is_marked
from tomowire.wire.part10 import FileMeta, encode_file_meta

SOP_CLASS, SOP_INSTANCE = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
DEFLATED = "1.2.840.10008.1.2.1.99"


def identifying(encoder: Encoder, sop_class: str = SOP_CLASS, instance: str = SOP_INSTANCE) -> bytes:
    """The beginning of a data set, with a sequence before the UIDs."""
    return b"".join(
        (
            encoder.element(0x00080005, "CS", b"ISO_IR 100"),
            encoder.sequence(0x00080006, encoder.item(encoder.element(0x00080100, "SH", b"en"))),
            encoder.element(0x00080008, "CS", b"ORIGINAL"),
            encoder.element(0x00080016, "UI", sop_class.encode() + b"\0" * (len(sop_class) % 2)),
            encoder.element(0x00080018, "UI", instance.encode() + b"\0" * (len(instance) % 2)),
            encoder.element(0x00100020, "LO", b"4711"),
        )
    )


def write(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


def test_file_meta_and_data_set_agree(tmp_path: Path) -> None:
    meta = encode_file_meta(FileMeta(SOP_CLASS, SOP_INSTANCE, EXPLICIT.transfer_syntax))
    data = identifying(EXPLICIT)
    path = write(tmp_path / "f", meta, data)
    assert inspect(path) == DicomFile(path, SOP_CLASS, SOP_INSTANCE, EXPLICIT.transfer_syntax, len(meta), len(data))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("sop_class", ["", "1.2.840.10008.5.1.4.1.1.2"])
def test_the_data_set_knows_better_than_the_file_meta(encoder: Encoder, sop_class: str, tmp_path: Path) -> None:
    meta = encode_file_meta(FileMeta(sop_class, sop_class and "9.9.9", encoder.transfer_syntax))
    found = inspect(write(tmp_path / "f", meta, identifying(encoder)))
    assert (found.sop_class_uid, found.sop_instance_uid) == (SOP_CLASS, SOP_INSTANCE)
    assert (found.transfer_syntax_uid, found.offset) == (encoder.transfer_syntax, len(meta))


def test_also_when_it_is_deflated(tmp_path: Path) -> None:
    compressor = zlib.compressobj(wbits=-15)
    data = compressor.compress(identifying(EXPLICIT) + bytes(10_000)) + compressor.flush()
    meta = encode_file_meta(FileMeta("1.2", "9.9.9", DEFLATED))
    found = inspect(write(tmp_path / "f", meta, data))
    assert (found.sop_class_uid, found.sop_instance_uid, found.size) == (SOP_CLASS, SOP_INSTANCE, len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08\x00",
        identifying(EXPLICIT)[:60],  # cut short before the UIDs
        EXPLICIT.element(0x00080016, "UI", b"1.2.3\0", length=60_000),
        EXPLICIT.element(0x00080018, "UI", b"1." + b"2" * 98),  # longer than a UID can be
        EXPLICIT.element(0x00100010, "PN", b"Doe"),
        bytes(200),
    ],
)
@pytest.mark.parametrize("syntax", [EXPLICIT.transfer_syntax, DEFLATED, "1.2.840.10008.1.2.4.50"])
def test_what_cannot_be_found_in_the_data_set_is_taken_from_the_file_meta(
    data: bytes, syntax: str, tmp_path: Path
) -> None:
    meta = encode_file_meta(FileMeta(SOP_CLASS, SOP_INSTANCE, syntax))
    found = inspect(write(tmp_path / "f", meta, data))
    assert (found.sop_class_uid, found.sop_instance_uid, found.size) == (SOP_CLASS, SOP_INSTANCE, len(data))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("has_meta", [False, True])
def test_without_a_transfer_syntax_the_data_set_shows_it(encoder: Encoder, has_meta: bool, tmp_path: Path) -> None:
    meta = encode_file_meta(FileMeta("", "", "")) if has_meta else b""
    found = inspect(write(tmp_path / "f", meta, identifying(encoder)))
    assert (found.sop_class_uid, found.sop_instance_uid) == (SOP_CLASS, SOP_INSTANCE)
    assert (found.transfer_syntax_uid, found.offset) == (encoder.transfer_syntax, len(meta))


def test_file_meta_without_a_preamble(tmp_path: Path) -> None:
    meta = encode_file_meta(FileMeta(SOP_CLASS, SOP_INSTANCE, IMPLICIT.transfer_syntax))[132:]
    found = inspect(write(tmp_path / "f", meta, identifying(IMPLICIT)))
    assert (found.sop_instance_uid, found.offset) == (SOP_INSTANCE, len(meta))


def test_file_meta_behind_the_length_of_another_group(shared_data: Path) -> None:
    """(0008,0000) comes first, with a VR of 16 bit lengths and a length of 32 bits. DCMTK's storescu sends it."""
    path = shared_data / "fuzz-pwnlab" / "cat09_logic_bombs" / "TC0469_group_len_zero.dcm"
    found = inspect(path)
    assert (found.sop_class_uid, found.transfer_syntax_uid) == ("1.2.840.10008.5.1.4.1.1.2", EXPLICIT.transfer_syntax)
    assert path.read_bytes()[found.offset :].startswith(b"\x08\0\x16\0UI")
    assert found.offset + found.size == path.stat().st_size


def test_long_file_meta_is_read_to_its_end(tmp_path: Path) -> None:
    meta = encode_file_meta(
        FileMeta(
            "1.2",
            "9.9.9",
            EXPLICIT.transfer_syntax,
            private_information_creator_uid="1.2",
            private_information=bytes(20_000),
        )
    )
    found = inspect(write(tmp_path / "f", meta, identifying(EXPLICIT)))
    assert found.offset == len(meta)
    assert found.sop_instance_uid in {SOP_INSTANCE, "9.9.9"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a DICOM file"),
        (b"\x08", "not a DICOM file"),
        (b"x" * 2000, "not a DICOM file"),
        (b"%PDF-1.4" + bytes(1000), "not a DICOM file"),
        (bytes(128) + b"DICM", "ends inside its file meta information"),
        (encode_file_meta(FileMeta("1.2", "1.2", "1.2"))[:200], "ends inside its file meta information"),
        (encode_file_meta(FileMeta("1.2", "1.2", "")) + b"\x10\0\x10\0PN", "names no transfer syntax"),
        (encode_file_meta(FileMeta("", "", "1.2.840.10008.1.2.1")) + identifying(EXPLICIT)[:40], "neither"),
        (identifying(EXPLICIT)[:40], "neither"),
    ],
)
def test_what_is_no_dicom_file(content: bytes, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "f", content)
    with pytest.raises(FileFormatError, match=said):
        inspect(path)
    assert is_marked(path) is (content[128:132] == b"DICM" or content[:2] == b"\x08\0")


def test_pydicom_sees_the_same_in_its_own_files() -> None:
    seen = 0
    for name in sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*.dcm")):
        try:
            found = inspect(name)
        except FileFormatError:
            continue
        data_set = dcmread(name, specific_tags=["SOPClassUID", "SOPInstanceUID"], force=True)
        if "SOPInstanceUID" in data_set:
            seen += 1
            assert (found.sop_class_uid, found.sop_instance_uid) == (data_set.SOPClassUID, data_set.SOPInstanceUID)
        if "TransferSyntaxUID" in data_set.file_meta:
            assert found.transfer_syntax_uid == data_set.file_meta.TransferSyntaxUID
    assert seen > 60


def test_equal_files_are_one_in_a_set(tmp_path: Path) -> None:
    one, same, other = (DicomFile(tmp_path / "1.dcm", "1.2", "1.3", "1.4", 132, size) for size in (10, 10, 12))
    assert {one, same} == {one}
    assert len({one, same, other}) == 2
