"""The disk is full, the directory read-only, the index locked: status A700, nothing left, and the next object is stored."""

from __future__ import annotations

import itertools
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from support.filesystems import directory_of_nobody, tiny_disk
from support.objects import Sample, chunks_of, stream
from support.places import index_url_of, open_storage
from support.stored import contents, files_below, findings
from tomowire.errors import IndexUnavailable, StoreFailed
from tomowire.server.archive import ArchiveStorage
from tomowire.server.batch import BatchWriter
from tomowire.server.files import DataDirectory, series_folder
from tomowire.server.folders import SeriesFolders
from tomowire.server.incoming import DuplicatePolicy, Outcome, Stored
from tomowire.server.index.backend import backend_for
from tomowire.server.index.rows import IndexWriter, NewRow
from tomowire.server.ingest import SMALL
from tomowire.server.recovery import recover

SMALL_ONE, LARGE_ONE = Sample(1, series=1), Sample(2, series=2, size=3 * SMALL)

on_both = pytest.mark.usefixtures("each_index")

both_sizes = pytest.mark.parametrize("sample", [SMALL_ONE, LARGE_ONE], ids=["small", "large"])


async def receive(storage: ArchiveStorage, sample: Sample) -> Stored:
    return await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set, SMALL)))


async def status_of(storage: ArchiveStorage, sample: Sample) -> int:
    try:
        await receive(storage, sample)
    except StoreFailed as failure:
        return failure.status
    return 0


async def assert_refused(storage: ArchiveStorage, sample: Sample, reason: str) -> None:
    """Status A700 (PS3.4 B.2.3: out of resources), and nothing of the object is left."""
    before = files_below(storage.root), contents(storage.root)
    with pytest.raises(StoreFailed, match=reason) as failure:
        await receive(storage, sample)
    assert failure.value.status == 0xA700
    assert len(failure.value.comment) <= 64
    assert str(storage.root) not in failure.value.comment
    assert (files_below(storage.root), contents(storage.root)) == before
    assert files_below(storage.root, "incoming") == {"incoming/journal"}


async def assert_taken(storage: ArchiveStorage, sample: Sample) -> None:
    assert (await receive(storage, sample)).outcome is Outcome.STORED
    assert contents(storage.root)[sample.uid] == sample.data_set
    assert findings(storage.root) == []


@on_both
@both_sizes
async def test_the_disk_is_full(tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomowire.server.room.KEPT", 0)
    with tiny_disk(tmp_path / "disk", 4 << 20) as disk:
        async with open_storage(disk) as storage:
            await assert_taken(storage, Sample(8))
            with fill(disk):
                await assert_refused(storage, sample, "No space left")
                await assert_refused(storage, sample, "No space left")
            await assert_taken(storage, sample)


async def test_the_disk_is_full_when_the_index_is_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomowire.server.room.KEPT", 0)
    with tiny_disk(tmp_path / "disk", 4 << 20) as disk:
        async with open_storage(disk) as storage:
            await assert_taken(storage, Sample(8))
            with fill(disk, spare=64 << 10):  # room for the objects and not for the log
                results = [await status_of(storage, Sample(n, series=n)) for n in range(100, 200)]
                assert {0, 0xA700} == set(results)
                assert len(files_below(disk)) == len(contents(disk)) == results.count(0) + 1
            await assert_taken(storage, Sample(9))


@both_sizes
async def test_objects_leave_room_for_deleting_some_of_them(tmp_path: Path, sample: Sample) -> None:
    victim = Sample(50, series=50, study=50, size=200_000)
    with tiny_disk(tmp_path / "disk", 8 << 20) as disk:
        async with ArchiveStorage(disk) as storage:
            await assert_taken(storage, victim)
            with fill(disk, spare=1 << 20):
                number = itertools.count(100)
                while await status_of(storage, replace(sample, number=next(number), study=2)) == 0:
                    pass
                assert shutil.disk_usage(disk).free > (8 << 20) / 20 - 2 * sample.size - 65536
                await assert_refused(storage, sample, "what is left is kept for the index")
                assert await storage.deletion.study(victim.study_uid, by="a person")
                await storage.deletion.swept()
                assert (await receive(storage, sample)).outcome is Outcome.STORED


@contextmanager
def fill(disk: Path, *, spare: int = 0) -> Iterator[None]:
    """Use up all room but `spare` bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(file.tell() - spare)
    yield
    ballast.unlink()


async def test_a_file_may_not_grow_as_large_as_it_should(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with open_storage(tmp_path) as storage:
        await assert_taken(storage, SMALL_ONE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * SMALL, before[1]))
        try:
            await assert_refused(storage, LARGE_ONE, "File too large")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await assert_taken(storage, LARGE_ONE)


@both_sizes
@pytest.mark.parametrize("folders", [["objects"], ["objects", "incoming"], ["incoming"]], ids="+".join)
async def test_the_directory_is_read_only(sample: Sample, folders: list[str]) -> None:
    with directory_of_nobody() as root:
        async with open_storage(root) as storage:
            await assert_taken(storage, Sample(8, study=8))
            for folder in folders:
                (root / folder).chmod(0o500)
            if folders == ["incoming"] and sample is SMALL_ONE:
                await assert_taken(storage, sample)  # which has no part file
            else:
                await assert_refused(storage, sample, "Permission denied")
            for folder in folders:
                (root / folder).chmod(0o700)
            await assert_taken(storage, Sample(9, study=9))


@on_both
@both_sizes
async def test_the_data_directory_is_gone(tmp_path: Path, sample: Sample) -> None:
    """Perhaps its disk is not mounted any more: nothing is written to what is below."""
    root = tmp_path / "data"
    async with open_storage(root) as storage:
        await assert_taken(storage, Sample(8))
        shutil.rmtree(root)
        with pytest.raises(StoreFailed, match=str(root)) as failure:
            await receive(storage, sample)
        assert (failure.value.status, failure.value.comment) == (0xA700, "the data directory is gone")
    assert not root.exists()


@both_sizes
async def test_somebody_holds_the_index(tmp_path: Path, sample: Sample) -> None:
    async with open_storage(tmp_path, busy_timeout=0.05) as storage:
        with closing(sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await assert_refused(storage, sample, "index: database is locked")
            other.execute("ROLLBACK")
        await assert_taken(storage, sample)


async def test_a_refused_replacement_leaves_the_first(tmp_path: Path) -> None:
    second = replace(SMALL_ONE, content="second")
    async with open_storage(tmp_path, policy=DuplicatePolicy.REPLACE, busy_timeout=0.05) as storage:
        await assert_taken(storage, SMALL_ONE)
        with closing(sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await assert_refused(storage, second, "locked")
            other.execute("ROLLBACK")
        assert (await receive(storage, second)).outcome is Outcome.REPLACED
        assert findings(tmp_path) == []


@on_both
async def test_somebody_removed_the_folder_of_a_series(tmp_path: Path) -> None:
    async with open_storage(tmp_path) as storage:
        first = await receive(storage, Sample(1))
        (tmp_path / first.path).unlink()
        (tmp_path / first.path).parent.rmdir()
        assert (await receive(storage, Sample(2))).outcome is Outcome.STORED
        assert (await receive(storage, Sample(3, size=2 * SMALL))).outcome is Outcome.STORED
        assert [finding.path for finding in findings(tmp_path)] == [first.path]


class Parts:
    """The parts of an archive below its event loop."""

    def __init__(self, root: Path) -> None:
        self.directory = DataDirectory.open(root)
        backend = backend_for(index_url_of(root), root, busy_timeout=0.05)
        self.index = backend.open_writer()
        recover(self.directory, self.index)
        self.writer = BatchWriter(self.directory, self.index, policy=DuplicatePolicy.KEEP)

    def store(self, *samples: Sample) -> list[Outcome | int]:
        results = self.writer.write([sample.new_object() for sample in samples])
        return [result.outcome if isinstance(result, Stored) else result.status for result in results]

    def close(self) -> None:
        self.writer.close()
        self.index.close()
        self.directory.close()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path)
    yield opened
    opened.close()


@on_both
def test_one_that_fails_does_not_fail_its_batch(parts: Parts, tmp_path: Path) -> None:
    in_the_way = tmp_path / series_folder(Sample(2, study=2).study_uid, Sample(2, study=2).series_uid)
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_bytes(b"not a folder")
    assert parts.store(Sample(1), Sample(2, study=2), Sample(3)) == [Outcome.STORED, 0xA700, Outcome.STORED]
    assert set(contents(tmp_path)) == {Sample(1).uid, Sample(3).uid}
    in_the_way.unlink()
    assert parts.store(Sample(2, study=2)) == [Outcome.STORED]
    assert findings(tmp_path) == []


@on_both
def test_one_that_the_database_does_not_take_does_not_fail_its_batch(parts: Parts, tmp_path: Path) -> None:
    odd = Sample(2).new_object()
    record = replace(odd.record, instance=replace(odd.record.instance, instance_number=1 << 70))
    batch = [Sample(1).new_object(), replace(odd, record=record), Sample(3).new_object()]
    first, second, third = parts.writer.write(batch)
    assert isinstance(first, Stored)
    assert isinstance(second, StoreFailed)
    assert second.status == 0x0110  # PS3.7 Annex C: processing failure
    assert isinstance(third, Stored)
    assert set(contents(tmp_path)) == {Sample(1).uid, Sample(3).uid}
    assert findings(tmp_path) == []


@on_both
def test_killed_while_the_rows_go_in_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def insert(self: IndexWriter, number: int, rows: Sequence[NewRow]) -> None:
        if [row.record.instance.sop_instance_uid for row in rows] == [Sample(4).uid]:
            raise Killed
        real(self, number, rows)

    odd = Sample(2).new_object()
    record = replace(odd.record, instance=replace(odd.record.instance, instance_number=1 << 70))
    batch = [Sample(n).new_object() for n in (1, 3, 4, 5)]
    batch.insert(1, replace(odd, record=record))
    parts = Parts(tmp_path)
    real = type(parts.index).insert
    with monkeypatch.context() as patched:
        patched.setattr(type(parts.index), "insert", insert)
        with pytest.raises(Killed):
            parts.writer.write(batch)
    parts.close()
    assert len(files_below(tmp_path)) == 4  # of 2 there is no file any more
    Parts(tmp_path).close()
    assert set(contents(tmp_path)) == {Sample(1).uid, Sample(3).uid}
    assert len(files_below(tmp_path)) == 2
    assert findings(tmp_path) == []


def test_a_file_that_cannot_be_removed_is_removed_later(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: SeriesFolders, path: str) -> None:
        raise PermissionError(1, "not now")

    parts.store(Sample(1))
    with closing(sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with monkeypatch.context() as patched:
            patched.setattr(SeriesFolders, "remove", refuse)
            assert parts.store(Sample(2)) == [0xA700]
        other.execute("ROLLBACK")
    assert len(files_below(tmp_path)) == 2
    assert set(contents(tmp_path)) == {Sample(1).uid}
    assert parts.store(Sample(3)) == [Outcome.STORED]
    assert len(files_below(tmp_path)) == 2
    assert findings(tmp_path) == []


@on_both
@pytest.mark.parametrize("sent_again", [False, True])
@pytest.mark.parametrize("restart", [False, True])
def test_a_commit_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: bool, sent_again: bool) -> None:
    """The log was written and its sync failed: the rows may come back with the next start, so the files wait for it."""
    parts = Parts(tmp_path)

    def fail(*arguments: object) -> None:
        raise IndexUnavailable("disk I/O error", in_doubt=True)

    with monkeypatch.context() as patched:
        patched.setattr(type(parts.index), "insert", fail)
        assert parts.store(Sample(1)) == [0xA700]
    assert len(files_below(tmp_path)) == 1
    if restart:
        parts.close()
        parts = Parts(tmp_path)
    later = [Sample(1), Sample(2)] if sent_again else [Sample(2)]
    assert parts.store(*later) == [Outcome.STORED] * len(later)
    assert contents(tmp_path) == {sample.uid: sample.data_set for sample in later}
    assert len(files_below(tmp_path)) == len(later)
    assert findings(tmp_path) == []
    parts.close()


@on_both
async def test_what_was_not_foreseen_ends_a_batch_and_not_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("not foreseen")

    async with open_storage(tmp_path) as storage:
        with monkeypatch.context() as patched:
            patched.setattr(type(storage.writer._index), "find", fail)
            with pytest.raises(StoreFailed) as failure:
                await receive(storage, SMALL_ONE)
        assert failure.value.status == 0x0110  # PS3.7 Annex C: processing failure
        await assert_taken(storage, SMALL_ONE)


def test_an_older_index_does_not_cost_a_file(parts: Parts, tmp_path: Path) -> None:
    """Somebody puts a copy of the index in its place that was made before the last batches."""
    parts.store(Sample(1))
    copy = tmp_path / "copy.sqlite"
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    for number in (2, 3):
        parts.store(Sample(number))
    parts.close()
    copy.replace(tmp_path / "index.sqlite")
    parts.__init__(tmp_path)  # type: ignore[misc]
    assert len(files_below(tmp_path)) == 3
    assert set(contents(tmp_path)) == {Sample(1).uid}
    assert {finding.kind.value for finding in findings(tmp_path)} == {"not indexed"}


@on_both
@pytest.mark.parametrize("break_it", [bytes.upper, lambda data: data[:5], lambda data: b""])
def test_a_journal_that_says_nothing(tmp_path: Path, break_it: Callable[[bytes], bytes]) -> None:
    parts = Parts(tmp_path)
    parts.store(Sample(1))
    parts.close()
    journal = tmp_path / "incoming" / "journal"
    journal.write_bytes(break_it(journal.read_bytes()))
    parts = Parts(tmp_path)
    assert parts.store(Sample(2)) == [Outcome.STORED]
    parts.close()
    assert len(contents(tmp_path)) == 2
