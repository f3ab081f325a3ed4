"""What is wrong is mended as far as it can be, nothing is destroyed, and the check finds nothing any more."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from support.crashes import CrashServer
from support.objects import Sample, chunks_of, stream
from support.programs import run_tomowire
from support.stored import files_below
from tomowire.errors import UsageError
from tomowire.server.archive import ArchiveStorage
from tomowire.server.check import check
from tomowire.server.files import ObjectName
from tomowire.server.findings import Finding, FindingKind
from tomowire.server.hold import files_held
from tomowire.server.index.backend import backend_for
from tomowire.server.protection import Protection
from tomowire.server.reindex import reindex
from tomowire.server.repair import repair

ONE, TWO, THREE = Sample(1), Sample(2, series=2, size=200_000), Sample(3, study=2, patient_id="P2")


def path_of(sample: Sample, *, generation: int = 0) -> str:
    return ObjectName(sample.study_uid, sample.series_uid, sample.uid, generation).path


async def keep(storage: ArchiveStorage, *samples: Sample) -> None:
    await asyncio.gather(
        *(storage.ingest.receive(each.incoming(), stream(chunks_of(each.data_set))) for each in samples)
    )


@pytest.fixture
async def root(tmp_path: Path, index_url: str | None) -> Path:
    async with ArchiveStorage(tmp_path, fsync=False, index_url=index_url) as storage:
        await keep(storage, ONE, TWO, THREE)
        await Protection(storage.records).protect(ONE.study_uid)  # what is lost is lost all the same
    return tmp_path


def held(root: Path, index_url: str | None) -> set[str]:
    with backend_for(index_url, root).open_reader() as reader:
        return {row.name.sop_instance_uid for row in reader.objects()}


def change_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def swap(root: Path) -> None:
    one, two, other = root / path_of(ONE), root / path_of(TWO), root / "other"
    one.rename(other)
    two.rename(one)
    other.rename(two)


NEW = Sample(7, study=5, patient_id="P5")
AS_NEW = NEW.header + NEW.data_set


@pytest.mark.parametrize(
    ("damage", "left", "aside"),
    [
        (lambda root: (root / path_of(ONE)).unlink(), [TWO, THREE], set()),
        (lambda root: change_byte(root / path_of(TWO), -1), [ONE, THREE], {path_of(TWO)}),
        (lambda root: change_byte(root / path_of(ONE), 129), [TWO, THREE], {path_of(ONE)}),
        (lambda root: os.truncate(root / path_of(ONE), 400), [TWO, THREE], {path_of(ONE)}),
        (lambda root: os.truncate(root / path_of(TWO), 0), [ONE, THREE], {path_of(TWO)}),
        (swap, [THREE], {path_of(ONE), path_of(TWO)}),
        (lambda root: write(root / path_of(NEW), AS_NEW), [ONE, TWO, THREE, NEW], set()),
        (lambda root: write(root / path_of(NEW), AS_NEW[:-10]), [ONE, TWO, THREE], {path_of(NEW)}),
        (lambda root: write(root / path_of(NEW), b"nothing"), [ONE, TWO, THREE], {path_of(NEW)}),
        (lambda root: write(root / path_of(Sample(8)), AS_NEW), [ONE, TWO, THREE], {path_of(Sample(8))}),
        (
            lambda root: shutil.copy(root / path_of(ONE), root / path_of(ONE, generation=1)),
            [ONE, TWO, THREE],
            {path_of(ONE, generation=1)},
        ),
        (lambda root: write(root / "objects/notes.txt", b"notes"), [ONE, TWO, THREE], {"objects/notes.txt"}),
        (lambda root: (root / "objects/link").symlink_to("/etc/passwd"), [ONE, TWO, THREE], {"objects/link"}),
        (lambda root: (root / "incoming/7.part").touch(), [ONE, TWO, THREE], set()),
    ],
    ids=[
        "missing",
        "changed",
        "no DICOM",
        "cut",
        "emptied",
        "swapped",
        "unknown",
        "unknown and cut",
        "unknown and no DICOM",
        "another's name",
        "generation",
        "foreign",
        "link",
        "part",
    ],
)
def test_what_is_wrong_is_mended(
    root: Path, index_url: str | None, damage: Callable[[Path], object], left: list[Sample], aside: set[str]
) -> None:
    damage(root)
    every_file = {os.path.basename(path) for path in files_below(root)}
    mended = list(repair(root, index_url=index_url))
    assert all(each.is_mended and each.what for each in mended)
    assert list(check(root, index_url=index_url)) == []
    assert held(root, index_url) == {sample.uid for sample in left}
    assert files_below(root, "lost+found") == {f"lost+found/{path}" for path in aside}
    assert len(files_below(root)) == len(left)
    kept = {os.path.basename(path) for path in files_below(root) | files_below(root, "lost+found")}
    assert kept == every_file  # nothing is destroyed
    assert list(repair(root, index_url=index_url)) == []


async def test_what_was_lost_can_be_stored_again(root: Path, index_url: str | None) -> None:
    change_byte(root / path_of(ONE), -1)
    list(repair(root, index_url=index_url))
    async with ArchiveStorage(root, fsync=False, index_url=index_url) as storage:
        await keep(storage, ONE)
    assert held(root, index_url) == {ONE.uid, TWO.uid, THREE.uid}
    assert list(check(root, index_url=index_url)) == []


async def test_files_that_were_away_come_back_whenever_it_is_ended(root: Path, index_url: str | None) -> None:
    """Their disk was not mounted. Somebody sees what is being said, interrupts it, and mounts the disk."""
    (root / "objects").rename(root / "mounted later")
    (root / "objects").mkdir()
    with closing(repair(root, index_url=index_url)) as mended:
        assert "is lost" in next(mended).what
        assert "is lost" in next(mended).what
    (root / "objects").rmdir()
    (root / "mounted later").rename(root / "objects")
    async with ArchiveStorage(root, fsync=False, index_url=index_url) as storage:
        await storage.deletion.swept()
    assert len(files_below(root)) == 3
    assert {each.what for each in repair(root, index_url=index_url)} == {"indexed"}
    assert held(root, index_url) == {ONE.uid, TWO.uid, THREE.uid}


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM instances WHERE sop_instance_uid LIKE '%.3.1'",
        "DELETE FROM series WHERE series_key = 1",
        "DELETE FROM studies WHERE study_key = 1",
        "DELETE FROM patients WHERE patient_key = 1",
        "DELETE FROM studies",
    ],
)
@pytest.mark.parametrize("index_url", [None], ids=["sqlite"])  # PostgreSQL's foreign keys allow none of this
def test_rows_without_relatives_go_and_their_files_are_indexed_again(root: Path, statement: str) -> None:
    with closing(sqlite3.connect(root / "index.sqlite")) as connection:
        connection.execute(statement)
        connection.commit()
    assert all(each.is_mended for each in repair(root))
    assert list(check(root)) == []
    assert held(root, None) == {ONE.uid, TWO.uid, THREE.uid}
    assert files_below(root, "lost+found") == set()


@pytest.mark.parametrize("index_url", ["postgresql"], indirect=True)
def test_childless_rows_go_on_postgresql_too(root: Path, index_url: str) -> None:
    engine = backend_for(index_url, root).engine()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM instances"))
    engine.dispose()
    assert all(each.is_mended for each in repair(root, index_url=index_url))
    assert list(check(root, index_url=index_url)) == []
    assert len(held(root, index_url)) == 3


def test_nobody_waits_for_a_pipe_among_the_objects(root: Path, index_url: str | None) -> None:
    for name in (path_of(ONE), path_of(Sample(77))):
        (root / name).unlink(missing_ok=True)
        os.mkfifo(root / name)
    found = {finding.path: finding.explanation for finding in check(root, index_url=index_url)}
    assert found == {path_of(ONE): "it is no file", path_of(Sample(77)): "the index does not have it"}
    told: list[Finding] = []
    assert reindex(root, index_url=index_url, report=told.append) == 2
    assert {finding.path: finding.explanation for finding in told} == dict.fromkeys(found, "it is no file")
    assert {each.finding.path for each in repair(root, index_url=index_url) if each.is_mended} == set(found)
    assert files_below(root, "lost+found") == {f"lost+found/{path}" for path in found}
    assert list(check(root, index_url=index_url)) == []


def test_a_folder_that_is_no_folder_any_more_has_lost_its_files(root: Path, index_url: str | None) -> None:
    folder = (root / path_of(ONE)).parent
    folder.rename(root / "elsewhere")
    folder.touch()
    mended = {each.finding.path: each for each in repair(root, index_url=index_url)}
    assert mended[path_of(ONE)].finding.kind is FindingKind.FILE_MISSING
    assert mended[path_of(ONE)].is_lost
    assert list(check(root, index_url=index_url)) == []


@pytest.mark.parametrize("first", [1, 2, 3])
async def test_a_study_comes_back_under_the_patient_of_its_first_object(
    tmp_path: Path, index_url: str | None, first: int
) -> None:
    samples = [Sample(number, patient_id=f"P{number}") for number in (first, *({1, 2, 3} - {first}))]
    async with ArchiveStorage(tmp_path, fsync=False, index_url=index_url) as storage:
        await keep(storage, *samples)
    for number, sample in enumerate(samples):
        os.utime(tmp_path / path_of(sample), (1_000_000 + number, 1_000_000 + number))
    engine = backend_for(index_url, tmp_path).engine()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM instances"))
    assert all(each.is_mended for each in repair(tmp_path, index_url=index_url))
    with engine.begin() as connection:
        assert connection.execute(text("SELECT patient_id FROM patients")).scalars().all() == [f"P{first}"]
    engine.dispose()


@pytest.mark.parametrize("index_url", [None], ids=["sqlite"])
def test_a_damaged_database_is_left_to_reindex(root: Path) -> None:
    path = root / "index.sqlite"
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(20, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 16)
    before = path.read_bytes()
    mended = list(repair(root))
    assert {each.is_mended for each in mended} == {False}
    assert "db reindex" in mended[0].what
    assert path.read_bytes() == before


@pytest.mark.parametrize("index_url", [None], ids=["sqlite"])
async def test_not_while_the_archive_runs_or_a_backup_holds_what_was_deleted(root: Path) -> None:
    async with ArchiveStorage(root, fsync=False) as storage:
        with pytest.raises(UsageError, match="in use by another process"):
            list(repair(root))
        with files_held(root / "hold"):
            await storage.deletion.study(THREE.study_uid)
            await storage.deletion.swept()
            await storage.__aexit__(None, None, None)
            with pytest.raises(UsageError, match="held by a backup"):
                list(repair(root))
    assert list(repair(root)) == []
    assert held(root, None) == {ONE.uid, TWO.uid}
    assert len(files_below(root)) == 2


@pytest.mark.parametrize("index_url", [None], ids=["sqlite"])
def test_a_file_system_s_own_folder_is_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, *rest, **more: "lost+found" not in str(path) and real(path, *rest, **more)
    )
    change_byte(root / path_of(ONE), -1)
    [mended] = list(repair(root))
    assert mended.what.endswith(f"lost-and-found/{path_of(ONE)}")


@pytest.mark.parametrize("index_url", [None], ids=["sqlite"])
def test_a_file_that_cannot_be_moved_is_told_and_the_rest_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        if ONE.uid in str(source):
            raise PermissionError(13, "Permission denied")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    change_byte(root / path_of(ONE), -1)
    change_byte(root / path_of(TWO), -1)
    mended = {each.finding.path: each.is_mended for each in repair(root)}
    assert mended == {path_of(ONE): False, path_of(TWO): True}
    assert held(root, None) == {ONE.uid, THREE.uid}


@pytest.mark.parametrize("index_url", [None], ids=["sqlite"])
def test_a_file_that_is_not_shown_to_us_is_not_lost(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restore by root."""
    real = Path.open

    def refuse(path: Path, *rest: Any, **more: Any) -> Any:
        if ONE.uid in path.name or NEW.uid in path.name:
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **more)

    write(root / path_of(NEW), AS_NEW)
    monkeypatch.setattr(Path, "open", refuse)
    mended = {each.finding.path: each for each in repair(root)}
    assert {path: each.is_mended for path, each in mended.items()} == {path_of(ONE): False, path_of(NEW): False}
    assert all("Permission denied" in each.what for each in mended.values())
    monkeypatch.undo()
    assert held(root, None) == {ONE.uid, TWO.uid, THREE.uid}
    assert files_below(root, "lost+found") == set()


@pytest.mark.parametrize("index_url", [None], ids=["sqlite"])
def test_the_command_says_what_became_of_it(root: Path) -> None:
    change_byte(root / path_of(ONE), -1)
    (root / path_of(THREE)).unlink()
    done = run_tomowire("db", "check", "--repair", "--data-dir", root)
    assert done.returncode == 0
    assert f"{ONE.uid} is lost: not in the index any more; the file is lost+found/{path_of(ONE)}" in done.stdout
    assert "2 mended, 0 left" in done.stderr
    assert "2 objects are lost: send what is named above again" in done.stderr
    assert run_tomowire("db", "check", "--data-dir", root).returncode == 0
    assert run_tomowire("db", "check", "--repair", "--data-dir", root / "nothing").returncode == 2


def test_what_a_killed_process_left_is_no_damage(tmp_path: Path) -> None:
    with CrashServer() as server:
        batches = [[(ONE, False)], [(TWO, True), (Sample(3), False)]]
        steps = server.store(tmp_path / "all", batches).steps
        for step in range(steps // 2, steps, 7):
            root = tmp_path / str(step)
            server.store(root, batches, step=step)
            assert all(each.is_mended for each in repair(root))
            assert list(check(root)) == []
            assert files_below(root, "lost+found") == set()
