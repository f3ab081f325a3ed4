"""What an archive says when it cannot begin: the file, and what to do about it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from support.filesystems import directory_of_nobody
from support.objects import Sample, chunks_of, stream
from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.archive import ArchiveStorage
from tomowire.server.index.versions import CURRENT, create_schema, schema_version
from tomowire.server.reindex import reindex


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


@pytest.mark.parametrize("table", ["alembic_version", "archive"])
async def test_an_index_that_does_not_say_what_it_is_of(root: Path, table: str) -> None:
    with closing(sqlite3.connect(root / "index.sqlite")) as index:
        index.execute(f"DELETE FROM {table}")
        index.commit()
    with pytest.raises(UsageError, match=f"{root / 'index.sqlite'}: .* run 'tomowire db reindex'"):
        async with ArchiveStorage(root):
            pass
    assert reindex(root) == 1
    async with ArchiveStorage(root) as storage:
        assert (await storage.index.counts()).instances == 1


async def test_an_index_of_a_later_version_is_not_made_anew_by_this_one(root: Path) -> None:
    """It may know more than the files say."""
    with closing(sqlite3.connect(root / "index.sqlite")) as index:
        index.execute("UPDATE alembic_version SET version_num = '9999'")
        index.commit()
    before = (root / "index.sqlite").read_bytes()
    with pytest.raises(UsageError, match="schema 9999, and this program knows only"):
        reindex(root)
    assert (root / "index.sqlite").read_bytes() == before


async def test_an_index_that_cannot_be_upgraded(root: Path) -> None:
    with closing(sqlite3.connect(root / "index.sqlite")) as index:
        index.execute("UPDATE alembic_version SET version_num = '0000'")
        index.commit()
    with pytest.raises(
        IndexUnavailable, match=f"{root / 'index.sqlite'}: the index cannot be upgraded, and is as it was: .*0000"
    ):
        async with ArchiveStorage(root):
            pass
    assert reindex(root) == 1


async def test_an_index_that_cannot_be_written_to() -> None:
    """Else every object would be refused, and the start would have said that all is well."""
    with directory_of_nobody() as root:
        async with ArchiveStorage(root):
            pass
        (root / "index.sqlite").chmod(0o400)
        with pytest.raises(IndexUnavailable, match=f"{root / 'index.sqlite'}: the index is read-only"):
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
