"""Commands that are given only the data directory of an archive whose index is in PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.objects import Sample, chunks_of, stream
from support.postgres import PASSWORD
from support.programs import run_tomowire
from support.stored import files_below
from tomowire.server.archive import ArchiveStorage

SAMPLE = Sample(1)

COMMANDS = [
    ["serve", "--port", "0"],
    ["import", "."],
    ["backup", "{}/../backups"],
    ["db", "check"],
    ["db", "check", "--repair"],
    ["db", "upgrade"],
    ["user", "list"],
    ["jobs", "list"],
]


@pytest.fixture
async def root(tmp_path: Path, empty_postgres_url: str) -> Path:
    async with ArchiveStorage(tmp_path / "data", fsync=False, index_url=empty_postgres_url) as storage:
        await storage.ingest.receive(SAMPLE.incoming(), stream(chunks_of(SAMPLE.data_set)))
    return tmp_path / "data"


def test_each_says_where_the_index_is(root: Path, empty_postgres_url: str) -> None:
    before = files_below(root.parent, ".")
    place = empty_postgres_url.rpartition("@")[2]
    for command in COMMANDS:
        done = run_tomowire(*(word.format(root) for word in command), "--data-dir", root)
        assert done.returncode == 2, command
        assert f"is in PostgreSQL, at {place}: name it with --index-url" in done.stderr
        assert done.stderr.count("\n") == 1
    assert files_below(root.parent, ".") == before
    assert not (root.parent / "backups").exists()
    assert PASSWORD not in (root / "index.location").read_text("utf-8")


def test_no_index_is_made_elsewhere_unless_that_is_said(root: Path, empty_postgres_url: str) -> None:
    before = files_below(root, ".")
    done = run_tomowire("db", "reindex", "--data-dir", root)
    assert done.returncode == 2
    assert "was --index-url or --config left out?" in done.stderr
    assert "--move" in done.stderr
    assert files_below(root, ".") == before
    assert run_tomowire("db", "check", "--data-dir", root, "--index-url", empty_postgres_url).returncode == 0
    assert run_tomowire("db", "reindex", "--move", "--data-dir", root).returncode == 0
    assert run_tomowire("db", "check", "--data-dir", root).returncode == 0


@pytest.mark.parametrize("command", [["backup", "{}/../backups"], ["db", "check"]], ids=["backup", "check"])
def test_without_a_note_it_is_said_that_it_may_be_elsewhere(root: Path, command: list[str]) -> None:
    (root / "index.location").unlink()
    done = run_tomowire(*(word.format(root) for word in command), "--data-dir", root)
    assert done.returncode == 2
    assert "has no index" in done.stderr
    assert "name it with --index-url or --config" in done.stderr
    assert not (root.parent / "backups").exists()
