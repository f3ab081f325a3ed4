"""`tomowire db` as a process: what it finds in a data directory that something has happened to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.network import LOOPBACK
from support.objects import Sample
from support.programs import run_on_a_terminal, run_tomowire, serving
from support.stored import contents

SAMPLES = [Sample(number, series=number % 3, study=number % 2) for number in range(1, 11)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with all samples in it, not to be changed."""
    folder = tmp_path_factory.mktemp("filled")
    (folder / "sent").mkdir()
    for sample in SAMPLES:
        (folder / "sent" / f"{sample.number}.dcm").write_bytes(sample.header + sample.data_set)
    with serving("serve", "--data-dir", folder / "data") as archive:
        assert run_tomowire("send", f"TOMOWIRE@{LOOPBACK}:{archive.port}", folder / "sent").returncode == 0
    return folder / "data"


@pytest.fixture
def data_dir(filled: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(filled, tmp_path / "data")


def an_object(data_dir: Path) -> Path:
    return min((data_dir / "objects").rglob("*.dcm"))


def flip_a_bit(data_dir: Path) -> Path:
    path = an_object(data_dir)
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    return path


def cut_short(data_dir: Path) -> Path:
    path = an_object(data_dir)
    path.write_bytes(path.read_bytes()[:-2])
    return path


def remove(data_dir: Path) -> Path:
    path = an_object(data_dir)
    path.unlink()
    return path


def put_something_there(data_dir: Path) -> Path:
    path = an_object(data_dir).with_name("Thumbs.db")
    path.write_bytes(b"?")
    return path


def put_an_object_there(data_dir: Path) -> Path:
    sample = Sample(99)
    path = an_object(data_dir).with_name(f"{sample.uid}.dcm")
    path.write_bytes(sample.header + sample.data_set)
    return path


def test_nothing_wrong(data_dir: Path) -> None:
    done = run_tomowire("db", "check", "--data-dir", data_dir)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "tomowire: nothing wrong\n")
    as_json = run_tomowire("db", "check", "--data-dir", data_dir, "--json")
    assert as_json.stdout == f'{{"data_dir": "{data_dir}", "ok": true, "findings": []}}\n'


@pytest.mark.parametrize(
    ("happen", "kind", "quickly_seen"),
    [
        (flip_a_bit, "content differs", False),
        (cut_short, "size differs", True),
        (remove, "file missing", True),
        (put_something_there, "foreign file", True),
        (put_an_object_there, "not indexed", True),
    ],
)
def test_what_has_happened_is_found(
    happen: Callable[[Path], Path], kind: str, quickly_seen: bool, data_dir: Path
) -> None:
    path = happen(data_dir)
    done = run_tomowire("db", "check", "--data-dir", data_dir)
    assert (done.returncode, done.stderr) == (1, "tomowire: 1 finding\n")
    assert done.stdout.startswith(f"{kind}: {path.relative_to(data_dir)}: ")
    assert done.stdout.count("\n") == 1
    quick = run_tomowire("db", "check", "--data-dir", data_dir, "--quick")
    assert quick.returncode == quickly_seen
    assert run_tomowire("db", "check", "--data-dir", data_dir).stdout == done.stdout  # looking changes nothing


def test_findings_as_json(data_dir: Path) -> None:
    missing, foreign = remove(data_dir), put_something_there(data_dir)
    found = json.loads(run_tomowire("db", "check", "--data-dir", data_dir, "--json").stdout)
    assert found["ok"] is False
    assert {(each["kind"], each["path"]) for each in found["findings"]} == {
        ("file missing", str(missing.relative_to(data_dir))),
        ("foreign file", str(foreign.relative_to(data_dir))),
    }
    assert all(each["explanation"] for each in found["findings"])


def test_a_running_archive_can_be_checked_but_not_reindexed(data_dir: Path) -> None:
    with serving("serve", "--data-dir", data_dir):
        assert run_tomowire("db", "check", "--data-dir", data_dir).returncode == 0
        done = run_tomowire("db", "reindex", "--data-dir", data_dir)
        assert done.returncode == 2
        assert "is in use by another process: stop it first" in done.stderr
        assert run_tomowire("db", "check", "--data-dir", data_dir).returncode == 0


@pytest.mark.parametrize("damage", ["gone", "garbage", "nothing"])
def test_reindex_brings_the_index_back(damage: str, data_dir: Path) -> None:
    index = data_dir / "index.sqlite"
    if damage == "gone":
        index.unlink()
    elif damage == "garbage":
        index.write_bytes(b"this is not a database" * 1000)
    done = run_tomowire("db", "reindex", "--data-dir", data_dir)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "tomowire: 10 objects indexed\n")
    assert contents(data_dir) == {sample.uid: sample.data_set for sample in SAMPLES}
    assert run_tomowire("db", "check", "--data-dir", data_dir).returncode == 0
    with serving("serve", "--data-dir", data_dir):
        pass


def test_reindex_names_what_it_cannot_index_and_leaves_it(data_dir: Path) -> None:
    foreign = put_something_there(data_dir)
    broken = cut_short(data_dir)
    done = run_tomowire("db", "reindex", "--data-dir", data_dir)
    assert done.returncode == 1
    assert f"foreign file: {foreign.relative_to(data_dir)}: " in done.stdout
    assert f"unreadable: {broken.relative_to(data_dir)}: " in done.stdout
    assert foreign.exists()
    assert broken.exists()
    assert len(contents(data_dir)) == len(SAMPLES) - 1


def test_an_archive_without_its_index_does_not_begin_a_new_one(data_dir: Path) -> None:
    (data_dir / "index.sqlite").unlink()
    done = run_tomowire("serve", "--data-dir", data_dir, "--port", "0")
    assert done.returncode == 2
    assert "run 'tomowire db reindex'" in done.stderr


def test_upgrade_of_what_is_up_to_date(data_dir: Path) -> None:
    done = run_tomowire("db", "upgrade", "--data-dir", data_dir)
    assert (done.returncode, done.stdout) == (0, "")
    assert "tomowire: the index is at version " in done.stderr


def test_on_a_terminal_there_is_a_progress_bar_and_the_same_at_the_end(data_dir: Path) -> None:
    for command in ("check", "reindex"):
        shown = run_on_a_terminal(["db", command, "--data-dir", data_dir])
        assert b"10/10" in shown
        assert shown.endswith({"check": b"nothing wrong\r\n", "reindex": b"10 objects indexed\r\n"}[command])
