"""Systems that are not this one: Windows has no archive and says so, macOS syncs in its own way."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from support.subprocesses import python_environment
from tomowire.server.index.connect import connect_writer
from tomowire.server.posix import sync_directory, sync_file

_WITHOUT_FCNTL = """
import sys
sys.modules["fcntl"] = None  # as on Windows: importing it raises ImportError
from tomowire.cli.main import main
main()
"""


@pytest.mark.parametrize(
    "arguments", [["serve", "--port", "0"], ["db", "check"], ["db", "reindex"]], ids=lambda arguments: arguments[-1]
)
def test_without_posix_there_is_no_archive_and_no_traceback(tmp_path: Path, arguments: list[str]) -> None:
    data_dir = tmp_path / "data"
    run = subprocess.run(
        [sys.executable, "-c", _WITHOUT_FCNTL, *arguments, "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        env=python_environment(),
        check=False,
    )
    assert run.returncode == 2
    assert "POSIX systems" in run.stderr
    assert "Traceback" not in run.stderr
    assert not data_dir.exists()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that sync, in order."""
    calls: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        calls.append("fsync")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return calls


def test_macos_syncs_through_the_cache_of_the_disk(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A command that every file takes stands for F_FULLFSYNC, one that none takes for a network share's answer to it.
    for command, expected in ((fcntl.F_GETFD, []), (0x7FFF, ["fsync"])):
        monkeypatch.setattr(fcntl, "F_FULLFSYNC", command, raising=False)
        sync_directory(tmp_path)
        assert synced == expected


def test_elsewhere_it_is_fsync(tmp_path: Path, synced: list[str]) -> None:
    with (tmp_path / "file").open("wb") as file:
        sync_file(file.fileno())
    assert synced == ["fsync"]


def test_the_index_asks_for_full_syncs(tmp_path: Path) -> None:
    with closing(connect_writer(tmp_path / "index.sqlite")) as connection:
        assert isinstance(connection, sqlite3.Connection)
        for pragma in ("fullfsync", "checkpoint_fullfsync"):
            assert connection.execute(f"PRAGMA {pragma}").fetchone() == (1,)
