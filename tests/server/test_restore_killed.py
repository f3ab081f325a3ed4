"""A restore that was killed is not taken for an archive, and the same command finishes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.crashes import CrashServer
from support.filesystems import quick_directory
from support.objects import Sample, chunks_of, stream
from support.postgres import Cluster
from tomowire.errors import IndexUnavailable, InUse, UsageError
from tomowire.server import restore as restoring
from tomowire.server.archive import ArchiveStorage
from tomowire.server.backup import backup
from tomowire.server.backup_folder import BackupFolder, Point
from tomowire.server.check import check
from tomowire.server.files import DataDirectory
from tomowire.server.index.backend import backend_for
from tomowire.server.reindex import reindex
from tomowire.server.repair import repair
from tomowire.server.restore import restore
from tomowire.server.upgrade import upgrade

SAMPLES = [Sample(1), Sample(2, study=2)]
ALL_OF_THE_LAST = 25
"""Steps: the index is loaded in these, and put in its place."""


async def stored(root: Path, *samples: Sample, index_url: str | None = None) -> None:
    async with ArchiveStorage(root, fsync=False, index_url=index_url) as storage:
        for sample in samples:
            await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    await stored(tmp_path / "data", *SAMPLES)
    backup(tmp_path / "data", tmp_path / "backups", backend_for(None, tmp_path / "data"))
    return tmp_path / "backups"


async def test_a_restore_that_cannot_be_told_is_not_finished(folder: Path, tmp_path: Path) -> None:
    """Killed before its audit event was written, it would be an archive that nobody has heard of."""

    def fails(point: Point) -> None:
        raise IndexUnavailable("the audit trail cannot be written")

    root, told = tmp_path / "new", list[str]()
    backend = backend_for(None, root)
    for _ in range(2):
        with pytest.raises(IndexUnavailable, match="audit trail"):
            restore(folder, root, backend, loaded=fails)
        await require_no_archive(root, None, folder)
    point = restore(folder, root, backend, loaded=lambda point: told.append(point.name))
    assert told == [point.name]
    assert held(root, None) == {sample.uid for sample in SAMPLES}


@contextmanager
def place(postgres: Cluster | None) -> Iterator[str | None]:
    """Where an index may be restored to."""
    if postgres is None:
        yield None
        return
    name = postgres.create(empty=True)
    yield postgres.url(name)
    postgres.drop(name)


def held(root: Path, index_url: str | None) -> set[str]:
    with backend_for(index_url, root).open_reader() as reader:
        return {row.name.sop_instance_uid for row in reader.objects()}


async def require_no_archive(root: Path, index_url: str | None, folder: Path) -> None:
    """Nobody serves it, or changes it."""
    with pytest.raises(UsageError, match="was interrupted: run 'tomowire restore' again"):
        await stored(root, index_url=index_url)
    for work in (reindex, lambda *arguments, **options: list(repair(*arguments, **options))):
        with pytest.raises(UsageError, match="was interrupted"):
            work(root, index_url=index_url)
    with pytest.raises(UsageError, match="was interrupted"):
        backup(root, folder.with_name("others"), backend_for(index_url, root))


@pytest.mark.parametrize("place_of_index", ["sqlite", "postgresql"])
async def test_killed_at_each_step(folder: Path, place_of_index: str, postgres: Cluster) -> None:
    database = postgres if place_of_index == "postgresql" else None
    interrupted = 0
    with CrashServer() as server, quick_directory() as directory:
        with place(database) as url:
            steps = server.restore(folder, directory / "all", url).steps
            assert held(directory / "all", url) == {sample.uid for sample in SAMPLES}
        dense = steps - ALL_OF_THE_LAST if database is None else steps - 1
        for step in [*range(1, dense, 12 if database is None else 60), *range(dense, steps + 1)]:
            root = directory / str(step)
            with place(database) as url:
                assert server.restore(folder, root, url, step=step).killed
                if (root / "restoring").exists():
                    interrupted += 1
                    if (root / "objects").exists() and (database is None or interrupted < 3):
                        await require_no_archive(root, url, folder)
                if (root / "restoring").exists() or not (root / "objects").exists():
                    server.restore(folder, root, url)
                assert held(root, url) == {sample.uid for sample in SAMPLES}
                await stored(root, index_url=url)
                assert list(check(root, index_url=url)) == []
            shutil.rmtree(root)
    assert interrupted > 2


async def test_who_comes_while_it_begins_is_told_that_it_is_in_use(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that a restore was interrupted, nor that there is something else: a person would be called for that."""
    root, note, seen = tmp_path / "new", restoring._note, []

    def come() -> None:
        for work in (
            lambda: DataDirectory.open(root),
            lambda: restore(folder, root, backend_for(None, root)),
        ):
            with pytest.raises(InUse):
                work()
        seen.append(sorted(path.name for path in root.iterdir()))

    def noted(*arguments: str) -> None:
        come()
        note(*arguments)
        come()
        with pytest.raises(InUse):
            reindex(root)

    monkeypatch.setattr(restoring, "_note", noted)
    restore(folder, root, backend_for(None, root))
    assert seen[:2] == [["lock"], ["lock", "restoring"]]
    assert held(root, None) == {sample.uid for sample in SAMPLES}


async def test_what_came_there_before_it_was_locked_stays(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, require_room = tmp_path / "new", restoring._require_room
    monkeypatch.setattr(
        restoring, "_require_room", lambda *arguments: (require_room(*arguments), DataDirectory.open(root).close())
    )
    with pytest.raises(UsageError, match="not empty"):
        restore(folder, root, backend_for(None, root))
    assert sorted(path.name for path in root.iterdir()) == ["incoming", "lock", "objects"]


@pytest.mark.parametrize("place_of_index", ["sqlite", "postgresql"])
async def test_what_is_not_in_the_audit_trail_yet_is_not_finished(
    folder: Path, tmp_path: Path, place_of_index: str, empty_postgres_url: str
) -> None:
    root, url = tmp_path / "new", empty_postgres_url if place_of_index == "postgresql" else None
    backend, told = backend_for(url, root), list[str]()

    def interrupted(point: Point) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(folder, root, backend, loaded=interrupted)
    await require_no_archive(root, url, folder)
    point = restore(folder, root, backend, loaded=lambda point: told.append(point.name))
    assert told == [point.name]
    assert held(root, url) == {sample.uid for sample in SAMPLES}
    with pytest.raises(UsageError, match="that is finished: 'tomowire db check'"):
        restore(folder, root, backend)


def test_what_was_interrupted_is_neither_checked_nor_upgraded(tmp_path: Path) -> None:
    (tmp_path / "restoring").touch()
    for name in ("", "objects"):
        (tmp_path / name).mkdir(exist_ok=True)
        for work in (upgrade, lambda root: list(check(root))):
            with pytest.raises(UsageError, match="was interrupted: run 'tomowire restore' again"):
                work(tmp_path)


async def test_tables_that_it_had_made_do_not_make_it_an_archive(
    folder: Path, tmp_path: Path, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between those and their rows there is an index, of nothing."""
    root, backend = tmp_path / "new", backend_for(empty_postgres_url, tmp_path / "new")
    with monkeypatch.context() as patched:

        def load(*_: object) -> None:
            backend.upgrade()
            raise KeyboardInterrupt

        patched.setattr(backend, "load", load)
        with pytest.raises(KeyboardInterrupt):
            restore(folder, root, backend)
    assert not backend.is_empty()
    await require_no_archive(root, empty_postgres_url, folder)
    restore(folder, root, backend)
    assert held(root, empty_postgres_url) == {sample.uid for sample in SAMPLES}


async def test_an_index_that_is_there_is_refused_before_anything_is_made(
    folder: Path, tmp_path: Path, postgres_url: str
) -> None:
    """That of an archive whose disk is not mounted, say."""
    await stored(tmp_path / "mounted", Sample(9), index_url=postgres_url)
    root = tmp_path / "new"
    with pytest.raises(UsageError, match=r"holds an index already.* mount the disk"):
        restore(folder, root, backend_for(postgres_url, root))
    assert not root.exists()
    assert held(tmp_path / "mounted", postgres_url) == {Sample(9).uid}


async def test_what_a_killed_run_was_copying_is_not_left(folder: Path, tmp_path: Path) -> None:
    """What is gone on with numbers its files anew, and has fewer of them. An old log would be played into the new database."""
    root = tmp_path / "new"
    backend = backend_for(None, root)
    (root / "incoming").mkdir(parents=True)
    with BackupFolder.open(folder, create=False, shared=True) as source:
        (root / "restoring").write_text(source.point(None).name)
    for name in ("1.part", "9.part", "index.restoring", "index.restoring-wal", "index.restoring-journal"):
        (root / "incoming" / name).write_bytes(b"cut")
    restore(folder, root, backend)
    assert list((root / "incoming").iterdir()) == []
    assert list(check(root)) == []
    assert held(root, None) == {sample.uid for sample in SAMPLES}


async def test_a_database_may_be_spelled_otherwise_when_it_is_gone_on_with(
    folder: Path, tmp_path: Path, empty_postgres_url: str
) -> None:
    root = tmp_path / "new"

    def interrupted(point: Point) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(folder, root, backend_for(empty_postgres_url, root), loaded=interrupted)
    parts = urlsplit(empty_postgres_url)
    otherwise = f"postgresql:///{parts.path[1:]}?host={parts.hostname}&port={parts.port}&user={parts.username}"
    backend = backend_for(f"{otherwise}&password={parts.password}", root)
    assert backend.name != backend_for(empty_postgres_url, root).name
    restore(folder, root, backend)
    assert held(root, empty_postgres_url) == {sample.uid for sample in SAMPLES}


async def test_a_folder_may_be_spelled_otherwise_when_it_is_gone_on_with(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(point: Point) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(folder, tmp_path / "new", backend_for(None, tmp_path / "new"), loaded=interrupted)
    monkeypatch.chdir(tmp_path)
    restore(folder, "new", backend_for(None, Path("new")))
    assert held(tmp_path / "new", None) == {sample.uid for sample in SAMPLES}


async def test_another_index_that_came_there_meanwhile_stays(
    folder: Path, tmp_path: Path, empty_postgres_url: str
) -> None:
    root, backend = tmp_path / "new", backend_for(empty_postgres_url, tmp_path / "new")
    restore(folder, root, backend)
    with BackupFolder.open(folder, create=False, shared=True) as source:
        point = source.point(None).name
    (root / "restoring").write_text(f"{point}\n{backend.place}\n")
    engine = backend.engine()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE archive SET archive_id = 'another'")
    engine.dispose()
    with pytest.raises(UsageError, match="holds another index"):
        restore(folder, root, backend)
    assert held(root, empty_postgres_url) == {sample.uid for sample in SAMPLES}
