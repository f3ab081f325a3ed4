"""Reindexing while the archive runs: wrong rows are put right, and nothing else is touched. On both backends."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psycopg
import pytest
from sqlalchemy import select, update

from support.audit_schema import violations
from support.filled import fill, small_hospital
from support.objects import ROOT, Sample, chunks_of, stream
from tomowire.server.app import Archive
from tomowire.server.archive import ArchiveStorage
from tomowire.server.audit.trail import Filter
from tomowire.server.index.schema import instances, patients, series, studies
from tomowire.server.jobs import mending
from tomowire.server.jobs.jobs import Job, JobState
from tomowire.server.reindex import reindex as made_anew
from tomowire.server.settings import JobSettings, Settings

STUDY = f"{ROOT}.1.1"
TABLES = (patients, studies, series, instances)


@pytest.fixture
async def archive(tmp_path: Path, index_url: str | None) -> AsyncIterator[Archive]:
    await fill(tmp_path, small_hospital(), index_url=index_url)
    async with Archive(Settings(tmp_path, port=0, index_url=index_url, jobs=JobSettings(attempts=1))) as archive:
        yield archive


async def rows(archive: Archive) -> list[list[Any]]:
    return await archive.storage.records.read(
        lambda connection: [connection.execute(select(table).order_by(table.c[0])).all() for table in TABLES]
    )


async def reindex(archive: Archive, *studies: str) -> Job:
    ended = asyncio.get_running_loop().create_future()
    archive.jobs.on_end = ended.set_result
    await archive.jobs.reindex(studies, by="me")
    async with asyncio.timeout(20):
        return await ended


async def test_rows_that_are_right_stay_as_they_are(archive: Archive) -> None:
    before = await rows(archive)
    job = await reindex(archive, STUDY)
    [item] = await archive.jobs.items(job.job_id)
    assert (job.state, item.comment) == (JobState.DONE, "5 files read, 0 rows put right")
    assert await rows(archive) == before


async def test_a_study_is_locked_before_its_objects(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a deletion does it: the other way round each could wait for the other, and everybody for the thread that stores."""
    is_locked: list[bool] = []
    put_right = mending._put_right

    def looking(*arguments: Any) -> int:
        with psycopg.connect(postgres_url) as other:
            try:
                other.execute("SELECT 1 FROM studies WHERE study_instance_uid = %s FOR NO KEY UPDATE NOWAIT", [STUDY])
                is_locked.append(False)
            except psycopg.errors.LockNotAvailable:
                is_locked.append(True)
        return put_right(*arguments)

    monkeypatch.setattr(mending, "_put_right", looking)
    await fill(tmp_path, small_hospital(), index_url=postgres_url)
    async with Archive(Settings(tmp_path, port=0, index_url=postgres_url)) as archive:
        assert (await reindex(archive, STUDY)).state is JobState.DONE
    assert len(is_locked) >= 5
    assert all(is_locked)


async def test_rows_that_are_wrong_are_put_right_and_those_of_other_studies_stay_wrong(archive: Archive) -> None:
    before = await rows(archive)

    def spoil(connection: Any) -> None:
        connection.execute(update(instances).values(instance_number=99))
        connection.execute(update(series).values(modality="XX"))
        connection.execute(update(studies).values(accession_number="WRONG", study_date=""))
        connection.execute(update(patients).values(patient_name="WRONG", patient_name_normalized="WRONG"))

    await archive.storage.records.write(spoil)
    job = await reindex(archive, STUDY)
    [item] = await archive.jobs.items(job.job_id)
    assert (job.state, item.comment) == (JobState.DONE, "5 files read, 9 rows put right")  # 5, 2, 1 and 1
    after = await rows(archive)
    assert [len([row for row in table if row in right]) for table, right in zip(after, before, strict=True)] == [
        1,
        1,
        2,
        5,
    ]
    await reindex(archive, *(f"{ROOT}.1.{number}" for number in (1, 2, 3, 4)))
    assert await rows(archive) == before


async def told(archive: Archive) -> list[tuple[str, str, int, str]]:
    """Event, actor, outcome and the message, with what is in base64 in it, of what was not done by the archive itself."""
    await archive.audit.flush()
    found = [(each.event, each.actor, each.outcome, readable(each.message)) for each in await archive.audit.list()]
    return [each for each in found if each[1] == "me"]


def readable(message: str) -> str:
    values = re.findall(r'<ParticipantObjectDetail type="[^"]*" value="([^"]*)"', message)
    return message + "".join(base64.b64decode(each).decode() for each in values)


async def test_the_audit_trail_has_who_changed_what_the_index_says_of_which_study(archive: Archive) -> None:
    """PS3.15 A.5.3.6, action U: only of what was changed. The job as a whole is a Security Alert, Software Configuration."""
    await archive.storage.records.write(lambda each: each.execute(update(instances).values(instance_number=99)))
    job = await reindex(archive, STUDY)
    changed, done = await told(archive)
    assert (changed[0], changed[2], done[0], done[2]) == ("instances-accessed", 0, "configuration-changed", 0)
    assert 'EventActionCode="U"' in changed[3]
    assert f'ParticipantObjectID="{STUDY}"' in changed[3]
    assert "<ParticipantObjectName>Doe^Jane</ParticipantObjectName>" in changed[3]
    assert re.findall(r'NumberOfInstances="(\d+)"', changed[3]) == ["5"]
    assert "110131" in done[3]
    for each in await archive.audit.list(Filter(actor="me")):
        assert list(violations(ElementTree.fromstring(each.message))) == []
    for message in (changed[3], done[3]):
        assert job.job_id in message
    assert "compared with 5 files: 5 rows put right" in done[3]
    again = await reindex(archive, STUDY)
    *before, last = await told(archive)
    assert before == [changed, done]
    assert f"compared with 5 files: 0 rows put right; job {again.job_id}" in last[3]


async def test_the_audit_trail_has_what_could_not_be_compared(archive: Archive) -> None:
    [path] = archive.storage.root.rglob(f"{ROOT}.3.2*")
    path.unlink()
    await reindex(archive, STUDY)
    [(event, _, outcome, message)] = await told(archive)
    assert (event, outcome) == ("configuration-changed", 4)
    assert "compared with 5 files: 0 rows put right; 1 file missing" in message


async def test_files_that_are_not_what_was_stored_are_told_and_their_rows_left(archive: Archive) -> None:
    before = await rows(archive)
    [path] = archive.storage.root.rglob(f"{ROOT}.3.2*")
    path.write_bytes(path.read_bytes().replace(b"first", b"other"))
    job = await reindex(archive, STUDY)
    [item] = await archive.jobs.items(job.job_id)
    assert job.state is JobState.FAILED
    assert "1 file missing or not what was stored: 'tomowire db check' names them" in item.comment
    assert await rows(archive) == before


async def test_what_disagrees_is_said_by_the_same_object_as_when_the_index_was_made(
    tmp_path: Path, index_url: str | None
) -> None:
    """The greatest UIDs came first: rows that are made together need not have their keys in the order of their objects."""
    samples = [
        Sample(
            number,
            series=number,
            study=number // 2,
            patient_id=f"P{number % 2}",
            overrides={0x00100010: ("PN", f"Name^{number}"), 0x00081030: ("LO", f"description {number}")},
        )
        for number in range(9, 0, -1)
    ]
    async with ArchiveStorage(tmp_path, index_url=index_url) as storage:
        for sample in samples:
            await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))
    made_anew(tmp_path, index_url=index_url)
    async with Archive(Settings(tmp_path, port=0, index_url=index_url)) as archive:
        before = await rows(archive)
        job = await reindex(archive, *{sample.study_uid for sample in samples})
        assert [
            item.comment for item in await archive.jobs.items(job.job_id) if "0 rows put right" not in item.comment
        ] == []
        assert job.state is JobState.DONE
        assert await rows(archive) == before
