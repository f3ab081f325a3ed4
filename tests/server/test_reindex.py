"""The index is made again from the files, and a crash at any step leaves a whole one."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from support.crashes import CrashServer
from support.filesystems import quick_directory, tiny_disk
from support.objects import Sample, chunks_of, stream
from support.places import change_index, columns, lose_index, open_storage, reindex, select, upgrade
from support.stored import contents, findings
from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server import reindex as reindexing
from tomowire.server.files import DataDirectory, ObjectName
from tomowire.server.findings import Finding, FindingKind
from tomowire.server.hold import files_held
from tomowire.server.incoming import DuplicatePolicy
from tomowire.server.index.backend import backend_for
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN

on_both = pytest.mark.usefixtures("each_index")

SAMPLES = [Sample(n, series=n % 3, study=n % 2, size=64 if n % 4 else 200_000) for n in range(12)]


async def store(root: Path, *samples: Sample, policy: DuplicatePolicy = DuplicatePolicy.KEEP) -> None:
    async with open_storage(root, policy=policy) as storage:
        for sample in samples:
            await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))


@pytest.fixture
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if "each_index" in request.fixturenames:
        request.getfixturevalue("each_index")
    asyncio.run(store(tmp_path, *SAMPLES))
    return tmp_path


def rows(root: Path) -> list[list[tuple[object, ...]]]:
    """Everything in the index but keys and times."""
    found = []
    for table in ("patients", "studies", "series", "instances"):
        kept = [f'"{name}"' for name in columns(root, table) if not name.endswith("_key") and name != "received_at"]
        found.append(sorted(select(root, f"SELECT {', '.join(sorted(kept))} FROM {table}"), key=repr))
    return found


@pytest.mark.parametrize(
    "lose",
    [
        lambda index: None,
        lambda index: index.unlink(),
        lambda index: os.truncate(index, 0),
        lambda index: os.truncate(index, 5000),
        lambda index: index.write_bytes(b"not a database, and long enough to look at" * 100),
    ],
    ids=["whole", "lost", "emptied", "cut", "overwritten"],
)
def test_the_index_is_what_it_was(root: Path, lose: Callable[[Path], None]) -> None:
    before, held = rows(root), contents(root)
    lose(root / "index.sqlite")
    assert reindex(root) == len(SAMPLES)
    assert rows(root) == before
    assert contents(root) == held
    assert findings(root) == []
    assert {path.name for path in root.iterdir()} - {"index.sqlite-wal", "index.sqlite-shm"} == {
        "index.sqlite",
        "objects",
        "incoming",
        "lock",
    }
    asyncio.run(store(root, Sample(99)))
    assert len(contents(root)) == len(SAMPLES) + 1


@on_both
def test_what_cannot_be_indexed_is_reported_and_left(root: Path) -> None:
    first, second, third = (path_of(sample) for sample in SAMPLES[1:4])
    os.truncate(root / first, 500)
    (root / second).write_bytes(b"no DICOM")
    moved = third.replace(SAMPLES[3].uid, Sample(77).uid)
    (root / third).rename(root / moved)
    (root / "objects" / "notes.txt").write_text("read me")
    found: list[Finding] = []
    assert reindex(root, report=found.append) == len(SAMPLES) - 3
    assert {finding.path: finding.kind for finding in found} == {
        first: FindingKind.UNREADABLE,
        second: FindingKind.UNREADABLE,
        third: FindingKind.FILE_MISSING,
        moved: FindingKind.UIDS_DIFFER,
        "objects/notes.txt": FindingKind.FOREIGN_FILE,
    }
    assert all((root / finding.path).exists() for finding in found if finding.path != third)


@on_both
def test_a_changed_file_goes_on_being_found(root: Path) -> None:
    damaged, renamed = path_of(SAMPLES[3]), path_of(SAMPLES[5])
    data = bytearray((root / damaged).read_bytes())
    data[-1] ^= 1  # a pixel
    (root / damaged).write_bytes(data)
    syntax = EXPLICIT_VR_LITTLE_ENDIAN.encode() + b"\0"
    other = b"1.2.840.10008.1.2.4"  # not one that exists, and so read in the same way
    assert len(other) == len(syntax) - 1 + len(syntax) % 2
    file = (root / renamed).read_bytes()
    (root / renamed).write_bytes(file.replace(syntax[: len(other)], other, 1))
    expected = {damaged: FindingKind.CONTENT_DIFFERS, renamed: FindingKind.UIDS_DIFFER}
    for _ in range(2):
        found: list[Finding] = []
        assert reindex(root, report=found.append) == len(SAMPLES)
        assert {finding.path: finding.kind for finding in found} == expected
        assert {finding.path: finding.kind for finding in findings(root)} == expected
    lose_index(root)  # nothing knows any more what was received
    found = []
    assert reindex(root, report=found.append) == len(SAMPLES)
    assert (found, findings(root)) == ([], [])


@on_both
def test_a_lost_file_is_reported_once(root: Path) -> None:
    lost = path_of(SAMPLES[3])
    (root / lost).unlink()
    found: list[Finding] = []
    assert reindex(root, report=found.append) == len(SAMPLES) - 1
    assert [(finding.kind, finding.path) for finding in found] == [(FindingKind.FILE_MISSING, lost)]
    assert findings(root) == []
    found.clear()
    assert reindex(root, report=found.append) == len(SAMPLES) - 1
    assert found == []


def test_a_damaged_index_accuses_no_file(root: Path) -> None:
    with closing(sqlite3.connect(root / "index.sqlite")) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name LIKE 'ix_instances_series_key%'")
        connection.execute("UPDATE instances SET checksum = x'00'")
        connection.commit()
    with (root / "index.sqlite").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes([0xFF]) * 64)
    found: list[Finding] = []
    assert reindex(root, report=found.append) == len(SAMPLES)
    assert (found, findings(root)) == ([], [])


def test_the_log_of_the_old_index_is_not_played_into_the_new_one(tmp_path: Path) -> None:
    batches = [[(sample, False)] for sample in SAMPLES]
    with CrashServer() as server:
        steps = server.store(tmp_path / "all", batches).steps
        root = tmp_path / "killed"
        assert server.store(root, batches, step=steps - 8).killed
    assert (root / "index.sqlite-wal").stat().st_size > 0
    (root / "index.sqlite").unlink()
    (root / path_of(SAMPLES[1])).unlink()
    assert reindex(root) == len(SAMPLES) - 1
    assert contents(root) == {sample.uid: sample.data_set for sample in SAMPLES if sample != SAMPLES[1]}
    assert findings(root) == []


DISAGREEING = [
    Sample(
        n * 10 + study,
        study=study,
        series=n % 2,
        patient_id=f"P{(n + study) % 3}",
        overrides={
            0x00100010: ("PN", f"Name^{n}{study}"),
            0x00081030: ("LO", f"description {n}"),
            0x0008103E: ("LO", f"series {n}"),
        },
    )
    for n in range(4)
    for study in (3, 1, 4, 5, 2)
]
"""Of each study, patient and series the objects say different things."""


def patients_of_studies(root: Path) -> list[tuple[object, ...]]:
    return select(
        root,
        "SELECT study_instance_uid, patient_id, patient_name, study_description FROM studies"
        " JOIN patients USING (patient_key) ORDER BY 1",
    )


def set_times(root: Path, samples: Sequence[Sample]) -> None:
    """As if they had been stored in this order."""
    for number, sample in enumerate(samples):
        os.utime(root / path_of(sample), (1_000_000 + number, 1_000_000 + number))


@on_both
@pytest.mark.parametrize("order", [1, -1])
async def test_a_study_stays_under_the_patient_that_it_came_under_first(tmp_path: Path, order: int) -> None:
    """The old index knows in which order the objects came, and the times of files that were copied do not."""
    samples = DISAGREEING[::order]
    await store(tmp_path, *samples)
    set_times(tmp_path, samples[::-1])
    before, under = rows(tmp_path), patients_of_studies(tmp_path)
    received = "SELECT sop_instance_uid, received_at FROM instances ORDER BY 1"
    came = select(tmp_path, received)
    for _ in range(2):
        assert reindex(tmp_path) == len(samples)
        assert patients_of_studies(tmp_path) == under
        assert rows(tmp_path) == before
        assert select(tmp_path, received) == came


@on_both
@pytest.mark.parametrize("order", [1, -1])
async def test_without_an_index_the_times_of_the_files_say_what_came_first(tmp_path: Path, order: int) -> None:
    samples = DISAGREEING[::order]
    await store(tmp_path, *samples)
    set_times(tmp_path, samples)
    before, under = rows(tmp_path), patients_of_studies(tmp_path)
    lose_index(tmp_path)
    assert reindex(tmp_path) == len(samples)
    assert patients_of_studies(tmp_path) == under
    assert rows(tmp_path) == before


@on_both
async def test_a_file_that_cannot_be_read_says_nothing_of_its_study(tmp_path: Path) -> None:
    first, second, third = (Sample(n, series=n, patient_id=f"P{n}") for n in (3, 1, 2))
    await store(tmp_path, first, second, third)
    os.truncate(tmp_path / path_of(first), 200)
    assert reindex(tmp_path) == 2
    assert [row[1] for row in patients_of_studies(tmp_path)] == [second.patient_id]


@on_both
@pytest.mark.parametrize("order", [1, -1])
async def test_of_two_files_of_one_object_the_later_is_indexed(tmp_path: Path, order: int) -> None:
    one = Sample(1)
    other = replace(one, content="second", series=8)
    await store(tmp_path, one)
    shutil.copytree(tmp_path / "objects", tmp_path / "saved")
    await store(tmp_path, other, policy=DuplicatePolicy.REPLACE)
    shutil.copytree(tmp_path / "saved", tmp_path / "objects", dirs_exist_ok=True)
    paths = [path_of(one), next(iter(contents_paths(tmp_path)))]
    for number, path in enumerate(paths[::order]):
        os.utime(tmp_path / path, (1_000_000 + number, 1_000_000 + number))
    found: list[Finding] = []
    lose_index(tmp_path)
    assert reindex(tmp_path, report=found.append) == 1
    winner = (one, other)[::order][1]
    assert contents(tmp_path) == {one.uid: winner.data_set}
    assert [(finding.kind, finding.path) for finding in found] == [(FindingKind.DUPLICATE, paths[::order][0])]


@on_both
@pytest.mark.parametrize("order", [1, -1])
async def test_of_two_files_in_one_folder_the_later_is_known_by_its_name(tmp_path: Path, order: int) -> None:
    """As after a restore: the times say nothing any more."""
    versions = [Sample(content=f"version {number}") for number in range(12)]  # "-10" is later than "-2"
    saved = tmp_path / "saved"
    root = tmp_path / "root"
    for version in versions:
        await store(root, version, policy=DuplicatePolicy.REPLACE)
        shutil.copytree(root / "objects", saved, dirs_exist_ok=True)
    shutil.copytree(saved, root / "objects", dirs_exist_ok=True)
    paths = [ObjectName(each.study_uid, each.series_uid, each.uid, n).path for n, each in enumerate(versions)]
    for number, path in enumerate(paths[::order]):
        os.utime(root / path, (1_000_000 + number, 1_000_000 + number))
    lose_index(root)
    assert reindex(root) == 1
    assert contents(root) == {versions[-1].uid: versions[-1].data_set}


def contents_paths(root: Path) -> Iterator[str]:
    for study, series, instance, generation in select(
        root,
        "SELECT study_instance_uid, series_instance_uid, sop_instance_uid, generation FROM instances"
        " JOIN series USING (series_key) JOIN studies USING (study_key)",
    ):
        yield ObjectName(study, series, instance, generation).path


def path_of(sample: Sample) -> str:
    return ObjectName(sample.study_uid, sample.series_uid, sample.uid).path


@on_both
def test_what_was_not_stored_when_the_process_was_killed_is_not_indexed(tmp_path: Path) -> None:
    batches = [[(Sample(1), False)], [(Sample(2), False), (Sample(3), True)]]
    with CrashServer() as server:
        steps = server.store(tmp_path / "all", batches).steps
        for step in range(steps // 2, steps + 1, 4):
            root = tmp_path / str(step)
            answered = server.store(root, batches, step=step).outcomes
            committed = 3 if len(answered) > 1 else 1
            assert reindex(root) in {len(answered), 1, 3}
            assert reindex(root) >= (committed if answered else 0)
            assert findings(root) == []


async def test_what_was_deleted_does_not_come_back_because_the_index_is_busy(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_storage(root) as storage:
        with files_held(root / "hold"):
            await storage.deletion.study(SAMPLES[0].study_uid)
            await storage.__aexit__(None, None, None)
    left = {sample.uid for sample in SAMPLES if sample.study_uid != SAMPLES[0].study_uid}
    monkeypatch.setattr(reindexing, "backend_for", partial(backend_for, busy_timeout=0.01))
    with closing(sqlite3.connect(root / "index.sqlite", isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        with pytest.raises(IndexUnavailable, match="locked"):
            reindex(root)
    assert reindex(root) == len(left)
    assert set(contents(root)) == left


def test_killed_at_each_step(root: Path) -> None:
    with CrashServer() as server, quick_directory() as directory:
        saved = directory / "saved"
        saved.mkdir()
        for name in ("objects", "incoming", "index.sqlite"):
            (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, saved / name)
        expected = rows(saved)
        shutil.copytree(saved, directory / "all")
        steps = server.reindex(directory / "all").steps
        assert steps > 10
        for step in range(1, steps + 1):
            copy = directory / str(step)
            shutil.copytree(saved, copy)
            assert server.reindex(copy, step=step).killed
            assert rows_after_a_start(server, copy) == expected
            assert findings(copy) == []


def rows_after_a_start(server: CrashServer, root: Path) -> list[list[tuple[object, ...]]]:
    server.store(root, [])
    return rows(root)


@on_both
def test_an_archive_in_use_is_not_touched(root: Path) -> None:
    with DataDirectory.open(root):
        for work in (reindex, upgrade):
            with pytest.raises(UsageError, match="in use"):
                work(root)


def test_what_is_no_archive_is_not_made_one(tmp_path: Path) -> None:
    for work in (reindex, upgrade):
        with pytest.raises(UsageError, match="not the data directory"):
            work(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_the_total(root: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    reindex(root, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(SAMPLES), len(SAMPLES))


@on_both
def test_upgrading_what_is_current_changes_nothing(root: Path) -> None:
    before = rows(root)
    old, new = upgrade(root)
    assert old == new
    assert rows(root) == before


def test_upgrading_nothing(root: Path) -> None:
    (root / "index.sqlite").unlink()
    with pytest.raises(UsageError, match="no index"):
        upgrade(root)


@on_both
def test_what_no_file_says_is_kept(root: Path) -> None:
    change_index(root, "INSERT INTO users VALUES ('ann', 'hash', 'administrator', 7)")
    change_index(root, f"INSERT INTO protected_studies VALUES ('{SAMPLES[0].study_uid}', 7, 'ann', 'teaching')")
    kept = ("users", "tokens", "protected_studies", "jobs", "job_items", "audit_events")
    before = [select(root, f"SELECT * FROM {table}") for table in kept]
    for _ in range(2):
        found: list[Finding] = []
        assert reindex(root, report=found.append) == len(SAMPLES)
        assert found == []
        assert [select(root, f"SELECT * FROM {table}") for table in kept] == before
    assert len(before[0]) == len(before[2]) == 1


def test_what_no_file_says_is_kept_of_a_damaged_index_too(root: Path) -> None:
    change_index(root, "INSERT INTO users VALUES ('ann', 'hash', 'administrator', 7)")
    with closing(sqlite3.connect(root / "index.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'instances'")
        [(other,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'protected_studies'")
    with (root / "index.sqlite").open("r+b") as file:
        for number in (page, other):
            file.seek((number - 1) * 4096)
            file.write(bytes([0xFF]) * 64)
    found: list[Finding] = []
    assert reindex(root, report=found.append) == len(SAMPLES)
    assert [finding.kind for finding in found] == [FindingKind.INDEX_DAMAGED]
    assert "protected_studies" in found[0].explanation
    assert select(root, "SELECT user_name FROM users") == [("ann",)]


@pytest.mark.parametrize("each_index", ["postgresql"], indirect=True)
def test_a_rebuilt_index_has_the_same_tables(each_index: str, root: Path) -> None:
    public = " WHERE table_schema = 'public'"

    def structure() -> list[list[tuple[object, ...]]]:
        return [
            select(root, f"SELECT {what} ORDER BY 1, 2")
            for what in (
                "tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'",
                "conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
                "table_name, column_name, column_default, collation_name FROM information_schema.columns" + public,
                "nspname, nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg%'",
                "tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
            )
        ]

    before = structure()
    assert reindex(root) == len(SAMPLES)
    assert structure() == before
    assert all(len(part) > 0 for part in before)


@pytest.mark.parametrize("each_index", ["postgresql"], indirect=True)
def test_a_rebuild_that_is_killed_is_cleared_away(each_index: str, root: Path) -> None:
    before, held = rows(root), contents(root)
    with CrashServer() as server:
        server.reindex(root)
        steps = server.reindex(root).steps  # from now on each takes as many, more or less
        killed = 0
        for step in range(1, steps, steps // 12):
            killed += server.reindex(root, step=step).killed
            assert rows(root) == before
            assert contents(root) == held
        assert killed > 6
        server.store(root, [])
    assert select(root, "SELECT nspname FROM pg_namespace WHERE nspname LIKE '%building'") == []
    assert findings(root) == []


@pytest.mark.parametrize("spare", [0, 16 << 10, 64 << 10, 200 << 10, 700 << 10, 1 << 20])
def test_a_full_disk_is_called_so_and_the_old_index_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    """SQLite calls it a disk I/O error where it has no room for its log, and a full disk where it has none for its pages."""
    monkeypatch.setattr("tomowire.server.room.KEPT", 0)
    with tiny_disk(tmp_path / "disk", 8 << 20) as root:
        asyncio.run(store(root, *SAMPLES))
        before = rows(root)
        with closing(sqlite3.connect(root / "index.sqlite")) as index, index:  # what no file says is copied at the end
            index.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO audit_events"
                " (recorded_at, event, outcome, actor, source, message, previous_hash, hash)"
                " SELECT i, 'e', 0, 'a', 's', printf('%01200d', i), zeroblob(32), zeroblob(32) FROM n"
            )
        fill = root / "fill"
        with fill.open("wb") as file:
            figures = os.statvfs(root)
            os.posix_fallocate(file.fileno(), 0, figures.f_bavail * figures.f_frsize - spare)
        with pytest.raises(IndexUnavailable, match=r"is full: the index is as it was.*free that much") as failure:
            reindex(root)
        assert str(root) in str(failure.value)
        fill.unlink()
        assert rows(root) == before
        assert not list(root.glob("index.sqlite.building*"))
        assert reindex(root) == len(SAMPLES)
        assert rows(root) == before
        assert select(root, "SELECT COUNT(*) FROM audit_events") == [(1000,)]
