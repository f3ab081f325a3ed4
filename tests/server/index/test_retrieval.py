"""Which objects unique keys name, and where they lie."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from support.objects import Sample
from tomowire.server.index.connect import connect_reader
from tomowire.server.index.retrieval import select_uids
from tomowire.server.index.rows import NewRow
from tomowire.server.index.sqlite_reader import SqliteReader
from tomowire.server.index.sqlite_writer import SqliteWriter
from tomowire.services.models import Level

ONE, TWO = Sample(study=1), Sample(study=2)
SAMPLES = [
    *(Sample(number, series=1, study=1, patient_id="A") for number in (1, 2)),
    Sample(3, series=2, study=1, patient_id="A"),
    Sample(4, series=1, study=2, patient_id="A"),
    *(Sample(number, series=1, study=3, patient_id="B") for number in (5, 6)),
]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "index.sqlite"
    with closing(SqliteWriter.open(path, fsync=False)) as writer:
        rows = [NewRow(sample.record, sample.number, 300, 1000 + sample.number, b"", 0, "M") for sample in SAMPLES]
        writer.insert(1, rows)
    with closing(connect_reader(path)) as opened:
        yield opened


def numbers(connection: sqlite3.Connection, keys: Mapping[Level, Sequence[str]]) -> list[int]:
    statement = select_uids(keys)
    return [int(uid.rpartition(".")[2]) for (uid,) in connection.execute(statement.sql, statement.parameters)]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({Level.PATIENT: ["A"]}, {1, 2, 3, 4}),
        ({Level.PATIENT: ["a"]}, set()),
        ({Level.PATIENT: ["A"], Level.STUDY: [ONE.study_uid]}, {1, 2, 3}),
        ({Level.PATIENT: ["B"], Level.STUDY: [ONE.study_uid]}, set()),
        ({Level.STUDY: [ONE.study_uid, TWO.study_uid]}, {1, 2, 3, 4}),
        ({Level.STUDY: [ONE.study_uid], Level.SERIES: [ONE.series_uid]}, {1, 2}),
        ({Level.STUDY: [TWO.study_uid], Level.SERIES: [ONE.series_uid]}, set()),
        ({Level.SERIES: [ONE.series_uid, TWO.series_uid]}, {1, 2, 4}),
        ({Level.SERIES: [ONE.series_uid], Level.IMAGE: [Sample(2).uid, Sample(3).uid]}, {2}),
        ({Level.IMAGE: [Sample(6).uid, Sample(1).uid, Sample(99).uid, Sample(6).uid]}, {1, 6}),
        ({Level.IMAGE: ["1.2.3"]}, set()),
        ({Level.STUDY: [f"{ONE.study_uid}%", f"{ONE.study_uid}*"]}, set()),
    ],
)
def test_each_object_below_what_is_named_once(
    connection: sqlite3.Connection, keys: Mapping[Level, Sequence[str]], expected: set[int]
) -> None:
    found = numbers(connection, keys)
    assert (sorted(found), len(found)) == (sorted(expected), len(expected))


@pytest.mark.parametrize(
    "keys",
    [
        {Level.PATIENT: ["A"]},
        {Level.STUDY: ["1"]},
        {Level.STUDY: ["1", "2"]},
        {Level.STUDY: ["1"], Level.SERIES: ["2", "3"]},
        {Level.STUDY: ["1"], Level.SERIES: ["2"], Level.IMAGE: ["3", "4"]},
        {Level.SERIES: ["2"]},
        {Level.IMAGE: ["3", "4"]},
    ],
)
def test_no_table_is_walked_through(connection: sqlite3.Connection, keys: Mapping[Level, Sequence[str]]) -> None:
    statement = select_uids(keys)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.parameters)]
    assert not [step for step in plan if step.startswith("SCAN") and "json_each" not in step], plan


def test_where_they_lie(connection: sqlite3.Connection) -> None:
    found = SqliteReader(connection).find_objects([Sample(4).uid, "1.2.3", Sample(6).uid])
    assert {uid: (each.name.path, each.header_size, each.data_set_size) for uid, each in found.items()} == {
        sample.uid: (f"{each.name.folder}/{sample.uid}-{sample.number}.dcm", 300, 1000 + sample.number)
        for sample, each in ((SAMPLES[3], found[SAMPLES[3].uid]), (SAMPLES[5], found[SAMPLES[5].uid]))
    }
    assert found[SAMPLES[3].uid].name.study_instance_uid == TWO.study_uid
