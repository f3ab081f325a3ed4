"""The query builder: what each step puts into the identifier, by PS3.4 C.2.2.2 and C.6."""

from __future__ import annotations

import datetime
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag

from tomowire import Level, Model, Query, UsageError
from tomowire.services.identifiers import decode, encode

Step = Callable[[Query], Query]


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    """pydicom warns of values that are right in a query only, such as wildcards; nobody wants to read that."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def written(query: Query, keyword: str) -> str:
    """The value as it goes over the network."""
    encoded = encode(query.dataset(), "1.2.840.10008.1.2")
    value = decode(encoded, "1.2.840.10008.1.2").get_item(keyword).value
    return bytes(value or b"").decode().rstrip("\0 ")


DAY = datetime.date(2026, 1, 31)
TZ = datetime.timezone(datetime.timedelta(hours=2))
VALUES: list[tuple[Step, str, str]] = [
    (lambda q: q.patient_name("Smith*"), "PatientName", "Smith*"),
    (lambda q: q.patient_name("Sm?th^*=*"), "PatientName", "Sm?th^*=*"),
    (lambda q: q.patient_id("4711"), "PatientID", "4711"),
    (lambda q: q.accession_number("A*"), "AccessionNumber", "A*"),
    (lambda q: q.study_uid("1.2.3"), "StudyInstanceUID", "1.2.3"),
    # C.2.2.2.2: a list of UID is separated by backslashes
    (lambda q: q.study_uid("1.2.3", "1.2.4"), "StudyInstanceUID", "1.2.3\\1.2.4"),
    (lambda q: q.modality("CT"), "ModalitiesInStudy", "CT"),
    (lambda q: q.modality("CT", "MR"), "ModalitiesInStudy", "CT\\MR"),
    # C.2.2.2.5: "A-B", "A-", "-B"
    (lambda q: q.study_date(DAY), "StudyDate", "20260131"),
    (lambda q: q.study_date("20260131"), "StudyDate", "20260131"),
    (lambda q: q.study_date("2026-01-31"), "StudyDate", "20260131"),
    (lambda q: q.study_date(DAY, None), "StudyDate", "20260131-"),
    (lambda q: q.study_date(None, DAY), "StudyDate", "-20260131"),
    (lambda q: q.study_date("2026-01-01", DAY), "StudyDate", "20260101-20260131"),
    (lambda q: q.study_date(DAY, DAY), "StudyDate", "20260131-20260131"),
    (lambda q: q.study_date("20260101-20260131"), "StudyDate", "20260101-20260131"),
    (lambda q: q.study_date("-20260131"), "StudyDate", "-20260131"),
    (lambda q: q.study_date(datetime.datetime(2026, 1, 31, 23, 59, tzinfo=TZ)), "StudyDate", "20260131"),
    (lambda q: q.study_time("12"), "StudyTime", "12"),
    (lambda q: q.study_time("12:30"), "StudyTime", "1230"),
    (lambda q: q.study_time("12:30:15.25"), "StudyTime", "123015.25"),
    (lambda q: q.study_time(datetime.time(9, 5)), "StudyTime", "090500"),
    (lambda q: q.study_time(datetime.time(9, 5, 1, 20)), "StudyTime", "090501.000020"),
    (lambda q: q.study_time("0900", datetime.time(17)), "StudyTime", "0900-170000"),
    (lambda q: q.study_time("1230", "12"), "StudyTime", "1230-12"),  # until the end of that hour
    (lambda q: q.study_time("10-"), "StudyTime", "10-"),
    (lambda q: q.where("StudyDescription", "*thorax*"), "StudyDescription", "*thorax*"),
    (lambda q: q.where("0010,0020", "4711"), "PatientID", "4711"),
    (lambda q: q.where("(0010,0020)", "4711"), "PatientID", "4711"),
    (lambda q: q.where("00100020", "4711"), "PatientID", "4711"),
    (lambda q: q.where(0x00100020, "4711"), "PatientID", "4711"),
    (lambda q: q.where("PatientID", 4711), "PatientID", "4711"),
    (lambda q: q.where("PatientID", None), "PatientID", ""),
    (lambda q: q.where("PatientBirthDate", DAY), "PatientBirthDate", "20260131"),
    (lambda q: q.where("PatientBirthDate", "19700101-"), "PatientBirthDate", "19700101-"),
    (lambda q: q.where("SeriesTime", datetime.time(12)), "SeriesTime", "120000"),
    (lambda q: q.where("Modality", "C?"), "Modality", "C?"),
    (lambda q: q.where("SOPClassesInStudy", ["1.2", "1.3"]), "SOPClassesInStudy", "1.2\\1.3"),
    (lambda q: q.where("InstanceNumber", 7), "InstanceNumber", "7"),
    (lambda q: q.where("SliceThickness", "1.25"), "SliceThickness", "1.25"),
    (
        lambda q: q.where("AcquisitionDateTime", datetime.datetime(2026, 1, 31, 12, 30, tzinfo=TZ)),
        "AcquisitionDateTime",
        "20260131123000+0200",
    ),
    (lambda q: q.where("AcquisitionDateTime", "2026-202602"), "AcquisitionDateTime", "2026-202602"),
    (lambda q: q.where("AcquisitionDateTime", "20260131-0500-"), "AcquisitionDateTime", "20260131-0500-"),
    (lambda q: q.patient_id("1").patient_id("2"), "PatientID", "2"),
    (lambda q: q.patient_id("1").returning("PatientID"), "PatientID", "1"),
]


@pytest.mark.parametrize(("step", "keyword", "value"), VALUES)
def test_what_a_step_asks_for(step: Step, keyword: str, value: str) -> None:
    assert written(step(Query.studies()), keyword) == value


def test_unique_keys_of_the_levels_below() -> None:
    query = Query.images("1.2.3", "1.2.5").sop_instance_uid("1.2.6", "1.2.7")
    assert written(query, "SeriesInstanceUID") == "1.2.5"
    assert written(query, "SOPInstanceUID") == "1.2.6\\1.2.7"
    # PS3.4 C.4.1.2.1: the unique keys above the level, and the keys of the level
    for below in (Query.studies().series_uid("1.2.5"), Query.series("1.2.3").sop_instance_uid("1.2.6")):
        with pytest.raises(UsageError, match=r"is no key of the (STUDY|SERIES) level: ask at (SERIES|IMAGE) level"):
            below.dataset()
    assert Query.studies().returning("SeriesInstanceUID").dataset().SeriesInstanceUID == ""


def test_numbers_in_binary() -> None:
    assert Query.images().where("Rows", 512).dataset().Rows == 512
    assert Query.images().returning("Rows").dataset().Rows is None


MISTAKES: list[Step] = [
    lambda q: q.where("PatientsName", "x"),
    lambda q: q.where("", "x"),
    lambda q: q.where("0010", "x"),
    lambda q: q.where("0010,1", "x"),
    lambda q: q.where(0x00109999, "x"),
    lambda q: q.where(-1, "x"),
    lambda q: q.where(1 << 32, "x"),
    lambda q: q.where("QueryRetrieveLevel", "IMAGE"),
    lambda q: q.where("0008,0005", "ISO_IR 100"),
    lambda q: q.returning("StudyDat"),
    lambda q: q.study_uid(),
    lambda q: q.study_uid("1.2.*"),
    lambda q: q.study_uid("../.."),
    lambda q: q.where("SOPClassUID", "CT"),
    lambda q: q.modality(),
    lambda q: q.study_date("2026"),
    lambda q: q.study_date("20260230"),
    lambda q: q.study_date("2026*"),
    lambda q: q.study_date("20260101-2026"),
    lambda q: q.study_date("-"),
    lambda q: q.study_date(None),
    lambda q: q.study_date(None, None),
    lambda q: q.study_date("20260201", "20260131"),
    lambda q: q.study_time("24"),
    lambda q: q.study_time("1"),
    lambda q: q.study_time("12.5"),
    lambda q: q.study_time("13", "12"),
    lambda q: q.where("PatientBirthDate", "yesterday"),
    lambda q: q.where("AcquisitionDateTime", "noon"),
    lambda q: q.where("InstanceNumber", "seven"),
    lambda q: q.where("Rows", "many"),
    lambda q: q.where("PixelData", "x"),
    lambda q: q.where("RequestAttributesSequence", "S1"),
    lambda q: q.where("RequestAttributesSequence", {"NoSuchKey": "1"}),
]


@pytest.mark.parametrize("step", MISTAKES)
def test_mistakes_are_seen_where_they_are_made(step: Step) -> None:
    with pytest.raises(UsageError):
        step(Query.studies())


def test_an_unknown_keyword_is_told_with_what_is_near_it() -> None:
    with pytest.raises(UsageError, match="PatientName"):
        Query.studies().where("PatientsName", "x")


def test_sequences_have_one_item_with_all_the_keys() -> None:
    """PS3.4 C.2.2.2.6."""
    keys = {"ScheduledProcedureStepID": "S*", "0040,0007": None}
    made = Query.series("1.2").where("RequestAttributesSequence", keys).dataset()
    (item,) = made.RequestAttributesSequence
    assert [(each.keyword, each.value) for each in item] == [
        ("ScheduledProcedureStepDescription", ""),
        ("ScheduledProcedureStepID", "S*"),
    ]
    ready = Dataset()
    ready.ScheduledProcedureStepID = "S1"
    made = Query.series("1.2").where("RequestAttributesSequence", ready).dataset()
    assert list(made.RequestAttributesSequence) == [ready]
    assert len(Query.series().returning("RequestAttributesSequence").dataset().RequestAttributesSequence) == 0


def test_private_attributes_are_sent_as_text() -> None:
    made = Query.studies().where("0009,0010", "ACME").where("0009,1001", "x").dataset()
    assert [(each.VR, each.value) for each in made.group_dataset(0x0009)] == [("LO", "ACME"), ("LO", "x")]


# PS3.4 Tables C.6-1 to C.6-5, types U and R
REQUIRED = {
    Level.PATIENT: {"PatientName", "PatientID"},
    Level.STUDY: {"StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyInstanceUID"},
    Level.SERIES: {"Modality", "SeriesNumber", "SeriesInstanceUID"},
    Level.IMAGE: {"InstanceNumber", "SOPInstanceUID"},
}


@pytest.mark.parametrize("model", Model)
@pytest.mark.parametrize("level", Level)
def test_what_is_returned_without_being_asked_for(level: Level, model: Model) -> None:
    query = Query(level)
    if level not in model.levels:
        with pytest.raises(UsageError, match=f"{model} model has no {level} level"):
            query.dataset(model)
        return
    made = query.dataset(model)
    keywords = {element.keyword for element in made}
    assert made.QueryRetrieveLevel == level
    assert keywords >= REQUIRED[level]
    assert all(dictionary_has_tag(keyword) for keyword in keywords)
    assert all(element.is_empty for element in made if element.keyword != "QueryRetrieveLevel")
    above = model.levels[: model.levels.index(level)]
    assert keywords >= {each.unique_key for each in above}
    # C.4.1.2.1: of the levels above nothing but the unique keys. In Study Root the patient's keys are those of the study.
    patients = {"PatientName", "PatientBirthDate", "PatientSex"}
    assert (keywords >= patients) == (level is Level.PATIENT or (level is Level.STUDY and model is Model.STUDY_ROOT))


@pytest.mark.parametrize(
    ("query", "level", "model"),
    [
        (Query.patients(), Level.PATIENT, Model.PATIENT_ROOT),
        (Query.studies(), Level.STUDY, Model.STUDY_ROOT),
        (Query.study("1.2"), Level.STUDY, Model.STUDY_ROOT),
        (Query.series("1.2"), Level.SERIES, Model.STUDY_ROOT),
        (Query.images("1.2", "1.3"), Level.IMAGE, Model.STUDY_ROOT),
    ],
)
def test_levels_and_models(query: Query, level: Level, model: Model) -> None:
    assert (query.level, query.model) == (level, model)


def test_unique_keys_above_the_level_are_given_with_it() -> None:
    made = Query.images("1.2", "1.3").dataset()
    assert (made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID) == ("1.2", "1.3", "")
    assert Query.series("1.2").dataset().StudyInstanceUID == "1.2"
    assert Query.study("1.2") == Query.studies().study_uid("1.2")


def test_modality_is_that_of_the_level() -> None:
    assert Query.series("1.2").modality("CT").dataset().Modality == "CT"
    assert Query.studies().modality("CT").dataset().ModalitiesInStudy == "CT"


def test_a_query_does_not_change() -> None:
    first = Query.studies().patient_id("1")
    before: Any = repr(first)
    second = first.modality("CT").returning("StudyComments")
    assert repr(first) == before
    assert first != second
    assert first == Query.studies().patient_id("1")
    first.dataset().PatientID = "2"
    assert first.dataset().PatientID == "1"
    with pytest.raises(AttributeError):
        first.patients_id = "2"  # type: ignore[attr-defined]


def test_the_plain_steps_do_not_import_pydicom() -> None:
    code = (
        "import sys; from tomowire import Query;"
        "Query.studies().patient_name('S*').study_date('2026-01-01', None).modality('CT').study_uid('1.2');"
        "assert 'pydicom' not in sys.modules; Query.studies().where('Modality', 'CT'); assert 'pydicom' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
