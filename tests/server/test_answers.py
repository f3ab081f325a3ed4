"""The encoder of answers against pydicom, byte by byte; character sets as PS3.4 C.4.1.1.3.2 and PS3.3 C.12.1.1.2 have them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.valuerep import DSfloat

from tomowire.server.answers import AnswerEncoder, decimal_string
from tomowire.server.index.attributes import CodedConcept, RequestAttributes
from tomowire.server.index.keys import Key, Keys
from tomowire.server.index.reader import Statement
from tomowire.server.index.select import Selected
from tomowire.server.index.statements import items_as_json
from tomowire.services.models import Level, Model
from tomowire.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

PATIENT_NAME, PATIENT_ID, STUDY_UID = (0x00100010, "PN"), (0x00100020, "LO"), (0x0020000D, "UI")
PROCEDURE_CODES = (0x00081032, "SQ")


def encoder(
    *columns: tuple[int, str],
    unsupported: Sequence[Key] = (),
    items: tuple[tuple[Key, ...], ...] = (),
    character_set: str = "",
    level: Level = Level.STUDY,
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
) -> AnswerEncoder:
    """For a query with a key for each of `columns`, in their order, and keys that the index does not have."""
    asked = [Key(tag, vr, (), items if vr == "SQ" else ()) for tag, vr in columns]
    keys = Keys(level, Model.STUDY_ROOT, character_set, (*asked, *unsupported))
    supported = frozenset(tag for tag, _ in columns)
    selected = Selected(Statement("", {}), columns, supported, frozenset(key.tag for key in unsupported))
    return AnswerEncoder(keys, selected, retrieve_ae_title="ARCHIVE", transfer_syntax_uid=transfer_syntax_uid)


def written(data_set: Dataset, transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
    """What pydicom writes."""
    target = DicomBytesIO()
    target.is_implicit_VR = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    target.is_little_endian = True
    write_dataset(target, data_set)
    return target.getvalue()


def read(encoded: bytes) -> Dataset:
    return read_dataset(BytesIO(encoded), is_implicit_VR=False, is_little_endian=True)


def answer(**elements: Any) -> Dataset:
    """What stands in every answer, and `elements`."""
    data_set = Dataset()
    fixed = {"QueryRetrieveLevel": "STUDY", "RetrieveAETitle": "ARCHIVE", "InstanceAvailability": "ONLINE"}
    for keyword, value in {**fixed, **elements}.items():
        setattr(data_set, keyword, value)
    return data_set


CODES = (
    CodedConcept(code_value="T-04000", coding_scheme_designator="SRT"),
    CodedConcept(code_meaning="Brust Übersicht"),
)


def item(**elements: str) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize("transfer_syntax_uid", [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
def test_an_answer_is_what_pydicom_would_write(transfer_syntax_uid: str) -> None:
    encode = encoder(
        STUDY_UID,  # the order of the columns is not that of the tags
        PATIENT_NAME,
        PATIENT_ID,
        (0x00080020, "DA"),
        (0x00080061, "CS"),
        (0x00101030, "DS"),
        (0x00201208, "IS"),
        (0x00280010, "US"),
        (0x00280011, "US"),
        (0x00200013, "IS"),
        PROCEDURE_CODES,
        unsupported=[Key(0x00321032, "PN"), Key(0x00080001, "UL"), Key(0x0040A730, "SQ"), Key(0x00291010, "UN")],
        transfer_syntax_uid=transfer_syntax_uid,
    ).encode
    row = ("1.2.3", "Müller^Jörg=山田", "P1", "20240229", "CT\\MR", 70.5, 12, 512, None, None, items_as_json(CODES))
    expected = answer(
        SpecificCharacterSet="ISO_IR 192",
        StudyInstanceUID="1.2.3",
        PatientName="Müller^Jörg=山田",
        PatientID="P1",
        StudyDate="20240229",
        ModalitiesInStudy=["CT", "MR"],
        PatientWeight="70.5",
        NumberOfStudyRelatedInstances="12",
        Rows=512,
        Columns=None,
        InstanceNumber=None,
        RequestingPhysician="",
        ContentSequence=[],
        ProcedureCodeSequence=[
            item(CodeValue="T-04000", CodingSchemeDesignator="SRT", CodingSchemeVersion="", CodeMeaning=""),
            item(CodeValue="", CodingSchemeDesignator="", CodingSchemeVersion="", CodeMeaning="Brust Übersicht"),
        ],
    )
    expected.add(DataElement(0x00080001, "UL", None))
    expected.add(DataElement(0x00291010, "UN", b""))
    assert encode(row) == written(expected, transfer_syntax_uid)


@pytest.mark.parametrize("level", Level)
def test_the_level_is_that_of_the_query(level: Level) -> None:
    assert read(encoder(level=level).encode(())).QueryRetrieveLevel == level.value


@pytest.mark.parametrize(
    ("asked_in", "name", "declared"),
    [
        ("", "Mueller^Joerg", None),
        ("ISO_IR 192", "Mueller^Joerg", None),
        ("ISO_IR 100", "Mueller^Joerg", None),
        ("", "Müller^Jörg", "ISO_IR 192"),
        ("ISO_IR 192", "Müller^Jörg", "ISO_IR 192"),
        ("ISO_IR 100", "Müller^Jörg", "ISO_IR 100"),
        ("ISO_IR 144", "Люкceмбypг", "ISO_IR 144"),
        ("ISO_IR 100", "Люкceмбypг", "ISO_IR 192"),
        ("ISO_IR 144", "Müller^Jörg", "ISO_IR 192"),
        ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎", "ISO_IR 192"),
        ("NONSENSE", "Müller^Jörg", "ISO_IR 192"),
    ],
)
def test_a_character_set_that_can_carry_the_text_is_declared_and_none_without_need(
    asked_in: str, name: str, declared: str | None
) -> None:
    data_set = read(encoder(PATIENT_NAME, character_set=asked_in).encode((name,)))
    assert data_set.get("SpecificCharacterSet") == declared
    assert data_set.PatientName == name


@pytest.mark.parametrize(
    ("asked_in", "codec"),
    [
        ("ISO_IR 100", "latin-1"),
        ("ISO_IR 101", "iso8859-2"),
        ("ISO_IR 109", "iso8859-3"),
        ("ISO_IR 110", "iso8859-4"),
        ("ISO_IR 144", "iso8859-5"),
        ("ISO_IR 127", "iso8859-6"),
        ("ISO_IR 126", "iso8859-7"),
        ("ISO_IR 138", "iso8859-8"),
        ("ISO_IR 148", "iso8859-9"),
        ("ISO_IR 166", "tis-620"),
    ],
)
def test_pydicom_reads_every_letter_of_every_set_that_is_used(asked_in: str, codec: str) -> None:
    letters = "".join(c for c in bytes(range(0xA1, 0x100)).decode(codec, "ignore") if c.isprintable() and c != "\xad")
    data_set = read(encoder(PATIENT_ID, character_set=asked_in).encode((letters,)))
    assert (data_set.SpecificCharacterSet, data_set.PatientID) == (asked_in, letters)


def test_what_is_no_text_has_no_character_set() -> None:
    data_set = read(encoder((0x00080060, "CS"), PATIENT_NAME).encode(("M\ufffd", "Doe^Jane")))
    assert "SpecificCharacterSet" not in data_set
    assert data_set.Modality == "M?"


def test_the_character_set_has_its_place_among_the_tags() -> None:
    encoded = encoder(PATIENT_NAME, unsupported=[Key(0x00080001, "UL"), Key(0x00041130, "CS")]).encode(("Müller",))
    tags = [element.tag for element in read(encoded)]
    assert tags[:3] == [0x00041130, 0x00080001, 0x00080005]
    assert tags == sorted(tags)


def test_text_longer_than_its_vr_can_say_goes_as_unknown() -> None:
    """PS3.5 6.2.2, note: a value of more than 65534 bytes has VR UN in an explicit transfer syntax."""
    encode = encoder((0x00104000, "LT"), PATIENT_ID).encode
    expected = answer(PatientID="P1")
    expected.add(DataElement(0x00104000, "UN", b"x" * 65536))
    assert encode(("x" * 65536, "P1")) == written(expected)
    assert read(encode(("x" * 65534, "P1")))[0x00104000].VR == "LT"


def test_items_have_the_keys_that_were_asked_for() -> None:
    """PS3.4 C.2.2.2.6; a key of an item that is not supported is without a value, as outside of one."""
    asked = ((Key(0x00401001, "SH", ("R1",)), Key(0x00321060, "LO")),)
    encode = encoder((0x00400275, "SQ"), items=asked).encode
    stored = items_as_json((RequestAttributes(scheduled_procedure_step_id="S1", requested_procedure_id="R1"),))
    expected = answer(
        RequestAttributesSequence=[item(RequestedProcedureDescription="", RequestedProcedureID="R1")],
    )
    assert encode((stored,)) == written(expected)
    assert encode(("[]",)) == written(answer(RequestAttributesSequence=[]))


def test_a_vr_that_is_one_of_several() -> None:
    (_, _, _, element) = read(encoder(unsupported=[Key(0x00280106, "US or SS")]).encode(()))
    assert (element.tag, element.VR, element.value) == (0x00280106, "US", None)


def test_a_number_that_its_vr_cannot_hold_is_left_out() -> None:
    """Sent as UL, as some objects have it; PS3.5 6.2: US is less than 2^16."""
    rows = (0x00280010, "US")
    assert [read(encoder(rows).encode((number,))).Rows for number in (65535, 65536, -1, None)] == [
        65535,
        None,
        None,
        None,
    ]


# Without what pydicom takes away or apart: spaces around a value, separators, and control characters.
LETTERS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs"), exclude_characters="\\^=")


@given(name=st.text(LETTERS), description=st.text(LETTERS), asked_in=st.sampled_from(["", "ISO_IR 100", "ISO_IR 144"]))
def test_any_text_comes_back(name: str, description: str, asked_in: str) -> None:
    data_set = read(encoder(PATIENT_NAME, (0x00081030, "LO"), character_set=asked_in).encode((name, description)))
    assert (data_set.PatientName, data_set.StudyDescription or "") == (name, description)


@given(st.floats(-1e300, 1e300))
def test_a_decimal_string_is_short_enough_and_as_precise_as_may_be(number: float) -> None:
    text = decimal_string(number)
    assert len(text) <= 16  # PS3.5 6.2
    assert float(DSfloat(text, validation_mode=2)) == pytest.approx(number, rel=1e-8)


def test_decimal_strings_of_usual_numbers() -> None:
    assert [decimal_string(number) for number in (70.0, 1.78, 0.1, -0.000_001_5)] == ["70", "1.78", "0.1", "-1.5e-06"]
