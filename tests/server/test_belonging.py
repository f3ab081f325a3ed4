"""An archive does not begin without its own objects: on a disk that is not mounted, or with that of another archive."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from support.objects import Sample, chunks_of, stream
from support.places import change_index, index_url_of, open_storage, reindex, share_index
from support.stored import contents, files_below, findings
from tomowire.errors import UsageError
from tomowire.server import belonging
from tomowire.server.backup import backup
from tomowire.server.index.backend import backend_for
from tomowire.server.repair import repair

SAMPLES = [Sample(number, study=number) for number in range(1, 4)]

pytestmark = pytest.mark.usefixtures("each_index")


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    return await archive(tmp_path / "data", *SAMPLES)


async def archive(root: Path, *samples: Sample) -> Path:
    async with open_storage(root) as storage:
        for sample in samples:
            await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))
    return root


async def begun(root: Path) -> None:
    await archive(root)


def mark_of(root: Path) -> Path:
    (mark,) = root.glob("objects/.archive-*")
    return mark


async def refused(root: Path, match: str) -> None:
    before = files_below(root, ".")
    with pytest.raises(UsageError, match=match):
        await begun(root)
    assert files_below(root, ".") - before <= {"lock", "index.sqlite-wal", "index.sqlite-shm"}


def unmount(root: Path) -> Path:
    """Gives what is to be mounted again."""
    disk = root.with_name("disk")
    (root / "objects").rename(disk)
    (root / "objects").mkdir()
    return disk


def mount(disk: Path, root: Path) -> None:
    shutil.rmtree(root / "objects")
    disk.rename(root / "objects")


async def test_a_disk_that_is_not_mounted(root: Path) -> None:
    disk = unmount(root)
    await refused(root, "is the disk mounted")
    with pytest.raises(UsageError, match="is the disk mounted"):
        reindex(root)
    with pytest.raises(UsageError, match="is the disk mounted"):
        backup(root, root.with_name("backups"), backend_for(index_url_of(root), root))
    mount(disk, root)
    await begun(root)
    assert set(contents(root)) == {sample.uid for sample in SAMPLES}
    assert findings(root) == []


async def test_objects_that_are_really_lost_are_given_up_by_who_says_so(root: Path) -> None:
    unmount(root)
    assert len(list(repair(root, index_url=index_url_of(root)))) == 3
    await archive(root, SAMPLES[0])
    assert set(contents(root)) == {SAMPLES[0].uid}


async def test_objects_that_are_lost_one_by_one_keep_nothing_from_beginning(root: Path) -> None:
    """Their disk is there: the mark says so. Senders may send them again."""
    for path in files_below(root):
        (root / path).unlink()
    await archive(root, *SAMPLES)
    assert findings(root) == []


async def test_the_disk_of_another_archive(root: Path, each_index: str, tmp_path: Path) -> None:
    (tmp_path / "another").mkdir()
    other = tmp_path / "another" / "data"
    if each_index == "postgresql":  # the databases of tests have one origin, and so one name
        change_index(other, "UPDATE archive SET archive_id = 'another'")
    await archive(other, Sample(9, study=9))
    disk = unmount(other)
    mine = unmount(root)
    mount(disk, root)
    await refused(root, "is another archive's disk mounted")
    with pytest.raises(UsageError, match="is another archive's disk mounted"):
        reindex(root)
    with pytest.raises(UsageError, match="is another archive's disk mounted"):
        list(repair(root, index_url=index_url_of(root)))
    shutil.rmtree(root / "objects")
    mine.rename(root / "objects")
    await begun(root)


@pytest.mark.parametrize("lost", [0, 2])
async def test_an_archive_of_before_is_adopted_by_what_it_has(root: Path, lost: int) -> None:
    mark = mark_of(root)
    mark.rmdir()
    for path in sorted(files_below(root))[:lost]:
        (root / path).unlink()
    await begun(root)
    assert mark_of(root) == mark


async def test_an_archive_that_was_reindexed_has_its_new_mark(root: Path) -> None:
    old = mark_of(root)
    assert reindex(root) == 3
    new = mark_of(root)
    assert new != old
    old.mkdir()  # killed before it was taken away
    await begun(root)
    assert mark_of(root) == new


async def test_an_index_that_was_not_the_last_to_use_the_files(root: Path) -> None:
    """One of before that was put in place: it has some of them, and knows nothing of what came since."""
    mark = mark_of(root)
    mark.rename(mark.with_name(".archive-another"))
    await refused(root, "are of another index than this one, .* db reindex")
    with pytest.raises(UsageError, match="are of another index than this one"):
        list(repair(root, index_url=index_url_of(root)))
    with pytest.raises(UsageError, match="are of another index than this one"):
        backup(root, root.with_name("backups"), backend_for(index_url_of(root), root))
    assert reindex(root) == 3
    await begun(root)
    assert findings(root) == []


async def test_an_index_whose_mark_cannot_be_made_does_not_take_the_place_of_another(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(belonging, "sync_directory", refuse)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            reindex(root)
    await archive(root, Sample(7, study=7))
    assert findings(root) == []


async def test_an_archive_whose_objects_were_all_deleted_goes_on(root: Path) -> None:
    async with open_storage(root) as storage:
        for sample in SAMPLES:
            await storage.deletion.study(sample.study_uid)
        await storage.deletion.swept()
    shutil.rmtree(root / "objects")
    await archive(root, SAMPLES[0])
    assert set(contents(root)) == {SAMPLES[0].uid}


async def test_an_index_that_has_lost_all_of_them(root: Path, tmp_path: Path) -> None:
    """A database that was made anew, and has tables already."""
    mark_of(root).rename(root / "objects" / ".archive-another")
    for table in ("instances", "series", "studies", "patients"):
        change_index(root, f"DELETE FROM {table}")
    await refused(root, "the index has no objects, .* db reindex")
    assert reindex(root) == 3
    await begun(root)


async def test_a_data_directory_that_is_mistyped_is_not_made(root: Path, each_index: str, tmp_path: Path) -> None:
    if each_index == "sqlite":
        return  # its index would be there too: a new archive
    share_index(root, tmp_path / "dta")
    with pytest.raises(UsageError, match="is the disk mounted"):
        await begun(tmp_path / "dta")
    assert not (tmp_path / "dta").exists()


async def test_a_mark_that_cannot_be_made_keeps_nothing_from_beginning(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    mark_of(root).rmdir()
    with monkeypatch.context() as patched:
        patched.setattr(belonging, "sync_directory", refuse)
        await archive(root, Sample(7, study=7))
    assert "cannot be marked as those of this index" in caplog.text
    assert findings(root) == []
