"""Reindexing while the archive runs: wrong rows are put right, and nothing else is touched. On both backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from support.filled import fill, small_hospital
from support.objects import ROOT
from tomowire.server.app import Archive
from tomowire.server.index.schema import instances, patients, series, studies
from tomowire.server.jobs.jobs import Job, JobState
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


async def test_files_that_are_not_what_was_stored_are_told_and_their_rows_left(archive: Archive) -> None:
    before = await rows(archive)
    [path] = archive.storage.root.rglob(f"{ROOT}.3.2*")
    path.write_bytes(path.read_bytes().replace(b"first", b"other"))
    job = await reindex(archive, STUDY)
    [item] = await archive.jobs.items(job.job_id)
    assert job.state is JobState.FAILED
    assert "1 files are missing or not what was stored: 'tomowire db check' names them" in item.comment
    assert await rows(archive) == before
