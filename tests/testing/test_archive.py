"""The archive for tests: it keeps what it gets, finds it again, and gives it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian

from support.network import LOOPBACK
from support.objects import ROOT, SECONDARY_CAPTURE, Sample
from support.receiver import Receiver
from tomowire import Peer, Query, QueryFailed, RetrieveFailed, Storage, listen
from tomowire.errors import UsageError
from tomowire.services.models import Model
from tomowire.testing import Archive

pytestmark = pytest.mark.usefixtures("no_leaks")

SAMPLES = (
    Sample(1, study=1, series=1, overrides={0x00100010: ("PN", "Smith^Anna"), 0x00080060: ("CS", "CT")}),
    Sample(2, study=1, series=2, overrides={0x00100010: ("PN", "Smith^Anna"), 0x00080060: ("CS", "MR")}),
    Sample(3, study=1, series=2, overrides={0x00100010: ("PN", "Smith^Anna"), 0x00080060: ("CS", "MR")}),
    Sample(4, study=2, patient_id="P2", overrides={0x00080020: ("DA", "20250101")}),
)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for sample in SAMPLES:
        paths.append(tmp_path / f"{sample.number}.dcm")
        paths[-1].write_bytes(sample.header + sample.data_set)
    return paths


@pytest.fixture
async def archive(files: list[Path]) -> AsyncIterator[Archive]:
    async with Archive(files) as running:
        yield running


async def found(archive: Archive, query: Query | Dataset, **options: Any) -> list[Dataset]:
    async with Peer(archive.address) as peer:
        return [each async for each in peer.find(query, **options)]


# Storing


async def test_what_is_sent_is_kept_byte_for_byte(files: list[Path]) -> None:
    async with Archive() as archive, Peer(archive.address) as peer:
        assert [sent.status async for sent in peer.send(*files)] == [0] * 4
        await archive.wait_for(4)
    assert {uid: each.data for uid, each in archive.objects.items()} == {each.uid: each.data_set for each in SAMPLES}
    assert [each.InstanceNumber for each in archive.datasets] == [1, 2, 3, 4]
    first = archive.objects[SAMPLES[0].uid]
    assert (first.sop_class_uid, first.transfer_syntax_uid) == (SECONDARY_CAPTURE, SAMPLES[0].transfer_syntax_uid)
    assert first.dataset.file_meta.MediaStorageSOPInstanceUID == first.sop_instance_uid == SAMPLES[0].uid


async def test_a_data_set_can_be_put_into_it(files: list[Path]) -> None:
    with_meta, without = dcmread(files[0]), Dataset()
    without.SOPClassUID, without.SOPInstanceUID, without.PatientName = SECONDARY_CAPTURE, "1.2.3", "Dee^X"
    archive = Archive([with_meta, without])
    assert archive.objects[with_meta.SOPInstanceUID].data == SAMPLES[0].data_set
    assert archive.objects["1.2.3"].dataset.PatientName == "Dee^X"
    assert not hasattr(without, "file_meta"), "it is the caller's"
    implicit = dcmread(files[1])
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    implicit.set_original_encoding(True, True)
    archive.add(implicit)
    assert archive.objects[implicit.SOPInstanceUID].transfer_syntax_uid == ImplicitVRLittleEndian


async def test_objects_can_be_waited_for(archive: Archive) -> None:
    assert archive.arrived(4).done()
    fifth = archive.arrived(5)
    with pytest.raises(TimeoutError):
        await archive.wait_for(5, timeout=0.05)
    late: Future[None] = archive.arrived(6)
    archive.add(dcmread(BytesIO(Sample(5).header + Sample(5).data_set)))
    assert fifth.done()
    assert not late.done()


def test_a_start_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Archive():
        with pytest.raises(ValueError, match="sock"), Archive(sock=object()):
            pass
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_it_has_no_address_before_it_listens() -> None:
    with pytest.raises(UsageError):
        _ = Archive().address


# Finding (PS3.4 C.2.2.2)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query.studies(), [1, 2]),
        (Query.studies().patient_name("smith*"), [1]),
        (Query.studies().patient_name("SMITH^ANNA"), [1]),
        (Query.studies().patient_name("Sm?th^*"), [1]),
        (Query.studies().patient_name("Smith"), []),
        (Query.studies().patient_id("P2"), [2]),
        (Query.studies().patient_id("p2"), []),
        (Query.studies().study_date("20240229"), [1]),
        (Query.studies().study_date("20240301", None), [2]),
        (Query.studies().study_date(None, "20240301"), [1]),
        (Query.studies().study_time("10", "11"), [1, 2]),
        (Query.studies().study_time("1016", None), []),
        (Query.studies().modality("MR"), [1]),
        (Query.studies().study_uid(f"{ROOT}.1.2", f"{ROOT}.1.3"), [2]),
    ],
)
async def test_studies_are_found(archive: Archive, query: Query, expected: list[int]) -> None:
    answers = await found(archive, query)
    assert [each.StudyInstanceUID for each in answers] == [f"{ROOT}.1.{number}" for number in expected]


async def test_answers_have_what_was_asked_for_and_what_is_counted(archive: Archive) -> None:
    query = (
        Query.studies()
        .study_uid(f"{ROOT}.1.1")
        .returning("ModalitiesInStudy", "BodyPartExamined", "RequestAttributesSequence")
    )
    (study,) = await found(archive, query)
    assert (study.NumberOfStudyRelatedSeries, study.NumberOfStudyRelatedInstances) == (2, 3)
    assert list(study.ModalitiesInStudy) == ["CT", "MR"]
    assert (study.PatientName, study.RetrieveAETitle, study.BodyPartExamined) == ("Smith^Anna", "ARCHIVE", "")
    assert study.RequestAttributesSequence == []
    assert "PixelData" not in study


async def test_the_other_levels(archive: Archive) -> None:
    study, series = f"{ROOT}.1.1", f"{ROOT}.2.1.2"
    assert [each.PatientID for each in await found(archive, Query.patients())] == ["P1", "P2"]
    assert [each.Modality for each in await found(archive, Query.series(study))] == ["CT", "MR"]
    assert [each.InstanceNumber for each in await found(archive, Query.images(study, series))] == [2, 3]


async def test_items_of_sequences_are_matched(archive: Archive) -> None:
    dataset = dcmread(BytesIO(Sample(9, study=9).header + Sample(9, study=9).data_set))
    item = Dataset()
    item.ScheduledProcedureStepID = "S1"
    dataset.RequestAttributesSequence = [item]
    archive.add(dataset)
    for step, expected in (("S1", [f"{ROOT}.2.9.1"]), ("S2", [])):
        query = Query.series(f"{ROOT}.1.9").where("RequestAttributesSequence", {"ScheduledProcedureStepID": step})
        assert [each.SeriesInstanceUID for each in await found(archive, query)] == expected


async def test_a_query_without_a_level_is_refused(archive: Archive) -> None:
    asked = Dataset()
    asked.StudyInstanceUID = ""
    with pytest.raises(QueryFailed) as caught:
        await found(archive, asked)
    assert caught.value.status == 0xA900


# Retrieving


async def test_objects_are_given_back(archive: Archive, tmp_path: Path) -> None:
    into = tmp_path / "received"
    async with Peer(archive.address) as peer:
        async for _ in peer.get(Query.series(f"{ROOT}.1.1").series_uid(f"{ROOT}.2.1.2"), into):
            pass
    received = [dcmread(path) for path in into.rglob("*.dcm")]
    assert {each.SOPInstanceUID for each in received} == {SAMPLES[1].uid, SAMPLES[2].uid}


async def test_many_retrievals_at_once_do_not_get_in_each_others_way(archive: Archive, tmp_path: Path) -> None:
    async def get(number: int) -> list[str]:
        into = tmp_path / str(number)
        async with Peer(archive.address) as peer:
            async for _ in peer.get(Query.study(f"{ROOT}.1.1"), into):
                pass
        return sorted(dcmread(path).SOPInstanceUID for path in into.rglob("*.dcm"))

    results = await asyncio.gather(*(get(number) for number in range(8)))
    assert results == [sorted(sample.uid for sample in SAMPLES[:3])] * 8


async def test_objects_are_moved_where_it_was_told(archive: Archive) -> None:
    receiver = Receiver()
    async with listen(LOOPBACK, 0, services=[Storage(receiver.keep)]) as server, Peer(archive.address) as peer:
        receiver.server = server
        archive.destinations["RECEIVER"] = f"RECEIVER@{LOOPBACK}:{server.port}"
        async for _ in peer.move(Query.study(f"{ROOT}.1.2"), "RECEIVER"):
            pass
        assert receiver.received == {SAMPLES[3].uid: SAMPLES[3].data_set}
        with pytest.raises(RetrieveFailed) as caught:
            async for _ in peer.move(Query.study(f"{ROOT}.1.2"), "NOBODY"):
                pass
    assert caught.value.status == 0xA801


@pytest.mark.parametrize("model", list(Model))
async def test_all_models_are_served(archive: Archive, model: Model) -> None:
    level = Query.patients() if model is not Model.STUDY_ROOT else Query.studies()
    assert len(await found(archive, level, model=model)) == 2
