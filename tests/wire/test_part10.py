"""PS3.10 7.1, with pydicom as the second reader and writer, and real files."""

from __future__ import annotations

import csv
import struct
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import _read_file_meta_info, read_file_meta_info
from pydicom.filewriter import write_file_meta_info

from support.wire_values import ae_titles, mutilated, names, uids
from tomowire.errors import FileFormatError, IncompleteFileMeta, UsageError
from tomowire.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tomowire.wire.part10 import MAXIMUM_LENGTH, FileMeta, decode_file_meta, encode_file_meta

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
KEYWORDS = {
    "media_storage_sop_class_uid": "MediaStorageSOPClassUID",
    "media_storage_sop_instance_uid": "MediaStorageSOPInstanceUID",
    "transfer_syntax_uid": "TransferSyntaxUID",
    "implementation_class_uid": "ImplementationClassUID",
    "implementation_version_name": "ImplementationVersionName",
    "source_application_entity_title": "SourceApplicationEntityTitle",
    "sending_application_entity_title": "SendingApplicationEntityTitle",
    "receiving_application_entity_title": "ReceivingApplicationEntityTitle",
    "private_information_creator_uid": "PrivateInformationCreatorUID",
    "private_information": "PrivateInformation",
}

metas = st.builds(
    FileMeta,
    uids,
    uids,
    uids,
    implementation_class_uid=st.none() | uids,
    implementation_version_name=st.none() | names,
    source_application_entity_title=st.none() | ae_titles,
    sending_application_entity_title=st.none() | ae_titles,
    receiving_application_entity_title=st.none() | ae_titles,
    private_information_creator_uid=st.none() | uids,
    private_information=st.none() | st.binary(min_size=1, max_size=30).map(lambda data: data + data),
)

DATA_SET = bytes.fromhex("0800 0500 4353 0a00") + b"ISO_IR 100"  # (0008,0005)


def short(number: int, vr: bytes, content: bytes, *, group: int = 2, length: int | None = None) -> bytes:
    """An Explicit VR element with a 16 bit length, put together by hand (PS3.5 Table 7.1-2)."""
    return struct.pack("<HH2sH", group, number, vr, len(content) if length is None else length) + content


def long(number: int, vr: bytes, content: bytes, *, length: int | None = None) -> bytes:
    """An Explicit VR element with a 32 bit length (PS3.5 Table 7.1-1)."""
    return struct.pack("<HH2sxxI", 2, number, vr, len(content) if length is None else length) + content


def file(*elements: bytes, group_length: int | None = None, after: bytes = DATA_SET) -> bytes:
    body = b"".join(elements)
    length = short(0, b"UL", struct.pack("<I", len(body) if group_length is None else group_length))
    return bytes(128) + b"DICM" + length + body + after


ELEMENTS = (
    long(1, b"OB", b"\0\1"),
    short(2, b"UI", CT.encode() + b"\0"),
    short(3, b"UI", b"1.2.3\0"),
    short(0x10, b"UI", EXPLICIT.encode() + b"\0"),
)
READ = FileMeta(CT, "1.2.3", EXPLICIT, implementation_class_uid=None, implementation_version_name=None)


# --- bytes, round trips, and pydicom


def test_in_bytes() -> None:
    meta = FileMeta(CT, "1.2.3", EXPLICIT, "1.2", "ODD")
    ours = short(0x12, b"UI", b"1.2\0"), short(0x13, b"SH", b"ODD ")
    assert encode_file_meta(meta) == file(*ELEMENTS, *ours, after=b"")
    assert decode_file_meta(file(*ELEMENTS)) == (READ, len(file(*ELEMENTS)) - len(DATA_SET))


def test_files_carry_our_name() -> None:
    """PS3.10 7.1: the implementation that wrote the file."""
    meta = FileMeta(CT, "1.2", EXPLICIT)
    assert meta.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert meta.implementation_version_name == IMPLEMENTATION_VERSION_NAME


@given(metas, st.sampled_from((b"", DATA_SET)))
def test_round_trip(meta: FileMeta, after: bytes) -> None:
    data = encode_file_meta(meta)
    assert decode_file_meta(data + after) == (meta, len(data))
    assert decode_file_meta(memoryview(data + after)) == (meta, len(data))


def test_private_information_is_padded() -> None:
    meta, _ = decode_file_meta(encode_file_meta(FileMeta(CT, "1.2", EXPLICIT, private_information=b"odd")))
    assert meta.private_information == b"odd\0"


@given(metas)
def test_pydicom_reads_ours(meta: FileMeta) -> None:
    file = BytesIO(encode_file_meta(meta))
    file.seek(132)
    theirs: Any = _read_file_meta_info(file)
    for name, keyword in KEYWORDS.items():
        assert theirs.get(keyword) == getattr(meta, name)
    assert theirs.FileMetaInformationVersion == b"\0\1"
    assert theirs.FileMetaInformationGroupLength == len(file.getvalue()) - 144


@given(metas)
def test_we_read_pydicoms(meta: FileMeta) -> None:
    theirs = FileMetaDataset()
    for name, keyword in KEYWORDS.items():
        if getattr(meta, name) is not None:
            setattr(theirs, keyword, getattr(meta, name))
    theirs.FileMetaInformationVersion = b"\0\1"
    theirs.FileMetaInformationGroupLength = 0  # is put right when written
    file = BytesIO()
    write_file_meta_info(file, theirs, enforce_standard=False)
    data = bytes(128) + b"DICM" + file.getvalue()
    assert decode_file_meta(data) == (meta, len(data))


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "image_dfl.dcm", "JPEG2000.dcm", "DICOMDIR", "ExplVR_BigEnd.dcm"]
)
def test_real_files_read_as_pydicom_reads_them(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    compare_with_pydicom(path)


def compare_with_pydicom(path: Path) -> None:
    ours, offset = decode_file_meta(path.read_bytes()[: 64 * 1024])
    theirs: Any = read_file_meta_info(path)
    absent = dict.fromkeys(list(KEYWORDS)[:3], "")
    for name, keyword in KEYWORDS.items():
        assert getattr(ours, name) == theirs.get(keyword, absent.get(name))
    with path.open("rb") as file:
        file.seek(132)
        _read_file_meta_info(file)
        assert offset == file.tell()


def test_shared_files_read_as_pydicom_reads_them(shared_data: Path) -> None:
    """One file for each folder and transfer syntax."""
    with (shared_data / "MANIFEST.tsv").open(newline="") as manifest:
        rows = [row for row in csv.DictReader(manifest, delimiter="\t") if row["dcmread"] == "yes"]
    rows = [row for row in rows if not row["file"].startswith("fuzz")]  # where pydicom goes astray too
    chosen = {(Path(row["file"]).parts[0], row["transfer_syntax"]): shared_data / row["file"] for row in rows}
    assert len(chosen) > 20
    for path in chosen.values():
        compare_with_pydicom(path)


# --- any bytes, and too few of them


@given(
    st.one_of(
        st.binary(max_size=200),
        mutilated(metas.map(encode_file_meta)),
        st.binary(max_size=60).map(lambda data: file(data)),
    )
)
@example(bytes(128) + b"DICM")
@example(b"")
def test_any_bytes_give_file_meta_or_the_declared_error(data: bytes) -> None:
    try:
        meta, offset = decode_file_meta(data)
    except IncompleteFileMeta as error:
        assert len(data) < error.needed <= MAXIMUM_LENGTH + 20
    except FileFormatError as error:
        assert error.offset is not None
        assert 0 <= error.offset < len(data)
    else:
        assert 0 < offset <= len(data)
        assert isinstance(meta, FileMeta)


@pytest.mark.parametrize("group_length", [None, 0, 7])
def test_asking_again_with_what_is_needed_gets_there(group_length: int | None) -> None:
    data = file(*ELEMENTS, long(0x102, b"OB", bytes(2000)), group_length=group_length)
    have, asked = 0, 0
    while True:
        try:
            meta, offset = decode_file_meta(data[:have])
        except IncompleteFileMeta as error:
            assert have < error.needed <= len(data)
            have, asked = error.needed, asked + 1
        else:
            break
    assert (meta.transfer_syntax_uid, offset) == (EXPLICIT, len(data) - len(DATA_SET))
    assert asked < 20


def test_every_cut_is_incomplete_and_not_wrong() -> None:
    whole = file(*ELEMENTS)
    data_set = len(whole) - len(DATA_SET)
    for end in range(data_set):
        with pytest.raises(IncompleteFileMeta) as caught:
            decode_file_meta(whole[:end])
        assert end < caught.value.needed <= len(whole)
    for end in range(data_set, len(whole)):
        assert decode_file_meta(whole[:end]) == (READ, data_set)


@pytest.mark.parametrize("length", [MAXIMUM_LENGTH, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF])
def test_a_lying_length_is_refused_and_allocates_nothing(length: int) -> None:
    data = file(*ELEMENTS, long(0x102, b"OB", b"ab", length=length))
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError) as caught:
            decode_file_meta(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not isinstance(caught.value, IncompleteFileMeta)
    assert peak < 32 * 1024


# --- not a DICOM file


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n" * 20, bytes(132), DATA_SET * 20, bytes(128) + b"DICX"])
def test_what_has_no_prefix_is_no_dicom_file(data: bytes) -> None:
    with pytest.raises(FileFormatError) as caught:
        decode_file_meta(data)
    assert not isinstance(caught.value, IncompleteFileMeta)
    assert caught.value.offset == 128


def test_a_wrong_prefix_is_noticed_before_it_is_whole() -> None:
    with pytest.raises(FileFormatError) as caught:
        decode_file_meta(bytes(128) + b"DX")
    assert not isinstance(caught.value, IncompleteFileMeta)


@pytest.mark.parametrize("first", [0, 1])
def test_a_file_saved_without_preamble_and_prefix_is_read(first: int) -> None:
    data_set = DATA_SET * 10
    data = file(*ELEMENTS, after=data_set)[132:] if first == 0 else b"".join(ELEMENTS) + data_set
    assert decode_file_meta(data) == (READ, len(data) - len(data_set))


def test_a_file_of_nothing_but_a_transfer_syntax_and_a_data_set_is_read() -> None:
    """As some encoders' test images are: PS3.10 wants more, but nothing about the object is in doubt."""
    data = short(0x10, b"UI", b"1.2.840.10008.1.2.1\0") + DATA_SET * 10
    meta, offset = decode_file_meta(data)
    assert meta.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert offset == 28


def test_a_data_set_alone_is_no_dicom_file() -> None:
    with pytest.raises(FileFormatError):
        decode_file_meta(DATA_SET + b"\x02\x00\x01\x00OB" + bytes(200))


def test_the_preamble_may_be_anything() -> None:
    assert decode_file_meta(b"II*\0" * 32 + file(*ELEMENTS)[128:])[0] == READ  # a dual-personality TIFF (PS3.10 7.1)


# --- what real files get wrong


@pytest.mark.parametrize("group_length", [0, 1, 14, 60, 0xFFFFFFFF])
def test_a_wrong_group_length_is_tolerated(group_length: int) -> None:
    """14 ends between two elements of the group."""
    data = file(*ELEMENTS, group_length=group_length)
    assert decode_file_meta(data) == (READ, len(data) - len(DATA_SET))


def test_a_missing_group_length_is_tolerated() -> None:
    data = bytes(128) + b"DICM" + b"".join(ELEMENTS) + DATA_SET
    assert decode_file_meta(data) == (READ, len(data) - len(DATA_SET))


LENGTH_OF_ANOTHER_GROUP = short(0, b"UL", b"\x10\0\0\0", group=8)


@pytest.mark.parametrize(
    "before",
    [
        LENGTH_OF_ANOTHER_GROUP,
        LENGTH_OF_ANOTHER_GROUP + short(0, b"UL", b"", group=4),
        struct.pack("<HHII", 8, 0, 4, 16),  # in Implicit VR
        b"\x08\0\0\0UL\0\0\4\0\0\0\0\0\0\0",  # UL written as if it had a length of 32 bits, in a file of the fuzzing corpus
    ],
)
def test_group_lengths_of_other_groups_before_it_are_skipped(before: bytes) -> None:
    data = bytes(128) + b"DICM" + before + b"".join(ELEMENTS) + DATA_SET
    data_set = len(data) - len(DATA_SET)
    assert decode_file_meta(data) == (READ, data_set)
    for end in range(132 + 8, data_set):
        with pytest.raises(IncompleteFileMeta) as caught:
            decode_file_meta(data[:end])
        assert end < caught.value.needed <= len(data)


@pytest.mark.parametrize(
    "after",
    [
        LENGTH_OF_ANOTHER_GROUP + DATA_SET,  # a data set without file meta information
        DATA_SET + b"".join(ELEMENTS),
        LENGTH_OF_ANOTHER_GROUP * 5 + b"".join(ELEMENTS),
        short(0, b"OB", b"12345678", group=8) + b"".join(ELEMENTS),
        struct.pack("<HHI", 8, 0, 0xFFFFFFFF) + b"".join(ELEMENTS),
    ],
)
def test_nothing_else_is_skipped(after: bytes) -> None:
    assert decode_file_meta(bytes(128) + b"DICM" + after) == (FileMeta("", "", "", None, None), 132)


def test_a_group_length_of_another_size_is_not_believed() -> None:
    data = bytes(128) + b"DICM" + short(0, b"UL", b"\0\0") + b"".join(ELEMENTS) + DATA_SET
    assert decode_file_meta(data) == (READ, len(data) - len(DATA_SET))


def test_missing_elements_are_empty() -> None:
    data = file()
    assert decode_file_meta(data) == (FileMeta("", "", "", None, None), 144)


def test_a_file_without_a_data_set_needs_a_right_group_length() -> None:
    data = file(*ELEMENTS, after=b"")
    assert decode_file_meta(data) == (READ, len(data))
    with pytest.raises(IncompleteFileMeta):
        decode_file_meta(file(*ELEMENTS, group_length=0, after=b""))


@pytest.mark.parametrize("after", [b"\x02\x00\xff\xff\xff\xff\x12\x34", b"\x02\x00"])
def test_a_deflated_data_set_may_look_like_group_2(after: bytes) -> None:
    data = file(*ELEMENTS, after=after)
    assert decode_file_meta(data) == (READ, len(data) - len(after))


def test_implicit_vr_is_tolerated() -> None:
    elements = [
        struct.pack("<HHI", 2, number, len(text)) + text for number, text in ((2, b"1.2\0"), (0x10, b"1.2.840\0"))
    ]
    data = bytes(128) + b"DICM" + b"".join(elements) + DATA_SET
    assert decode_file_meta(data) == (FileMeta("1.2", "", "1.2.840", None, None), len(data) - len(DATA_SET))


@pytest.mark.parametrize("vr", [b"\0\0", b"\xff\xff", b"ui", b"99", b" U"])
def test_letters_that_are_no_vr_are_tolerated(vr: bytes) -> None:
    data = file(ELEMENTS[0], short(2, vr, CT.encode() + b"\0"), *ELEMENTS[2:])
    assert decode_file_meta(data) == (READ, len(data) - len(DATA_SET))


def test_unknown_elements_are_skipped() -> None:
    strange = long(0x4711, b"ZZ", b"abcd"), long(0x0026, b"UR", b"http://x"), short(0x17, b"AE", b" SENDER ")
    meta, _ = decode_file_meta(file(*ELEMENTS, *strange))
    assert meta.sending_application_entity_title == "SENDER"


# --- what cannot be written


@pytest.mark.parametrize(
    "meta",
    [
        FileMeta(CT, "1" * 0x10000, EXPLICIT),
        FileMeta(CT, "1.2", EXPLICIT, source_application_entity_title="\N{EURO SIGN}"),
    ],
)
def test_what_does_not_fit_is_the_callers_fault(meta: FileMeta) -> None:
    with pytest.raises(UsageError):
        encode_file_meta(meta)
