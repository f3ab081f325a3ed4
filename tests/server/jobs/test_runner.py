"""Working on jobs, with kinds of the tests' own: places, leases, shutdown, errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import update

from support.cancelling import cancelled_after_each_step
from tomowire.errors import IndexUnavailable
from tomowire.server.index.administration import jobs as jobs_table
from tomowire.server.jobs import claims
from tomowire.server.jobs.backoff import wait_before
from tomowire.server.jobs.claim import Settled
from tomowire.server.jobs.jobs import Job, JobKind, Jobs, JobState
from tomowire.server.jobs.model import ItemState
from tomowire.server.jobs.work import JobFailed, TryAgain, Work
from tomowire.server.records import Records
from tomowire.server.settings import JobSettings

PATIENT = JobSettings(first_wait=1000, longest_wait=1000)
EACH_INDEX = pytest.mark.parametrize("index_url", ["sqlite", "postgresql"], indirect=True)

Kind = Callable[[Work], Awaitable[None]]


@pytest.fixture
def index_url(request: pytest.FixtureRequest) -> str | None:
    """SQLite unless a test says `EACH_INDEX`: what differs between the two is tested with the claims."""
    is_postgresql = getattr(request, "param", "sqlite") == "postgresql"
    return str(request.getfixturevalue("postgres_url")) if is_postgresql else None


@asynccontextmanager
async def working(
    records: Records, kind: Kind, settings: JobSettings = PATIENT, **options: object
) -> AsyncIterator[Jobs]:
    kinds = {JobKind.QUERY: kind, JobKind.RETRIEVE: kind}
    async with Jobs(records, settings, kinds=kinds, first_look=0.0, **options) as jobs:
        yield jobs


async def until(jobs: Jobs, job: Job, condition: Callable[[Job], bool] = lambda job: job.is_over) -> Job:
    async with asyncio.timeout(20):
        while True:
            found = await jobs.get(job.job_id)
            assert found is not None
            if condition(found):
                return found
            await asyncio.sleep(0.01)


async def settle(work: Work) -> None:
    async for item in work.items():
        await work.settling.add(Settled(item.position, ItemState.DONE))


async def test_so_many_jobs_are_worked_on_at_once_and_no_more(records: Records) -> None:
    gate, running, most = asyncio.Event(), set[str](), list[int]()

    async def kind(work: Work) -> None:
        running.add(work.job.job_id)
        most.append(len(running))
        if len(running) == 3:
            gate.set()
        await gate.wait()
        await settle(work)
        running.discard(work.job.job_id)

    async with working(records, kind, JobSettings(at_once=3)) as jobs:
        made = [await jobs.query("STUDY", {}, f"NODE{number}", by="me") for number in range(8)]
        for job in made:
            assert (await until(jobs, job)).state is JobState.DONE
    assert max(most) == 3


async def test_of_one_node_one_job_is_worked_on_at_a_time_and_others_do_not_wait_for_it(records: Records) -> None:
    gate, order = asyncio.Event(), list[str]()

    async def kind(work: Work) -> None:
        order.append(work.job.node)
        if work.job.node == "SLOW":
            await gate.wait()
        await settle(work)

    async with working(records, kind) as jobs:
        slow = [await jobs.query("STUDY", {}, "SLOW", by="me") for _ in range(3)]
        quick = await jobs.query("STUDY", {}, "QUICK", by="me")
        await until(jobs, quick)
        assert sorted(order) == ["QUICK", "SLOW"]
        gate.set()
        for job in slow:
            await until(jobs, job)
    assert sorted(order) == ["QUICK", "SLOW", "SLOW", "SLOW"]


@EACH_INDEX
async def test_who_loses_the_lease_stops_and_writes_nothing(records: Records) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def kind(work: Work) -> None:
        begun.set()
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()

    async with working(records, kind, JobSettings(lease=0.3, first_wait=1000)) as jobs:
        job = await jobs.query("STUDY", {}, "DEST", by="me")
        await begun.wait()
        await records.write(
            lambda connection: connection.execute(update(jobs_table).values(lease_owner="another", lease_until=2**60))
        )
        async with asyncio.timeout(10):
            await ended.wait()
    found = await jobs.get(job.job_id)
    assert (found.state, found.error) == (JobState.RUNNING, ""), "it is another's"


async def test_who_cannot_renew_the_lease_stops_before_another_begins(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def kind(work: Work) -> None:
        begun.set()
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()

    def fails(*_: object, **__: object) -> None:
        raise IndexUnavailable("the database is away")

    async with working(records, kind, JobSettings(lease=0.5, first_wait=1000)) as jobs:
        await jobs.query("STUDY", {}, "DEST", by="me")
        await begun.wait()
        monkeypatch.setattr(claims, "renew", fails)
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(10):
            await ended.wait()
        assert asyncio.get_running_loop().time() - began < 5
        monkeypatch.undo()


async def test_a_lease_is_renewed_as_long_as_the_work_takes(records: Records) -> None:
    async def kind(work: Work) -> None:
        await asyncio.sleep(1.2)
        await settle(work)

    async with working(records, kind, JobSettings(lease=0.4)) as jobs:
        job = await until(jobs, await jobs.query("STUDY", {}, "DEST", by="me"))
    assert (job.state, job.attempts) == (JobState.DONE, 1)


async def test_a_job_that_another_process_cancels_is_stopped(records: Records) -> None:
    begun = asyncio.Event()

    async def kind(work: Work) -> None:
        begun.set()
        await work.unless_stopped(asyncio.sleep(1000))

    async with working(records, kind, JobSettings(lease=0.3)) as jobs:
        job = await jobs.query("STUDY", {}, "DEST", by="me")
        await begun.wait()
        await Jobs(records).cancel(job.job_id)
        assert (await until(jobs, job)).state is JobState.CANCELLED


async def test_work_that_does_not_stop_when_told_is_cancelled(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomowire.server.jobs.attempt._GRACE", 0.1)
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def kind(work: Work) -> None:
        begun.set()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with working(records, kind) as jobs:
        job = await jobs.query("STUDY", {}, "DEST", by="me")
        await begun.wait()
    assert cancelled.is_set()
    found = await Jobs(records).get(job.job_id)
    assert (found.state, found.attempts, found.error) == (JobState.WAITING, 0, "")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TryAgain("the node is down"), "the node is down"),
        (IndexUnavailable("disk full"), "the index cannot be used now: disk full"),
        (ZeroDivisionError("secret"), "an error of the archive itself, see its log: ZeroDivisionError"),
    ],
)
async def test_what_may_pass_is_tried_again_some_times_and_then_given_up(
    records: Records, error: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = list[int]()

    async def kind(work: Work) -> None:
        attempts.append(work.job.attempts)
        raise error

    async with working(records, kind, JobSettings(attempts=3, first_wait=0.01)) as jobs:
        job = await until(jobs, await jobs.query("STUDY", {}, "DEST", by="me"))
        [item] = await jobs.items(job.job_id)
    assert attempts == [1, 2, 3]
    assert (job.state, job.error) == (JobState.FAILED, f"given up after 3 attempts: {said}")
    assert item.state is ItemState.FAILED
    assert "secret" not in job.error


async def test_what_cannot_be_done_is_not_tried_again(records: Records) -> None:
    async def kind(work: Work) -> None:
        raise JobFailed("no such node")

    async with working(records, kind) as jobs:
        job = await until(jobs, await jobs.query("STUDY", {}, "DEST", by="me"))
    assert (job.state, job.error, job.attempts) == (JobState.FAILED, "no such node", 1)


async def test_a_job_in_which_the_process_dies_each_time_is_given_up(records: Records) -> None:
    jobs = Jobs(records)
    job = await jobs.query("STUDY", {}, "DEST", by="me")
    for number in range(3):
        await records.write(lambda connection, token=str(number): claims.claim(connection, token, lease=-1))

    async def kind(work: Work) -> None:
        pytest.fail("it is not begun any more")

    async with working(records, kind, JobSettings(attempts=3)) as jobs:
        job = await until(jobs, job)
    assert job.state is JobState.FAILED
    assert "killed" in job.error


async def test_the_next_process_of_the_same_name_goes_on_at_once(records: Records) -> None:
    job = await Jobs(records).query("STUDY", {}, "DEST", by="me")
    await records.write(lambda connection: claims.claim(connection, "here|1", lease=1000))
    async with working(records, settle, owner="here") as jobs:
        assert (await until(jobs, job)).state is JobState.DONE


async def test_one_of_another_name_waits_until_the_lease_has_ended(records: Records) -> None:
    job = await Jobs(records).query("STUDY", {}, "DEST", by="me")
    await records.write(lambda connection: claims.claim(connection, "there|1", lease=0.7))
    async with working(records, settle, owner="here") as jobs:
        await asyncio.sleep(0.3)
        assert (await jobs.get(job.job_id)).state is JobState.RUNNING
        assert (await until(jobs, job)).attempts in (1, 2)


async def test_waits_double_up_to_the_longest_and_differ() -> None:
    settings = JobSettings(first_wait=2, longest_wait=60)
    for attempt, bound in ((1, 2), (2, 4), (5, 32), (6, 60), (1000, 60)):
        waits = {wait_before(attempt, settings) for _ in range(50)}
        assert 0 <= min(waits) <= max(waits) <= bound
        assert max(waits) > bound / 2
        assert len(waits) > 40


async def test_nothing_is_asked_of_the_database_while_nothing_is_due(records: Records) -> None:
    async with working(records, settle) as jobs:
        job = await jobs.query("STUDY", {}, "DEST", by="me")
        await until(jobs, job)
        await asyncio.sleep(0.1)
        asked = list[object]()
        write, records.write = records.write, lambda work: asked.append(work) or write(work)
        await asyncio.sleep(0.5)
        assert asked == []


@EACH_INDEX
async def test_a_job_whose_making_is_cancelled_is_there_whole_or_not_at_all(records: Records) -> None:
    jobs = Jobs(records)
    async for _ in cancelled_after_each_step(lambda: jobs.retrieve("STUDY", ["1.2", "1.3"], "DEST", by="me"), growth=2):
        for job in await jobs.list():
            assert job.state is JobState.WAITING
            assert len(await jobs.items(job.job_id)) == job.progress.total == 2
            await records.write(
                lambda connection, job=job: connection.execute(
                    jobs_table.delete().where(jobs_table.c.job_id == job.job_id)
                )
            )


async def test_an_archive_can_end_at_any_moment(records: Records) -> None:
    async def run() -> None:
        async with working(records, settle) as jobs:
            job = await jobs.query("STUDY", {}, "DEST", by="me")
            await until(jobs, job)

    async for _ in cancelled_after_each_step(run, growth=1.7):
        left = await Jobs(records).list(state=["running", "making"])
        assert left == [], "nobody works on them"


async def test_a_database_that_is_away_for_a_while_loses_nothing(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomowire.server.jobs.settling._WAIT_FOR_INDEX", 0.01)
    settle_now, left = claims.settle, [3]
    loop, written = asyncio.get_running_loop(), asyncio.Event()

    def fails_at_first(*arguments: object) -> bool:
        left[0] -= 1
        if left[0] >= 0:
            raise IndexUnavailable("the connection is lost")
        loop.call_soon_threadsafe(written.set)
        return settle_now(*arguments)

    monkeypatch.setattr(claims, "settle", fails_at_first)

    async def kind(work: Work) -> None:
        await settle(work)
        async with asyncio.timeout(10):
            await written.wait()

    async with working(records, kind) as jobs:
        job = await until(jobs, await jobs.retrieve("STUDY", ["1.2", "1.3"], "DEST", by="me"))
    assert (job.state, job.progress.done, job.attempts) == (JobState.DONE, 2, 1)


async def test_what_the_database_does_not_take_ends_the_attempt_and_nobody_waits_for_it(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bool:
        raise ValueError("secret value")

    monkeypatch.setattr(claims, "settle", fails)

    async def kind(work: Work) -> None:
        for _ in range(5000):
            await work.settling.add(Settled(0, ItemState.DONE))

    async with working(records, kind, JobSettings(attempts=1)) as jobs:
        job = await until(jobs, await jobs.query("STUDY", {}, "DEST", by="me"))
    assert job.state is JobState.FAILED
    assert "could not be written down: ValueError" in job.error


async def test_a_job_that_was_done_when_it_was_cancelled_is_done(records: Records) -> None:
    async def kind(work: Work) -> None:
        await settle(work)
        work.cancel()

    async with working(records, kind) as jobs:
        job = await until(jobs, await jobs.query("STUDY", {}, "DEST", by="me"))
    assert (job.state, job.progress.done) == (JobState.DONE, 1)
