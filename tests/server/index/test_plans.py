"""How PostgreSQL goes about what is asked most, in an index that is filled and analyzed: never by walking through all of it.

How SQLite does is tested in `test_select` and `test_retrieval`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from support.objects import Sample
from support.queries import Attributes, keys_of, plan
from tomowire.server.index.backend import backend_for
from tomowire.server.index.listing_statements import page_statement
from tomowire.server.index.reader import IndexReader, Statement
from tomowire.server.index.retrieval import select_uids
from tomowire.server.index.rows import NewRow
from tomowire.server.index.select import select_for
from tomowire.services.models import Level, Model

PATIENT_ID, PATIENT_NAME, STUDY_DATE, ACCESSION = 0x00100020, 0x00100010, 0x00080020, 0x00080050
STUDY_UID, SERIES_UID, INSTANCE_UID = 0x0020000D, 0x0020000E, 0x00080018
MODALITIES_IN_STUDY, STUDY_INSTANCES, MODALITY = 0x00080061, 0x00201208, 0x00080060
STUDIES, SERIES, INSTANCES = 3000, 2, 10  # in all, of each study, of each series
ONE = "1.2.1.777"
ONE_SERIES = "1.2.2.777.1"
INSTANCE = "1.2.3.777.1.1"


@pytest.fixture(scope="module")
def reader(request: pytest.FixtureRequest) -> Iterator[IndexReader]:
    cluster = request.getfixturevalue("postgres")
    name = cluster.create()
    backend = backend_for(cluster.url(name), "/nowhere")
    with closing(backend.open_writer()) as writer:
        writer.insert(1, [NewRow(Sample().record, 0, 300, 1000, bytes(16), 0, "M")])
    with psycopg.connect(cluster.url(name), autocommit=True) as connection:
        for table, (source, values) in MULTIPLIED.items():
            _multiply(connection, table, source, values)
        connection.execute("VACUUM ANALYZE")
    with backend.open_reader() as opened:
        yield opened
    cluster.drop(name)


MULTIPLIED = {
    "patients": (
        f"generate_series(1, {STUDIES}) AS n",
        {
            "patient_key": "n + 1",
            "identity": "n",
            "patient_id": "'P' || n",
            "patient_name_normalized": "to_char(n % 997, 'FM000') || ' name ' || n",
        },
    ),
    "studies": (
        f"generate_series(1, {STUDIES}) AS n",
        {
            "study_key": "n + 1",
            "patient_key": "n + 1",
            "study_instance_uid": "'1.2.1.' || n",
            "study_date": "to_char(date '2000-01-01' + n * 37 % 9000, 'YYYYMMDD')",
            "accession_number": "'A' || n",
        },
    ),
    "series": (
        f"generate_series(1, {STUDIES}) AS n, generate_series(1, {SERIES}) AS m",
        {"series_key": f"n * {SERIES} + m", "study_key": "n + 1", "series_instance_uid": "'1.2.2.' || n || '.' || m"},
    ),
    "instances": (
        f"generate_series(1, {STUDIES}) AS n, generate_series(1, {SERIES}) AS m, generate_series(1, {INSTANCES}) AS k",
        {
            "instance_key": f"(n * {SERIES} + m) * {INSTANCES} + k",
            "series_key": f"n * {SERIES} + m",
            "sop_instance_uid": "'1.2.3.' || n || '.' || m || '.' || k",
        },
    ),
}
"""Rows that come from one that the archive wrote, in which some columns differ. The writer would take a hundred times as long."""


def _multiply(
    connection: psycopg.Connection[tuple[object, ...]], table: str, source: str, values: dict[str, str]
) -> None:
    rows = connection.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND table_schema = 'public'", (table,)
    )
    columns = [str(name) for (name,) in rows]
    new = ", ".join(values.get(name, f"one.{name}") for name in columns)
    one = f"(SELECT * FROM {table} ORDER BY 1 LIMIT 1) AS one"
    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {new} FROM {one}, {source}".encode())


def found_by(steps: str) -> set[str]:
    return set(re.findall(r"(?:Index (?:Only )?Scan using|Bitmap Index Scan on) (\w+)", steps))


def walks(steps: str, tables: str = "patients|studies|series|instances") -> list[str]:
    return re.findall(rf"Seq Scan on (?:{tables}) .*", steps)


@pytest.mark.parametrize(
    ("keys", "index"),
    [
        ({PATIENT_ID: ("LO", "P777")}, "ix_patients_patient_id"),
        ({PATIENT_ID: ("LO", "P77*")}, "ix_patients_patient_id"),
        ({PATIENT_NAME: ("PN", "777*")}, "ix_patients_patient_name_normalized"),
        ({PATIENT_NAME: ("PN", "777^name^777")}, "ix_patients_patient_name_normalized"),
        ({PATIENT_NAME: ("PN", "*ame 777*")}, "ix_patients_patient_name_trigrams"),
        ({PATIENT_NAME: ("PN", "山田太郎*")}, "ix_patients_patient_name_trigrams"),
        ({PATIENT_NAME: ("PN", "=山田太郎")}, "ix_patients_patient_name_trigrams"),
        ({PATIENT_NAME: ("PN", "777*"), STUDY_DATE: ("DA", "20200101-")}, "ix_patients_patient_name_normalized"),
        ({STUDY_DATE: ("DA", "20200101-20200110")}, "ix_studies_study_date_study_time"),
        ({STUDY_DATE: ("DA", "20200101")}, "ix_studies_study_date_study_time"),
        ({STUDY_UID: ("UI", ONE)}, "uq_studies_study_instance_uid"),
        ({STUDY_UID: ("UI", f"{ONE}\\1.2.1.5")}, "uq_studies_study_instance_uid"),
        ({ACCESSION: ("SH", "A777")}, "ix_studies_accession_number"),
    ],
)
def test_studies_are_found_by_an_index(reader: IndexReader, keys: Attributes, index: str) -> None:
    asked: Attributes = {
        0x00080005: ("CS", "ISO_IR 192"),
        STUDY_UID: ("UI", ""),
        MODALITIES_IN_STUDY: ("CS", "OT"),
        STUDY_INSTANCES: ("IS", ""),
        **keys,
    }
    steps = plan(reader, "postgresql", select_for(keys_of("STUDY", asked), "postgresql").statement)
    assert (index in found_by(steps), walks(steps)) == (True, []), steps


@pytest.mark.parametrize(
    ("level", "keys", "relational"),
    [
        ("SERIES", {STUDY_UID: ("UI", ONE), SERIES_UID: ("UI", ""), 0x00201209: ("IS", "")}, False),
        ("IMAGE", {STUDY_UID: ("UI", ONE), SERIES_UID: ("UI", ONE_SERIES), INSTANCE_UID: ("UI", "")}, False),
        ("STUDY", {STUDY_UID: ("UI", ""), INSTANCE_UID: ("UI", INSTANCE)}, True),
        ("IMAGE", {PATIENT_ID: ("LO", "P777"), INSTANCE_UID: ("UI", "")}, True),
        ("IMAGE", {INSTANCE_UID: ("UI", f"{INSTANCE}\\1.2.3.5.1.1")}, True),
    ],
)
def test_and_what_is_below_them(reader: IndexReader, level: str, keys: Attributes, relational: bool) -> None:
    asked = keys_of(level, keys, Model.STUDY_ROOT, relational=relational)
    steps = plan(reader, "postgresql", select_for(asked, "postgresql", relational=relational).statement)
    assert walks(steps) == [], steps


@pytest.mark.parametrize("with_kinds", [False, True])
@pytest.mark.parametrize(
    "keys",
    [
        {Level.PATIENT: ["P777"]},
        {Level.STUDY: [ONE]},
        {Level.STUDY: [ONE, "1.2.1.5"]},
        {Level.STUDY: [ONE], Level.SERIES: [ONE_SERIES]},
        {Level.IMAGE: [INSTANCE, "1.2.3.5.1.1"]},
    ],
)
def test_what_is_retrieved(reader: IndexReader, keys: dict[Level, list[str]], with_kinds: bool) -> None:
    statement = select_uids(keys, "postgresql", with_kinds=with_kinds)
    steps = plan(reader, "postgresql", statement)
    assert walks(steps) == [], steps
    assert reader.rows(statement)


@pytest.mark.parametrize("after", [None, 1500])
@pytest.mark.parametrize(
    ("level", "filters"),
    [
        (Level.STUDY, {}),
        (Level.STUDY, {"StudyInstanceUID": ONE}),
        (Level.STUDY, {"PatientName": "777*"}),
        (Level.STUDY, {"StudyDate": "20200101"}),
        (Level.SERIES, {}),
        (Level.SERIES, {"StudyInstanceUID": ONE}),
        (Level.IMAGE, {}),
        (Level.IMAGE, {"SeriesInstanceUID": ONE_SERIES}),
        (Level.IMAGE, {"SOPInstanceUID": INSTANCE}),
    ],
)
def test_a_page_costs_the_same_wherever_it_is(
    reader: IndexReader, level: Level, filters: dict[str, str], after: int | None
) -> None:
    statement = page_statement("postgresql", level, filters, after, 21, newest_first=level is Level.STUDY)
    steps = plan(reader, "postgresql", statement)
    assert walks(steps, "instances") == [], steps  # thousands of studies are few enough to be walked through


def test_the_archive_is_as_large_as_it_was_meant_to_be(reader: IndexReader) -> None:
    assert reader.counts().instances == STUDIES * SERIES * INSTANCES + 1
    assert reader.rows(
        Statement("SELECT count(*) FROM instances WHERE sop_instance_uid = %(uid)s", {"uid": INSTANCE})
    ) == [(1,)]
