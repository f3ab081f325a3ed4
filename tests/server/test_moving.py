"""One data directory, and the wrong index for it: the archive has its own in PostgreSQL, and the files are beside an old one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.crashes import CrashServer
from support.filesystems import quick_directory
from support.objects import Sample, chunks_of, stream
from support.postgres import Cluster
from support.stored import files_below
from tomowire.errors import UsageError
from tomowire.server.archive import ArchiveStorage
from tomowire.server.backup import backup
from tomowire.server.check import check
from tomowire.server.hold import files_held
from tomowire.server.index.backend import backend_for
from tomowire.server.protection import Protection
from tomowire.server.reindex import reindex
from tomowire.server.repair import repair
from tomowire.server.restore import restore

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
