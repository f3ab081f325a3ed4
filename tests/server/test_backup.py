"""Backup, destroy, restore: what the archive held at one moment is what it holds again, to the byte, on both backends."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, Text, insert, select

from support.filesystems import read_only, tiny_disk
from support.former_index import fill_former, make_former
from support.objects import Sample, chunks_of, stream
from support.programs import run_tomowire
from support.stored import files_below
from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server import backup as backup_module
from tomowire.server import restore as restore_module
from tomowire.server.archive import ArchiveStorage
from tomowire.server.backup import backup
from tomowire.server.backup_folder import BackupFolder, Point, Problem, points_of
from tomowire.server.backup_upkeep import prune, verify
from tomowire.server.check import check
from tomowire.server.findings import FindingKind
from tomowire.server.incoming import DuplicatePolicy
from tomowire.server.index import administration, schema  # noqa: F401 - they declare the tables
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.index.metadata import metadata
from tomowire.server.index.sqlite_reader import SqliteReader
from tomowire.server.index.versions import CURRENT
from tomowire.server.reindex import reindex
from tomowire.server.restore import restore

SAMPLES = [Sample(number, series=number % 3, study=number % 4 + 1, size=100 + 400 * number) for number in range(1, 13)]
LARGE = Sample(99, study=9, size=300_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def index(index_url: str | None, root: Path) -> IndexBackend:
    return backend_for(index_url, root)


def opened(root: Path, index_url: str | None, **options: Any) -> ArchiveStorage:
    return ArchiveStorage(root, index_url=index_url, fsync=False, **options)


async def keep(storage: ArchiveStorage, *samples: Sample) -> None:
    await asyncio.gather(
        *(storage.ingest.receive(each.incoming(), stream(chunks_of(each.data_set))) for each in samples)
    )


async def fill(root: Path, index_url: str | None = None) -> None:
    async with opened(root, index_url) as storage:
        await keep(storage, *SAMPLES, LARGE)


def held(root: Path, index: IndexBackend) -> dict[str, tuple[bytes, bytes]]:
    """SOP Instance UID -> the whole file, and the checksum in the index."""
    with index.open_reader() as reader:
        return {
            row.name.sop_instance_uid: ((root / row.name.path).read_bytes(), row.checksum) for row in reader.objects()
        }


ADMINISTRATION = [
    table
    for table in metadata.sorted_tables
    if table.name not in {"archive", "patients", "studies", "series", "instances", "removals"}
]


def value_of(column: Column[Any]) -> object:
    """Something for any column: the same for all of one type, so that foreign keys find what they are of."""
    values = {Boolean: True, Integer: 41, BigInteger: 41, LargeBinary: b"\0\xff", Text: "<a>\u00fc"}
    return next(made for kind, made in values.items() if isinstance(column.type, kind))


def administer(index: IndexBackend) -> None:
    """A row in each of the tables that are not about objects."""
    engine = index.engine()
    with engine.begin() as connection:
        for table in ADMINISTRATION:
            connection.execute(insert(table), {column.name: value_of(column) for column in table.columns})
    engine.dispose()


def administered(index: IndexBackend) -> dict[str, list[tuple[Any, ...]]]:
    engine = index.engine()
    with engine.connect() as connection:
        rows = {table.name: [tuple(row) for row in connection.execute(select(table))] for table in ADMINISTRATION}
    engine.dispose()
    return rows


def postgres_execute(url: str, sql: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.encode())


def manifest_of(point: Point) -> list[str]:
    return point.manifest.read_text("ascii").splitlines()


def require_consistent(point: Point, folder: Path) -> None:
    """What the manifest lists is what the index of the point lists, and it is all there."""
    with SqliteReader.open(point.index) as reader:
        listed = [
            f"{row.checksum.hex()} {row.header_size + row.data_set_size} {row.name.path}" for row in reader.objects()
        ]
    assert manifest_of(point) == listed
    assert len(listed) == point.objects
    problems: list[Problem] = []
    verify(folder, point.name, report=problems.append)
    assert problems == []


@pytest.mark.parametrize("moves_to", ["the same", "the other"])
async def test_backup_destroy_restore(
    root: Path,
    folder: Path,
    index_url: str | None,
    index: IndexBackend,
    moves_to: str,
    postgres: object,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    await fill(root, index_url)
    administer(index)
    before, rows = held(root, index), administered(index)
    point = backup(root, folder, index)
    assert (point.objects, point.copied, point.problem_count) == (13, 13, 0)
    require_consistent(point, folder)
    shutil.rmtree(root)
    new_root = tmp_path / "new"
    to_postgres = (index_url is not None) == (moves_to == "the same")
    new_url = str(request.getfixturevalue("empty_postgres_url")) if to_postgres else None
    new_index = backend_for(new_url, new_root)
    restore(folder, new_root, new_index, report=lambda problem: pytest.fail(str(problem)))
    assert held(new_root, new_index) == before
    assert administered(new_index) == rows
    assert list(new_index.lonely_rows()) == []
    assert len(files_below(new_root)) == 13
    async with opened(new_root, new_url) as storage:  # and it goes on storing
        await keep(storage, *SAMPLES, Sample(500, study=50))
        assert (await storage.index.counts()).instances == 14
    assert len(administered(new_index)["jobs"]) == 1


async def test_what_was_restored_says_when_and_in_which_order_it_came_without_its_index_too(
    root: Path, folder: Path, tmp_path: Path
) -> None:
    def said(root: Path) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(root / "index.sqlite")) as connection:
            return connection.execute(
                "SELECT sop_instance_uid, patient_id, received_at FROM instances"
                " JOIN series USING (series_key) JOIN studies USING (study_key) JOIN patients USING (patient_key) ORDER BY 1"
            ).fetchall()

    async with opened(root, None) as storage:
        for number in (3, 1, 2):
            await keep(storage, Sample(number, patient_id=f"P{number}"))
    with closing(sqlite3.connect(root / "index.sqlite")) as connection:
        connection.execute("UPDATE instances SET received_at = 1000000000000000 + instance_key")
        connection.commit()
    before = said(root)
    new_root = tmp_path / "new"
    backup(root, folder, backend_for(None, root))
    restore(folder, new_root, backend_for(None, new_root), threads=1)
    (new_root / "index.sqlite").unlink()
    assert reindex(new_root) == 3
    assert said(new_root) == before


@pytest.mark.parametrize("former", ["0001", "0002"])
@pytest.mark.parametrize("moves_to", ["the same", "the other"])
async def test_before_an_upgrade_a_backup_is_made_by_the_new_program(
    root: Path,
    folder: Path,
    former: str,
    moves_to: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    index_url: str | None,
    postgres: object,
) -> None:
    """What one does first, whatever is upgraded: the dump is of the old schema, and what it is restored to of the new one."""
    await fill(tmp_path / "source")
    old_url = None if index_url is None else str(request.getfixturevalue("empty_postgres_url"))
    make_former(former, root, old_url)
    fill_former(root, old_url, tmp_path / "source" / "index.sqlite")
    shutil.rmtree(root / "objects")
    shutil.copytree(tmp_path / "source" / "objects", root / "objects")
    where = ("--data-dir", root, *(("--index-url", old_url) if old_url is not None else ()))
    for copied in (13, 0):
        done = await asyncio.to_thread(run_tomowire, "backup", folder, "--json", *where)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["copied"] == copied
    assert ("has schema 0001, and no audit trail yet" in done.stderr) == (former == "0001")
    point = points_of(folder)[-1]
    with closing(sqlite3.connect(point.index)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(former,)]
    assert not list(point.folder.glob("index.sqlite-*"))
    problems: list[Problem] = []
    verify(folder, report=problems.append)
    assert problems == []
    assert (await asyncio.to_thread(run_tomowire, "backup", folder, "--keep", "1", *where)).returncode == 0
    assert (await asyncio.to_thread(run_tomowire, "db", "upgrade", *where)).returncode == 0
    before = held(root, backend_for(old_url, root))
    assert len(before) == 13
    new_root = tmp_path / "new"
    to_postgres = (index_url is not None) == (moves_to == "the same")
    new_url = str(request.getfixturevalue("postgres_url")) if to_postgres else None
    if new_url is not None:
        postgres_execute(new_url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    new_index = backend_for(new_url, new_root)
    restore(folder, new_root, new_index, report=lambda problem: pytest.fail(str(problem)))
    assert new_index.version() == CURRENT
    assert held(new_root, new_index) == before
    assert list(check(new_root, index_url=new_url)) == []


async def test_a_backup_without_an_index_is_none(
    root: Path, folder: Path, index_url: str | None, request: pytest.FixtureRequest
) -> None:
    """Who has forgotten to say where the index is, or names another database, is told what is missing."""
    await fill(root, index_url)
    url = request.getfixturevalue("empty_postgres_url") if index_url is not None else None
    if url is None:
        (root / "index.sqlite").unlink()
    where = ("--data-dir", root, *(("--index-url", url) if url is not None else ()))
    done = await asyncio.to_thread(run_tomowire, "backup", folder, *where)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "has no index in" in done.stderr
    assert not await asyncio.to_thread(folder.exists)
    done = await asyncio.to_thread(run_tomowire, "db", "upgrade", *where)
    assert (done.returncode, "run 'tomowire db reindex'" in done.stderr) == (2, True)
    assert backend_for(url, root).is_empty()


async def test_a_backup_of_a_later_program_is_made_by_that(root: Path, folder: Path) -> None:
    await fill(root)
    with closing(sqlite3.connect(root / "index.sqlite")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(UsageError, match="use a newer tomowire"):
        backup(root, folder, backend_for(None, root))
    with pytest.raises(UsageError, match="holds no backup"):
        points_of(folder)


async def test_a_backup_of_an_older_schema_without_its_disk_is_refused(
    root: Path, folder: Path, tmp_path: Path
) -> None:
    await fill(tmp_path / "source")
    make_former("0002", root, None)
    fill_former(root, None, tmp_path / "source" / "index.sqlite")
    with pytest.raises(UsageError, match="is the disk mounted"):
        backup(root, folder, backend_for(None, root))
    with pytest.raises(UsageError, match="holds no backup"):
        points_of(folder)


async def test_a_backup_while_four_senders_store_replace_and_delete(
    root: Path, folder: Path, index_url: str | None, index: IndexBackend, tmp_path: Path
) -> None:
    async with opened(root, index_url, policy=DuplicatePolicy.REPLACE) as storage:
        await keep(storage, LARGE)
        over = asyncio.Event()

        async def send(sender: int) -> int:
            number = 0
            while not over.is_set():
                number += 1
                sample = Sample(1000 * sender + number % 40, study=10 * sender + number % 5, content=str(number))
                await keep(storage, sample)
                if number % 50 == 0:
                    await storage.deletion.study(sample.study_uid)
            return number

        senders = [asyncio.create_task(send(sender)) for sender in range(1, 5)]
        points = [await asyncio.to_thread(backup, root, folder, index) for _ in range(3)]
        over.set()
        stored = await asyncio.gather(*senders)
        await storage.deletion.swept()
    assert min(stored) > 0
    for number, point in enumerate(points):
        assert point.problem_count == 0
        require_consistent(point, folder)
        new_root = tmp_path / f"new{number}"
        new_index = backend_for(None, new_root)
        restore(folder, new_root, new_index, point=point.name, report=lambda problem: pytest.fail(str(problem)))
        assert list(check(new_root)) == []
        assert len(held(new_root, new_index)) == point.objects > 0
    assert len(files_below(root)) == len(held(root, index))


async def test_what_an_earlier_point_has_is_not_copied_again(root: Path, folder: Path) -> None:
    await fill(root)
    index = backend_for(None, root)
    backup(root, folder, index)
    async with opened(root, None) as storage:
        await storage.deletion.instance(SAMPLES[0].uid)
        await keep(storage, Sample(1, content="another", study=2, series=1), Sample(100))
    point = backup(root, folder, index)
    assert (point.objects, point.copied) == (14, 2)
    require_consistent(point, folder)
    with BackupFolder.open(folder, create=False) as opened_folder:
        first, second = opened_folder.points()
        require = {line.split(" ")[2] for line in manifest_of(first)}
    assert second == point
    assert len(require) == 13


async def test_an_interrupted_backup_is_gone_on_with(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(root)
    index = backend_for(None, root)
    real, copies = backup_module.copy_checked, []

    def fails_at_the_sixth(*arguments: Any) -> None:
        copies.append(arguments)
        if len(copies) > 5:
            raise OSError(28, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(backup_module, "copy_checked", fails_at_the_sixth)
    with pytest.raises(OSError, match="No space"):
        backup(root, folder, index, threads=1)
    with BackupFolder.open(folder, create=False) as left:
        assert left.points() == []
    monkeypatch.undo()
    point = backup(root, folder, index)
    assert point.copied == 8
    require_consistent(point, folder)
    assert sorted(path.name for path in (folder / "points").iterdir()) == [point.name]
    assert list((folder / "incoming").iterdir()) == []


async def test_of_a_damaged_index_it_is_said_that_another_point_is_needed(
    root: Path, folder: Path, tmp_path: Path
) -> None:
    await fill(root)
    made = backup(root, folder, backend_for(None, root))
    damaged = bytearray(made.index.read_bytes())
    damaged[100:4000] = bytes(3900)
    made.index.chmod(0o600)
    made.index.write_bytes(damaged)
    with pytest.raises(
        IndexUnavailable, match=rf"point {made.name} is damaged: restore another one \(--point\), to another"
    ):
        restore(folder, tmp_path / "new", backend_for(None, tmp_path / "new"))


def overwrite_root_page(database: Path, table: str) -> None:
    """The rest of the database can be read, and whoever asks for this table is told that it is malformed."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
        [(size,)] = connection.execute("PRAGMA page_size")
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


@pytest.mark.parametrize("table", ["users", "uq_instances_sop_instance_uid"])
async def test_no_point_is_made_of_a_damaged_index_and_no_older_one_given_up(
    root: Path, folder: Path, table: str
) -> None:
    """Also where nothing that the backup asks for is damaged."""
    await fill(root)
    point = backup(root, folder, backend_for(None, root))
    name = table
    if table.startswith("uq_"):
        with closing(sqlite3.connect(root / "index.sqlite")) as connection:
            [(name,)] = connection.execute(
                "SELECT name FROM sqlite_master WHERE tbl_name = 'instances' AND sql IS NULL"
            )
    overwrite_root_page(root / "index.sqlite", name)
    with pytest.raises(
        IndexUnavailable, match=f"^{root}/index.sqlite: .*'tomowire db reindex' makes it again"
    ) as raised:
        backup(root, folder, backend_for(None, root))
    assert raised.value.is_damage
    done = await asyncio.to_thread(run_tomowire, "backup", folder, "--keep", "1", "--data-dir", root)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert points_of(folder) == [point]
    require_consistent(point, folder)


async def test_an_index_that_lacks_rows_of_its_table_is_damaged(root: Path, folder: Path) -> None:
    """An object that is asked for by its UID is not found, though its row is there."""
    await fill(root)
    with closing(sqlite3.connect(root / "index.sqlite", isolation_level=None)) as connection:
        find = "SELECT name, rootpage FROM sqlite_master WHERE tbl_name = 'instances' AND sql IS NULL"
        [(name, page)] = connection.execute(find)
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("CREATE TABLE empty (uid TEXT UNIQUE)")
        [(other,)] = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE tbl_name = 'empty' AND type = 'index'"
        )
        connection.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = ?", (other, name))
        connection.execute("UPDATE sqlite_master SET rootpage = ? WHERE tbl_name = 'empty' AND type = 'index'", (page,))
    with pytest.raises(IndexUnavailable, match=r"wrong # of entries in index|missing from index"):
        backup(root, folder, backend_for(None, root))
    assert FindingKind.INDEX_DAMAGED in {finding.kind for finding in check(root)}


async def test_a_dump_that_the_disk_of_the_backup_did_not_keep_is_not_the_archives_fault(
    root: Path, folder: Path, index_url: str | None, index: IndexBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(root, index_url)
    real = type(index).dump

    def dump(backend: IndexBackend, path: Path) -> None:
        real(backend, path)
        overwrite_root_page(path, "users")

    monkeypatch.setattr(type(index), "dump", dump)
    with pytest.raises(IndexUnavailable, match="look at the disk of the backup") as raised:
        backup(root, folder, index)
    assert str(raised.value).startswith(f"{folder}/points/")
    assert "reindex" not in str(raised.value)
    assert points_of(folder) == []


@pytest.mark.parametrize("to_postgres", [False, True])
async def test_a_point_whose_index_is_damaged_further_on_is_found(
    root: Path, folder: Path, to_postgres: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As the checksum says that it was written: a point that an earlier version has made."""
    await fill(root)
    point = backup(root, folder, backend_for(None, root))
    overwrite_root_page(point.index, "users" if to_postgres else "instances")
    facts = json.loads((point.folder / "point.json").read_bytes())
    facts["checksums"]["index.sqlite"] = backup_module.file_checksum(point.index)
    (point.folder / "point.json").write_text(json.dumps(facts))
    problems: list[Problem] = []
    verify(folder, report=problems.append)
    assert [each.path for each in problems] == [f"{point.name}/index.sqlite"]
    url = str(request.getfixturevalue("empty_postgres_url")) if to_postgres else None
    where = "to another folder and an empty database" if to_postgres else "to another folder"
    with pytest.raises(IndexUnavailable, match=rf"point {point.name} is damaged: .*\(--point\), {where}$"):
        restore(folder, tmp_path / "new", backend_for(url, tmp_path / "new"))


async def test_a_damaged_copy_is_found_and_copied_again(root: Path, folder: Path) -> None:
    await fill(root)
    index = backend_for(None, root)
    backup(root, folder, index)
    [blob] = (folder / "objects").rglob(f"{SAMPLES[3].uid}.*")
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    [gone] = (folder / "objects").rglob(f"{SAMPLES[4].uid}.*")
    gone.unlink()
    problems: list[Problem] = []
    verify(folder, report=problems.append)
    assert {(SAMPLES[3].uid in each.path, each.explanation.partition(":")[0]) for each in problems} == {
        (True, "the backup's copy is damaged"),
        (False, "it is not in the backup"),
    }
    assert len(list((folder / "damaged").iterdir())) == 1
    point = backup(root, folder, index)
    assert point.copied == 2
    require_consistent(point, folder)


@pytest.mark.parametrize("name", ["index.sqlite", "manifest"])
async def test_a_changed_manifest_or_index_is_found(root: Path, folder: Path, name: str) -> None:
    await fill(root)
    point = backup(root, folder, backend_for(None, root))
    path = point.folder / name
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    problems: list[Problem] = []
    verify(folder, report=problems.append)
    assert f"{point.name}/{name}" in {problem.path for problem in problems}


async def test_a_changed_index_is_told_when_it_is_restored(root: Path, folder: Path, tmp_path: Path) -> None:
    await fill(root)
    point = backup(root, folder, backend_for(None, root))
    with closing(sqlite3.connect(point.index)) as connection:
        connection.execute("UPDATE patients SET patient_id = 'somebody else'")
        connection.commit()
    told: list[Problem] = []
    restore(folder, tmp_path / "new", backend_for(None, tmp_path / "new"), report=told.append)
    assert [each.path for each in told] == [f"{point.name}/index.sqlite"]


async def test_old_points_are_given_up_and_what_only_they_had(root: Path, folder: Path) -> None:
    index = backend_for(None, root)
    await fill(root)
    backup(root, folder, index)
    async with opened(root, None) as storage:
        await storage.deletion.study(SAMPLES[0].study_uid)
        await keep(storage, Sample(1, content="another"))
    points = [backup(root, folder, index) for _ in range(3)]
    with BackupFolder.open(folder, create=False) as opened_folder:
        assert len(prune(opened_folder, 2)) == 2
        assert opened_folder.points() == points[1:]
    require_consistent(points[-1], folder)
    left = {path.name for path in (folder / "objects").rglob("*.dcm")}
    assert len(left) == points[-1].objects == 11
    assert not [name for name in left if name.startswith(SAMPLES[4].uid + ".")]


async def test_the_points_of_another_archive_are_not_given_up(root: Path, folder: Path) -> None:
    await fill(root)
    point = backup(root, folder, backend_for(None, root))
    other = root.with_name("other")
    async with opened(other, None) as storage:
        await keep(storage, SAMPLES[0])
    done = await asyncio.to_thread(run_tomowire, "backup", folder, "--keep", "1", "--data-dir", other)
    assert done.returncode == 1
    assert f"the point {point.name} is of " in done.stderr
    assert len(points_of(folder)) == 2
    require_consistent(point, folder)


def test_an_archive_is_the_same_with_its_index_made_again_or_in_another_folder(root: Path, folder: Path) -> None:
    asyncio.run(fill(root))
    backup(root, folder, backend_for(None, root))
    reindex(root)
    backup(root, folder, backend_for(None, root))
    moved = root.rename(root.with_name("moved"))
    newest = backup(moved, folder, backend_for(None, moved))
    with BackupFolder.open(folder, create=False) as opened_folder:
        assert len(prune(opened_folder, 1)) == 2
        assert opened_folder.points() == [newest]


@pytest.mark.parametrize("other", ["{}-before-upgrade", "kept/{}", "kept", ".kept"])
async def test_what_a_renamed_point_has_is_kept(root: Path, folder: Path, other: str) -> None:
    index = backend_for(None, root)
    await fill(root)
    point = backup(root, folder, index)
    renamed = point.folder.parent / other.format(point.name)
    renamed.parent.mkdir(exist_ok=True)
    point.folder.rename(renamed)
    (point.folder.parent / "@eaDir").mkdir()
    async with opened(root, None) as storage:
        await storage.deletion.study(SAMPLES[0].study_uid)
    backup(root, folder, index)
    done = await asyncio.to_thread(run_tomowire, "backup", folder, "--keep", "1", "--data-dir", root)
    assert done.returncode == 1
    assert (
        f"older ones were not given up, or not all that only they had: {renamed} is in the way, which has the files of a point"
        in done.stderr
    )
    assert len(points_of(folder)) == 2
    renamed.rename(point.folder)
    for each in points_of(folder):
        require_consistent(each, folder)


async def test_hard_links_take_no_space(root: Path, folder: Path) -> None:
    await fill(root)
    point = backup(root, folder, backend_for(None, root), link=True)
    require_consistent(point, folder)
    for path in files_below(root):
        assert (root / path).stat().st_nlink == 2


async def test_what_is_wrong_in_the_archive_is_told_and_the_rest_is_copied(
    root: Path, folder: Path, tmp_path: Path
) -> None:
    await fill(root)
    paths = {sample.uid: root / path for path in files_below(root) for sample in SAMPLES if f"{sample.uid}.dcm" in path}
    paths[SAMPLES[0].uid].unlink()
    os.truncate(paths[SAMPLES[1].uid], 100)
    told: list[Problem] = []
    point = backup(root, folder, backend_for(None, root), report=told.append)
    assert [problem.explanation.partition(":")[0] for problem in told] == [
        "the index has it, but there is no such file",
        "not copied",
    ]
    assert (point.objects, point.problem_count) == (13, 2)
    new_root, missing = tmp_path / "new", []
    restore(folder, new_root, backend_for(None, new_root), report=missing.append)
    assert {problem.path for problem in missing} == {SAMPLES[0].uid, SAMPLES[1].uid}
    async with opened(new_root, None) as storage:  # sending them again mends it
        await keep(storage, SAMPLES[0], SAMPLES[1])
    assert list(check(new_root)) == []


@pytest.mark.parametrize("link", [False, True])
async def test_a_pipe_in_place_of_an_object_is_no_file(root: Path, folder: Path, tmp_path: Path, link: bool) -> None:
    """Whoever opened it would wait for ever."""
    await fill(root)
    [path] = (each for each in files_below(root) if f"{SAMPLES[0].uid}.dcm" in each)
    (root / path).unlink()
    os.mkfifo(root / path)
    told: list[Problem] = []
    point = backup(root, folder, backend_for(None, root), link=link, report=told.append)
    assert [(each.path, each.explanation) for each in told] == [(path, "not copied: it cannot be read: it is no file")]
    assert (point.objects, point.copied) == (13, 12)
    [blob] = (folder / "objects").rglob(f"{SAMPLES[1].uid}.*")
    blob.unlink()
    os.mkfifo(blob)
    missing: list[Problem] = []
    restore(folder, tmp_path / "new", backend_for(None, tmp_path / "new"), report=missing.append)
    assert {each.path for each in missing} == {SAMPLES[0].uid, SAMPLES[1].uid}


async def test_an_interrupted_restore_is_gone_on_with(root: Path, folder: Path, tmp_path: Path) -> None:
    await fill(root)
    index = backend_for(None, root)
    first, point = backup(root, folder, index), backup(root, folder, index)
    new_root = tmp_path / "new"
    [blob] = (folder / "objects").rglob(f"{SAMPLES[-1].uid}.*")
    blob.rename(tmp_path / "blob")
    blob.symlink_to(blob.name)  # reading it is an error that is not foreseen
    with pytest.raises(OSError, match="symbolic links"):
        restore(folder, new_root, backend_for(None, new_root), threads=1)
    assert not (new_root / "index.sqlite").exists()
    for attempt in (lambda: reindex(new_root), lambda: asyncio.run(opened(new_root, None).__aenter__())):
        with pytest.raises(UsageError, match="run 'tomowire restore' again"):
            await asyncio.to_thread(attempt)
    blob.unlink()
    (tmp_path / "blob").rename(blob)
    with pytest.raises(UsageError, match="finish that one"):
        restore(folder, new_root, backend_for(None, new_root), point=first.name)
    restore(folder, new_root, backend_for(None, new_root))
    assert held(new_root, backend_for(None, new_root)) == held(root, index)
    assert sorted(os.listdir(new_root)) == sorted({*os.listdir(new_root)} - {"restoring"})
    assert point.objects == 13


BAD_SPOT = Path("/proc/self/mem")
"""Reading its beginning is an input/output error."""


@pytest.mark.skipif(not BAD_SPOT.exists(), reason="a bad spot of the disk is made of Linux' /proc")
async def test_a_bad_spot_of_the_disk_costs_one_object(root: Path, folder: Path, tmp_path: Path) -> None:
    await fill(root)
    paths = {path.rpartition("/")[2].removesuffix(".dcm"): root / path for path in files_below(root)}
    paths[SAMPLES[0].uid].unlink()
    paths[SAMPLES[0].uid].symlink_to(BAD_SPOT)
    told: list[Problem] = []
    point = backup(root, folder, backend_for(None, root), report=told.append)
    assert [each.explanation for each in told] == ["not copied: it cannot be read: Input/output error"]
    assert (point.objects, point.copied) == (13, 12)

    [blob] = (folder / "objects").rglob(f"{SAMPLES[1].uid}.*")
    blob.unlink()
    blob.symlink_to(BAD_SPOT)
    new_root, missing = tmp_path / "new", []
    new_index = backend_for(None, new_root)
    restore(folder, new_root, new_index, report=missing.append)
    assert {each.path for each in missing} == {SAMPLES[0].uid, SAMPLES[1].uid}
    assert len(files_below(new_root)) == 11
    verify(folder, report=told.append)
    assert not blob.is_symlink()  # it was put aside, and the next backup copies it again
    assert backup(root, folder, backend_for(None, root)).copied == 1


def occupied(path: Path) -> Path:
    path.mkdir()
    (path / "notes.txt").touch()
    return path


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda root, folder, index: backup(folder.parent / "nothing", folder, index), "not the data directory"),
        (lambda root, folder, index: backup(root, root / "backups", index), "inside the data directory"),
        (lambda root, folder, index: backup(root, occupied(folder), index), "not empty"),
        (lambda root, folder, index: restore(folder, folder.parent / "new", index), "holds no backup"),
        (lambda root, folder, index: verify(folder), "holds no backup"),
    ],
    ids=["no archive", "inside", "foreign folder", "no backup", "nothing to verify"],
)
async def test_what_cannot_be_is_refused(
    root: Path, folder: Path, attempt: Callable[[Path, Path, IndexBackend], object], words: str
) -> None:
    await fill(root)
    with pytest.raises(UsageError, match=words):
        attempt(root, folder, backend_for(None, root))


async def test_nothing_is_restored_over_something(root: Path, folder: Path, tmp_path: Path, postgres_url: str) -> None:
    await fill(root)
    index = backend_for(None, root)
    backup(root, folder, index)
    with pytest.raises(UsageError, match="not empty"):
        restore(folder, root, index)
    with pytest.raises(UsageError, match="not empty"):
        restore(folder, occupied(tmp_path / "new"), backend_for(None, tmp_path / "new"))
    with pytest.raises(UsageError, match="no point"):
        restore(folder, tmp_path / "other", backend_for(None, tmp_path / "other"), point="yesterday")
    with pytest.raises(UsageError, match="holds an index already"):
        restore(folder, tmp_path / "third", backend_for(postgres_url, tmp_path / "third"))
    assert len(held(root, index)) == 13


async def test_a_full_disk_is_named(root: Path, folder: Path, tmp_path: Path) -> None:
    """Which of the two it is cannot be guessed: the archive's, or that of the backup."""
    async with opened(root, None) as storage:
        await keep(storage, Sample(1, size=300_000), Sample(2, size=300_000))
    with tiny_disk(tmp_path / "disk", 512 << 10) as disk:
        done = await asyncio.to_thread(run_tomowire, "backup", disk / "backup", "--data-dir", root)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith(f"tomowire: {disk}/backup/")
        assert done.stderr.endswith(": No space left on device\n")
    backup(root, folder, backend_for(None, root))
    with tiny_disk(tmp_path / "other", 800 << 10) as disk:
        done = await asyncio.to_thread(run_tomowire, "restore", folder, "--data-dir", disk / "data")
        assert done.returncode == 1
        assert done.stderr.startswith(f"tomowire: {disk}/data/")
    with tiny_disk(tmp_path / "third", 64 << 10) as disk:
        done = await asyncio.to_thread(run_tomowire, "restore", folder, "--data-dir", disk / "data")
        assert done.stderr.startswith(f"tomowire: {disk}/data/")


@pytest.mark.parametrize("size", [4 << 10, 16 << 10, 200 << 10])
async def test_a_full_disk_is_named_too_where_the_index_finds_no_room(
    root: Path, folder: Path, tmp_path: Path, index_url: str | None, size: int
) -> None:
    """SQLite says that "database or disk is full", and the system of a write not which file it was to."""
    async with opened(root, index_url) as storage:
        await keep(storage, *SAMPLES)
    from_where = ("--data-dir", root, *(("--index-url", index_url) if index_url is not None else ()))
    assert (await asyncio.to_thread(run_tomowire, "backup", folder, *from_where)).returncode == 0
    with tiny_disk(tmp_path / "disk", size) as disk:
        done = await asyncio.to_thread(run_tomowire, "backup", disk / "backup", *from_where)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith(f"tomowire: {disk}/backup")
        assert done.stderr.endswith(": No space left on device\n")
    with tiny_disk(tmp_path / "other", size) as disk:
        done = await asyncio.to_thread(run_tomowire, "restore", folder, "--data-dir", disk / "data")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith(f"tomowire: {disk}/data")
        assert done.stderr.endswith(": No space left on device\n")


@pytest.mark.parametrize("gone", ["incoming", "."])
async def test_a_folder_that_goes_away_is_not_what_the_archive_has_lost(
    root: Path, folder: Path, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk was taken away, say. It is not said of each object that the archive has no file of it."""
    await fill(root)
    index = backend_for(None, root)
    real = backup_module.copy_checked

    def taken_away(*arguments: Any) -> None:
        real(*arguments)
        if not (elsewhere := folder.with_name("elsewhere")).exists():
            (folder / gone).rename(elsewhere)

    monkeypatch.setattr(backup_module, "copy_checked", taken_away)
    told: list[Problem] = []
    with pytest.raises(FileNotFoundError) as raised:
        backup(root, folder, index, threads=1, report=told.append)
    assert str(raised.value.filename).startswith(f"{folder}/")
    assert told == []


@pytest.mark.parametrize("gone", ["backups", "new/incoming"])
async def test_a_restore_whose_folders_go_away_is_gone_on_with(
    root: Path, folder: Path, tmp_path: Path, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(root)
    backup(root, folder, backend_for(None, root))
    new_root, told = tmp_path / "new", list[Problem]()
    new_index, real = backend_for(None, new_root), restore_module.copy_checked

    def taken_away(*arguments: Any) -> None:
        if not (tmp_path / "elsewhere").exists():
            (tmp_path / gone).rename(tmp_path / "elsewhere")
        real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(restore_module, "copy_checked", taken_away)
        with pytest.raises(FileNotFoundError) as raised:
            restore(folder, new_root, new_index, threads=1, report=told.append)
    assert str(raised.value.filename).startswith(str(tmp_path / gone))
    assert told == []
    (tmp_path / "elsewhere").rename(tmp_path / gone)
    restore(folder, new_root, new_index, report=told.append)
    assert told == []
    assert held(new_root, new_index) == held(root, backend_for(None, root))


async def test_two_backups_at_once_do_not_disturb_each_other(root: Path, folder: Path) -> None:
    await fill(root)
    index = backend_for(None, root)
    with BackupFolder.open(folder, create=True), pytest.raises(UsageError, match="in use by another process"):
        backup(root, folder, index)
    assert backup(root, folder, index).problem_count == 0


def test_a_folder_that_could_not_be_begun_is_begun_by_the_next_run(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", 64 << 10) as disk:
        (disk / "lost+found").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                BackupFolder.open(disk, create=True)
        (disk / "lost+found").unlink()
        with BackupFolder.open(disk, create=True) as opened:
            assert opened.points() == []


async def test_a_backup_is_listed_while_one_is_made_and_not_restored_from(root: Path, folder: Path) -> None:
    await fill(root)
    point = backup(root, folder, backend_for(None, root))
    new = folder.parent / "new"
    with BackupFolder.open(folder, create=False):
        assert points_of(folder) == [point]
        with pytest.raises(UsageError, match="in use by another process"):
            restore(folder, new, backend_for(None, new))
    assert not new.exists()


async def test_a_backup_can_be_made_by_another_user(root: Path, folder: Path) -> None:
    """Whoever runs the archive has to be able to open what the other one has made."""
    await fill(root)
    backup(root, folder, backend_for(None, root))
    found, owner = os.stat(root / "hold"), os.stat(root)
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (owner.st_uid, owner.st_gid, 0o660)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_root_leaves_no_file_that_the_archive_cannot_open(root: Path, folder: Path) -> None:
    await fill(root)
    everything = [os.path.join(at, name) for at, folders, names in os.walk(root) for name in (*folders, *names)]
    for path in (root, *everything):
        os.chown(path, 65534, 65534)
    backup(root, folder, backend_for(None, root))
    assert {os.stat(os.path.join(at, name)).st_uid for at, _, names in os.walk(root) for name in names} == {65534}


@pytest.mark.parametrize("is_first", [True, False])
async def test_what_is_on_a_disk_that_has_become_read_only_is_saved(root: Path, folder: Path, is_first: bool) -> None:
    async with opened(root, None) as storage:
        await keep(storage, *SAMPLES)
    if not is_first:
        run_tomowire("backup", "--data-dir", root, tmp := folder.with_name("earlier"))
        assert tmp.is_dir()
    with read_only(root):
        done = run_tomowire("backup", "--data-dir", root, folder)
        assert done.returncode == 0, done.stderr
        assert "no file can be held there" in done.stderr or not is_first
        assert "the audit trail is on a read-only disk, and 1 events are not in it" in done.stderr
    problems: list[Problem] = []
    assert verify(folder, None, report=problems.append).objects == len(SAMPLES)
    assert problems == []
    new = folder.with_name("new")
    restore(folder, new, backend_for(None, new), report=problems.append)
    assert problems == []
    assert files_below(new) == files_below(root)
