"""Which objects unique keys name, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import pytest

from support.objects import SECONDARY_CAPTURE, Sample
from support.queries import plan
from tomowire.server.index.backend import IndexBackend
from tomowire.server.index.reader import IndexReader
from tomowire.server.index.retrieval import select_uids
from tomowire.server.index.rows import NewRow
from tomowire.services.models import Level

ONE, TWO = Sample(study=1), Sample(study=2)
KIND = (SECONDARY_CAPTURE, ONE.transfer_syntax_uid)
SAMPLES = [
    *(Sample(number, series=1, study=1, patient_id="A") for number in (1, 2)),
    Sample(3, series=2, study=1, patient_id="A"),
    Sample(4, series=1, study=2, patient_id="A"),
    *(Sample(number, series=1, study=3, patient_id="B") for number in (5, 6)),
]


@pytest.fixture
def postgres_url(emptied_postgres_url: str) -> str:
    """These tests leave nothing but objects in a database."""
    return emptied_postgres_url


@pytest.fixture
def reader(backend: IndexBackend) -> Iterator[IndexReader]:
    with closing(backend.open_writer()) as writer:
        rows = [NewRow(sample.record, sample.number, 300, 1000 + sample.number, b"", 0, "M") for sample in SAMPLES]
        writer.insert(1, rows)
    with closing(backend.open_reader()) as opened:
        yield opened


@pytest.mark.parametrize("with_kinds", [False, True])
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
    backend: IndexBackend,
    reader: IndexReader,
    keys: Mapping[Level, Sequence[str]],
    expected: set[int],
    with_kinds: bool,
) -> None:
    rows = reader.rows(select_uids(keys, backend.dialect, with_kinds=with_kinds))
    found = [int(row[0].rpartition(".")[2]) for row in rows]
    assert {row[1:] for row in rows} <= {KIND if with_kinds else ()}
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
@pytest.mark.parametrize("index_url", ["sqlite"], indirect=True)
def test_no_table_is_walked_through(reader: IndexReader, keys: Mapping[Level, Sequence[str]]) -> None:
    steps = plan(reader, "sqlite", select_uids(keys, "sqlite")).splitlines()
    assert not [step for step in steps if step.startswith("SCAN") and "json_each" not in step], steps


def test_where_they_lie(reader: IndexReader) -> None:
    found = reader.find_objects([Sample(4).uid, "1.2.3", Sample(6).uid])
    assert {uid: (each.name.path, each.header_size, each.data_set_size) for uid, each in found.items()} == {
        sample.uid: (f"{each.name.folder}/{sample.uid}-{sample.number}.dcm", 300, 1000 + sample.number)
        for sample, each in ((SAMPLES[3], found[SAMPLES[3].uid]), (SAMPLES[5], found[SAMPLES[5].uid]))
    }
    assert found[SAMPLES[3].uid].name.study_instance_uid == TWO.study_uid
