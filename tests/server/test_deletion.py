"""A study is there or it is not: while objects come, while files are held, and whatever else is being done with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.crashes import CrashServer
from support.filesystems import quick_directory
from support.objects import Sample, chunks_of, stream
from support.places import open_storage
from support.stored import contents, files_below, findings
from tomowire.errors import IndexUnavailable, StudyProtected
from tomowire.server import deletion, setbacks
from tomowire.server.archive import ArchiveStorage
from tomowire.server.batch import BatchWriter
from tomowire.server.findings import FindingKind
from tomowire.server.hold import files_held
from tomowire.server.incoming import DuplicatePolicy, Stored
from tomowire.server.index.deleting import Deleted, Doomed
from tomowire.server.protection import Protection
from tomowire.server.removal import Removing, Round, Swept
from tomowire.services.models import Level

ONE, TWO, THREE = Sample(1), Sample(2, series=2), Sample(3, study=2, patient_id="P2")


async def keep(storage: ArchiveStorage, *samples: Sample) -> list[Stored]:
    return list(
        await asyncio.gather(
            *(storage.ingest.receive(each.incoming(), stream(chunks_of(each.data_set))) for each in samples)
        )
    )


@pytest.fixture
async def storage(tmp_path: Path, each_index: str) -> AsyncIterator[ArchiveStorage]:
    async with open_storage(tmp_path, fsync=False, policy=DuplicatePolicy.REPLACE) as storage:
        await keep(storage, ONE, TWO, THREE)
        yield storage


def held_by(storage: ArchiveStorage) -> set[str]:
    """The UIDs in the index, after making sure that nothing is wrong between it and the files."""
    assert findings(storage.root) == []
    held = set(contents(storage.root))
    assert len(files_below(storage.root)) == len(held)
    return held


async def test_what_nobody_has_foreseen_does_not_keep_files_for_ever(
    storage: ArchiveStorage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setbacks, "_FIRST_WAIT", 0.01)
    sweep, failures = deletion._sweep, iter([ZeroDivisionError, ZeroDivisionError])
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def surprised(this_round: Round, writer: BatchWriter) -> Swept:
        if (failure := next(failures, None)) is not None:
            raise failure
        swept = sweep(this_round, writer)
        if swept is Swept.NOTHING:
            loop.call_soon_threadsafe(done.set)
        return swept

    monkeypatch.setattr(deletion, "_sweep", surprised)
    await storage.deletion.study(ONE.study_uid)
    async with asyncio.timeout(30):
        await done.wait()
    assert held_by(storage) == {THREE.uid}
    assert caplog.text.count("removing the files of deleted objects has failed, and is tried again") == 2
    assert "ZeroDivisionError" in caplog.text


async def test_a_study_goes_with_its_files_and_its_patient(storage: ArchiveStorage) -> None:
    [gone] = await storage.deletion.study(ONE.study_uid, by="somebody")
    size = sum(len(sample.header) + len(sample.data_set) for sample in (ONE, TWO))
    assert (gone.study_instance_uid, gone.patient_id, gone.series, gone.instances) == (ONE.study_uid, "P1", 2, 2)
    assert gone.is_whole_study
    assert abs(gone.bytes - size) < 100  # the header of what was received names AE titles too
    await storage.deletion.swept()
    assert held_by(storage) == {THREE.uid}
    assert (await storage.index.counts()).patients == 1


async def test_a_series_goes_and_the_study_stays(storage: ArchiveStorage) -> None:
    [gone] = await storage.deletion.series(TWO.series_uid)
    assert (gone.instances, gone.is_whole_study) == (1, False)
    await storage.deletion.swept()
    assert held_by(storage) == {ONE.uid, THREE.uid}


async def test_the_last_instance_takes_its_study_along(storage: ArchiveStorage) -> None:
    assert [gone.is_whole_study for gone in await storage.deletion.instance(THREE.uid)] == [True]
    await storage.deletion.swept()
    assert held_by(storage) == {ONE.uid, TWO.uid}


async def test_a_series_uid_of_two_studies_can_be_deleted_from_one(storage: ArchiveStorage) -> None:
    same_series = {0x0020000E: ("UI", TWO.series_uid)}
    four = Sample(4, study=2, patient_id="P2", overrides=same_series)
    await keep(storage, four)
    assert len(await storage.deletion.series(TWO.series_uid, study=THREE.study_uid)) == 1
    await storage.deletion.swept()
    assert held_by(storage) == {ONE.uid, TWO.uid, THREE.uid}
    await keep(storage, four)
    assert {gone.study_instance_uid for gone in await storage.deletion.series(TWO.series_uid)} == {
        ONE.study_uid,
        THREE.study_uid,
    }


async def test_what_is_not_there_cannot_go(storage: ArchiveStorage) -> None:
    assert await storage.deletion.study("1.2.3") == ()
    assert await storage.deletion.series("1.2.3") == ()
    assert await storage.deletion.instance("1.2.3") == ()
    assert len(held_by(storage)) == 3


async def test_what_was_deleted_can_be_stored_again(storage: ArchiveStorage) -> None:
    await storage.deletion.study(ONE.study_uid)
    [stored] = await keep(storage, ONE)
    assert stored.outcome.value == "stored"
    await storage.deletion.swept()
    assert held_by(storage) == {ONE.uid, THREE.uid}


async def test_a_protected_study_stays_whole(storage: ArchiveStorage) -> None:
    protection = Protection(storage.records)
    await protection.protect(ONE.study_uid, by="somebody", reason="a trial")
    for attempt in (
        storage.deletion.study(ONE.study_uid),
        storage.deletion.series(ONE.series_uid),
        storage.deletion.instance(ONE.uid),
    ):
        with pytest.raises(StudyProtected, match=ONE.study_uid):
            await attempt
    assert len(held_by(storage)) == 3
    assert await protection.unprotect(ONE.study_uid)
    assert await storage.deletion.study(ONE.study_uid)


async def test_protection_is_listed_and_ended_once(storage: ArchiveStorage) -> None:
    protection = Protection(storage.records)
    first = await protection.protect("1.2.1", by="somebody", reason="a trial")
    assert await protection.protect("1.2.1", by="another") == first
    await protection.protect("1.2.2")
    assert [study.study_instance_uid for study in await protection.list()] == ["1.2.1", "1.2.2"]
    assert [study.study_instance_uid for study in await protection.list(after="1.2.1")] == ["1.2.2"]
    assert await protection.find("1.2.1") == first
    assert await protection.unprotect("1.2.1")
    assert not await protection.unprotect("1.2.1")
    assert await protection.find("1.2.1") is None


async def test_a_study_that_has_grown_since_is_left_alone(storage: ArchiveStorage) -> None:
    assert await storage.deletion.study(ONE.study_uid, unless_newer=0) == ()
    assert len(held_by(storage)) == 3


async def test_listeners_hear_of_what_went_and_for_whom(storage: ArchiveStorage) -> None:
    heard: list[tuple[Deleted, str, str]] = []
    storage.deletion.listeners.append(lambda *told: heard.append(told))
    [gone] = await storage.deletion.study(ONE.study_uid, by="somebody", address="192.0.2.7")
    await asyncio.sleep(0)
    assert heard == [(gone, "somebody", "192.0.2.7")]


async def test_files_that_are_held_stay_until_they_are_let_go(storage: ArchiveStorage) -> None:
    with files_held(storage.root / "hold"):
        await storage.deletion.study(ONE.study_uid)
        await keep(storage, Sample(3, study=2, patient_id="P2", content="second"))
        await storage.deletion.swept()
        assert set(contents(storage.root)) == {THREE.uid}
        assert len(files_below(storage.root)) == 4  # and the one that was replaced
        assert findings(storage.root) == []
        await keep(storage, ONE)
    await storage.deletion.swept()
    assert held_by(storage) == {ONE.uid, THREE.uid}


async def test_what_was_replaced_while_it_was_held_goes_by_itself(
    storage: ArchiveStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_LOOK_AGAIN", 0.01)
    with files_held(storage.root / "hold"):
        await keep(storage, Sample(3, study=2, patient_id="P2", content="second"))
        assert len(files_below(storage.root)) == 4
    async with asyncio.timeout(10):
        while len(files_below(storage.root)) > 3:
            await storage.commit.perform(lambda writer: None)
    assert len(held_by(storage)) == 3


async def test_files_go_when_an_answer_to_the_deletion_was_lost(
    storage: ArchiveStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Removing.delete

    def committed_and_not_told(self: Removing, doomed: Doomed) -> list[Deleted]:
        real(self, doomed)
        raise IndexUnavailable("the connection is lost", in_doubt=True)

    monkeypatch.setattr(Removing, "delete", committed_and_not_told)
    with pytest.raises(IndexUnavailable):
        await storage.deletion.study(ONE.study_uid)
    async with asyncio.timeout(10):
        while len(files_below(storage.root)) > 1:
            await storage.commit.perform(lambda writer: None)
    assert held_by(storage) == {THREE.uid}


async def test_what_waits_to_be_removed_goes_after_the_next_start(tmp_path: Path) -> None:
    async with ArchiveStorage(tmp_path, fsync=False) as storage:
        await keep(storage, ONE, TWO, THREE)
        with files_held(tmp_path / "hold"):
            await storage.deletion.study(ONE.study_uid)
            await storage.deletion.swept()
            await storage.__aexit__(None, None, None)
    assert {finding.kind.value for finding in findings(tmp_path)} == {"unfinished"}
    async with ArchiveStorage(tmp_path, fsync=False) as storage:
        await storage.deletion.swept()
        assert held_by(storage) == {THREE.uid}


async def test_a_file_that_cannot_be_removed_does_not_stop_the_others(storage: ArchiveStorage) -> None:
    path = storage.root / next(path for path in files_below(storage.root) if ONE.uid in path)
    path.unlink()
    path.mkdir()
    await storage.deletion.study(ONE.study_uid)
    await storage.deletion.swept()
    path.rmdir()
    await storage.deletion.swept()
    assert held_by(storage) == {THREE.uid}


async def test_a_file_that_was_passed_over_by_one_round_is_removed_by_another(tmp_path: Path, each_index: str) -> None:
    async with open_storage(tmp_path, fsync=False) as storage:
        await keep(storage, ONE, TWO, THREE)
        path = storage.root / next(path for path in files_below(storage.root) if ONE.uid in path)
        path.unlink()
        path.mkdir()

        def interleaved(writer: BatchWriter) -> list[Swept]:
            writer.removing.delete(Doomed(Level.STUDY, ONE.study_uid))
            first, second = Round(), Round()
            swept = [writer.removing.sweep(first)]
            path.rmdir()
            return [*swept, *(writer.removing.sweep(second) for _ in range(2)), writer.removing.sweep(first)]

        # In the thread that stores, so that the archive's own round cannot come in between.
        assert await storage.commit.perform(interleaved) == [Swept.MORE, Swept.MORE, Swept.NOTHING, Swept.HELD]
        assert held_by(storage) == {THREE.uid}


async def test_deleting_while_the_study_grows(storage: ArchiveStorage) -> None:
    """Whatever comes after the deletion is there, whatever came before is not."""

    async def grow() -> None:
        for number in range(100, 160):
            await keep(storage, Sample(number, series=number % 3), Sample(number + 1000, size=100_000))

    async def shrink() -> None:
        for _ in range(20):
            await storage.deletion.study(ONE.study_uid)
            await storage.deletion.swept()

    await asyncio.gather(grow(), shrink())
    await storage.deletion.study(ONE.study_uid)
    [last] = await keep(storage, Sample(5000))
    assert last.is_new
    await storage.deletion.swept()
    assert held_by(storage) == {THREE.uid, Sample(5000).uid}


async def test_deleting_goes_on_when_its_task_is_cancelled(storage: ArchiveStorage) -> None:
    task = asyncio.create_task(storage.deletion.study(ONE.study_uid))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await storage.deletion.swept()
    assert held_by(storage) == {THREE.uid}


async def test_an_archive_that_is_closed_deletes_nothing(tmp_path: Path) -> None:
    async with ArchiveStorage(tmp_path, fsync=False) as storage:
        await keep(storage, ONE)
    with pytest.raises(IndexUnavailable, match="being closed"):
        await storage.deletion.study(ONE.study_uid)
    assert set(contents(tmp_path)) == {ONE.uid}


@pytest.fixture(scope="module")
def server() -> Iterator[CrashServer]:
    with CrashServer() as started:
        yield started


@pytest.mark.parametrize(
    ("event", "each_index"),
    [("kill", "sqlite"), ("power cut", "sqlite"), ("kill", "postgresql")],
    indirect=["each_index"],
)
def test_ended_at_each_step_of_a_deletion(server: CrashServer, event: str, each_index: str) -> None:
    """The study is there whole or gone whole, and after the next start no file of it is left that belongs to nobody."""
    stored = [[(ONE, False), (TWO, True), (THREE, False)]]
    everything, rest = {ONE.uid, TWO.uid, THREE.uid}, {THREE.uid}
    with quick_directory() as directory:
        server.store(directory / "all", stored)
        steps = server.delete(directory / "all", [ONE.study_uid]).steps
        outcomes = []
        # A database for each step takes its time; what the power takes along is no other thing at each of them.
        for step in range(1, steps + 1, 7 if each_index == "postgresql" else 2 if event == "power cut" else 1):
            root = directory / str(step)
            server.store(root, stored)
            run = server.delete(root, [ONE.study_uid], step=step, event=event)
            assert run.killed
            assert not [finding for finding in findings(root) if finding.kind is not FindingKind.UNFINISHED]
            held = set(contents(root))
            assert held in ((rest,) if run.outcomes else (everything, rest))
            server.delete(root, [])
            assert set(contents(root)) == held
            assert len(files_below(root)) == len(held)
            assert findings(root) == []
            outcomes.append(held)
    assert steps > 15
    assert everything in outcomes
    assert rest in outcomes


def test_each_step_of_a_deletion_fails_once(server: CrashServer) -> None:
    stored = [[(ONE, False), (TWO, True), (THREE, False)]]
    with quick_directory() as directory:
        server.store(directory / "all", stored)
        steps = server.delete(directory / "all", [ONE.study_uid]).steps
        for step in range(1, steps + 1, 2):
            root = directory / str(step)
            server.store(root, stored)
            server.delete(root, [ONE.study_uid], step=step, event="error")
            server.delete(root, [ONE.study_uid])
            assert set(contents(root)) == {THREE.uid}
            assert len(files_below(root)) == 1
            assert findings(root) == []
