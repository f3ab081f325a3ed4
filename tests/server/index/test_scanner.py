"""The scanner against pydicom, against itself in other pieces, and against what is cut short or damaged."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset

from support.data_sets import (
    BIG,
    ENCODERS,
    EXPLICIT,
    IMPLICIT,
    UNDEFINED,
    Encoder,
    StoredDataSet,
    elements_of_an_image,
    pydicom_data_sets,
    stored_data_sets,
)
from tomowire.errors import DataSetError
from tomowire.server.index.extraction import instance_record
from tomowire.server.index.inflate import Inflater
from tomowire.server.index.scanner import WINDOW, HeaderScanner, ScannedHeader, scan
from tomowire.server.index.walker import MAXIMUM_DEPTH, MAXIMUM_VALUE
from tomowire.server.index.wanted import ATTRIBUTES

DEFLATED = "1.2.840.10008.1.2.1.99"
CUT_SHORT = {"MR_truncated.dcm", "rtplan_truncated.dcm"}

by_encoder = pytest.mark.parametrize("encoder", ENCODERS, ids=["implicit", "explicit", "big-endian"])


def image(encoder: Encoder) -> bytes:
    return b"".join(elements_of_an_image(encoder))


def deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


SAMPLES = [(encoder.transfer_syntax, image(encoder)) for encoder in ENCODERS] + [(DEFLATED, deflate(image(EXPLICIT)))]
by_sample = pytest.mark.parametrize(
    ("transfer_syntax", "data"), SAMPLES, ids=["implicit", "explicit", "big", "deflated"]
)


# --- pydicom as oracle ------------------------------------------------------------------------------------------------


def check_against_pydicom(stored: StoredDataSet) -> None:
    """All wanted values are what pydicom has as raw values; a sequence is there if pydicom has it."""
    found = scan(stored.transfer_syntax, [stored.data]).values
    expected = dcmread(io.BytesIO(stored.path.read_bytes()), force=True)
    for tag, attribute in ATTRIBUTES.items():
        element = expected.get_item(tag)
        if attribute.vr == "SQ" or not isinstance(element, RawDataElement):  # absent, or converted in the reading
            assert (tag in found) == (element is not None), (stored.path.name, hex(tag))
        elif element.length <= MAXIMUM_VALUE:
            assert found[tag] == (element.value or b""), (stored.path.name, hex(tag))


def test_every_file_of_pydicom_is_read_as_pydicom_reads_it() -> None:
    checked = [stored.path.name for stored in pydicom_data_sets() if stored.path.name not in CUT_SHORT]
    for stored in pydicom_data_sets():
        if stored.path.name not in CUT_SHORT:
            check_against_pydicom(stored)
    assert len(checked) > 90


@pytest.mark.parametrize(
    "folder",
    [
        "bulk-studyforrest", "dcm_qa_nih", "dcmjs", "dcmjs-dimse", "dcmqi", "dicomParser", "highdicom", "nibabel", "odil",
        "pydicom-data", "synthetic-dcmtk", "worklist-dcmtk",
    ],
)  # fmt: skip
def test_every_shared_file_is_read_as_pydicom_reads_it(shared_data: Path, folder: str) -> None:
    checked = 0
    for stored in stored_data_sets(shared_data / folder):
        check_against_pydicom(stored)
        checked += 1
    assert checked


# --- pieces -----------------------------------------------------------------------------------------------------------


def pieces(data: bytes | bytearray, cuts: list[int]) -> Iterator[memoryview]:
    """`data` cut at these places, in one buffer that is used again for each piece, as the receiving side does."""
    buffer = bytearray(len(data))
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        buffer[: end - start] = data[start:end]
        yield memoryview(buffer)[: end - start]


@by_sample
@given(cuts=st.lists(st.integers(min_value=0), max_size=40))
def test_any_pieces_give_the_same(transfer_syntax: str, data: bytes, cuts: list[int]) -> None:
    assert scan(transfer_syntax, pieces(data, cuts)) == scan(transfer_syntax, [data])


@by_sample
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 12, 13])
def test_equal_pieces_give_the_same(transfer_syntax: str, data: bytes, size: int) -> None:
    assert scan(transfer_syntax, pieces(data, list(range(0, len(data), size)))) == scan(transfer_syntax, [data])


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "rtplan.dcm", "image_dfl.dcm", "ExplVR_BigEnd.dcm", "test-SR.dcm", "UN_sequence.dcm"]
)
@pytest.mark.parametrize("size", [1, 11, 16372])
def test_real_objects_in_pieces(name: str, size: int) -> None:
    (stored,) = [stored for stored in pydicom_data_sets() if stored.path.name == name]
    cuts = list(range(0, len(stored.data), size))
    assert scan(stored.transfer_syntax, pieces(stored.data, cuts)) == scan(stored.transfer_syntax, [stored.data])


@by_encoder
@pytest.mark.parametrize("before", [WINDOW - 20, WINDOW - 9, WINDOW - 1, WINDOW, 3 * WINDOW + 5])
def test_what_lies_across_the_end_of_a_window(encoder: Encoder, before: int) -> None:
    """Headers, wanted values and wanted sequences begin in one window and end in another."""
    filler = [encoder.element(0x00090000 + number, "LO", b"x" * 20) for number in range(0x1000, 0x1000 + before // 28)]
    filler.append(encoder.element(0x00091000, "LO", b"x" * (before - len(b"".join(filler)) - 8)))
    alone, behind = (
        scan(encoder.transfer_syntax, [image(encoder)]),
        scan(encoder.transfer_syntax, [b"".join(filler) + image(encoder)]),
    )
    assert behind.values == alone.values


# --- cut short --------------------------------------------------------------------------------------------------------


def assert_whole_only_at(transfer_syntax: str, data: bytes, boundaries: set[int]) -> None:
    for end in range(len(data)):
        try:
            header = scan(transfer_syntax, [data[:end]])
        except DataSetError:
            assert end not in boundaries
        else:
            assert end in boundaries, end
            assert header.length == end


@by_encoder
def test_a_data_set_is_whole_only_at_the_end_of_an_element(encoder: Encoder) -> None:
    elements = elements_of_an_image(encoder)
    boundaries = {len(b"".join(elements[:count])) for count in range(len(elements))}
    assert_whole_only_at(encoder.transfer_syntax, image(encoder), boundaries)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_implicit.dcm", "rtplan.dcm", "MR_small_bigendian.dcm"])
def test_every_prefix_of_a_real_object(name: str) -> None:
    (stored,) = [stored for stored in pydicom_data_sets() if stored.path.name == name]
    encoder = next(encoder for encoder in ENCODERS if encoder.transfer_syntax == stored.transfer_syntax)
    file = io.BytesIO(stored.data)
    elements = read_dataset(file, encoder.implicit, encoder.mark == "<")._dict.values()
    # A sequence of undefined length is already parsed: its element says where its value begins, as raw elements do.
    starts = {
        (element.value_tell if hasattr(element, "value_tell") else element.file_tell)
        - (8 if encoder.implicit or element.VR not in {"OB", "OW", "SQ", "UN", "UT"} else 12)
        for element in elements
    }
    assert 0 in starts
    assert len(starts) > 30
    assert_whole_only_at(stored.transfer_syntax, stored.data, starts)


def test_a_deflated_data_set_is_never_whole_before_its_end() -> None:
    data = deflate(image(EXPLICIT))
    for end in range(len(data)):
        with pytest.raises(DataSetError):
            scan(DEFLATED, [data[:end]])


@pytest.mark.parametrize("name", sorted(CUT_SHORT))
def test_objects_that_are_known_to_be_cut_short(name: str) -> None:
    (stored,) = [stored for stored in pydicom_data_sets() if stored.path.name == name]
    with pytest.raises(DataSetError, match=r"the last value lacks \d+ bytes"):
        scan(stored.transfer_syntax, [stored.data])


def test_padding_behind_the_last_element_is_not_an_element_cut_short() -> None:
    for padding in (1, 2, 7, 8, 9, 2048):
        for encoder in ENCODERS if padding % 8 != 1 else (IMPLICIT, EXPLICIT):  # in big endian it may begin a tag
            assert scan(encoder.transfer_syntax, [image(encoder) + bytes(padding)]).values[0x00100020] == b"4711"


# --- damaged ----------------------------------------------------------------------------------------------------------


def outcome(transfer_syntax: str, pieces: Iterable[memoryview]) -> ScannedHeader | None:
    """None if the data set is refused."""
    try:
        header = scan(transfer_syntax, pieces)
    except DataSetError as error:
        assert error.offset is not None
        return None
    instance_record(header)
    return header


@by_sample
@given(
    changes=st.lists(st.tuples(st.integers(min_value=0), st.binary(min_size=1, max_size=6)), min_size=1, max_size=6),
    cuts=st.lists(st.integers(min_value=0), max_size=10),
)
def test_damage_raises_nothing_but_the_declared_error(
    transfer_syntax: str, data: bytes, changes: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(data) : place % len(data) + len(value)] = value
    assert outcome(transfer_syntax, pieces(damaged, cuts)) == outcome(transfer_syntax, [memoryview(damaged)])


def test_a_length_that_looks_like_a_vr_is_read_alike_in_any_pieces() -> None:
    data = EXPLICIT.tag(0xFFFEE000) + b"OB\0\0\x02\0\0\0ab"
    assert outcome(EXPLICIT.transfer_syntax, pieces(data, [8])) == outcome(EXPLICIT.transfer_syntax, [memoryview(data)])


@given(data=st.binary(max_size=200), transfer_syntax=st.sampled_from([sample[0] for sample in SAMPLES] + ["1.2.3", ""]))
def test_noise_raises_nothing_but_the_declared_error(data: bytes, transfer_syntax: str) -> None:
    try:
        instance_record(scan(transfer_syntax, [data]))
    except DataSetError:
        pass


def test_malformed_objects_raise_nothing_but_the_declared_error(shared_data: Path) -> None:
    refused = set()
    for stored in stored_data_sets(shared_data / "fuzz-pwnlab"):
        try:
            instance_record(scan(stored.transfer_syntax, [stored.data]))
        except DataSetError:
            refused.add(stored.path.name.split("_")[0])
    # DCMTK's storescu finds all of them too broken to be sent, but for TC0963, to which it adds the missing delimiter.
    assert refused == {
        "TC0405", "TC0709", "TC0711", "TC0713", "TC0717", "TC0719", "TC0963", "TC0971", "TC1143", "TC1145", "TC1153",
    }  # fmt: skip


# --- memory -----------------------------------------------------------------------------------------------------------


def peak_memory(scanner: HeaderScanner, pieces: Iterator[bytes | memoryview]) -> int:
    """Bytes allocated at the most while the scanner reads these pieces."""
    tracemalloc.start()
    try:
        for piece in pieces:
            scanner.feed(piece)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@by_encoder
@pytest.mark.parametrize("tag", [0x7FE00010, 0x00104000, 0x00400275], ids=["pixels", "wanted text", "wanted sequence"])
def test_a_value_of_200_megabytes_costs_no_memory(encoder: Encoder, tag: int) -> None:
    block, blocks = memoryview(bytearray(1 << 20)), 200
    vr = {0x7FE00010: "OW", 0x00104000: "UT", 0x00400275: "SQ"}[tag]
    scanner = HeaderScanner(encoder.transfer_syntax)
    scanner.feed(encoder.element(0x00080060, "CS", b"CT") + encoder.element(tag, vr, b"", length=len(block) * blocks))
    assert peak_memory(scanner, (block for _ in range(blocks))) < 128 * 1024
    assert set(scanner.finish().values) == {0x00080060}


@by_encoder
def test_a_wanted_sequence_without_end_costs_no_memory(encoder: Encoder) -> None:
    items = memoryview(encoder.item(encoder.element(0x00400009, "SH", b"SPS1"), defined=False) * 20_000)
    scanner = HeaderScanner(encoder.transfer_syntax)
    scanner.feed(encoder.element(0x00400275, "SQ", b"", length=UNDEFINED))
    assert peak_memory(scanner, (items for _ in range(5))) < 512 * 1024
    scanner.feed(encoder.sequence_delimiter)
    assert scanner.finish().values == {}


@by_encoder
@pytest.mark.parametrize("more", [0, 2])
def test_a_wanted_sequence_is_kept_up_to_the_limit(encoder: Encoder, more: int) -> None:
    content = MAXIMUM_VALUE - 8 - len(encoder.sequence_delimiter)
    sequence = encoder.sequence(0x00400275, encoder.item(bytes(content + more)), defined=False)
    values = scan(encoder.transfer_syntax, [sequence]).values
    assert [len(value) for value in values.values()] == ([] if more else [MAXIMUM_VALUE])


def test_a_deflate_bomb_costs_no_memory() -> None:
    size = 64 << 20
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = stream.compress(EXPLICIT.element(0x7FE00010, "OW", b"", length=size))
    zeros = bytes(1 << 20)
    bomb += b"".join(stream.compress(zeros) for _ in range(size >> 20)) + stream.flush()
    assert len(bomb) < size / 900
    scanner = HeaderScanner(DEFLATED)
    assert peak_memory(scanner, iter([bomb])) < 2 << 20
    assert scanner.finish().length == size + 12


def test_a_deflated_data_set_has_a_ceiling() -> None:
    bomb = memoryview(deflate(bytes(1 << 20)))
    assert sum(map(len, Inflater(ceiling=1 << 20).inflate(bomb))) == 1 << 20
    with pytest.raises(DataSetError, match="inflates to more than"):
        list(Inflater(ceiling=(1 << 20) - 1).inflate(bomb))


# --- structure --------------------------------------------------------------------------------------------------------


def nested(encoder: Encoder, depth: int, *, defined: bool) -> bytes:
    content = b""
    for _ in range(depth):
        content = encoder.sequence(0x00400275, encoder.item(content, defined=defined), defined=defined)
    return content


@by_encoder
def test_sequences_within_sequences(encoder: Encoder) -> None:
    scan(encoder.transfer_syntax, [nested(encoder, MAXIMUM_DEPTH, defined=False)])
    with pytest.raises(DataSetError, match="within each other"):
        scan(encoder.transfer_syntax, [nested(encoder, MAXIMUM_DEPTH + 1, defined=False)])
    scan(encoder.transfer_syntax, [nested(encoder, 2000, defined=True)])  # skipped by its length


@by_encoder
def test_wanted_elements_within_sequences_are_not_those_of_the_data_set(encoder: Encoder) -> None:
    header = scan(encoder.transfer_syntax, [image(encoder)])
    assert 0x00400009 not in header.values
    assert header.values[0x00080018] == b"1.2.3.4\0"


@by_encoder
def test_lengths_and_delimiters_may_both_be_there(encoder: Encoder) -> None:
    """A delimiter behind an item or a sequence that has a length: needless, but read by DCMTK and pydicom."""
    sequence = encoder.element(
        0x00400275, "SQ", encoder.item(b"") + encoder.item_delimiter + encoder.sequence_delimiter, length=UNDEFINED
    )
    data = sequence + encoder.sequence(0x00400555, encoder.item(b"")) + encoder.sequence_delimiter + image(encoder)
    assert scan(encoder.transfer_syntax, [data]).values[0x00100020] == b"4711"


@by_encoder
@pytest.mark.parametrize("place", ["data set", "sequence", "item"])
def test_what_does_not_belong_there(encoder: Encoder, place: str) -> None:
    e = encoder
    element, item, end = e.element(0x00080060, "CS", b"CT"), e.item(b""), e.sequence_delimiter
    opened = e.element(0x00400275, "SQ", b"", length=UNDEFINED)
    opened_item = opened + e.tag(0xFFFEE000) + b"\xff" * 4
    data = {"data set": element + item, "sequence": opened + element + end, "item": opened_item + end + end}[place]
    with pytest.raises(DataSetError, match="is due") as raised:
        scan(e.transfer_syntax, [data])
    assert raised.value.offset == {"data set": len(element), "sequence": len(opened), "item": len(opened_item)}[place]


@pytest.mark.parametrize("encoder", [EXPLICIT, BIG])
def test_fragments_are_not_data_sets(encoder: Encoder) -> None:
    pixels = encoder.sequence(0x7FE00010, encoder.item(b"\xff\xd8", defined=False), defined=False, vr="OB")
    with pytest.raises(DataSetError, match="a fragment of undefined length"):
        scan(encoder.transfer_syntax, [pixels])


# --- what the standard or practice asks to be tolerated ---------------------------------------------------------------


@by_encoder
def test_order_and_repetition(encoder: Encoder) -> None:
    elements = [
        encoder.element(0x00100020, "LO", b"B "),
        encoder.element(0x00080060, "CS", b"MR"),
        encoder.element(0x00100020, "LO", b"A "),
    ]
    values = scan(encoder.transfer_syntax, [b"".join(elements)]).values
    assert values == {0x00100020: b"A ", 0x00080060: b"MR"}  # the last one, as pydicom has it


def test_unknown_value_representation_is_a_sequence_in_implicit_vr() -> None:
    """PS3.5 6.2.2: the value of UN of undefined length is implicit VR little endian in every transfer syntax."""
    items = IMPLICIT.sequence(
        0x00400275, IMPLICIT.item(IMPLICIT.element(0x00400009, "SH", b"SPS1"), defined=False), defined=False
    )[8:]
    for encoder in (EXPLICIT, BIG):
        data = encoder.element(0x00400275, "UN", items, length=UNDEFINED) + encoder.element(0x00100020, "LO", b"4711")
        record = instance_record(scan(encoder.transfer_syntax, [data]))
        assert record.patient.patient_id == "4711"
        assert [item.scheduled_procedure_step_id for item in record.series.request_attributes_sequence] == ["SPS1"]


def test_unknown_value_representation_with_explicit_vr_inside() -> None:
    items = EXPLICIT.item(EXPLICIT.element(0x00400009, "SH", b"SPS1"), defined=False) + EXPLICIT.sequence_delimiter
    data = EXPLICIT.element(0x00091010, "UN", items, length=UNDEFINED) + EXPLICIT.element(0x00100020, "LO", b"4711")
    assert scan(EXPLICIT.transfer_syntax, [data]).values[0x00100020] == b"4711"


@pytest.mark.parametrize(
    "element",
    [
        EXPLICIT.tag(0x00091001) + b"ZZ\x04\0abcd",  # not a VR, 16 bit length: as pydicom reads it
        EXPLICIT.tag(0x00091001) + b"ZZ\0\0\x04\0\0\0abcd",  # a VR to come, 32 bit length: PS3.5 6.2
        EXPLICIT.tag(0x00091001) + b"ZZ\0\0\xff\xff\xff\xff" + EXPLICIT.sequence_delimiter,
        EXPLICIT.tag(0x00091001) + b"  \x04\0abcd",  # left blank: as DCMTK reads it
        EXPLICIT.tag(0x00091001) + b"\0\0\x04\0abcd",
        EXPLICIT.tag(0x00091001) + b"\x04\0\0\0abcd",  # implicit VR: as pydicom reads it
        EXPLICIT.tag(0x00091001) + b"UN\0\0\x04\0\0\0abcd",
        EXPLICIT.tag(0x00020010) + b"UI\x04\x001.2\0",  # file meta information among the elements: not looked at
        EXPLICIT.tag(0x00000002) + b"UI\x04\x001.2\0",
        EXPLICIT.tag(0x00091001) + b"LO\x03\0abc",  # odd length
    ],
)
def test_elements_that_others_write(element: bytes) -> None:
    data = EXPLICIT.element(0x00080060, "CS", b"CT") + element + EXPLICIT.element(0x00100020, "LO", b"4711")
    assert scan(EXPLICIT.transfer_syntax, pieces(data, list(range(len(data))))).values == {
        0x00080060: b"CT",
        0x00100020: b"4711",
    }


def test_a_wanted_element_with_implicit_vr_among_explicit_ones() -> None:
    data = EXPLICIT.element(0x00080060, "CS", b"CT") + IMPLICIT.sequence(0x00400275, IMPLICIT.item(b""), defined=False)
    assert set(scan(EXPLICIT.transfer_syntax, [data]).values) == {0x00080060, 0x00400275}


@pytest.mark.parametrize(("said", "found"), [(IMPLICIT, EXPLICIT), (EXPLICIT, IMPLICIT)], ids=["explicit", "implicit"])
def test_a_transfer_syntax_that_is_not_true(said: Encoder, found: Encoder) -> None:
    header = scan(said.transfer_syntax, [image(found)])
    assert header.layout is scan(found.transfer_syntax, [image(found)]).layout
    assert header.values == scan(found.transfer_syntax, [image(found)]).values


def test_what_follows_a_deflated_data_set_is_ignored() -> None:
    data = deflate(image(EXPLICIT))
    for more in (b"\0", b"\x12\x34\x56\x78\0\0\1\2"):
        assert scan(DEFLATED, pieces(data + more, list(range(len(data) + 8)))) == scan(DEFLATED, [data])


def test_a_data_set_that_begins_with_file_meta_information_is_refused() -> None:
    """Readers of the stored file would go by its Transfer Syntax UID instead of the one that was negotiated."""
    for encoder in ENCODERS:
        meta = EXPLICIT.element(0x00020010, "UI", b"1.2.840.10008.1.2.2\0")
        with pytest.raises(DataSetError, match="file meta information"):
            scan(encoder.transfer_syntax, pieces(meta + image(encoder), [1, 2, 3]))


@by_encoder
def test_a_vr_that_is_not_that_of_the_dictionary_is_noted(encoder: Encoder) -> None:
    data = encoder.element(0x00280010, "UL", b"\0\0\0\0") + encoder.element(0x00280011, "US", b"\0\0")
    assert scan(encoder.transfer_syntax, [data]).odd_vrs == ({} if encoder is IMPLICIT else {0x00280010: "UL"})


def test_nothing_is_a_data_set_without_elements() -> None:
    for transfer_syntax, _ in SAMPLES[:3]:
        assert scan(transfer_syntax, []).values == {}
