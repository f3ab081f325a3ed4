"""`tomowire db` as a process: what it finds in a data directory that something has happened to."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from support.former_index import make_former
from support.network import LOOPBACK
from support.objects import Sample
from support.programs import run_on_a_terminal, run_tomowire, serving
from support.stored import contents
from support.subprocesses import python_environment
from tomowire.cli.db import _Findings
from tomowire.server.audit.teller import person
from tomowire.server.audit.trail import entries
from tomowire.server.findings import Finding, FindingKind
from tomowire.server.index import versions
from tomowire.server.index.backend import backend_for

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
    assert as_json.stdout == f'{{"data_dir": "{data_dir}", "findings": [], "ok": true}}\n'


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


def test_what_a_killed_process_left_is_told_and_is_no_failure(data_dir: Path) -> None:
    (data_dir / "incoming" / "1.part").write_bytes(b"half an object")
    done = run_tomowire("db", "check", "--data-dir", data_dir)
    assert done.returncode == 0
    assert done.stdout.startswith("unfinished: incoming/1.part: ")
    assert done.stderr == "tomowire: nothing wrong; 1 left by a process that was killed: removed at the next start\n"
    assert json.loads(run_tomowire("db", "check", "--data-dir", data_dir, "--json").stdout)["ok"] is True


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
        assert done.returncode == 75
        assert "is in use by another process: stop it first" in done.stderr
        assert run_tomowire("db", "check", "--data-dir", data_dir).returncode == 0


def test_the_check_says_what_was_done_to_the_audit_trail(data_dir: Path) -> None:
    with closing(sqlite3.connect(data_dir / "index.sqlite", isolation_level=None)) as index:
        index.execute("DROP TRIGGER audit_events_no_update")
        index.execute("UPDATE audit_events SET actor = 'NOBODY' WHERE event_key = 2")
    done = run_tomowire("db", "check", "--quick", "--data-dir", data_dir)
    assert (done.returncode, done.stdout) == (1, "audit trail broken: event 2 was changed\n")


@pytest.mark.parametrize("damage", ["gone", "garbage", "nothing"])
def test_reindex_brings_the_index_back(damage: str, data_dir: Path) -> None:
    index = data_dir / "index.sqlite"
    if damage == "gone":
        index.unlink()
    elif damage == "garbage":
        index.write_bytes(b"this is not a database" * 1000)
    done = run_tomowire("db", "reindex", "--data-dir", data_dir)
    if damage == "nothing":
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "tomowire: 10 objects indexed\n")
    else:  # no file says what was in the audit trail
        assert done.returncode == 1
        assert "10 objects indexed" in done.stderr
        assert re.search(
            r"audit trail broken: audit\.anchor\.lost-\d+: events 1 to \d+ went with the old index", done.stdout
        )
    with closing(sqlite3.connect(index)) as connection:
        told = [event for (event,) in connection.execute("SELECT event FROM audit_events ORDER BY event_key")]
    assert told[-1] == "configuration-changed", "that the index is a new one"
    assert damage == "nothing" or told == ["events-lost", "configuration-changed"], "and what went with the old one"
    assert contents(data_dir) == {sample.uid: sample.data_set for sample in SAMPLES}
    assert run_tomowire("db", "check", "--data-dir", data_dir).returncode == 0
    with serving("serve", "--data-dir", data_dir):
        pass
    assert run_tomowire("db", "check", "--data-dir", data_dir).returncode == 0


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


def test_an_archive_without_its_index_is_told_what_to_do(data_dir: Path) -> None:
    (data_dir / "index.sqlite").unlink()
    for arguments in (["check"], ["check", "--repair"], ["upgrade"]):
        done = run_tomowire("db", *arguments, "--data-dir", data_dir)
        assert (done.returncode, done.stdout) == (2, "")
        assert "run 'tomowire db reindex'" in done.stderr
    assert not (data_dir / "index.sqlite").exists()


def test_upgrade_of_what_is_up_to_date(data_dir: Path) -> None:
    done = run_tomowire("db", "upgrade", "--data-dir", data_dir)
    assert (done.returncode, done.stdout) == (0, "")
    assert "tomowire: the index is at version " in done.stderr


def upgrade(data: Path) -> None:
    for _ in range(2):  # the second has nothing to do, and to tell
        done = run_tomowire("db", "upgrade", "--data-dir", data)
        assert done.returncode == 0, done.stderr


def import_a_file(data: Path) -> None:
    file = data.parent / "1.dcm"
    file.write_bytes(SAMPLES[0].header + SAMPLES[0].data_set)
    done = run_tomowire("import", file, "--data-dir", data)
    assert done.returncode == 0, done.stderr


def start_and_end(data: Path) -> None:
    with serving("serve", "--data-dir", data):
        pass


def repair(data: Path) -> None:
    (data / "incoming").mkdir()
    done = run_tomowire("db", "check", "--repair", "--data-dir", data)
    assert done.returncode == 0, done.stderr


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from tomowire.server import archive
from tomowire.server.app import Archive, Settings

archive.recover = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # what comes after an index was opened
asyncio.run(Archive(Settings(Path(sys.argv[1]), port=0, index_url=os.environ.get("TOMOWIRE_INDEX__URL"))).__aenter__())
"""


def start_and_be_killed(data: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, data], env=python_environment(), timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


def reindex(data: Path) -> None:
    """An index that is to be replaced is asked first what was unfinished, and upgraded for that."""
    done = run_tomowire("db", "reindex", "--data-dir", data)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("former", ["0001", "0002"])
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize("work", [upgrade, import_a_file, start_and_end, start_and_be_killed, repair, reindex])
def test_an_upgrade_is_in_the_audit_trail(
    work: Callable[[Path], None],
    dialect: str,
    former: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Schema 0001 had no table for it."""
    data = tmp_path / "data"
    url = request.getfixturevalue("empty_postgres_url") if dialect == "postgresql" else None
    make_former(former, data, url)
    if url is not None:
        monkeypatch.setenv("TOMOWIRE_INDEX__URL", url)
    work(data)
    engine = backend_for(url, data).engine()
    with engine.connect() as connection:
        event, *others = [each for each in entries(connection) if each.event == "configuration-changed"]
    engine.dispose()
    assert len(others) == (work is reindex)
    is_the_archive = work in (start_and_end, start_and_be_killed)
    assert (event.actor, event.outcome) == ("tomowire" if is_the_archive else person().name, 0)
    assert "Software Configuration" in event.message
    [described] = re.findall(r'type="Alert Description" value="([^"]*)"', event.message)
    assert base64.b64decode(described).decode() == f"the index was brought from schema {former} to {versions.CURRENT}"
    assert run_tomowire("db", "check", "--data-dir", data).returncode == 0


def test_upgrade_of_what_is_no_archive_makes_nothing(tmp_path: Path) -> None:
    done = run_tomowire("db", "upgrade", "--data-dir", tmp_path)
    assert done.returncode == 2
    assert "is not the data directory of an archive" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_upgrade_of_an_archive_without_an_index_does_not_begin_one(data_dir: Path) -> None:
    (data_dir / "index.sqlite").unlink()
    done = run_tomowire("db", "upgrade", "--data-dir", data_dir)
    assert done.returncode == 2
    assert "run 'tomowire db reindex'" in done.stderr
    assert not (data_dir / "index.sqlite").exists()


def test_upgrade_of_an_archive_that_runs(data_dir: Path) -> None:
    with serving("serve", "--data-dir", data_dir):
        done = run_tomowire("db", "upgrade", "--data-dir", data_dir)
    assert done.returncode == 75
    assert "is in use by another process: stop it first" in done.stderr


@pytest.mark.parametrize(("damage", "said"), [("garbage", "file is not a database"), ("unknown version", "0000")])
def test_an_index_that_cannot_be_upgraded_is_one_line(damage: str, said: str, data_dir: Path) -> None:
    index = data_dir / "index.sqlite"
    if damage == "garbage":
        index.write_bytes(b"this is not a database" * 1000)
    else:
        with closing(sqlite3.connect(index)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '0000'")
            connection.commit()
    before = index.read_bytes()
    done = run_tomowire("db", "upgrade", "--data-dir", data_dir)
    assert done.returncode == 1
    assert done.stderr.startswith("tomowire: the index cannot be upgraded, and is as it was: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert index.read_bytes() == before


def test_a_finding_names_no_patient(data_dir: Path) -> None:
    with closing(sqlite3.connect(data_dir / "index.sqlite")) as connection:
        (patient_id,) = connection.execute("SELECT patient_id FROM patients").fetchone()
        connection.execute("DELETE FROM studies")
        connection.commit()
    done = run_tomowire("db", "check", "--data-dir", data_dir, "-vv")
    assert "lonely row: index.sqlite: patient number 1 has no study" in done.stdout
    assert patient_id not in done.stdout + done.stderr


def test_findings_are_printed_as_they_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what is printed is JSON, also when it ends in the middle."""
    found = Finding(FindingKind.FILE_MISSING, "objects/x.dcm", "gone")
    row = {"kind": "file missing", "path": "objects/x.dcm", "explanation": "gone"}
    findings = _Findings(tmp_path, as_json=True)
    printed = ""
    with pytest.raises(OSError, match="the disk"), findings:  # noqa: PT012 - what is printed before is the point
        for _ in range(2):
            findings.show(found)
            new = capsys.readouterr().out
            assert "file missing" in new
            printed += new
        raise OSError("the disk")
    printed += capsys.readouterr().out
    assert json.loads(printed) == {"data_dir": str(tmp_path), "findings": [row, row], "ok": False}


def test_on_a_terminal_there_is_a_progress_bar_and_the_same_at_the_end(data_dir: Path) -> None:
    for command in ("check", "reindex"):
        shown = run_on_a_terminal(["db", command, "--data-dir", data_dir])
        assert b"10/10" in shown
        assert shown.endswith({"check": b"nothing wrong\r\n", "reindex": b"10 objects indexed\r\n"}[command])
