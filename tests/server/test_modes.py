"""What is stored is about patients: nobody but the archive's user and group may read it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.objects import Sample, chunks_of, stream
from tomowire.aio.streams import Chunk
from tomowire.errors import StoreFailed
from tomowire.server.archive import ArchiveStorage
from tomowire.server.ingest import SMALL
from tomowire.server.reindex import reindex


@pytest.fixture(autouse=True)
def generous_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(root: Path) -> dict[str, int]:
    found = {".": root.stat().st_mode & 0o777}
    for at, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = Path(at, name)
            found[os.path.relpath(path, root)] = path.stat().st_mode & 0o777
    return found


def assert_private(root: Path) -> None:
    for path, mode in modes(root).items():
        assert mode == (0o750 if (root / path).is_dir() else 0o640), path


async def test_nothing_in_a_data_directory_is_for_everybody(tmp_path: Path) -> None:
    root = tmp_path / "data"
    async with ArchiveStorage(root) as storage:
        for sample in (Sample(1), Sample(2, series=2, size=2 * SMALL)):
            await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))
        large = Sample(3, size=3 * SMALL)
        first = chunks_of(large.data_set, SMALL)[0]
        assert not first.last

        async def cut_short() -> AsyncIterator[Chunk]:
            yield first
            yield first
            assert any(path.endswith(".part") for path in modes(root))
            assert_private(root)

        with pytest.raises(StoreFailed):
            await storage.ingest.receive(large.incoming(), cut_short())
        assert {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm"} <= set(modes(root))
        assert_private(root)
    reindex(root)
    assert_private(root)


async def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir(0o755)
    async with ArchiveStorage(root):
        assert root.stat().st_mode & 0o777 == 0o755
