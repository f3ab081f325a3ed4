"""`tomowire jobs`: made, shown, cancelled and retried from the command line, with and without an archive that runs."""

from __future__ import annotations

import json
import os
import pwd
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from support.filled import fill
from support.network import LOOPBACK, free_port
from support.objects import Sample
from support.programs import Program, run_tomowire, serving
from support.stored import files_below
from tomowire.server.jobs.opening import open_jobs
from tomowire.server.settings import Settings

SAMPLES = [Sample(number, number % 2) for number in range(1, 6)]
STUDY = SAMPLES[0].study_uid
JOB_ID = r"[0-9a-f]{8}-[0-9a-f-]{27}"


async def filled(folder: Path, index_url: str | None = None) -> list[str]:
    await fill(folder / "data", SAMPLES, index_url=index_url)
    return ["--data-dir", str(folder / "data"), *(["--index-url", index_url] if index_url is not None else [])]


@pytest.fixture
async def place(tmp_path: Path) -> list[str]:
    """Options that name an archive with five objects."""
    return await filled(tmp_path)


@pytest.fixture
async def each_place(tmp_path: Path, index_url: str | None) -> list[str]:
    """The same, with each kind of index."""
    return await filled(tmp_path, index_url)


@contextmanager
def archive(place: list[str], *options: str) -> Iterator[Program]:
    with serving("serve", *place, "--no-http", *options) as program:
        yield program


def jobs(command: str, place: list[str], *arguments: str, code: int = 0) -> str:
    done = run_tomowire("jobs", command, *place, *arguments)
    assert done.returncode == code, done.stderr
    return done.stdout


def until_over(place: list[str], job_id: str) -> dict[str, object]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.5)
        job = json.loads(jobs("show", place, job_id, "--json"))
        if job["state"] in ("done", "failed", "cancelled"):
            return job
    pytest.fail(f"not over in 60 s: {job}")


def test_an_archive_that_runs_is_told_of_a_new_job_and_does_it(each_place: list[str], tmp_path: Path) -> None:
    place = each_place
    with serving("listen", "-o", tmp_path / "received") as destination:
        node = f"DEST@{LOOPBACK}:{destination.port}"
        with archive(place, "--node", node) as program:
            program.stderr.wait_for("end with Ctrl-C")
            done = run_tomowire("jobs", "send", *place, "DEST", "--study-uid", STUDY)
            assert done.returncode == 0
            assert "without --config it is not known here whether the archive has a node DEST" in done.stderr
            assert "no archive runs" not in done.stderr
            job = until_over(place, done.stdout.strip())
    assert (job["state"], job["progress"]["done"], job["items"]) == ("done", 5, [])
    assert files_below(tmp_path, "received") == {f"received/{sample.uid}.dcm" for sample in SAMPLES}


def test_jobs_are_listed_shown_cancelled_and_retried_while_no_archive_runs(place: list[str]) -> None:
    made = run_tomowire("jobs", "send", *place, "DEST", "--series-uid", SAMPLES[0].series_uid, "--json")
    assert "no archive runs on this data directory now" in made.stderr
    job = json.loads(made.stdout)
    assert (job["state"], job["node"], job["progress"]["total"]) == ("waiting", "DEST", 3)
    job_id = job["job_id"]

    title, line = jobs("list", place).splitlines()
    assert title.split() == ["Job", "Kind", "Node", "About", "State", "Done", "Failed", "Left", "Made", "Error"]
    assert line.split()[:7] == [job_id, "send", "DEST", "series", SAMPLES[0].series_uid, "waiting", "0/3"]
    assert json.loads(jobs("list", place, "--kind", "send", "--state", "done", "--json")) == {"jobs": []}

    shown = jobs("show", place, job_id, "--items")
    assert "0 of 3, 0 with a warning, 0 failed" in shown
    assert all(f"waiting  {sample.uid}" in shown for sample in SAMPLES if sample.series == SAMPLES[0].series)

    assert json.loads(jobs("cancel", place, job_id, "--json"))["state"] == "cancelled"
    assert json.loads(jobs("retry", place, job_id, "--json"))["state"] == "waiting"


def test_a_job_whose_archive_was_killed_is_not_said_to_be_running(place: list[str]) -> None:
    with (
        socket.create_server((LOOPBACK, 0)) as silent,
        archive(place, "--node", f"DEST@{LOOPBACK}:{silent.getsockname()[1]}") as program,
    ):
        job_id = jobs("send", place, "DEST", "--study-uid", STUDY).strip()
        with silent.accept()[0]:  # the association is never answered
            assert "state:        running\n" in jobs("show", place, job_id)
            program.process.kill()
            program.process.wait(20)
        assert "was running when its archive ended; it goes on when one runs" in jobs("show", place, job_id)
        assert "interrupted" in jobs("list", place)
        assert json.loads(jobs("show", place, job_id, "--json"))["is_left"] is True


async def test_what_has_failed_for_the_same_reason_is_shown_once(place: list[str]) -> None:
    with open_jobs(Settings(Path(place[1])), knows_nodes=False) as made:
        job = await made.send("STUDY", [STUDY], "DEST", by="anna")
    uids = [sample.uid for sample in SAMPLES]
    reasons = [(0xA700, "no room"), (None, "lost"), (0xA700, "no room"), (0xA700, "no room"), (0xA700, "other")]
    with closing(sqlite3.connect(Path(place[1]) / "index.sqlite")) as index, index:
        index.execute("UPDATE jobs SET state = 'failed'")
        for uid, (status, comment) in zip(uids, reasons, strict=True):
            said = (status, comment, uid)
            index.execute("UPDATE job_items SET state = 'failed', status = ?, comment = ? WHERE uid = ?", said)
    lines = jobs("show", place, job.job_id).splitlines()
    assert sorted(line for line in lines if line.startswith("failed ")) == sorted(
        [
            f"failed   {uids[0]} and 2 more: A700H no room",
            f"failed   {uids[1]}: lost",
            f"failed   {uids[4]}: A700H other",
        ]
    )
    shown = jobs("show", place, job.job_id, "--items")
    assert shown.count("A700H no room") == 3
    assert len(json.loads(jobs("show", place, job.job_id, "--json"))["items"]) == 5


async def test_a_reason_that_names_the_object_is_the_same_for_all_of_them(place: list[str]) -> None:
    with open_jobs(Settings(Path(place[1])), knows_nodes=False) as made:
        job = await made.send("STUDY", [STUDY], "DEST", by="anna")
    why = "cannot transcode {} from JPEG-LS Lossless Image Compression: no codec is installed for it"
    uids = [sample.uid for sample in SAMPLES]
    comments = {uid: f"given up after 3 attempts: {why.format(uid)}" for uid in uids}
    comments[uids[3]] = why.format(f"{uids[3]}.7")  # another object
    comments[uids[4]] = why.format(f"{uids[4]}7")
    with closing(sqlite3.connect(Path(place[1]) / "index.sqlite")) as index, index:
        index.execute("UPDATE jobs SET state = 'failed'")
        for uid, comment in comments.items():
            index.execute("UPDATE job_items SET state = 'failed', comment = ? WHERE uid = ?", (comment, uid))
    lines = jobs("show", place, job.job_id).splitlines()
    assert sorted(line for line in lines if line.startswith("failed ")) == sorted(
        [
            f"failed   {uids[0]} and 2 more: given up after 3 attempts: {why.format('it')}",
            f"failed   {uids[3]}: {comments[uids[3]]}",
            f"failed   {uids[4]}: {comments[uids[4]]}",
        ]
    )
    shown = jobs("show", place, job.job_id, "--items").splitlines()
    assert {f"failed   {uid}: {comment}" for uid, comment in comments.items()} <= set(shown)


async def test_what_is_deleted_is_named_where_jobs_are_shown(place: list[str]) -> None:
    with open_jobs(Settings(Path(place[1]))) as made:
        job = await made.delete("IMAGE", [sample.uid for sample in SAMPLES[:2]], by="anna")
    [_, line] = jobs("list", place).splitlines()
    assert f"object {SAMPLES[0].uid} and 1 more" in line
    assert f"object {SAMPLES[0].uid}, {SAMPLES[1].uid}\n" in jobs("show", place, job.job_id)


def test_what_fails_is_shown_with_the_reason(place: list[str]) -> None:
    job_id = jobs("send", place, "DEST", "--instance-uid", SAMPLES[0].uid).strip()
    with archive(place):  # it knows no node
        job = until_over(place, job_id)
    assert job["state"] == "failed"
    shown = jobs("show", place, job_id)
    assert "the archive knows no node DEST: add it to the configuration, then retry this job" in shown
    assert f"failed   {SAMPLES[0].uid}" in shown
    assert jobs("cancel", place, job_id, code=1).strip() == job_id


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (("WORKSTATION", "PACS"), "the archive knows no node WORKSTATOIN: did you mean WORKSTATION?"),
        (("PACS", "CT"), "the archive knows no node WORKSTATOIN: add it to its configuration (it has CT, PACS)"),
        ((), "the archive knows no node WORKSTATOIN: add it to its configuration (it has no nodes at all)"),
    ],
)
def test_no_job_is_made_for_a_node_that_is_not_configured(
    place: list[str], tmp_path: Path, nodes: tuple[str, ...], said: str
) -> None:
    (tmp_path / "tomowire.toml").write_text(
        "".join(f'[nodes.{title}]\nhost = "{LOOPBACK}"\nport = 104\n' for title in nodes)
    )
    place = [*place, "--config", str(tmp_path / "tomowire.toml")]
    done = run_tomowire("jobs", "send", *place, "WORKSTATOIN", "--study-uid", STUDY)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert json.loads(jobs("list", place, "--json")) == {"jobs": []}
    if "PACS" in nodes:
        made = run_tomowire("jobs", "send", *place, "PACS", "--study-uid", STUDY)
        assert (made.returncode, "--config" in made.stderr) == (0, False)


def test_a_node_that_is_named_with_its_address(place: list[str], tmp_path: Path) -> None:
    file = tmp_path / "tomowire.toml"
    file.write_text(f'[nodes.C]\nhost = "{LOOPBACK}"\nport = 104\n')
    done = run_tomowire("jobs", "send", *place, "--config", file, "C@localhost:1", "--study-uid", STUDY)
    assert done.returncode == 2
    assert "the archive knows no node C@localhost:1: did you mean C?" in done.stderr


@pytest.mark.parametrize("called", ["orthanc", "ORTHANC"])
def test_a_node_is_named_by_its_section_or_by_its_ae_title(place: list[str], tmp_path: Path, called: str) -> None:
    port = free_port()
    file = tmp_path / "tomowire.toml"
    file.write_text(f'[nodes.orthanc]\nae_title = "ORTHANC"\nhost = "{LOOPBACK}"\nport = {port}\n')
    made = json.loads(jobs("send", [*place, "--config", str(file)], called, "--study-uid", STUDY, "--json"))
    assert made["node"] == "ORTHANC"
    echo = run_tomowire("echo", "--config", str(file), called)
    assert (echo.returncode, f"ORTHANC@{LOOPBACK}:{port}" in echo.stderr) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["send", "DEST"], "say what to send"),
        (["send", "DEST", "--study-uid", "1.2.3"], "the archive has no study 1.2.3"),
        (["send", "DEST@localhost:104", "--study-uid", STUDY], "without its address, which the archive knows: DEST"),
        (["show", "nonsense"], "there is no job nonsense"),
    ],
)
def test_mistakes_are_told(place: list[str], arguments: list[str], said: str) -> None:
    done = run_tomowire("jobs", arguments[0], *place, *arguments[1:])
    assert done.returncode == 2
    assert said in done.stderr


def test_where_there_is_no_archive_that_is_said(tmp_path: Path) -> None:
    done = run_tomowire("jobs", "list", "--data-dir", tmp_path / "nothing")
    assert done.returncode != 0
    assert "index.sqlite" in done.stderr
    assert not (tmp_path / "nothing").exists()


def test_a_postgresql_server_that_is_away_is_told_of_without_the_password(tmp_path: Path) -> None:
    url = f"postgresql://me:secret@{LOOPBACK}:{free_port()}/db"
    done = run_tomowire("jobs", "list", "--data-dir", tmp_path, "--index-url", url)
    assert done.returncode == 3
    assert "secret" not in done.stderr


def test_where_there_is_no_archive_that_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    for arguments in (["list"], ["send", "VIEWER", "--study-uid", STUDY]):
        done = run_tomowire("jobs", *arguments, "--data-dir", str(tmp_path / "data"))
        assert done.returncode == 2
        assert "there is no archive yet" in done.stderr
        assert "tomowire serve" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_job_is_of_who_makes_it_and_not_of_whom_the_environment_names(place: list[str]) -> None:
    """Whoever is in the audit trail as the one on whose behalf objects were sent."""
    done = run_tomowire("jobs", "send", *place, "DEST", "--study-uid", STUDY, "--json", LOGNAME="boss", USER="boss")
    assert done.returncode == 0, done.stderr
    name = f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    assert json.loads(done.stdout)["created_by"].rpartition(" as ")[2] == name
