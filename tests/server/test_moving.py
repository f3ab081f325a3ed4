"""One data directory, and the wrong index for it: the archive has its own in PostgreSQL, and the files are beside an old one."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest

from support.crashes import CrashServer
from support.filesystems import quick_directory, tiny_disk
from support.objects import Sample, chunks_of, stream
from support.postgres import Cluster
from support.stored import files_below
from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server import reindex as reindexing
from tomowire.server.archive import ArchiveStorage
from tomowire.server.backup import backup
from tomowire.server.check import check
from tomowire.server.hold import files_held
from tomowire.server.index.backend import backend_for
from tomowire.server.jobs.jobs import Jobs
from tomowire.server.protection import Protection
from tomowire.server.reindex import reindex
from tomowire.server.repair import repair
from tomowire.server.restore import restore
from tomowire.server.users import Role, Users
from tomowire.services.models import Level

SAMPLES = [Sample(number, study=number) for number in range(1, 4)]
ELSEWHERE = "the index of the archive in .* is in PostgreSQL, at 127.0.0.1:"
LAST_STEPS = 16
"""In these the new index takes the place of the old one."""
SUPERSEDED = "are of another index than this one"


async def stored(root: Path, *samples: Sample, index_url: str | None = None) -> Path:
    async with ArchiveStorage(root, fsync=False, index_url=index_url) as storage:
        for sample in samples:
            await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))
    return root


def held(root: Path, index_url: str | None = None) -> set[str]:
    with backend_for(index_url, root).open_reader() as reader:
        return {row.name.sop_instance_uid for row in reader.objects()}


async def protected(root: Path, index_url: str | None = None) -> list[str]:
    async with ArchiveStorage(root, fsync=False, index_url=index_url) as storage:
        return [each.study_instance_uid for each in await Protection(storage.records).list()]


def marks(root: Path) -> int:
    return len(list(root.glob("objects/.archive-*")))


def location(root: Path) -> Path:
    return root / "index.location"


@pytest.fixture
async def moved(tmp_path: Path, empty_postgres_url: str) -> Path:
    """An archive that came from SQLite, and has stored in PostgreSQL since."""
    root = await stored(tmp_path / "data", *SAMPLES[:2])
    assert reindex(root, index_url=empty_postgres_url, move=True) == 2
    return await stored(root, SAMPLES[2], index_url=empty_postgres_url)


@pytest.fixture
async def outside(tmp_path: Path, empty_postgres_url: str) -> Path:
    """An archive that has had its index in PostgreSQL from the beginning."""
    return await stored(tmp_path / "data", *SAMPLES, index_url=empty_postgres_url)


async def test_the_index_of_before_is_not_used_again(moved: Path, empty_postgres_url: str) -> None:
    before = files_below(moved, ".")
    with pytest.raises(UsageError, match=ELSEWHERE):
        await stored(moved)
    location(moved).unlink()  # an archive of before there was such a file
    assert marks(moved) == 1
    with pytest.raises(UsageError, match=SUPERSEDED):
        await stored(moved)
    with pytest.raises(UsageError, match=SUPERSEDED):
        list(repair(moved))
    with pytest.raises(UsageError, match=SUPERSEDED):
        backup(moved, moved.with_name("backups"), backend_for(None, moved))
    assert files_below(moved, ".") - before <= {"index.sqlite-wal", "index.sqlite-shm"}
    await stored(moved, index_url=empty_postgres_url)
    assert location(moved).exists()
    assert held(moved, empty_postgres_url) == {sample.uid for sample in SAMPLES}


async def test_an_index_of_before_that_is_made_again_is_that_of_the_files(moved: Path, empty_postgres_url: str) -> None:
    """It is not asked what it knows: of what it has deleted some may have been stored again."""
    with pytest.raises(UsageError, match="say so with --move"):
        reindex(moved)
    findings = list[str]()
    assert reindex(moved, move=True, report=lambda finding: findings.append(finding.path)) == 3
    assert findings == []
    assert not location(moved).exists()
    await stored(moved)
    with pytest.raises(UsageError, match=SUPERSEDED):
        await stored(moved, index_url=empty_postgres_url)


async def test_a_move_is_one_that_was_meant(tmp_path: Path, empty_postgres_url: str, postgres_url: str) -> None:
    root = await stored(tmp_path / "data", *SAMPLES)
    with pytest.raises(UsageError, match=r"index.sqlite, and the new one would be at .*--move"):
        reindex(root, index_url=empty_postgres_url)
    await stored(root)
    assert reindex(root, index_url=empty_postgres_url, move=True) == 3
    with pytest.raises(UsageError, match="--move"):
        reindex(root, index_url=postgres_url)
    assert reindex(root, index_url=empty_postgres_url) == 3
    assert marks(root) == 1
    assert list(check(root, index_url=empty_postgres_url)) == []


async def test_what_is_protected_stays_protected(tmp_path: Path, empty_postgres_url: str) -> None:
    root = await stored(tmp_path / "data", *SAMPLES)
    async with ArchiveStorage(root, fsync=False) as storage:
        for sample in SAMPLES[:2]:
            await Protection(storage.records).protect(sample.study_uid, by="me", reason="teaching")
    for _ in range(2):
        reindex(root, index_url=empty_postgres_url, move=True)
    assert await protected(root, empty_postgres_url) == sorted(sample.study_uid for sample in SAMPLES[:2])


async def test_what_was_deleted_does_not_come_back(tmp_path: Path, empty_postgres_url: str) -> None:
    """Only the old index knows that the files are to go."""
    root = await stored(tmp_path / "data", *SAMPLES)
    with files_held(root / "hold"):
        async with ArchiveStorage(root, fsync=False) as storage:
            assert await storage.deletion.study(SAMPLES[0].study_uid)
    assert len(files_below(root)) == 3
    reindex(root, index_url=empty_postgres_url, move=True)
    assert held(root, empty_postgres_url) == {sample.uid for sample in SAMPLES[1:]}
    assert len(files_below(root)) == 2


async def test_an_archive_whose_database_was_lost(outside: Path, empty_postgres_url: str, postgres: Cluster) -> None:
    name = empty_postgres_url.rpartition("/")[2]
    postgres.drop(name)
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    with pytest.raises(UsageError, match="no index: run 'tomowire db reindex'"):
        await stored(outside, index_url=empty_postgres_url)
    assert reindex(outside, index_url=empty_postgres_url) == 3
    await stored(outside, index_url=empty_postgres_url)


async def test_an_index_in_the_directory_that_was_lost(tmp_path: Path) -> None:
    root = await stored(tmp_path / "data", *SAMPLES)
    (root / "index.sqlite").unlink()
    with pytest.raises(UsageError, match=r"no index: run 'tomowire db reindex', or, .* --index-url"):
        await stored(root)
    assert reindex(root) == 3
    assert marks(root) == 1
    await stored(root)


async def test_a_restored_archive_says_where_its_index_is(tmp_path: Path, empty_postgres_url: str) -> None:
    root = await stored(tmp_path / "data", *SAMPLES)
    backup(root, tmp_path / "backups", backend_for(None, root))
    new = tmp_path / "new"
    restore(tmp_path / "backups", new, backend_for(empty_postgres_url, new))
    with pytest.raises(UsageError, match=ELSEWHERE):
        await stored(new)
    await stored(new, index_url=empty_postgres_url)


@pytest.mark.parametrize("with_tables", [False, True], ids=["without tables", "with tables"])
@pytest.mark.parametrize("mounted", [False, True], ids=["not mounted", "mounted"])
async def test_an_archive_does_not_begin_in_a_place_where_its_index_is_not(
    tmp_path: Path, empty_postgres_url: str, postgres: Cluster, mounted: bool, with_tables: bool
) -> None:
    """Where its objects are not mounted nothing else says that it has begun already."""
    with place(postgres) as url:
        for index_url, says in ((None, "index.sqlite"), (url, url.rpartition("@")[2])):
            root = await stored(tmp_path / says.replace("/", "-"), *SAMPLES, index_url=index_url)
            note = location(root).read_text() if index_url else None
            if with_tables:
                backend_for(empty_postgres_url, root).upgrade()
            if not mounted:
                (root / "objects").rename(tmp_path / f"disk-{index_url is None}")
                (root / "objects").mkdir()
            with pytest.raises(UsageError, match=f"is at .*{says}, and this one has nothing"):
                await stored(root, index_url=empty_postgres_url)
            assert (location(root).read_text() if location(root).exists() else None) == note
            assert marks(root) == int(mounted)


@contextmanager
def place(postgres: Cluster) -> Iterator[str]:
    name = postgres.create(empty=True)
    yield postgres.url(name)
    postgres.drop(name)


async def usable(root: Path, index_url: str | None) -> bool:
    """Whether an archive begins with this index, and has all objects."""
    try:
        await stored(root, index_url=index_url)
    except UsageError:
        return False
    assert held(root, index_url) == {sample.uid for sample in SAMPLES}
    return True


@pytest.mark.parametrize("to_postgres", [True, False], ids=["to PostgreSQL", "back"])
async def test_a_move_that_is_killed_leaves_a_usable_archive(postgres: Cluster, to_postgres: bool) -> None:
    async def begin(root: Path, url: str) -> tuple[str | None, str | None]:
        """Gives where the index is, and where it is to be."""
        await stored(root, *SAMPLES, index_url=None if to_postgres else url)
        return (None, url) if to_postgres else (url, None)

    with CrashServer() as server, quick_directory() as directory:
        with place(postgres) as url:
            _, new = await begin(directory / "all", url)
            steps = server.move(directory / "all", new).steps
        for step in [steps // 2, *range(max(steps - LAST_STEPS, 1), steps + 1, 2 if to_postgres else 1)]:
            root = directory / str(step)
            with place(postgres) as url:
                old, new = await begin(root, url)
                assert server.move(root, new, step=step).killed
                if step % 3:  # whoever goes on with one of them has given up the other
                    goes_on = await usable(root, old)
                    assert await usable(root, new) is not goes_on
                assert reindex(root, index_url=new, move=True) == 3
                assert await usable(root, new)
                assert not await usable(root, old)
                assert marks(root) == 1
                assert list(check(root, index_url=new)) == []
            shutil.rmtree(root)


async def add_user(root: Path, name: str, index_url: str | None = None) -> None:
    async with ArchiveStorage(root, fsync=False, index_url=index_url) as storage, Users(storage.records) as users:
        await users.add(name, Role.ADMINISTRATOR)


async def users_of(root: Path, index_url: str | None = None) -> list[str]:
    async with ArchiveStorage(root, fsync=False, index_url=index_url) as storage, Users(storage.records) as users:
        return [user.name for user in await users.list()]


async def jobs_of(root: Path, index_url: str | None = None) -> int:
    async with ArchiveStorage(root, fsync=False, index_url=index_url) as storage:
        return len(await Jobs(storage.records).list())


@pytest.mark.parametrize("samples", [[Sample(9, study=9)], []], ids=["with objects", "with nothing but a user"])
async def test_the_index_of_another_archive_is_not_written_over(
    tmp_path: Path, empty_postgres_url: str, samples: list[Sample]
) -> None:
    other = await stored(tmp_path / "other", *samples, index_url=empty_postgres_url)
    await add_user(other, "bob", empty_postgres_url)
    root = await stored(tmp_path / "data", *SAMPLES)
    with pytest.raises(UsageError, match="name an empty database"):
        reindex(root, index_url=empty_postgres_url, move=True)
    assert held(other, empty_postgres_url) == {sample.uid for sample in samples}
    assert await users_of(other, empty_postgres_url) == ["bob"]
    assert await users_of(root) == []
    (root / "index.sqlite").unlink()
    with pytest.raises(UsageError, match="name an empty database"):
        reindex(root, index_url=empty_postgres_url)


async def test_nor_is_it_if_both_have_the_same_objects(tmp_path: Path, empty_postgres_url: str) -> None:
    other = await stored(tmp_path / "other", *SAMPLES, index_url=empty_postgres_url)
    root = await stored(tmp_path / "data", *SAMPLES)
    with pytest.raises(UsageError, match="holds an index already"):
        reindex(root, index_url=empty_postgres_url, move=True)
    await stored(root)
    assert list(check(other, index_url=empty_postgres_url)) == []


async def test_an_audit_trail_is_not_gone_on_with_after_another_one(tmp_path: Path, empty_postgres_url: str) -> None:
    root = await stored(tmp_path / "data", *SAMPLES)
    backend_for(empty_postgres_url, root).upgrade()
    with psycopg.connect(empty_postgres_url) as somebody:
        somebody.execute("INSERT INTO audit_events VALUES (1, 0, 'user-login', 0, '', '', '', '', '')")
    with pytest.raises(UsageError, match="holds an index already"):
        reindex(root, index_url=empty_postgres_url, move=True)


async def test_nor_is_it_when_the_index_comes_from_another_database(
    outside: Path, tmp_path: Path, postgres: Cluster
) -> None:
    with place(postgres) as url:
        other = await stored(tmp_path / "other", index_url=url)
        await add_user(other, "bob", url)
        with pytest.raises(UsageError, match="name an empty database"):
            reindex(outside, index_url=url, move=True)
        assert await users_of(other, url) == ["bob"]


def newer(index: Path) -> None:
    with closing(sqlite3.connect(index)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0009'")


def overwritten(index: Path) -> None:
    with index.open("r+b") as file:
        file.write(b"not a database" * 10)


async def protect(root: Path, *samples: Sample, index_url: str | None = None) -> None:
    async with ArchiveStorage(root, fsync=False, index_url=index_url) as storage:
        for sample in samples:
            await Protection(storage.records).protect(sample.study_uid, by="me", reason="teaching")


async def test_an_index_of_a_later_version_is_not_left_behind(tmp_path: Path, empty_postgres_url: str) -> None:
    root = await stored(tmp_path / "data", *SAMPLES)
    newer(root / "index.sqlite")
    for move in (False, True):
        with pytest.raises(UsageError, match="use a newer tomowire"):
            reindex(root, index_url=empty_postgres_url, move=move)
    assert not location(root).exists()


async def test_nor_is_one_that_somebody_holds(tmp_path: Path, empty_postgres_url: str) -> None:
    root = await stored(tmp_path / "data", *SAMPLES)
    await protect(root, SAMPLES[0])
    with closing(sqlite3.connect(root / "index.sqlite", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(IndexUnavailable, match="locked"):
            reindex(root, index_url=empty_postgres_url)
    with pytest.raises(UsageError, match="--move"):
        reindex(root, index_url=empty_postgres_url)
    reindex(root, index_url=empty_postgres_url, move=True)
    assert await protected(root, empty_postgres_url) == [SAMPLES[0].study_uid]


async def test_what_a_damaged_one_had_protected_is_said_to_be_lost(tmp_path: Path, empty_postgres_url: str) -> None:
    root = await stored(tmp_path / "data", *SAMPLES)
    await protect(root, SAMPLES[0])
    overwritten(root / "index.sqlite")
    with pytest.raises(UsageError, match="--move"):
        reindex(root, index_url=empty_postgres_url)
    findings = list[str]()
    reindex(root, index_url=empty_postgres_url, move=True, report=lambda finding: findings.append(finding.explanation))
    assert any("which studies are protected could not be kept" in finding for finding in findings)
    assert held(root, empty_postgres_url) == {sample.uid for sample in SAMPLES}


async def test_on_a_full_disk_nothing_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_postgres_url: str
) -> None:
    monkeypatch.setattr("tomowire.server.room.KEPT", 0)
    with tiny_disk(tmp_path / "disk", 8 << 20) as root:
        await stored(root, *SAMPLES)
        await protect(root, SAMPLES[0])
        with (root / "fill").open("wb") as file:
            figures = os.statvfs(root)
            os.posix_fallocate(file.fileno(), 0, figures.f_bavail * figures.f_frsize)
        with pytest.raises(IndexUnavailable):
            reindex(root, index_url=empty_postgres_url)
        (root / "fill").unlink()
        reindex(root, index_url=empty_postgres_url, move=True)
        assert await protected(root, empty_postgres_url) == [SAMPLES[0].study_uid]


async def fill_with_work(root: Path, index_url: str | None) -> None:
    await add_user(root, "old", index_url)
    async with ArchiveStorage(root, fsync=False, index_url=index_url) as storage:
        await Jobs(storage.records).delete(Level.STUDY, [SAMPLES[0].study_uid], by="old")


@pytest.mark.parametrize("in_postgres", [False, True], ids=["SQLite", "PostgreSQL"])
async def test_users_and_jobs_of_before_do_not_come_back(
    tmp_path: Path, empty_postgres_url: str, in_postgres: bool
) -> None:
    """What was to be deleted then may have been stored again, and who was let in may have been locked out."""
    first, second = (empty_postgres_url, None) if in_postgres else (None, empty_postgres_url)
    root = await stored(tmp_path / "data", *SAMPLES, index_url=first)
    await fill_with_work(root, first)
    reindex(root, index_url=second, move=True)
    await add_user(root, "new", second)
    await protect(root, SAMPLES[1], index_url=second)
    if in_postgres:  # nothing is moved to what holds an index; without the other it is the only one
        with pytest.raises(UsageError, match="name an empty database"):
            reindex(root, index_url=first, move=True)
        (root / "index.sqlite").unlink()
        reindex(root, index_url=first)
    else:
        reindex(root, index_url=first, move=True)
    assert await users_of(root, first) == []
    assert await jobs_of(root, first) == 0
    assert await protected(root, first) == []
    await fill_with_work(root, first)
    reindex(root, index_url=first)  # of the index in use they stay
    assert await users_of(root, first) == ["old"]
    assert await jobs_of(root, first) == 1


async def test_a_database_that_is_held_is_said_to_be(
    tmp_path: Path, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reindexing, "backend_for", partial(backend_for, busy_timeout=1))
    root = await stored(tmp_path / "data", *SAMPLES)
    await protect(root, SAMPLES[0])
    backend_for(empty_postgres_url, root).upgrade()
    with psycopg.connect(empty_postgres_url) as somebody:
        somebody.execute("LOCK TABLE protected_studies")
        with pytest.raises(IndexUnavailable, match="lock timeout"):
            reindex(root, index_url=empty_postgres_url, move=True)
    await stored(root)
    reindex(root, index_url=empty_postgres_url, move=True)
    assert await protected(root, empty_postgres_url) == [SAMPLES[0].study_uid]
