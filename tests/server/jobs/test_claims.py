"""Leases: whose a job is, and what those can do who have lost it. On both backends."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest

from support.subprocesses import python_environment
from tomowire.server.jobs import claims, table
from tomowire.server.jobs.claim import Claim, Settled
from tomowire.server.jobs.model import ItemState, Job, JobKind, JobState
from tomowire.server.jobs.request import NewJob
from tomowire.server.records import Records

UIDS = [f"1.2.{number}" for number in range(1, 11)]


def make(records: Records, *, node: str = "DEST", uids: list[str] = UIDS) -> Job:
    def work(connection):
        key = table.make(connection, str(uuid4()), NewJob(JobKind.SEND, node, {}, "me"), lease=60)
        assert table.add_items(connection, key, 0, uids, lease=60)
        return table.begin(connection, key, total=len(uids), size=None, parameters={})

    return records.write_now(work)


def claim(records: Records, token: str = "a", *, lease: float = 60, full: tuple[str, ...] = ()) -> Claim | None:
    return records.write_now(lambda connection: claims.claim(connection, token, lease=lease, full=full))


def settle(records: Records, mine: Claim, *settled: Settled) -> bool:
    return records.write_now(lambda connection: claims.settle(connection, mine, settled))


def get(records: Records, job: Job) -> Job:
    found = records.read_now(lambda connection: table.get(connection, job.job_id))
    assert found is not None
    return found


def states(records: Records, job: Job) -> Counter[str]:
    found = records.read_now(lambda connection: table.items(connection, job.job_id, (), -1, 1000))
    return Counter(item.state.value for item in found)


def test_of_many_processes_each_job_goes_to_exactly_one(
    records: Records, index_url: str | None, tmp_path: Path
) -> None:
    made = {make(records, uids=["1.2"]).job_id for _ in range(60)}
    command = [sys.executable, "-m", "support.job_claims", index_url or "", str(tmp_path)]
    processes = [
        subprocess.Popen(command, env=python_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # at the same moment
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    claimed = [job_id for output in outputs for job_id in output]
    assert sorted(claimed) == sorted(made)
    assert sum(map(bool, outputs)) >= 3, "each takes 20 at most"


def test_a_job_that_is_claimed_is_nobody_elses(records: Records) -> None:
    make(records)
    assert claim(records, "a") is not None
    assert claim(records, "b") is None


def test_the_one_that_is_due_for_longest_goes_first(records: Records) -> None:
    first, second = make(records), make(records)
    assert [claim(records).job.job_id for _ in range(2)] == [first.job_id, second.job_id]


def test_a_job_is_not_claimed_before_its_time(records: Records) -> None:
    make(records)
    mine = claim(records)
    records.write_now(lambda connection: claims.release(connection, mine, JobState.WAITING, wait=60))
    assert claim(records) is None
    assert 50 < records.read_now(claims.next_deadline) <= 60


def test_a_node_that_is_full_gets_no_more(records: Records) -> None:
    make(records, node="FULL")
    other = make(records, node="OTHER")
    assert claim(records, full=("FULL",)).job.job_id == other.job_id
    assert claim(records, full=("FULL",)) is None
    assert records.read_now(lambda connection: claims.next_deadline(connection, full=["FULL"])) > 50, "busy waiting"


def test_when_a_lease_has_ended_another_process_has_the_job(records: Records) -> None:
    job = make(records)
    first = claim(records, "a", lease=-1)
    assert get(records, job).is_left
    second = claim(records, "b")
    assert second.job.job_id == job.job_id
    assert not get(records, job).is_left
    assert second.job.attempts == 2
    assert first.job.attempts == 1


def test_who_has_lost_the_lease_writes_nothing_any_more(records: Records) -> None:
    job = make(records)
    lost = claim(records, "a", lease=-1)
    claim(records, "b")
    before = get(records, job)
    assert not settle(records, lost, Settled(0, ItemState.DONE, 0))
    assert records.write_now(lambda connection: claims.renew(connection, lost, lease=60)) is None
    assert records.write_now(lambda connection: claims.release(connection, lost, JobState.DONE)) is None
    assert not records.write_now(lambda connection: claims.fail_rest(connection, lost, "lost"))
    assert states(records, job) == {"waiting": 10}
    after = get(records, job)
    assert (after.state, after.progress.done, after.error) == (before.state, 0, "")


def test_leases_of_a_process_that_is_known_to_be_gone_end_at_once(records: Records) -> None:
    make(records), make(records)
    claim(records, "host:/a_b|1")
    claim(records, "host:/aXb|1")
    assert records.write_now(lambda connection: claims.free(connection, "host:/a_b|")) == 1
    assert claim(records, "host:/a_b|2") is not None
    assert claim(records, "host:/a_b|3") is None


def test_the_counts_of_a_job_are_those_of_its_items(records: Records) -> None:
    job = make(records)
    mine = claim(records)
    assert settle(
        records,
        mine,
        Settled(3, ItemState.WARNING, 0xB000, "coerced", 100),
        Settled(0, ItemState.DONE, 0, "", 50),
        Settled(1, ItemState.FAILED, 0xC000, "no"),
        Settled(2, ItemState.WAITING, 0xA700, "full"),
    )
    progress = get(records, job).progress
    assert (progress.total, progress.done, progress.warnings, progress.failed) == (10, 2, 1, 1)
    assert progress.bytes_done == 150
    assert progress.remaining == 7
    assert states(records, job) == {"done": 1, "warning": 1, "failed": 1, "waiting": 7}


def test_what_was_written_twice_counts_once(records: Records) -> None:
    job = make(records)
    mine = claim(records)
    for _ in range(2):  # as after a connection that was lost during the commit
        assert settle(records, mine, Settled(0, ItemState.DONE, 0, "", 50), Settled(1, ItemState.FAILED, 0xC000))
    progress = get(records, job).progress
    assert (progress.done, progress.failed, progress.bytes_done) == (1, 1, 50)


def test_what_a_peer_says_is_kept_whatever_it_is(records: Records) -> None:
    job = make(records)
    mine = claim(records)
    assert settle(records, mine, Settled(0, ItemState.FAILED, 0xC000, "a\0b\udcff\u65e5" + "x" * 5000))
    records.write_now(lambda connection: claims.release(connection, mine, JobState.FAILED, error="c\0d"))
    [item, *_] = records.read_now(lambda connection: table.items(connection, job.job_id, (), -1, 1))
    assert item.comment.startswith("a\ufffdb?\u65e5x")
    assert len(item.comment) == 1000
    assert get(records, job).error == "c\ufffdd"


def test_what_a_job_did_before_it_was_killed_does_not_count_for_its_rate(records: Records) -> None:
    job = make(records)
    mine = claim(records, lease=-1)
    settle(records, mine, *(Settled(place, ItemState.DONE, 0, "", 10**12) for place in range(9)))
    claim(records, "b")
    progress = get(records, job).progress
    assert progress.bytes_per_second == 0
    assert progress.seconds_left is None


def test_attempts_that_bring_nothing_are_counted_and_those_that_do_are_not(records: Records) -> None:
    job = make(records)
    for number in (1, 2, 3):
        mine = claim(records)
        assert mine.job.attempts == number
        records.write_now(lambda connection, mine=mine: claims.release(connection, mine, JobState.WAITING))
    settle(records, claim(records), Settled(0, ItemState.DONE, 0))
    assert get(records, job).attempts == 1


def test_retrying_takes_only_what_was_not_acknowledged(records: Records) -> None:
    job = make(records)
    mine = claim(records)
    settle(records, mine, Settled(0, ItemState.DONE, 0, "", 7), Settled(1, ItemState.FAILED, 0xC000, "no"))
    records.write_now(lambda connection: claims.fail_rest(connection, mine, "given up"))
    records.write_now(lambda connection: claims.release(connection, mine, JobState.FAILED, error="given up"))
    assert get(records, job).progress.failed == 9
    again = records.write_now(lambda connection: claims.retry(connection, job.job_id))
    assert (again.state, again.progress.failed, again.progress.done, again.error) == (JobState.WAITING, 0, 1, "")
    mine = claim(records)
    left = records.read_now(lambda connection: table.waiting_items(connection, mine.job_key, -1, 100))
    assert [item.position for item in left] == list(range(1, 10))


@pytest.mark.parametrize("state", [JobState.DONE, JobState.RUNNING])
def test_what_runs_or_is_done_is_not_retried(records: Records, state: JobState) -> None:
    job = make(records)
    mine = claim(records)
    if state is JobState.DONE:
        records.write_now(lambda connection: claims.release(connection, mine, JobState.DONE))
    assert records.write_now(lambda connection: claims.retry(connection, job.job_id)).state is state


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_runs_is_asked_to_stop(records: Records) -> None:
    waiting = make(records)
    assert records.write_now(lambda connection: claims.cancel(connection, waiting.job_id)).state is JobState.CANCELLED
    assert claim(records) is None
    running = make(records)
    mine = claim(records)
    asked = records.write_now(lambda connection: claims.cancel(connection, running.job_id))
    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    assert records.write_now(lambda connection: claims.renew(connection, mine, lease=60)) is True


def test_a_job_whose_maker_was_killed_is_not_begun(records: Records) -> None:
    def half(connection):
        key = table.make(connection, str(uuid4()), NewJob(JobKind.SEND, "DEST", {}, "me"), lease=-1)
        table.add_items(connection, key, 0, UIDS, lease=-1)

    records.write_now(half)
    assert claim(records) is None
    records.write_now(claims.end_unmade)
    [left] = records.read_now(lambda connection: table.page(connection, (), (), None, 10))
    assert left.state is JobState.FAILED
    assert "make it again" in left.error


def test_jobs_that_have_been_over_for_long_are_forgotten_with_their_items(records: Records) -> None:
    job = make(records)
    mine = claim(records)
    records.write_now(lambda connection: claims.release(connection, mine, JobState.FAILED))
    young = make(records)
    assert records.write_now(lambda connection: table.forget_finished(connection, 3600, most=10)) == 0
    assert records.write_now(lambda connection: table.forget_finished(connection, -1, most=4)) == 4  # of ten items
    assert records.write_now(lambda connection: claims.retry(connection, job.job_id)).state is JobState.FAILED
    assert records.write_now(lambda connection: table.forget_finished(connection, -1, most=4)) == 4
    assert records.write_now(lambda connection: table.forget_finished(connection, -1, most=4)) == 3  # and the job
    assert records.write_now(lambda connection: table.forget_finished(connection, -1, most=4)) == 0
    assert records.read_now(lambda connection: table.get(connection, job.job_id)) is None
    assert not states(records, job)
    assert states(records, young) == {"waiting": 10}


def test_figures_of_the_queue(records: Records) -> None:
    make(records), make(records)
    claim(records)
    figures = records.read_now(table.figures)
    assert (figures.waiting, figures.running) == (1, 1)
    assert 0 <= figures.oldest < 60


def test_jobs_are_listed_page_by_page(records: Records) -> None:
    made = [make(records).job_id for _ in range(5)]
    first = records.read_now(lambda connection: table.page(connection, (), (), None, 3))
    rest = records.read_now(lambda connection: table.page(connection, (), (), first[-1].job_id, 3))
    assert [job.job_id for job in (*first, *rest)] == made[::-1]
    assert records.read_now(lambda connection: table.page(connection, ("done",), (), None, 3)) == []
