"""What goes into the index comes out of it, and a batch goes in whole or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from support.objects import ROOT, Sample
from support.places import index_url_of, select
from tomowire.errors import IndexUnavailable
from tomowire.server.files import ObjectName
from tomowire.server.index.attributes import CodedConcept, InstanceRecord
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.index.postgres_connect import connect
from tomowire.server.index.postgres_series import SeriesKeys
from tomowire.server.index.reader import Counts, IndexReader
from tomowire.server.index.rows import IndexedObject, IndexWriter, NewRow


def new_row(sample: Sample, **changes: object) -> NewRow:
    row = NewRow(
        record=sample.record,
        generation=0,
        header_size=340,
        data_set_size=len(sample.data_set),
        checksum=bytes(range(16)),
        received_at=1_700_000_000_000_000,
        received_from="MODALITY",
    )
    return replace(row, **changes)  # type: ignore[arg-type]


@pytest.fixture
def root(each_index: str, tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def writer(root: Path) -> Iterator[IndexWriter]:
    with closing(backend_of(root).open_writer()) as opened:
        yield opened


@pytest.fixture
def reader(writer: IndexWriter, root: Path) -> Iterator[IndexReader]:
    with backend_of(root).open_reader() as opened:
        yield opened


def backend_of(root: Path) -> IndexBackend:
    return backend_for(index_url_of(root), root, busy_timeout=0.05)


only_sqlite = pytest.mark.parametrize("each_index", ["sqlite"], indirect=True)


def test_what_is_known_of_an_object(writer: IndexWriter, reader: IndexReader) -> None:
    sample = Sample()
    writer.insert(1, [new_row(sample, generation=2)])
    expected = IndexedObject(
        1,
        ObjectName(sample.study_uid, sample.series_uid, sample.uid, 2),
        "1.2.840.10008.5.1.4.1.1.7",
        "1.2.840.10008.1.2.1",
        340,
        len(sample.data_set),
        bytes(range(16)),
        1_700_000_000_000_000,
    )
    assert writer.find([sample.uid, "1.2.3"]) == {sample.uid: expected}
    assert reader.instance(sample.uid) == expected
    assert reader.instance("1.2.3") is None


def test_every_attribute_is_kept(writer: IndexWriter, root: Path) -> None:
    concepts = (CodedConcept("113076", "DCM", code_meaning="Segmentation"), CodedConcept("1", "99X", "2", "Zwölf"))
    record: InstanceRecord = Sample().record
    record = replace(
        record,
        patient=replace(record.patient, patient_name="Łódź^Ägypten=山田", patient_sex="O"),
        study=replace(record.study, patient_size=1.75, procedure_code_sequence=concepts),
        instance=replace(record.instance, instance_number=-3, rows=None, concept_name_code_sequence=concepts[:1]),
    )
    writer.insert(1, [new_row(Sample(), record=record)])
    assert select(root, "SELECT patient_name, patient_sex, patient_id FROM patients") == [
        ("Łódź^Ägypten=山田", "O", "P1")
    ]
    assert select(root, "SELECT patient_size, study_date, patient_weight FROM studies") == [(1.75, "20240229", None)]
    [(number, rows, modality)] = select(
        root, "SELECT instance_number, rows, modality FROM instances JOIN series USING (series_key)"
    )
    assert (number, rows, modality) == (-3, None, "OT")
    [(codes,)] = select(root, "SELECT procedure_code_sequence FROM studies")
    assert json.loads(str(codes)) == [
        {"code_value": "113076", "coding_scheme_designator": "DCM", "code_meaning": "Segmentation"},
        {
            "code_value": "1",
            "coding_scheme_designator": "99X",
            "coding_scheme_version": "2",
            "code_meaning": "Zwölf",
        },
    ]
    assert select(root, "SELECT request_attributes_sequence FROM series") == [("[]",)]
    assert select(root, "SELECT received_at, received_from FROM instances") == [(1_700_000_000_000_000, "MODALITY")]


def test_rows_above_an_instance_are_made_once(writer: IndexWriter, reader: IndexReader) -> None:
    samples = [Sample(n, series=n % 4, study=n % 2) for n in range(20)]
    for number, sample in enumerate(samples):
        writer.insert(number, [new_row(sample)])
    assert reader.counts() == Counts(patients=1, studies=2, series=4, instances=20)
    assert reader.statistics().data_set_bytes == sum(len(sample.data_set) for sample in samples)


def test_a_later_start_finds_the_rows_above(root: Path) -> None:
    for number in (1, 2):
        with closing(backend_of(root).open_writer()) as writer:
            assert writer.last_batch == number - 1
            writer.insert(number, [new_row(Sample(number))])
    with backend_of(root).open_reader() as reader:
        assert reader.counts() == Counts(1, 1, 1, 2)


def test_patients_without_an_id_are_not_one_patient(writer: IndexWriter, reader: IndexReader) -> None:
    def nobody(number: int, name: str, birth_date: str) -> Sample:
        overrides = {0x00100010: ("PN", name), 0x00100030: ("DA", birth_date)}
        return Sample(number, study=number, patient_id="", overrides=overrides)

    writer.insert(1, [new_row(nobody(1, "Doe^Jane", "")), new_row(nobody(2, "DOE^JANE", ""))])
    assert reader.counts().patients == 1
    writer.insert(2, [new_row(nobody(3, "Doe^John", "")), new_row(nobody(4, "Doe^Jane", "19700101"))])
    assert reader.counts().patients == 3


def test_the_same_id_of_two_issuers_is_two_patients(writer: IndexWriter, reader: IndexReader) -> None:
    writer.insert(1, [new_row(Sample(1)), new_row(Sample(2, study=2, overrides={0x00100021: ("LO", "HOSPITAL")}))])
    assert reader.counts().patients == 2


def test_a_study_stays_with_its_first_patient(
    writer: IndexWriter, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer.insert(1, [new_row(Sample(1))])
    for number in (2, 3):
        writer.insert(number, [new_row(Sample(number, patient_id="Roe"))])
    assert select(root, "SELECT patient_id FROM patients JOIN studies USING (patient_key)") == [("P1",)]
    assert select(root, "SELECT count(*) FROM instances") == [(3,)]
    warnings = [message for message in caplog.messages if Sample().study_uid in message]
    assert len(warnings) == 1  # not for each object
    assert "Roe" not in caplog.text
    assert "P1" not in caplog.text


def test_a_study_under_another_patient_is_told_of_once(writer: IndexWriter, caplog: pytest.LogCaptureFixture) -> None:
    writer.insert(1, [new_row(Sample(number, series=number, study=number % 2)) for number in (1, 2)])
    rows = [new_row(Sample(number, series=number, study=number % 2, patient_id="Roe")) for number in range(3, 31)]
    writer.insert(2, rows)
    assert len(caplog.messages) == 2  # two studies, 28 series


def test_one_series_uid_in_two_studies_is_two_series(writer: IndexWriter, reader: IndexReader) -> None:
    overrides = {0x0020000E: ("UI", f"{ROOT}.9")}
    writer.insert(1, [new_row(Sample(n, study=n, overrides=overrides)) for n in (1, 2)])
    assert reader.counts() == Counts(1, 2, 2, 2)


def test_what_is_replaced_goes_with_all_that_it_leaves_empty(writer: IndexWriter, reader: IndexReader) -> None:
    writer.insert(1, [new_row(Sample(1)), new_row(Sample(2))])
    for number, expected in ((1, Counts(2, 2, 2, 2)), (2, Counts(1, 1, 1, 2))):
        moved = Sample(number, study=7, patient_id="Roe")
        writer.insert(2, [new_row(moved, replaces=writer.find([moved.uid])[moved.uid])])
        assert reader.counts() == expected
        found = reader.instance(moved.uid)
        assert found is not None
        assert found.name.study_instance_uid == moved.study_uid
    writer.insert(3, [new_row(Sample(3))])  # the first study, made anew
    assert reader.counts() == Counts(2, 2, 2, 3)


def test_a_row_that_cannot_be_stored_takes_its_batch_with_it(writer: IndexWriter, reader: IndexReader) -> None:
    writer.insert(1, [new_row(Sample(1))])
    record = Sample(3, study=3).record
    broken = replace(record, instance=replace(record.instance, instance_number=1 << 70))
    with pytest.raises((OverflowError, psycopg.DataError)):
        writer.insert(2, [new_row(Sample(2, study=2)), new_row(Sample(3, study=3), record=broken)])
    assert reader.counts() == Counts(1, 1, 1, 1)
    assert writer.last_batch == 1
    writer.insert(2, [new_row(Sample(2, study=2))])  # what the batch had remembered of its series is forgotten
    assert reader.counts() == Counts(1, 2, 2, 2)


@only_sqlite
def test_a_locked_database_is_unavailable_and_nothing_is_lost(writer: IndexWriter, root: Path) -> None:
    with closing(sqlite3.connect(root / "index.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(IndexUnavailable, match="locked") as failure:
            writer.insert(1, [new_row(Sample(1))])
        assert not failure.value.in_doubt
        other.execute("ROLLBACK")
    writer.insert(1, [new_row(Sample(1))])
    assert writer.last_batch == 1


@only_sqlite
def test_readers_cannot_write(reader: IndexReader) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.connection.execute("DELETE FROM instances")


def test_objects_come_in_pages_while_others_are_stored(writer: IndexWriter, reader: IndexReader) -> None:
    writer.insert(1, [new_row(Sample(n)) for n in range(2500)])
    objects = reader.objects()
    seen = [next(objects)]
    writer.insert(2, [new_row(Sample(2500))])
    seen += objects
    assert [found.name.sop_instance_uid for found in seen] == [Sample(n).uid for n in range(2501)]


@pytest.mark.parametrize("count", [1, 40], ids=["inserted", "copied"])
def test_text_that_a_sender_may_think_of(writer: IndexWriter, root: Path, count: int) -> None:
    """What would be a mark, an end or an escape for a database is text, and what its text cannot hold does not come so far."""
    comment = "tab\t cr\r lf\n quote' \" {brace},\\.\\N \\x41 % %s :key $1 😀 " + "x" * 60_000
    samples = [
        Sample(
            number,
            overrides={
                0x00080005: ("CS", "ISO_IR 192"),
                0x00081030: ("LO", "a\0b\\N\\\\c\t"),
                0x00104000: ("LT", comment),
                0x00700081: ("LO", f"{number}\t\\N\n\r\\."),
            },
        )
        for number in range(1, count + 1)
    ]
    writer.insert(1, [new_row(sample) for sample in samples])
    records = [sample.record for sample in samples]
    assert select(root, "SELECT content_description FROM instances ORDER BY instance_key") == [
        (record.instance.content_description,) for record in records
    ]
    assert select(root, "SELECT study_description FROM studies") == [(records[0].study.study_description,)]
    assert "\0" not in records[0].study.study_description


def test_values_longer_than_a_page_of_an_index(writer: IndexWriter, reader: IndexReader) -> None:
    """PostgreSQL refuses more than 2700 bytes in what it looks things up by."""
    long = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(3000))  # nothing that could be compressed
    tags = (0x00100010, 0x00100020, 0x00100021, 0x00100030, 0x00080020, 0x00080030, 0x00080050, 0x00200010, 0x00080060)
    overrides = dict.fromkeys(tags, ("LO", long)) | {0x00080005: ("CS", "ISO_IR 192"), 0x00400244: ("LO", long)}
    writer.insert(1, [new_row(Sample(overrides=overrides))])
    assert reader.counts() == Counts(1, 1, 1, 1)


def test_who_makes_the_same_series_second_gets_the_first(postgres_url: str) -> None:
    """Two programs at once: the one that is second waits for the other's transaction, and makes nothing."""
    records = [Sample(number, series=number % 3, study=number % 2).record for number in range(6)]
    with connect(postgres_url) as one, connect(postgres_url) as other, ThreadPoolExecutor(1) as thread:
        one.execute("BEGIN")
        made = SeriesKeys().of(one, records)
        waiting = thread.submit(SeriesKeys().of, other, records[::-1])
        assert not wait([waiting], timeout=0.3).done
        one.execute("COMMIT")
        assert waiting.result(timeout=30) == made[::-1]
    assert len(set(made)) == 6
