"""What is wrong is found and named; what is not wrong is not, also while objects come in."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from support.crashes import CrashServer
from support.filesystems import read_only
from support.objects import Sample, chunks_of, stream
from support.places import change_index, check, open_storage, reindex
from support.programs import run_tomowire
from support.stored import files_below
from tomowire.errors import UsageError
from tomowire.server.archive import ArchiveStorage
from tomowire.server.audit.events import Change, ConfigurationChanged, Party
from tomowire.server.audit.noting import NotedCommand
from tomowire.server.files import ObjectName
from tomowire.server.findings import Finding, FindingKind
from tomowire.server.incoming import DuplicatePolicy
from tomowire.server.settings import Settings

on_both = pytest.mark.usefixtures("each_index")

ONE, TWO = Sample(1), Sample(2, series=2, size=200_000)


def path_of(sample: Sample) -> str:
    return ObjectName(sample.study_uid, sample.series_uid, sample.uid).path


@pytest.fixture
async def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if "each_index" in request.fixturenames:
        request.getfixturevalue("each_index")
    async with open_storage(tmp_path) as storage:
        for sample in (ONE, TWO):
            await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))
    return tmp_path


def kinds(root: Path, **options: bool) -> dict[str, FindingKind]:
    return {finding.path: finding.kind for finding in check(root, **options)}


def change_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def swap_files(root: Path) -> None:
    one, two, other = root / path_of(ONE), root / path_of(TWO), root / "other"
    one.rename(other)
    two.rename(one)
    other.rename(two)


@on_both
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda root: (root / path_of(ONE)).unlink(), {path_of(ONE): FindingKind.FILE_MISSING}),
        (lambda root: change_byte(root / path_of(TWO), -1), {path_of(TWO): FindingKind.CONTENT_DIFFERS}),
        (lambda root: change_byte(root / path_of(ONE), 129), {path_of(ONE): FindingKind.UNREADABLE}),
        (lambda root: os.truncate(root / path_of(ONE), 400), {path_of(ONE): FindingKind.SIZE_DIFFERS}),
        (lambda root: os.truncate(root / path_of(TWO), 0), {path_of(TWO): FindingKind.SIZE_DIFFERS}),
        (swap_files, dict.fromkeys((path_of(ONE), path_of(TWO)), FindingKind.SIZE_DIFFERS)),
        (
            lambda root: shutil.copy(root / path_of(ONE), root / path_of(ONE).replace(ONE.uid, Sample(3).uid)),
            {path_of(ONE).replace(ONE.uid, Sample(3).uid): FindingKind.NOT_INDEXED},
        ),
        (
            lambda root: shutil.copy(root / path_of(ONE), root / path_of(ONE).replace(".dcm", "-1.dcm")),
            {path_of(ONE).replace(".dcm", "-1.dcm"): FindingKind.NOT_INDEXED},
        ),
        (lambda root: (root / "objects/notes.txt").touch(), {"objects/notes.txt": FindingKind.FOREIGN_FILE}),
        (lambda root: (root / "incoming/7.part").touch(), {"incoming/7.part": FindingKind.UNFINISHED}),
    ],
    ids=["missing", "changed", "no DICOM", "cut", "emptied", "swapped", "unknown", "generation", "foreign", "part"],
)
def test_damage_is_found(root: Path, damage: Callable[[Path], None], expected: dict[str, FindingKind]) -> None:
    assert kinds(root) == {}
    damage(root)
    assert kinds(root) == expected


def number_the_last_row_zero(index: Path, table: str) -> None:
    """Of a table that has but one page: a leaf, where each cell begins with the length of its row, and its key
    (https://www.sqlite.org/fileformat2.html)."""
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        [(number,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
        [(size,)] = connection.execute("PRAGMA page_size")
    data = bytearray(index.read_bytes())
    page = memoryview(data)[(number - 1) * size : number * size]
    rows = int.from_bytes(page[3:5], "big")
    at = int.from_bytes(page[6 + 2 * rows : 8 + 2 * rows], "big")
    while page[at] & 0x80:  # the length takes several bytes
        at += 1
    assert (page[0], page[at + 1]) == (13, rows)
    page[at + 1] = 0
    page.release()
    index.write_bytes(data)


def have_two_events(root: Path) -> None:
    with NotedCommand(Settings(root)) as noted:
        for what in ("first", "second"):
            noted.tell(ConfigurationChanged(by=Party(name="me"), change=Change.SOFTWARE, what=what))


@pytest.mark.parametrize("table", ["instances", "audit_events"])
async def test_rows_that_are_not_in_their_order_are_not_read_for_ever(root: Path, table: str) -> None:
    """Who asks for those after the last one gets the same again."""
    await asyncio.to_thread(have_two_events, root)
    number_the_last_row_zero(root / "index.sqlite", table)
    assert {finding.kind for finding in check(root)} >= {FindingKind.INDEX_DAMAGED}
    done = await asyncio.to_thread(run_tomowire, "backup", root.with_name("backups"), "--data-dir", root)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "out of order; 'tomowire db reindex' makes it again from the files" in done.stderr
    assert await asyncio.to_thread(reindex, root) == 2
    assert kinds(root).get("index.sqlite") is None


def test_without_content_only_names_and_sizes_are_looked_at(root: Path) -> None:
    change_byte(root / path_of(TWO), -1)
    assert kinds(root, content=False) == {}
    (root / path_of(ONE)).unlink()
    assert kinds(root, content=False) == {path_of(ONE): FindingKind.FILE_MISSING}


def test_a_header_of_another_object_is_found(root: Path) -> None:
    path = root / path_of(ONE)
    data = path.read_bytes()
    start = data.index(ONE.uid.encode())
    path.write_bytes(data[:start] + Sample(9).uid.encode() + data[start + len(ONE.uid) :])
    [finding] = check(root)
    assert (finding.kind, finding.path) == (FindingKind.UIDS_DIFFER, path_of(ONE))
    assert Sample(9).uid in finding.explanation


@on_both
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM instances WHERE instance_key = 1", "has no instance"),
        ("DELETE FROM series WHERE series_key = 1", "has no series"),
        ("DELETE FROM studies", "has no study"),
        ("DELETE FROM patients", "has no patient"),
    ],
)
def test_rows_without_relatives_are_found(root: Path, statement: str, expected: str) -> None:
    change_index(root, statement)
    lonely = [finding.explanation for finding in check(root) if finding.kind is FindingKind.LONELY_ROW]
    assert any(expected in explanation for explanation in lonely)


@pytest.mark.parametrize("first_page", [0, 1, 20])
def test_a_damaged_database_is_found(root: Path, first_page: int) -> None:
    path = root / "index.sqlite"
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(first_page, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 16)
    assert kinds(root)["index.sqlite"] is FindingKind.INDEX_DAMAGED


def test_what_is_no_archive_is_not_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the data directory"):
        list(check(tmp_path))
    assert list(tmp_path.iterdir()) == []


async def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    async with open_storage(tmp_path) as storage:
        samples = [Sample(n) for n in range(250)]
        await asyncio.gather(*(storage.ingest.receive(s.incoming(), stream(chunks_of(s.data_set))) for s in samples))
    seen: list[tuple[int, int | None]] = []
    assert list(check(tmp_path, progress=lambda done, total: seen.append((done, total)))) == []
    assert seen == [(100, 250), (200, 250), (250, 250)]


@on_both
async def test_a_running_archive_is_not_accused(tmp_path: Path) -> None:
    """Objects come in, and replace each other, while the check runs over and over."""

    async def fill(storage: ArchiveStorage, number: int) -> None:
        for version in range(30):
            sample = Sample(number, content=f"{version}", size=64 if version % 3 else 100_000)
            await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))

    found: list[Finding] = []
    async with open_storage(tmp_path, policy=DuplicatePolicy.REPLACE) as storage:
        filling = asyncio.gather(*(fill(storage, number) for number in range(8)))
        checks = 0
        while not filling.done():
            found += await asyncio.to_thread(lambda: list(check(tmp_path)))
            checks += 1
        await filling
    assert found == []
    assert checks > 1


def test_what_a_killed_process_left_is_named_as_such(tmp_path: Path) -> None:
    with CrashServer() as server:
        batches = [[(ONE, False)], [(TWO, True), (Sample(3), False)]]
        steps = server.store(tmp_path / "all", batches).steps
        seen = set()
        for step in range(steps // 2, steps, 2):
            root = tmp_path / str(step)
            run = server.store(root, batches, step=step)
            held = kinds(root)
            seen |= {(kind, path.partition("/")[0]) for path, kind in held.items()}
            server.store(root, [])
            assert run.killed
            assert kinds(root) == {}
    assert seen == {(FindingKind.UNFINISHED, "incoming"), (FindingKind.UNFINISHED, "objects")}


def test_it_says_that_what_is_unfinished_goes_away(root: Path) -> None:
    (root / "incoming/7.part").touch()
    [finding] = check(root)
    assert finding.explanation.endswith("removed at the next start")


def test_it_changes_nothing(root: Path) -> None:
    (root / "incoming/7.part").touch()
    before = files_below(root, ".")
    list(check(root))
    assert files_below(root, ".") - before <= {"index.sqlite-wal", "index.sqlite-shm"}


async def test_a_disk_that_has_become_read_only_can_be_checked(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    change_byte(root / path_of(TWO), -100)
    with read_only(root):
        assert kinds(root) == {path_of(TWO): FindingKind.CONTENT_DIFFERS}
    assert "cannot be locked" not in caplog.text  # reading is enough for that
    (root / "lock").unlink()
    with read_only(root):
        assert kinds(root) == {path_of(TWO): FindingKind.CONTENT_DIFFERS}
    assert f"{root} cannot be locked (Read-only file system): an archive may be running" in caplog.text


async def test_so_can_one_under_a_killed_archive(tmp_path: Path) -> None:
    """Its index has a log that was not folded in."""
    async with open_storage(tmp_path / "all") as storage:
        await storage.ingest.receive(ONE.incoming(), stream(chunks_of(ONE.data_set)))
        killed = shutil.copytree(tmp_path / "all", tmp_path / "killed")
    assert (killed / "index.sqlite-wal").stat().st_size
    with read_only(killed):
        assert kinds(killed) == {}
    (killed / path_of(ONE)).unlink()
    with read_only(killed):
        assert kinds(killed) == {path_of(ONE): FindingKind.FILE_MISSING}
