"""`tomowire backup`, `restore` and `import` as a person runs them, beside an archive that runs."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg
import pytest

from support.objects import Sample
from support.postgres import PASSWORD
from support.programs import command_line, run_tomowire, serving, start
from support.stored import contents, findings
from support.subprocesses import python_environment


def write_samples(folder: Path, samples: list[Sample]) -> Path:
    folder.mkdir(parents=True)
    for sample in samples:
        (folder / f"{sample.number}.dcm").write_bytes(sample.header + sample.data_set)
    return folder


def test_a_backup_while_four_senders_run_restores_to_a_consistent_archive(tmp_path: Path) -> None:
    data, backups, restored = tmp_path / "data", tmp_path / "backups", tmp_path / "restored"
    folders = [
        write_samples(
            tmp_path / f"sender{sender}", [Sample(1000 * sender + n, series=n % 5, study=sender) for n in range(300)]
        )
        for sender in range(1, 5)
    ]
    with serving("serve", "--data-dir", data) as archive:
        peer = f"TOMOWIRE@localhost:{archive.port}"
        senders = [start(["send", peer, folder, "-j", "1"]) for folder in folders]
        points = []
        while any(sender.process.poll() is None for sender in senders) or not points:
            done = run_tomowire("backup", backups, "--data-dir", data, "--json")
            assert done.returncode == 0, done.stderr
            points.append(json.loads(done.stdout))
        for sender in senders:
            sender.process.communicate()
    assert len(contents(data)) == 1200
    assert run_tomowire("backup", backups, "--verify").returncode == 0
    shutil.rmtree(data)
    for point in points[-2:]:
        shutil.rmtree(restored, ignore_errors=True)
        done = run_tomowire("restore", backups, "--data-dir", restored, "--point", point["point"])
        assert done.returncode == 0, done.stderr
        assert len(contents(restored)) == point["objects"]
        assert findings(restored) == []


def test_a_backup_that_is_killed_is_gone_on_with(tmp_path: Path) -> None:
    data, backups = tmp_path / "data", tmp_path / "backups"
    samples = [Sample(number, size=20_000) for number in range(400)]
    done = run_tomowire("import", write_samples(tmp_path / "files", samples), "--data-dir", data)
    assert done.returncode == 0, done.stderr
    killed = subprocess.Popen(command_line("backup", backups, "--data-dir", data), env=python_environment())
    while killed.poll() is None and not any((backups / "objects").rglob("*.dcm")):
        os.sched_yield()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert json.loads(run_tomowire("backup", backups, "--list", "--json").stdout)["points"] == []
    point = json.loads(run_tomowire("backup", backups, "--data-dir", data, "--json").stdout)
    assert point["objects"] == 400
    assert point["copied"] < 400
    assert run_tomowire("backup", backups, "--verify").returncode == 0


def test_an_archive_that_starts_while_it_is_restored_may_try_again(tmp_path: Path) -> None:
    """What starts services can tell it by the exit code from a restore that was interrupted, for which a person is needed."""
    data, backups, restored = tmp_path / "data", tmp_path / "backups", tmp_path / "restored"
    run_tomowire("import", write_samples(tmp_path / "files", [Sample(1)]), "--data-dir", data)
    assert run_tomowire("backup", backups, "--data-dir", data).returncode == 0
    (index,) = backups.rglob("index.sqlite")
    index.unlink()
    os.mkfifo(index)
    restoring = start(["restore", backups, "--data-dir", restored])
    with index.open("wb"):  # it reads: from now on the data directory is its own
        done = run_tomowire("serve", "--data-dir", restored, "--port", "0", "--no-http")
        restoring.end(signal.SIGKILL)
    assert done.returncode == 75
    assert f"is in use by another process (PID {restoring.process.pid})" in done.stderr
    done = run_tomowire("serve", "--data-dir", restored, "--port", "0", "--no-http")
    assert done.returncode == 2
    assert "was interrupted" in done.stderr


def test_a_folder_of_backups_is_not_taken_for_an_archive(tmp_path: Path) -> None:
    """Whoever made an index there, and repaired it, would put all objects of the backups aside."""
    data, backups = tmp_path / "data", tmp_path / "backups"
    run_tomowire("import", write_samples(tmp_path / "files", [Sample(1)]), "--data-dir", data)
    assert run_tomowire("backup", backups, "--data-dir", data).returncode == 0
    there = sorted(backups.rglob("*"))
    for command in (
        ["serve", "--port", "0", "--no-http"],
        ["import", tmp_path / "files"],
        ["db", "check"],
        ["db", "check", "--repair"],
        ["db", "reindex"],
        ["db", "upgrade"],
        ["backup", tmp_path / "others"],
    ):
        done = run_tomowire(*command, "--data-dir", backups)
        assert done.returncode == 2, command
        assert f"tomowire restore {backups} --data-dir FOLDER" in done.stderr
    done = run_tomowire("restore", backups, "--data-dir", backups / "new")
    assert (done.returncode, "is inside the folder of backups" in done.stderr) == (2, True)
    assert sorted(backups.rglob("*")) == there


def test_points_are_listed_and_given_up(tmp_path: Path) -> None:
    data, backups = tmp_path / "data", tmp_path / "backups"
    run_tomowire("import", write_samples(tmp_path / "files", [Sample(1)]), "--data-dir", data)
    for keep in (2, 2, 2):
        assert run_tomowire("backup", backups, "--data-dir", data, "--keep", keep).returncode == 0
    listed = json.loads(run_tomowire("backup", backups, "--list", "--json").stdout)["points"]
    assert len(listed) == 2
    shown = run_tomowire("backup", backups, "--list").stdout.splitlines()
    assert [line.partition(" ")[0] for line in shown] == [point["point"] for point in listed]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["backup", "{}/backups", "--data-dir", "{}/nothing"], 2, "not the data directory"),
        (["backup", "{}/backups", "--list"], 2, "holds no backup"),
        (["backup", "{}/backups", "--list", "--verify"], 2, "exclude each other"),
        (["backup", "{}/backups", "--list", "--keep", "2"], 2, "not with --list or --verify"),
        (["backup", "{}/backups", "--verify", "--link"], 2, "not with --list or --verify"),
        (["restore", "{}", "--data-dir", "{}/new"], 2, "holds no backup"),
        (["import", "{}", "--data-dir", "{}/data"], 2, "in one another"),
        (["import", "{}/nothing", "--data-dir", "{}/data"], 2, "does not exist"),
        (["import", "{}", "--move", "--link"], 2, "exclude each other"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    done = run_tomowire(*(each.format(tmp_path) for each in arguments))
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


async def test_an_archive_that_runs_is_not_imported_into(tmp_path: Path) -> None:
    files = write_samples(tmp_path / "files", [Sample(1)])
    with serving("serve", "--data-dir", tmp_path / "data"):
        done = await asyncio.to_thread(run_tomowire, "import", files, "--data-dir", tmp_path / "data")
    assert done.returncode == 75
    assert "in use by another process" in done.stderr
    assert "send the files to it" in done.stderr


def test_where_there_is_nothing_to_import_that_is_a_failure(tmp_path: Path) -> None:
    """As with `send`: somebody wanted to have it."""
    files = tmp_path / "files"
    files.mkdir()
    for _ in range(2):
        done = run_tomowire("import", files, "--data-dir", tmp_path / "data")
        assert done.returncode == 1
        assert f"there is nothing to import: no DICOM file in {files}" in done.stderr
        (files / "note.txt").write_text("no object")
    write_samples(files / "below", [Sample(1)])
    for _ in range(2):  # the second time the archive has it already
        assert run_tomowire("import", files, "--data-dir", tmp_path / "data").returncode == 0


def test_points_and_restored_objects_are_counted_in_words(tmp_path: Path) -> None:
    files = write_samples(tmp_path / "files", [Sample(1)])
    imported = run_tomowire("import", files, "--data-dir", tmp_path / "data")
    assert "1 file: 1 stored" in imported.stderr
    made = run_tomowire("backup", tmp_path / "backup", "--data-dir", tmp_path / "data")
    assert ": 1 object, " in made.stderr
    assert "  1 object  " in run_tomowire("backup", tmp_path / "backup", "--list").stdout
    restored = run_tomowire("restore", tmp_path / "backup", "--data-dir", tmp_path / "new")
    assert "restored 1 of 1 object, as of" in restored.stderr


def test_an_import_tells_what_became_of_each_file(tmp_path: Path) -> None:
    files = write_samples(tmp_path / "files", [Sample(1), Sample(2)])
    (files / os.fsdecode(b"no-text-\xff.txt")).write_bytes(b"notes")
    (files / "2.dcm").write_bytes((files / "2.dcm").read_bytes()[:-50])
    done = run_tomowire("import", files, "--data-dir", tmp_path / "data", "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["results"] == {"stored": 1, "failed": 1, "skipped": 1}
    assert answer["complete"]
    rows = {Path(row["path"]).name: row["result"] for row in answer["files"]}
    assert rows == {"1.dcm": "stored", "2.dcm": "failed", "no-text-\\xff.txt": "skipped"}


def postgres_execute(url: str, sql: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.encode())


def test_an_account_that_may_only_read_makes_a_backup_and_is_told_that_it_is_not_in_the_trail(
    postgres_url: str, tmp_path: Path
) -> None:
    """Neither the statement nor its values are shown: they name patients."""
    data, backups, files = tmp_path / "data", tmp_path / "backups", write_samples(tmp_path / "files", [Sample(1)])
    assert run_tomowire("import", files, "--data-dir", data, TOMOWIRE_INDEX__URL=postgres_url).returncode == 0
    reader = f"reader_{postgres_url.rpartition('/')[2]}"
    postgres_execute(postgres_url, f"CREATE ROLE {reader} LOGIN PASSWORD '{PASSWORD}'")
    postgres_execute(postgres_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}")
    try:
        url = postgres_url.replace("//tomowire:", f"//{reader}:")
        done = run_tomowire("backup", backups, "--data-dir", data, TOMOWIRE_INDEX__URL=url)
        postgres_execute(postgres_url, f"GRANT INSERT ON audit_events TO {reader}")
        assert run_tomowire("backup", backups, "--data-dir", data, TOMOWIRE_INDEX__URL=url).returncode == 0
    finally:
        postgres_execute(postgres_url, f"DROP OWNED BY {reader}")
        postgres_execute(postgres_url, f"DROP ROLE {reader}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "is not in the audit trail" in line
    assert "permission denied for table audit_events" in line
    assert run_tomowire("backup", backups, "--verify").returncode == 0


def test_a_point_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    """Nor does what a network disk, or a Mac, puts into each folder."""
    data, backups = tmp_path / "data", tmp_path / "backups"
    run_tomowire("import", write_samples(tmp_path / "files", [Sample(1)]), "--data-dir", data)
    for _ in range(3):
        assert run_tomowire("backup", backups, "--data-dir", data).returncode == 0
    for folder in ("points", "incoming", "objects"):
        (backups / folder / "@eaDir").mkdir()
        (backups / folder / ".DS_Store").touch()
    names = run_tomowire("backup", backups, "--list").stdout.split()[::5]
    assert len(names) == 3
    (backups / "points" / names[2] / "point.json").write_bytes(b"")
    listed = run_tomowire("backup", backups, "--list", "--json")
    assert listed.returncode == 1
    assert [point["point"] for point in json.loads(listed.stdout)["points"]] == names[:2]
    assert f"{names[2]}/point.json cannot be read" in listed.stderr
    for arguments in (["backup", backups, "--verify"], ["restore", backups, "--data-dir", tmp_path / "new"]):
        done = run_tomowire(*arguments)
        assert done.returncode == 2
        assert "name another point, or rename" in done.stderr
        assert run_tomowire(*arguments, "--point", names[0]).returncode == 0
    done = run_tomowire("backup", backups, "--data-dir", data, "--keep", "1", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["given_up"] == []
    assert "older ones were not given up" in done.stderr
    (backups / "points" / names[2]).rename(tmp_path / "elsewhere")
    done = run_tomowire("backup", backups, "--data-dir", data, "--keep", "1", "--json")
    assert (done.returncode, len(json.loads(done.stdout)["given_up"])) == (0, 3)
    assert run_tomowire("backup", backups, "--verify").returncode == 0
