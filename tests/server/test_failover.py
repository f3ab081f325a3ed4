"""An index that has lost its last commits: what got Success is not removed for that, and is found again."""

from __future__ import annotations

import logging
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from support.crashes import CrashServer
from support.failover import Standby
from support.objects import Sample, chunks_of, stream
from support.places import index_url_of, open_storage, reindex, select
from support.postgres import Cluster
from support.stored import contents, files_below, findings
from tomowire.server import journal
from tomowire.server.archive import ArchiveStorage
from tomowire.server.findings import FindingKind
from tomowire.server.incoming import DuplicatePolicy
from tomowire.server.repair import repair

ONE, TWO = Sample(1), Sample(2, study=2)
ANOTHER_ONE = Sample(1, content="second")

pytestmark = pytest.mark.usefixtures("each_index")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def keep(storage: ArchiveStorage, *samples: Sample) -> None:
    for sample in samples:
        assert (await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))).is_new


async def stored(root: Path, *samples: Sample) -> None:
    async with open_storage(root, policy=DuplicatePolicy.REPLACE) as storage:
        await keep(storage, *samples)


async def begun(root: Path) -> None:
    async with open_storage(root):
        pass


def mended(root: Path) -> list[str]:
    return [each.what for each in repair(root, index_url=index_url_of(root))]


@pytest.mark.parametrize("starts", [1, 2])
async def test_the_last_batch_is_kept_and_indexed_again(
    root: Path, postgres: Cluster, caplog: pytest.LogCaptureFixture, starts: int
) -> None:
    await stored(root, ONE)
    standby = Standby(root, postgres)
    await stored(root, TWO)
    standby.take_over()
    assert set(contents(root)) == {ONE.uid}
    for _ in range(starts):
        await begun(root)
    assert "run 'tomowire db check --repair'" in caplog.text
    assert len(files_below(root)) == 2
    assert [finding.kind for finding in findings(root)] == [FindingKind.NOT_INDEXED]
    assert mended(root) == ["indexed"]
    assert contents(root) == {sample.uid: sample.data_set for sample in (ONE, TWO)}
    assert findings(root) == []


async def test_so_are_several_batches(root: Path, postgres: Cluster) -> None:
    await stored(root, ONE)
    standby = Standby(root, postgres)
    await stored(root, TWO, Sample(3, study=3), Sample(4, study=4))
    standby.take_over()
    await begun(root)
    assert len(files_below(root)) == 4
    assert mended(root) == ["indexed"] * 3
    assert len(contents(root)) == 4


async def test_an_object_that_had_replaced_another_one_is_kept(root: Path, postgres: Cluster) -> None:
    """The one that it has replaced is gone: without it there would be neither."""
    await stored(root, ONE)
    standby = Standby(root, postgres)
    await stored(root, ANOTHER_ONE)
    standby.take_over()
    await begun(root)
    assert len(files_below(root)) == 1
    mended(root)
    assert contents(root) == {ONE.uid: ANOTHER_ONE.data_set}


async def test_before_it_is_started_again_the_check_says_what_will_become_of_it(root: Path, postgres: Cluster) -> None:
    await stored(root, ONE)
    standby = Standby(root, postgres)
    await stored(root, TWO)
    standby.take_over()
    assert [finding.kind for finding in findings(root)] == [FindingKind.NOT_INDEXED]
    assert reindex(root) == 2
    assert findings(root) == []


async def test_the_index_loses_a_batch_after_an_earlier_start(root: Path, postgres: Cluster) -> None:
    """What was noted about the batch when it was committed is not forgotten by a start in between."""
    await stored(root, ONE)
    standby = Standby(root, postgres)
    await stored(root, TWO)
    await begun(root)
    standby.take_over()
    await begun(root)
    assert len(files_below(root)) == 2


async def test_after_a_power_cut_an_index_elsewhere_is_not_believed(
    root: Path, each_index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note may be lost, and the index too: the same cut may have made the standby take over."""
    with CrashServer() as server:
        steps = server.store(root.with_name("all"), [[(ONE, False)]]).steps
        for step in range(steps, 0, -1):  # the last moment before the commit
            at = root.with_name(str(step))
            server.store(at, [[(ONE, False)]], step=step)
            if files_below(at) and not select(at, "SELECT 1 FROM instances"):
                break
    with monkeypatch.context() as patched:
        patched.setattr(journal, "boot_id", lambda: "another")
        [said] = findings(at)
        async with open_storage(at):
            pass
    if each_index == "sqlite":
        assert said.kind is FindingKind.UNFINISHED
        assert said.explanation.endswith("removed at the next start")
        assert len(files_below(at)) == 0
    else:
        assert said.kind is FindingKind.NOT_INDEXED
        assert said.explanation.endswith("may have got Success: it stays")
        assert [finding.kind for finding in findings(at)] == [FindingKind.NOT_INDEXED]
        assert len(files_below(at)) == 1
        assert mended(at) == ["indexed"]
        assert findings(at) == []


async def test_with_the_journal_of_another_index_the_check_announces_no_removal(root: Path) -> None:
    """An older copy of the index was put in its place, many batches behind: the start removes nothing."""
    await stored(root, ONE)
    await stored(root, TWO)
    path = root / "incoming/journal"
    [file] = [name for name in files_below(root) if TWO.uid in name]
    shutil.copy(root / file, root / file.replace(TWO.uid, "1.2.3"))
    with closing(journal.Journal(path, path.with_name("committed"))) as written:
        written.write(journal.Intent("another", 7, (file.replace(TWO.uid, "1.2.3"),)))
    [said] = findings(root)
    assert (said.kind, "removed" in said.explanation) == (FindingKind.NOT_INDEXED, False)
    await begun(root)
    assert len(files_below(root)) == 3


async def test_a_server_that_fails_over_while_the_archive_runs(
    root: Path, postgres: Cluster, each_index: str, caplog: pytest.LogCaptureFixture
) -> None:
    if each_index == "sqlite":
        return  # nobody takes its file away from under it
    await stored(root, ONE)
    standby = Standby(root, postgres)
    async with open_storage(root) as storage:
        await keep(storage, TWO)
        standby.take_over()
        await keep(storage, Sample(3, study=3))
        assert [record.levelno for record in caplog.records if "has lost 1 batches" in record.message] == [
            logging.ERROR
        ]
    await begun(root)
    assert mended(root) == ["indexed"]
    assert len(contents(root)) == 3
