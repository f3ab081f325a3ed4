"""What an archive says when it cannot begin: the file, and what to do about it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from support.objects import Sample, chunks_of, stream
from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.archive import ArchiveStorage
from tomowire.server.index.versions import CURRENT, create_schema, schema_version


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    async with ArchiveStorage(tmp_path / "data") as storage:
        await storage.ingest.receive(Sample(1).incoming(), stream(chunks_of(Sample(1).data_set)))
    return tmp_path / "data"


@pytest.mark.parametrize(
    "damage",
    [lambda index: index.write_bytes(b"not a database" * 1000), lambda index: os.truncate(index, 5000)],
    ids=["overwritten", "cut"],
)
async def test_a_damaged_index(root: Path, damage: Callable[[Path], None]) -> None:
    damage(root / "index.sqlite")
    with pytest.raises(IndexUnavailable) as error:
        async with ArchiveStorage(root):
            pass
    assert str(root / "index.sqlite") in str(error.value)
    assert "'tomowire db reindex'" in str(error.value)


@pytest.mark.parametrize("lose", [Path.unlink, lambda index: os.truncate(index, 0)], ids=["lost", "emptied"])
async def test_objects_without_an_index(root: Path, lose: Callable[[Path], None]) -> None:
    lose(root / "index.sqlite")
    with pytest.raises(UsageError, match="no index: run 'tomowire db reindex'"):
        async with ArchiveStorage(root):
            pass


async def test_a_locked_index_is_not_to_be_made_again(root: Path) -> None:
    with closing(sqlite3.connect(root / "index.sqlite", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(IndexUnavailable) as error:
            async with ArchiveStorage(root, busy_timeout=0.05):
                pass
    assert str(root / "index.sqlite") in str(error.value)
    assert "locked" in str(error.value)
    assert "reindex" not in str(error.value)


async def test_a_database_of_another_program(root: Path) -> None:
    (root / "index.sqlite").unlink()
    with closing(sqlite3.connect(root / "index.sqlite")) as other:
        other.execute("CREATE TABLE cookies (x)")
    with pytest.raises(UsageError, match=f"{root / 'index.sqlite'}: .* not an index of tomowire"):
        async with ArchiveStorage(root):
            pass


def test_an_index_without_checksums_is_to_be_made_anew() -> None:
    """Versions before 0.1.0 had SHA-256 in a column of another name."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        create_schema(connection)
        assert schema_version(connection) == CURRENT
        connection.execute("ALTER TABLE instances RENAME COLUMN checksum TO sha256")
        with pytest.raises(UsageError, match="db reindex"):
            schema_version(connection)
