"""From raw values to the record: against pydicom, and for each kind of value."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_charset_files
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from support.data_sets import (
    BIG,
    ENCODERS,
    EXPLICIT,
    IMPLICIT,
    Encoder,
    StoredDataSet,
    elements_of_an_image,
    pydicom_data_sets,
    stored_data_sets,
)
from tomowire.server.index.attributes import (
    LEVELS,
    CodedConcept,
    InstanceRecord,
    ReferencedInstance,
    RequestAttributes,
    attributes_of,
)
from tomowire.server.index.extraction import instance_record
from tomowire.server.index.scanner import scan
from tomowire.server.index.sequences import MAXIMUM_ITEMS

CUT_SHORT = {"MR_truncated.dcm", "rtplan_truncated.dcm"}

by_encoder = pytest.mark.parametrize("encoder", ENCODERS, ids=["implicit", "explicit", "big-endian"])


def record_of(encoder: Encoder, *elements: bytes) -> InstanceRecord:
    return instance_record(scan(encoder.transfer_syntax, [b"".join(elements)]))


# --- pydicom as oracle ------------------------------------------------------------------------------------------------


def expected_text(value: Any, vr: str) -> str:
    """pydicom's value as the record has it: values joined by backslashes, without padding."""
    if value is None:
        return ""
    if isinstance(value, MultiValue | list):
        return "\\".join(expected_text(one, vr) for one in value)
    text = str(value)
    if vr in {"DA", "TM"}:  # in the forms of ACR-NEMA
        text = text.replace("." if vr == "DA" else ":", "")
    return text.rstrip(" \0") if vr == "LT" else text.strip(" \0")


def expected_number(value: Any, vr: str) -> int | float | None:
    first = value[0] if isinstance(value, MultiValue) else value
    try:
        return None if first is None else float(first) if vr == "DS" else int(first)
    except ValueError:  # pydicom gives text as it is if it is not a number
        return None


def check_level(level: Any, data_set: Dataset, where: str) -> None:
    for name, attribute in attributes_of(type(level)).items():
        found, element = getattr(level, name), data_set.get(attribute.tag)
        value = None if element is None else element.value
        if attribute.item is not None:
            assert len(found) == len(value or ()), (where, name)
            for item, expected in zip(found, value or (), strict=True):
                check_level(item, expected, where)
        elif attribute.vr in {"IS", "DS", "US"}:
            assert found == expected_number(value, attribute.vr), (where, name)
        else:
            assert found == expected_text(value, attribute.vr), (where, name)


def check_against_pydicom(data_sets: Iterable[StoredDataSet]) -> int:
    checked = 0
    for stored in data_sets:
        record = instance_record(scan(stored.transfer_syntax, [stored.data]))
        expected = dcmread(io.BytesIO(stored.path.read_bytes()), force=True)
        assert record.transfer_syntax_uid == stored.transfer_syntax
        for level in (record.patient, record.study, record.series, record.instance):
            check_level(level, expected, stored.path.name)
        checked += 1
    return checked


def test_every_file_of_pydicom_gives_what_pydicom_reads() -> None:
    whole = (stored for stored in pydicom_data_sets() if stored.path.name not in CUT_SHORT)
    assert check_against_pydicom(whole) > 90


@pytest.mark.parametrize(
    "folder",
    ["dcmjs", "dcmqi", "dicomParser", "highdicom", "nibabel", "pydicom-data", "synthetic-dcmtk", "worklist-dcmtk"],
)
def test_every_shared_file_gives_what_pydicom_reads(shared_data: Path, folder: str) -> None:
    assert check_against_pydicom(stored_data_sets(shared_data / folder))


def test_real_series_give_what_pydicom_reads(shared_data: Path) -> None:
    every_tenth = list(stored_data_sets(shared_data / "dcm_qa_nih", shared_data / "bulk-studyforrest"))[::10]
    assert check_against_pydicom(every_tenth) > 80


@pytest.mark.parametrize("name", sorted(Path(name).name for name in get_charset_files("*.dcm")))
def test_character_sets_are_decoded_as_pydicom_does(name: str) -> None:
    (path,) = get_charset_files(name)
    stored = StoredDataSet.of(Path(path))
    assert stored is not None
    record = instance_record(scan(stored.transfer_syntax, [stored.data]))
    expected = dcmread(path)
    assert record.patient.patient_name == str(expected.get("PatientName", ""))
    assert record.study.study_description == str(expected.get("StudyDescription", ""))
    if "PatientName" in expected:
        assert not record.patient.patient_name.isascii()


# --- each kind of value -----------------------------------------------------------------------------------------------


@by_encoder
def test_an_image(encoder: Encoder) -> None:
    record = record_of(encoder, *elements_of_an_image(encoder))
    assert record.transfer_syntax_uid == encoder.transfer_syntax
    assert record.patient.patient_name == "Müller^Jörg"
    assert record.patient.patient_name_normalized == "muller jorg"
    assert record.patient.patient_comments == "x" * 300
    assert record.study.study_instance_uid == "1.2.5"
    assert record.study.procedure_code_sequence == (CodedConcept("P5-0", "", "", "CT thorax"),)
    assert record.study.referenced_study_sequence == (ReferencedInstance("", "1.2.9"),)
    assert record.series.modality == "CT"
    assert record.series.request_attributes_sequence == (RequestAttributes("SPS1", ""), RequestAttributes())
    assert record.instance.sop_instance_uid == "1.2.3.4"
    assert (record.instance.instance_number, record.instance.rows, record.instance.columns) == (33, 512, None)


@by_encoder
def test_without_any_element_all_is_empty(encoder: Encoder) -> None:
    record = record_of(encoder)
    assert (record.patient, record.study, record.series, record.instance) == tuple(level() for level in LEVELS)


def test_several_values_and_padding() -> None:
    record = record_of(
        EXPLICIT,
        EXPLICIT.element(0x00080008, "CS", b"ORIGINAL\\PRIMARY \\AXIAL "),
        EXPLICIT.element(0x00080018, "UI", b" 1.2.3\0\0"),
        EXPLICIT.element(0x00100010, "PN", b" Doe^John  "),
        EXPLICIT.element(0x00104000, "LT", b"  two \\ lines\r\nof text  \0"),
        EXPLICIT.element(0x00101001, "PN", b"A^B=\\C^D== "),
    )
    assert record.instance.image_type == "ORIGINAL\\PRIMARY\\AXIAL"
    assert record.instance.sop_instance_uid == "1.2.3"
    assert record.patient.patient_name == "Doe^John"
    assert record.patient.patient_comments == "  two \\ lines\r\nof text"
    assert record.patient.other_patient_names == "A^B\\C^D"


def test_what_the_database_finds_rows_by_is_not_too_long_for_it() -> None:
    """PostgreSQL's limit for a row of an index is 2704 bytes; a character takes up to four."""
    from tomowire.server.index.schema import metadata
    from tomowire.server.index.statements import patient_identity

    levels = dict(zip(("patients", "studies", "series"), LEVELS, strict=False))
    elements = {
        declared.tag: IMPLICIT.element(declared.tag, declared.vr, "\N{GRINNING FACE}".encode() * 5000)
        for level in levels.values()
        for declared in attributes_of(level).values()
        if declared.vr in {"DA", "TM", "SH", "LO", "CS", "PN"}
    }
    elements[0x00080005] = IMPLICIT.element(0x00080005, "CS", b"ISO_IR 192")
    record = record_of(IMPLICIT, *(elements[tag] for tag in sorted(elements)))
    assert len(record.patient.patient_name) == 5000
    assert len(patient_identity(record.patient).encode()) < 2700
    for table, level in zip(levels, (record.patient, record.study, record.series), strict=True):
        for index in metadata.tables[table].indexes:
            values = [getattr(level, column.name, "") for column in index.columns]
            assert sum(len(value.encode()) for value in values) < 2700, index.name


def test_dates_and_times_of_acr_nema() -> None:
    record = record_of(
        EXPLICIT,
        EXPLICIT.element(0x00080020, "DA", b"1993.08.22"),
        EXPLICIT.element(0x00080030, "TM", b"10:11:12.5"),
        EXPLICIT.element(0x00080021, "DA", b"19930822"),
        EXPLICIT.element(0x00080031, "TM", b"101112.5"),
    )
    assert (record.study.study_date, record.study.study_time) == ("19930822", "101112.5")
    assert (record.series.series_date, record.series.series_time) == ("19930822", "101112.5")


def test_values_in_another_vr_than_the_dictionary_s() -> None:
    record = record_of(
        BIG,
        BIG.element(0x00080060, "LO", b"CT"),
        BIG.element(0x00200013, "US", b"\0\x21"),
        BIG.element(0x00280010, "IS", b"512 "),
        BIG.element(0x00280011, "UN", b"\0\2"),  # PS3.5 6.2.2: little endian
    )
    assert record.series.modality == "CT"
    assert (record.instance.instance_number, record.instance.rows, record.instance.columns) == (33, 512, 512)


def test_numbers_that_are_none() -> None:
    record = record_of(
        EXPLICIT,
        EXPLICIT.element(0x00101030, "DS", b"heavy "),
        EXPLICIT.element(0x00200013, "IS", b""),
        EXPLICIT.element(0x00280010, "US", b"\1"),
    )
    assert (record.study.patient_weight, record.instance.instance_number, record.instance.rows) == (None, None, None)


@by_encoder
def test_an_item_has_its_own_character_set_or_that_of_the_data_set(encoder: Encoder) -> None:
    own = encoder.element(0x00080005, "CS", b"ISO_IR 192") + encoder.element(0x00080104, "LO", "Schädel".encode())
    inherited = encoder.element(0x00080104, "LO", "Schädel".encode("latin-1"))  # PS3.5 7.5.3
    record = record_of(
        encoder,
        encoder.element(0x00080005, "CS", b"ISO_IR 100"),
        encoder.sequence(0x00081032, encoder.item(own), encoder.item(inherited, defined=False), defined=False),
    )
    assert [code.code_meaning for code in record.study.procedure_code_sequence] == ["Schädel", "Schädel"]


def test_items_within_a_value_of_vr_un_are_implicit() -> None:
    items = IMPLICIT.item(IMPLICIT.element(0x00400009, "SH", b"SPS1")) + IMPLICIT.item(b"", defined=False)
    for encoder in (EXPLICIT, BIG):
        record = record_of(encoder, encoder.element(0x00400275, "UN", items))
        assert record.series.request_attributes_sequence == (RequestAttributes("SPS1", ""), RequestAttributes())


@by_encoder
@pytest.mark.parametrize("defined", [True, False])
def test_a_sequence_within_an_item_does_not_hide_what_follows(encoder: Encoder, defined: bool) -> None:
    inner = encoder.sequence(
        0x00400008, encoder.item(encoder.element(0x00400009, "SH", b"NO"), defined=defined), defined=defined
    )
    item = encoder.item(inner + encoder.element(0x00401001, "SH", b"RP1 "), defined=defined)
    record = record_of(encoder, encoder.sequence(0x00400275, item, item, defined=defined))
    assert record.series.request_attributes_sequence == (RequestAttributes("", "RP1"),) * 2


def test_nonsense_in_a_wanted_sequence_is_not_indexed() -> None:
    good = EXPLICIT.item(EXPLICIT.element(0x00400009, "SH", b"SPS1"))
    too_long = EXPLICIT.item(EXPLICIT.element(0x00401001, "SH", b"RP1 ", length=65535))
    misplaced = EXPLICIT.item(EXPLICIT.item(b""))
    for nonsense in (too_long, misplaced, b"nonsense of some length", EXPLICIT.tag(0xFFFEE000) + b"\xff" * 4):
        record = record_of(
            EXPLICIT, EXPLICIT.element(0x00400275, "SQ", good + nonsense), EXPLICIT.element(0x00100020, "LO", b"47")
        )
        assert record.series.request_attributes_sequence[0] == RequestAttributes("SPS1", "")
        assert record.patient.patient_id == "47"


def test_items_beyond_the_limit_are_not_indexed() -> None:
    items = [
        EXPLICIT.item(EXPLICIT.element(0x00400009, "SH", b"%04d" % number)) for number in range(MAXIMUM_ITEMS + 10)
    ]
    record = record_of(EXPLICIT, EXPLICIT.sequence(0x00400275, *items))
    assert len(record.series.request_attributes_sequence) == MAXIMUM_ITEMS
    assert record.series.request_attributes_sequence[-1].scheduled_procedure_step_id == f"{MAXIMUM_ITEMS - 1:04}"
