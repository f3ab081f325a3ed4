"""One statement for each query: what it returns at each level, and how SQLite goes about it. How PostgreSQL does: `test_plans`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.data_sets import EXPLICIT
from support.queries import ROOT, Attributes, QueriedIndex, keys_of, queried_index
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.services.models import Model

CT, MR, SC = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("2", "4", "7"))
PATIENT_NAME, PATIENT_ID, STUDY_UID, SERIES_UID = 0x00100010, 0x00100020, 0x0020000D, 0x0020000E
SOP_CLASS_UID, SOP_INSTANCE_UID, MODALITY, INSTANCE_NUMBER = 0x00080016, 0x00080018, 0x00080060, 0x00200013
STUDY_DATE, SERIES_NUMBER, PROCEDURE_CODES = 0x00080020, 0x00200011, 0x00081032
MODALITIES_IN_STUDY, SOP_CLASSES_IN_STUDY = 0x00080061, 0x00080062
PATIENT_STUDIES, PATIENT_SERIES, PATIENT_INSTANCES = 0x00201200, 0x00201202, 0x00201204
STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES = 0x00201206, 0x00201208, 0x00201209
COUNTED = (PATIENT_STUDIES, PATIENT_SERIES, PATIENT_INSTANCES, STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES)
COUNTS: Attributes = dict.fromkeys(COUNTED, ("IS", ""))


def image(patient: str, study: int, series: int, modality: str, sop_class: str, number: str = "1") -> Attributes:
    return {
        PATIENT_NAME: ("PN", f"Name^{patient}"),
        PATIENT_ID: ("LO", patient),
        STUDY_UID: ("UI", f"{ROOT}.1.{study}"),
        SERIES_UID: ("UI", f"{ROOT}.2.{series}"),
        MODALITY: ("CS", modality),
        SOP_CLASS_UID: ("UI", sop_class),
        INSTANCE_NUMBER: ("IS", number),
    }


# Patient A has a CT study of two series, one of them of two images, and an MR study; patient B has a study without modality.
IMAGES = [
    image("A", 1, 1, "CT", CT, "1"),
    image("A", 1, 1, "CT", CT, "2"),
    image("A", 1, 2, "SR", SC),
    image("A", 2, 3, "MR", MR),
    image("B", 3, 4, "", SC),
]


@pytest.fixture
def postgres_url(emptied_postgres_url: str) -> str:
    """These tests leave nothing but objects in a database."""
    return emptied_postgres_url


@pytest.fixture
def index(backend: IndexBackend) -> Iterator[QueriedIndex]:
    with queried_index(backend, IMAGES) as opened:
        yield opened


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[QueriedIndex]:
    with queried_index(backend_for(None, tmp_path), IMAGES) as opened:
        yield opened


def study(number: int) -> tuple[str, str]:
    return "UI", f"{ROOT}.1.{number}"


def series(number: int) -> tuple[str, str]:
    return "UI", f"{ROOT}.2.{number}"


def test_a_row_for_each_entity_of_the_level(index: QueriedIndex) -> None:
    patients = index.find("PATIENT", {PATIENT_ID: ("LO", "")}, Model.PATIENT_ROOT)
    assert [row[PATIENT_ID] for row in patients] == ["A", "B"]
    studies = index.find("STUDY", {PATIENT_ID: ("LO", "A"), STUDY_UID: ("UI", "")}, Model.PATIENT_ROOT)
    assert [row[STUDY_UID] for row in studies] == [study(1)[1], study(2)[1]]
    of_study = index.find("SERIES", {STUDY_UID: study(1), SERIES_UID: ("UI", ""), MODALITY: ("CS", "")})
    assert [(row[SERIES_UID], row[MODALITY]) for row in of_study] == [(series(1)[1], "CT"), (series(2)[1], "SR")]
    images = index.find("IMAGE", {STUDY_UID: study(1), SERIES_UID: series(1), INSTANCE_NUMBER: ("IS", "")})
    assert [row[INSTANCE_NUMBER] for row in images] == [1, 2]


@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
def test_keys_of_the_levels_above_are_answered_and_matched(index: QueriedIndex, level: str) -> None:
    # PS3.4 C.6.2.1.2: in the Study Root model those of the patient are keys of the study
    path: Attributes = {STUDY_UID: study(1), SERIES_UID: series(2)}
    [row] = index.find(level, {**path, SERIES_UID: series(2), PATIENT_NAME: ("PN", "name*"), STUDY_DATE: ("DA", "")})
    assert (row[PATIENT_NAME], row[STUDY_DATE]) == ("Name^A", "")
    assert index.find(level, {**path, PATIENT_NAME: ("PN", "nobody")}) == []


def test_keys_of_the_levels_below_are_not_supported(index: QueriedIndex) -> None:
    selected = index.select(keys_of("STUDY", {STUDY_UID: ("UI", ""), MODALITY: ("CS", "MR"), 0x00091001: ("LO", "x")}))
    assert selected.columns == ((STUDY_UID, "UI"),)
    assert (selected.supported, selected.unsupported) == ({STUDY_UID}, {MODALITY, 0x00091001})
    assert len(index.rows(selected)) == 3


def test_no_key_that_is_known(index: QueriedIndex) -> None:
    selected = index.select(keys_of("STUDY", {0x00091001: ("LO", "")}))
    assert (selected.columns, selected.supported, selected.unsupported) == (((STUDY_UID, "UI"),), set(), {0x00091001})
    assert index.rows(selected) == [(study(number)[1],) for number in (1, 2, 3)]


# PS3.4 C.3.4: additional query/retrieve attributes


def test_counts(index: QueriedIndex) -> None:
    of_patients = [{PATIENT_STUDIES: 2, PATIENT_SERIES: 3, PATIENT_INSTANCES: 4}, dict.fromkeys(tuple(COUNTS)[:3], 1)]
    assert index.find("PATIENT", COUNTS, Model.PATIENT_ROOT) == of_patients
    of_studies = [{STUDY_SERIES: 2, STUDY_INSTANCES: 3}, {STUDY_SERIES: 1, STUDY_INSTANCES: 1}]
    found = index.find("STUDY", COUNTS)
    assert found[:2] == [{**of_patients[0], **counts} for counts in of_studies]
    found = index.find("SERIES", {**COUNTS, STUDY_UID: study(1)})
    assert [(row[STUDY_INSTANCES], row[SERIES_INSTANCES]) for row in found] == [(3, 2), (3, 1)]
    [image] = index.find("IMAGE", {**COUNTS, STUDY_UID: study(2), SERIES_UID: series(3)})
    assert (image[PATIENT_INSTANCES], image[STUDY_SERIES], image[SERIES_INSTANCES]) == (4, 1, 1)


def test_counts_are_matched(index: QueriedIndex) -> None:
    assert index.numbers("STUDY", {STUDY_INSTANCES: ("IS", "1")}) == [2, 3]
    assert index.numbers("STUDY", {STUDY_INSTANCES: ("IS", "3"), PATIENT_STUDIES: ("IS", "2")}) == [1]


def test_what_the_series_of_a_study_have(index: QueriedIndex) -> None:
    keys: Attributes = {MODALITIES_IN_STUDY: ("CS", ""), SOP_CLASSES_IN_STUDY: ("UI", "")}
    found = index.find("STUDY", keys)
    assert [set(row[MODALITIES_IN_STUDY].split("\\")) for row in found] == [{"CT", "SR"}, {"MR"}, {""}]
    assert [set(row[SOP_CLASSES_IN_STUDY].split("\\")) for row in found] == [{CT, SC}, {MR}, {SC}]


@pytest.mark.parametrize(
    ("tag", "vr", "key", "expected"),
    [
        (MODALITIES_IN_STUDY, "CS", "CT", [1]),
        (MODALITIES_IN_STUDY, "CS", "SR\\MR", [1, 2]),
        (MODALITIES_IN_STUDY, "CS", "?R", [1, 2]),
        (MODALITIES_IN_STUDY, "CS", "ct", []),
        (MODALITIES_IN_STUDY, "CS", "*", [1, 2, 3]),
        (SOP_CLASSES_IN_STUDY, "UI", SC, [1, 3]),
        (SOP_CLASSES_IN_STUDY, "UI", f"{CT}\\{MR}", [1, 2]),
    ],
)
def test_and_are_matched_by(index: QueriedIndex, tag: int, vr: str, key: str, expected: list[int]) -> None:
    # all values of the study are returned, also those that the key did not ask for (C.2.2.3)
    assert index.numbers("STUDY", {tag: (vr, key)}) == expected
    if key == "CT":
        [row] = index.find("STUDY", {tag: (vr, key)})
        assert set(row[tag].split("\\")) == {"CT", "SR"}


def test_series_without_a_modality_add_none(backend: IndexBackend) -> None:
    with queried_index(backend, [image("A", 1, 1, "CT", CT), image("A", 1, 2, "", SC)]) as index:
        assert index.find("STUDY", {MODALITIES_IN_STUDY: ("CS", "")}) == [{MODALITIES_IN_STUDY: "CT"}]


# The values


def test_columns_are_in_the_order_of_the_row(backend: IndexBackend) -> None:
    attributes: Attributes = {
        STUDY_DATE: ("DA", "20240229"),
        PROCEDURE_CODES: ("SQ", [{0x00080100: ("SH", "P5")}]),
        PATIENT_NAME: ("PN", "Müller^Jörg"),
        0x00101030: ("DS", "72.5"),
        0x00101020: ("DS", ""),
        0x00201070: ("IS", "5"),
        0x00081048: ("PN", "A^B\\C^D"),
    }
    empty: Attributes = {tag: (vr, [] if vr == "SQ" else "") for tag, (vr, _) in attributes.items()}
    with queried_index(backend, [attributes, empty]) as index:
        selected = index.select(keys_of("STUDY", empty))
        assert selected.columns == tuple((tag, attributes[tag][0]) for tag in sorted(attributes))
        full, nothing = index.rows(selected)
    assert full == ("20240229", '[{"code_value":"P5"}]', "A^B\\C^D", "Müller^Jörg", None, 72.5, 5)
    assert nothing == ("", "[]", "", "", None, None, None)


def test_of_a_sequence_those_items_that_match(backend: IndexBackend) -> None:
    # PS3.4 C.2.2.2.6: "A sequence of matching Items containing only the requested Attributes is returned"
    codes = [{0x00080100: ("SH", value), 0x00080104: ("LO", "Ä")} for value in ("P5-1", "P6", "P5-2")]
    with queried_index(backend, [{PROCEDURE_CODES: ("SQ", codes)}]) as index:
        [row] = index.find("STUDY", {PROCEDURE_CODES: ("SQ", [{0x00080100: ("SH", "P5*")}])})
        assert [item["code_value"] for item in json.loads(row[PROCEDURE_CODES])] == ["P5-1", "P5-2"]
        [row] = index.find("STUDY", {PROCEDURE_CODES: ("SQ", [{0x00080100: ("SH", "")}])})
        assert len(json.loads(row[PROCEDURE_CODES])) == 3


def test_a_key_of_an_item_that_is_not_known(index: QueriedIndex) -> None:
    item: Attributes = {0x00080100: ("SH", "P5"), 0x00080117: ("UI", "1.2")}
    selected = index.select(keys_of("STUDY", {PROCEDURE_CODES: ("SQ", [item])}))
    assert (selected.supported, selected.unsupported) == ({PROCEDURE_CODES}, {PROCEDURE_CODES})


def test_as_many_keys_as_there_are(index: QueriedIndex) -> None:
    from tomowire.server.index.wanted import ATTRIBUTES

    path: Attributes = {STUDY_UID: study(1), SERIES_UID: series(1)}
    everything: Attributes = {tag: (known.vr, [] if known.item else b"") for tag, known in ATTRIBUTES.items()}
    selected = index.select(keys_of("IMAGE", {**everything, **COUNTS, MODALITIES_IN_STUDY: ("CS", "CT"), **path}))
    assert selected.unsupported == set()
    assert len(index.rows(selected)) == 2


# How SQLite goes about it: what is asked for most is found by an index, whatever else is asked for


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({PATIENT_ID: ("LO", "A")}, "ix_patients_patient_id (patient_id=?)"),
        ({PATIENT_ID: ("LO", "A*")}, "ix_patients_patient_id (patient_id>? AND patient_id<?)"),
        ({PATIENT_NAME: ("PN", "smith*")}, "(patient_name_normalized>? AND patient_name_normalized<?)"),
        ({PATIENT_NAME: ("PN", "smith^john")}, "(patient_name_normalized>? AND patient_name_normalized<?)"),
        (
            {PATIENT_NAME: ("PN", "smith*"), STUDY_DATE: ("DA", "20240101-")},
            "(patient_name_normalized>? AND patient_name_normalized<?)",
        ),
        (
            {PATIENT_NAME: ("PN", "*mith*"), STUDY_DATE: ("DA", "20240101-20240131")},
            "ix_studies_study_date_study_time (study_date>? AND study_date<?)",
        ),
        ({STUDY_DATE: ("DA", "20240101-20240131")}, "ix_studies_study_date_study_time (study_date>? AND study_date<?)"),
        ({STUDY_DATE: ("DA", "20240101")}, "ix_studies_study_date_study_time (study_date>? AND study_date<?)"),
        ({STUDY_UID: study(1)}, "(study_instance_uid=?)"),
        ({STUDY_UID: ("UI", "1.2\\1.3")}, "(study_instance_uid=?)"),
        ({0x00080050: ("SH", "A1")}, "ix_studies_accession_number (accession_number=?)"),
    ],
)
def test_found_by_an_index(on_sqlite: QueriedIndex, keys: Attributes, expected: str) -> None:
    asked: Attributes = {STUDY_UID: ("UI", ""), MODALITIES_IN_STUDY: ("CS", "CT"), STUDY_INSTANCES: ("IS", ""), **keys}
    plan = on_sqlite.plan(on_sqlite.select(keys_of("STUDY", asked)))
    assert expected in plan
    assert not [line for line in plan.splitlines() if line.startswith(("SCAN studies", "SCAN patients"))]


@pytest.mark.parametrize(
    "keys",
    [
        # PS3.5 6.2: the longest values there can be, of characters that grow when a name is made comparable, or are escaped
        {PATIENT_NAME: ("PN", "*" + "\ufdfa" * 1023)},
        {PATIENT_NAME: ("PN", "^".join("x*" * 250))},
        {0x00081030: ("LO", "*" + "[" * 1023)},
        {0x00104000: ("LT", "*" + "[" * 10239)},
        {PATIENT_NAME: ("PN", "\\".join(f"*a^*^*^*^b{number}" for number in range(64)))},
        {0x00081030: ("LO", "\\".join(f"*{number}?" for number in range(64)))},
    ],
    ids=["letters", "components", "brackets", "long text", "names", "patterns"],
)
def test_what_the_databases_can_take(index: QueriedIndex, keys: Attributes) -> None:
    assert index.find("STUDY", {0x00080005: ("CS", "ISO_IR 192"), **keys}) == []


def test_images_are_found_by_their_series(on_sqlite: QueriedIndex) -> None:
    plan = on_sqlite.plan(
        on_sqlite.select(keys_of("IMAGE", {STUDY_UID: study(1), SERIES_UID: series(1), SOP_INSTANCE_UID: ("UI", "")}))
    )
    assert "SEARCH instances USING INDEX ix_instances_series_key_received_at_data_set_size (series_key=?)" in plan


def test_the_types_are_there_without_sqlalchemy_and_pydicom() -> None:
    code = "import tomowire.server.index.select, sys; print({'sqlalchemy', 'pydicom'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_transfer_syntax_of_what_is_stored(index: QueriedIndex) -> None:
    """Available Transfer Syntax UID: known of an image, and of nothing above it."""
    available = 0x00083002
    path: Attributes = {STUDY_UID: study(1), SERIES_UID: series(1)}
    rows = index.find("IMAGE", {**path, available: ("UI", "")})
    assert [row[available] for row in rows] == [EXPLICIT.transfer_syntax] * 2
    assert index.find("IMAGE", {**path, available: ("UI", "1.2.840.10008.1.2")}) == []
    assert index.select(keys_of("STUDY", {available: ("UI", "")})).unsupported == {available}


# PS3.4 C.4.1.3.2.1: relational queries


def related(index: QueriedIndex, level: str, keys: Attributes, model: Model = Model.STUDY_ROOT) -> list[str]:
    """What is found, by the number at the end of its UID or the Patient ID."""
    tag = {"PATIENT": PATIENT_ID, "STUDY": STUDY_UID, "SERIES": SERIES_UID, "IMAGE": SOP_INSTANCE_UID}[level]
    selected = index.select(keys_of(level, {tag: ("UI", ""), **keys}, model, relational=True), relational=True)
    place = [each for each, _ in selected.columns].index(tag)
    return sorted(str(row[place]).rpartition(".")[2] for row in index.rows(selected))


@pytest.mark.parametrize(
    ("level", "keys", "expected"),
    [
        ("IMAGE", {}, ["1", "2", "3", "4", "5"]),
        ("IMAGE", {PATIENT_ID: ("LO", "A")}, ["1", "2", "3", "4"]),
        ("IMAGE", {MODALITY: ("CS", "MR")}, ["4"]),
        ("SERIES", {PATIENT_NAME: ("PN", "name^b")}, ["4"]),
        ("SERIES", {INSTANCE_NUMBER: ("IS", "2")}, ["1"]),
        ("STUDY", {MODALITY: ("CS", "SR")}, ["1"]),
        ("STUDY", {INSTANCE_NUMBER: ("IS", "1")}, ["1", "2", "3"]),
        ("STUDY", {SOP_INSTANCE_UID: ("UI", f"{ROOT}.3.4")}, ["2"]),
        ("STUDY", {SERIES_UID: ("UI", f"{ROOT}.2.1\\{ROOT}.2.4")}, ["1", "3"]),
        ("STUDY", {SERIES_INSTANCES: ("IS", "2")}, ["1"]),
        # of one entity: the CT series has a second image, the SR series has not
        ("STUDY", {MODALITY: ("CS", "CT"), INSTANCE_NUMBER: ("IS", "2")}, ["1"]),
        ("STUDY", {MODALITY: ("CS", "SR"), INSTANCE_NUMBER: ("IS", "2")}, []),
        ("STUDY", {MODALITY: ("CS", "SR"), SOP_INSTANCE_UID: ("UI", f"{ROOT}.3.1")}, []),
    ],
)
def test_keys_of_any_level_match(index: QueriedIndex, level: str, keys: Attributes, expected: list[str]) -> None:
    assert related(index, level, keys) == expected


def test_patients_by_what_is_below_them(index: QueriedIndex) -> None:
    model = Model.PATIENT_ROOT
    assert related(index, "PATIENT", {STUDY_UID: study(3)}, model) == ["B"]
    assert related(index, "PATIENT", {MODALITIES_IN_STUDY: ("CS", "MR")}, model) == ["A"]
    assert related(index, "PATIENT", {SOP_CLASS_UID: ("UI", SC)}, model) == ["A", "B"]


def test_a_key_below_the_level_is_supported_if_it_asks_something(index: QueriedIndex) -> None:
    keys: Attributes = {STUDY_UID: ("UI", ""), MODALITY: ("CS", "CT"), INSTANCE_NUMBER: ("IS", "")}
    selected = index.select(keys_of("STUDY", keys, relational=True), relational=True)
    assert selected.unsupported == {INSTANCE_NUMBER}
    assert index.select(keys_of("STUDY", keys)).unsupported == {INSTANCE_NUMBER, MODALITY}


def test_the_study_of_an_image_is_found_by_the_image(on_sqlite: QueriedIndex) -> None:
    selected = on_sqlite.select(
        keys_of("STUDY", {STUDY_UID: ("UI", ""), SOP_INSTANCE_UID: ("UI", "1.2")}, relational=True), relational=True
    )
    plan = on_sqlite.plan(selected)
    assert "SCAN" not in plan, plan
