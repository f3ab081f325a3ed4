"""Send-to jobs in an archive: what becomes of each object, and of the job, with destinations of all kinds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from support.filled import fill
from support.network import LOOPBACK, free_port
from support.objects import Sample
from support.receiver import Receiver
from support.telling import listening
from tomowire import Storage, StoreRequest, listen
from tomowire.errors import StoreFailed, UsageError
from tomowire.server.app import Archive
from tomowire.server.jobs import sending
from tomowire.server.jobs.jobs import Jobs
from tomowire.server.jobs.model import Job, JobState
from tomowire.server.nodes import Node
from tomowire.server.settings import JobSettings, Settings
from tomowire.testing import FaultyPeer, Rejection

SAMPLES = [Sample(number, number % 3) for number in range(1, 31)]
STUDY = SAMPLES[0].study_uid
UIDS = [sample.uid for sample in SAMPLES]
QUICK = JobSettings(first_wait=0.01, longest_wait=0.05, attempts=3, lease=5)
PATIENT = JobSettings(first_wait=1000, longest_wait=1000)
"""Whoever waits for the next attempt waits for ever."""
EACH_INDEX = pytest.mark.parametrize("index_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def index_url(request: pytest.FixtureRequest) -> str | None:
    """SQLite unless a test says `EACH_INDEX`: what differs between the two is tested with the claims."""
    is_postgresql = getattr(request, "param", "sqlite") == "postgresql"
    return str(request.getfixturevalue("postgres_url")) if is_postgresql else None


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_WAITS", (0.01,))


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with listen(LOOPBACK, 0, services=[Storage(receiver.keep)]) as receiver.server:
        yield receiver


@pytest.fixture
def settings(tmp_path: Path, index_url: str | None) -> Settings:
    return Settings(tmp_path, port=0, index_url=index_url, jobs=QUICK)


@asynccontextmanager
async def archive_with(settings: Settings, port: int, **changes: object) -> AsyncIterator[Jobs]:
    """The jobs of an archive that holds `SAMPLES` and knows the node DEST."""
    if settings.index_url is not None or not settings.data_dir.joinpath("index.sqlite").exists():
        await fill(settings.data_dir, SAMPLES, index_url=settings.index_url)
    settings = replace(settings, nodes=(Node("DEST", LOOPBACK, port),), **changes)
    async with Archive(settings) as archive:
        yield archive.jobs


async def until(jobs: Jobs, job: Job, condition: Callable[[Job], bool] = lambda job: job.is_over) -> Job:
    async with asyncio.timeout(20):
        while True:
            found = await jobs.get(job.job_id)
            assert found is not None
            if condition(found):
                return found
            await asyncio.sleep(0.01)


@EACH_INDEX
async def test_a_study_is_sent_as_it_is_stored(settings: Settings, receiver: Receiver) -> None:
    async with archive_with(settings, receiver.server.port) as jobs:
        made = await jobs.send("STUDY", [STUDY], "DEST", by="me")
        assert (made.progress.total, made.created_by, made.node) == (30, "me", "DEST")
        job = await until(jobs, made)
    assert (job.state, job.error) == (JobState.DONE, "")
    assert (job.progress.done, job.progress.warnings, job.progress.failed) == (30, 0, 0)
    assert job.progress.bytes_done == job.progress.bytes_total == sum(len(sample.data_set) for sample in SAMPLES)
    assert receiver.received == {sample.uid: sample.data_set for sample in SAMPLES}
    assert len(receiver.times) == 30


@pytest.mark.parametrize(
    ("level", "uids", "count"),
    [
        ("PATIENT", ["P1"], 30),
        ("SERIES", [SAMPLES[0].series_uid, SAMPLES[1].series_uid], 20),
        ("IMAGE", [UIDS[5], UIDS[3], UIDS[5]], 2),
    ],
)
async def test_what_is_sent_can_be_named_at_any_level(
    settings: Settings, receiver: Receiver, level: str, uids: list[str], count: int
) -> None:
    async with archive_with(settings, receiver.server.port) as jobs:
        job = await until(jobs, await jobs.send(level, uids, "DEST", by="me"))
    assert (job.state, job.progress.done, len(receiver.received)) == (JobState.DONE, count, count)


async def test_what_is_not_there_makes_no_job(settings: Settings, receiver: Receiver) -> None:
    async with archive_with(settings, receiver.server.port) as jobs:
        with pytest.raises(UsageError, match=r"has no study 1\.2\.3"):
            await jobs.send("STUDY", [STUDY, "1.2.3"], "DEST", by="me")
        with pytest.raises(UsageError, match="knows no node ELSEWHERE"):
            await jobs.send("STUDY", [STUDY], "ELSEWHERE", by="me")
        with pytest.raises(UsageError, match="as a list"):
            await jobs.send("STUDY", STUDY, "DEST", by="me")
        with pytest.raises(UsageError, match="is not a UID"):
            await jobs.send("STUDY", ["1.2\0.3"], "DEST", by="me")
        with pytest.raises(UsageError, match="is not a Patient ID"):
            await jobs.send("PATIENT", ["\udcff"], "DEST", by="me")
        assert await jobs.get("\0") is None
        assert await jobs.list() == []


@EACH_INDEX
async def test_warnings_count_as_sent_and_failures_of_some_stop_no_others(
    settings: Settings, receiver: Receiver
) -> None:
    statuses = {UIDS[0]: 0xB000, UIDS[1]: 0xA900, UIDS[2]: 0xC123, UIDS[3]: 0x0110}
    receiver.on_object = lambda request: statuses.get(request.sop_instance_uid)
    async with archive_with(settings, receiver.server.port) as jobs:
        job = await until(jobs, await jobs.send("STUDY", [STUDY], "DEST", by="me"))
        items = {item.uid: item for item in await jobs.items(job.job_id)}
        assert (job.state, job.progress.done, job.progress.warnings) == (JobState.FAILED, 27, 1)
        assert job.progress.failed == 3
        assert job.error == "3 of 30 failed: the items say why"
        assert {uid: (items[uid].state.value, items[uid].status) for uid in statuses} == {
            UIDS[0]: ("warning", 0xB000),
            UIDS[1]: ("failed", 0xA900),
            UIDS[2]: ("failed", 0xC123),
            UIDS[3]: ("failed", 0x0110),
        }
        assert len(receiver.times) == 30, "what is refused for good is not sent again"

        receiver.on_object = lambda request: None
        await jobs.retry(job.job_id)
        job = await until(jobs, job)
    assert (job.state, job.progress.done, job.progress.failed) == (JobState.DONE, 30, 0)
    assert sorted(receiver.times[30:]) == sorted(UIDS[1:4]), "only what was not acknowledged is sent again"


async def test_what_a_destination_has_no_room_for_now_is_sent_later(settings: Settings, receiver: Receiver) -> None:
    refused = {UIDS[4]: 3, UIDS[9]: 3}

    def answer(request: StoreRequest) -> int | None:
        left = refused.get(request.sop_instance_uid, 0)
        refused[request.sop_instance_uid] = left - 1
        return 0xA700 if left > 0 else None

    receiver.on_object = answer
    async with archive_with(settings, receiver.server.port) as jobs:
        job = await until(jobs, await jobs.send("STUDY", [STUDY], "DEST", by="me"))
    assert (job.state, job.progress.done) == (JobState.DONE, 30)


async def test_what_never_has_room_is_given_up_after_some_attempts(settings: Settings, receiver: Receiver) -> None:
    receiver.on_object = lambda request: 0xA700 if request.sop_instance_uid == UIDS[0] else None
    async with archive_with(settings, receiver.server.port) as jobs:
        job = await until(jobs, await jobs.send("STUDY", [STUDY], "DEST", by="me"))
        [item] = await jobs.items(job.job_id, state="failed")
    assert (job.state, job.progress.done, job.progress.failed) == (JobState.FAILED, 29, 1)
    assert job.error == "given up after 3 attempts: 1 of 30 were not done: the items say why"
    assert (item.uid, item.status, item.comment) == (UIDS[0], 0xA700, "given up after 3 attempts")


async def test_a_node_that_is_down_is_tried_again_when_it_is_said_to_be_up(settings: Settings) -> None:
    port = free_port()
    async with archive_with(settings, port, jobs=PATIENT) as jobs:
        job = await jobs.send("STUDY", [STUDY], "DEST", by="me")
        job = await until(jobs, job, lambda job: job.state is JobState.WAITING and job.attempts > 0)
        assert job.error.count(f"DEST@{LOOPBACK}:{port}") == 1
        assert "check host and port" in job.error
        assert (job.progress.done, job.progress.failed) == (0, 0)
        receiver = Receiver()
        async with listen(LOOPBACK, port, services=[Storage(receiver.keep)]) as receiver.server:
            await jobs.node_changed("DEST")
            job = await until(jobs, job)
    assert (job.state, len(receiver.received)) == (JobState.DONE, 30)


async def test_a_node_that_stays_down_is_given_up_and_what_to_do_is_said(settings: Settings) -> None:
    async with archive_with(settings, free_port()) as jobs:
        job = await until(jobs, await jobs.send("STUDY", [STUDY], "DEST", by="me"))
        items = await jobs.items(job.job_id, state="failed")
    assert (job.state, job.progress.failed, len(items)) == (JobState.FAILED, 30, 30)
    assert "given up after 3 attempts" in job.error
    assert "check host and port" in job.error


async def test_a_node_that_refuses_us_is_not_asked_again_and_again(settings: Settings) -> None:
    async with FaultyPeer.rejects(Rejection.CALLING_AE_TITLE) as peer, archive_with(settings, peer.port) as jobs:
        job = await until(jobs, await jobs.send("STUDY", [STUDY], "DEST", by="me"))
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    assert job.error.endswith("; retry this job when that is mended")


async def test_what_a_node_says_of_objects_is_in_the_job_and_not_in_the_log(
    settings: Settings, receiver: Receiver
) -> None:
    def refuse(request: StoreRequest) -> None:
        raise StoreFailed(0xA900, "SMITH^JOHN is unknown")

    receiver.on_object = refuse
    async with archive_with(settings, receiver.server.port) as jobs:
        with listening("tomowire.server.jobs", logging.DEBUG) as told:
            job = await until(jobs, await jobs.send("STUDY", [STUDY], "DEST", by="me"))
            shown = [await told.message()]
            while not shown[-1].endswith("is failed: 30 of 30 failed"):
                shown.append(await told.message())
    assert "SMITH^JOHN" in job.error
    assert shown[-1] == f"INFO: job {job.job_id} is failed: 30 of 30 failed"
    assert not any("SMITH" in line for line in shown)


async def test_a_node_that_accepts_no_context_is_not_asked_again_and_again(settings: Settings) -> None:
    async with FaultyPeer.refuses_contexts() as peer, archive_with(settings, peer.port) as jobs:
        job = await until(jobs, await jobs.send("STUDY", [STUDY], "DEST", by="me"))
        items = await jobs.items(job.job_id, state="failed")
    assert (job.state, job.attempts, len(items)) == (JobState.FAILED, 1, 30)
    assert "it has to be enabled there" in items[0].comment
    assert job.error == f"30 of 30 failed: {items[0].comment}"


@pytest.mark.parametrize("kind", ["aborts", "resets", "closes", "wrong_message_id", "babbles"])
async def test_a_node_that_does_not_keep_to_the_standard_is_given_up(settings: Settings, kind: str) -> None:
    async with getattr(FaultyPeer, kind)() as peer, archive_with(settings, peer.port) as jobs:
        job = await until(jobs, await jobs.send("IMAGE", UIDS[:3], "DEST", by="me"))
    assert (job.state, job.progress.done, job.progress.failed) == (JobState.FAILED, 0, 3)
    assert job.error


@EACH_INDEX
async def test_a_node_that_dies_in_the_middle_is_sent_the_rest_later(settings: Settings) -> None:
    port, received = free_port(), Receiver()
    seen = asyncio.Event()

    async def answer(request: StoreRequest) -> int | None:
        if len(received.received) >= 10:
            seen.set()
            await asyncio.sleep(1000)
        return None

    received.on_object = answer
    async with archive_with(settings, port, jobs=PATIENT) as jobs:
        async with listen(LOOPBACK, port, services=[Storage(received.keep)], shutdown_grace=0.0) as received.server:
            job = await jobs.send("STUDY", [STUDY], "DEST", by="me")
            async with asyncio.timeout(20):
                await seen.wait()
        job = await until(jobs, job, lambda job: job.state is JobState.WAITING and bool(job.error))
        acknowledged = list(received.received)
        assert job.progress.done == len(acknowledged) == 10
        received.on_object = lambda request: None
        async with listen(LOOPBACK, port, services=[Storage(received.keep)]) as received.server:
            await jobs.retry(job.job_id)
            job = await until(jobs, job)
    assert (job.state, job.progress.done, len(received.received)) == (JobState.DONE, 30, 30)
    assert set(map(received.times.count, acknowledged)) == {1}, "what was acknowledged is not sent again"


async def test_cancelling_finishes_the_object_that_is_being_sent_and_stops(
    settings: Settings, receiver: Receiver
) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def hold(request: StoreRequest) -> None:
        if len(receiver.received) == 5:
            begun.set()
            await gate.wait()

    receiver.on_object = hold
    async with archive_with(settings, receiver.server.port) as jobs:
        job = await jobs.send("STUDY", [STUDY], "DEST", by="me")
        await begun.wait()
        asked = await jobs.cancel(job.job_id)
        assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
        gate.set()
        job = await until(jobs, job)
        assert job.state is JobState.CANCELLED
        assert job.progress.done == len(receiver.received) < 30
        assert not receiver.server.associations, "the association was released"
        receiver.on_object = lambda request: None
        await jobs.retry(job.job_id)
        job = await until(jobs, job)
    assert (job.state, job.progress.done, len(receiver.times)) == (JobState.DONE, 30, 30)


@EACH_INDEX
async def test_an_archive_that_ends_stops_its_jobs_and_the_next_goes_on(settings: Settings, receiver: Receiver) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def hold(request: StoreRequest) -> None:
        if len(receiver.received) >= 5:
            begun.set()
            await gate.wait()

    receiver.on_object = hold
    async with archive_with(settings, receiver.server.port, jobs=PATIENT) as jobs:
        job = await jobs.send("STUDY", [STUDY], "DEST", by="me")
        await begun.wait()
        [attempt] = jobs._runner._attempts.values()
        opening = asyncio.create_task(_then(attempt.work.stop, gate))
    await opening
    assert 5 < len(receiver.received) < 30, "what was being sent was finished, and nothing more begun"
    async with Archive(replace(settings, nodes=(Node("DEST", LOOPBACK, receiver.server.port),))) as archive:
        stopped = await archive.jobs.get(job.job_id)
        assert (stopped.state, stopped.progress.done) == (JobState.WAITING, len(receiver.received))
        assert (stopped.error, stopped.attempts) == ("", 0)
        archive.jobs.wake()
        job = await until(archive.jobs, job)
    assert (job.state, job.progress.done, len(receiver.times)) == (JobState.DONE, 30, 30)


async def _then(first: asyncio.Event, second: asyncio.Event) -> None:
    await first.wait()
    second.set()


async def test_a_node_that_was_removed_is_named(settings: Settings) -> None:
    async with archive_with(settings, free_port(), jobs=PATIENT) as jobs:
        job = await jobs.send("STUDY", [STUDY], "DEST", by="me")
        await until(jobs, job, lambda job: bool(job.error))
    async with Archive(settings) as archive:
        await archive.jobs.retry(job.job_id)
        job = await until(archive.jobs, job)
    assert job.state is JobState.FAILED
    assert "knows no node DEST: add it to the configuration" in job.error


async def test_what_has_left_the_archive_fails_and_the_rest_is_sent(settings: Settings, receiver: Receiver) -> None:
    async with archive_with(settings, receiver.server.port) as jobs:
        [path] = settings.data_dir.rglob(f"{UIDS[7]}*")
        path.write_bytes(b"short")
        job = await until(jobs, await jobs.send("STUDY", [STUDY], "DEST", by="me"))
        [item] = await jobs.items(job.job_id, state="failed")
    assert (job.state, job.progress.done) == (JobState.FAILED, 29)
    assert item.uid == UIDS[7]
    assert "db check" in item.comment
