"""DCMTK's `storescu` sends all of the shared collection; what `storescp +B` makes of it is the reference for ours."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread

from support.dcmtk import (
    NO_DELAY,
    Received,
    objects_below,
    read_answers,
    read_object,
    storescp,
    storescu,
    write_profile,
)
from support.network import LOOPBACK
from support.programs import run_tomowire, serving
from support.stored import contents
from tomowire.services.dicom_file import DicomFile, inspect
from tomowire.services.discovery import discover

pytestmark = pytest.mark.interop

UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
SUCCESS = "Success"


@dataclass(frozen=True)
class Reference:
    """What DCMTK sent, as DCMTK received it."""

    profile: Path
    answers: dict[str, str | None]
    received: list[Received]
    files: list[Path]
    """Of `received`, as `storescp` wrote them."""


@pytest.fixture(scope="module")
def reference(shared_data: Path, dcmtk: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    pairs = [
        (each.sop_class_uid, each.transfer_syntax_uid)
        for each in discover([shared_data])
        if isinstance(each, DicomFile)
    ]
    accepted = write_profile(folder / "scp.cfg", pairs, together=True)
    proposed = write_profile(folder / "scu.cfg", pairs, together=False)
    with storescp(dcmtk("storescp"), folder / "received", profile=accepted) as port:
        answers = storescu(dcmtk("storescu"), port, [shared_data], profile=proposed)
    files = sorted((folder / "received").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return Reference(proposed, answers, [read_object(path) for path in files], files)


def why_refuse(received: Received, path: Path) -> str | None:
    """Why an archive must not take an object, as pydicom sees it (the table of bad input; PS3.4 B.2.3)."""
    if not UID.fullmatch(received.sop_instance_uid):
        return "Unknown Status: 0x117"
    if received.data_set.startswith(b"\x02\x00"):  # the next reader would take it for file meta information
        return "Error: CannotUnderstand"
    data_set = dcmread(path, specific_tags=["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
    uids = [str(data_set.get(keyword, "")) for keyword in ("StudyInstanceUID", "SeriesInstanceUID")]
    same = data_set.get("SOPInstanceUID") == received.sop_instance_uid
    if not same or not all(UID.fullmatch(uid) for uid in uids):
        return "Error: DataSetDoesNotMatchSOPClass"
    return None


def sent_successfully(answers: dict[str, str | None]) -> list[str]:
    return [path for path, answer in answers.items() if answer == SUCCESS]


def test_the_reference_is_nearly_all_of_the_collection(reference: Reference) -> None:
    assert len(reference.received) == len(sent_successfully(reference.answers)) > 1150
    assert len({each.transfer_syntax_uid for each in reference.received}) >= 12


@dataclass(frozen=True)
class Run:
    """What `storescu` was told, and where the objects went."""

    answers: dict[str, str | None]
    folder: Path


@pytest.fixture(scope="module")
def served(
    reference: Reference, shared_data: Path, dcmtk: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    data_dir = tmp_path_factory.mktemp("archive")
    with serving("serve", "--data-dir", data_dir, "--any-sop-class") as archive:
        answers = storescu(dcmtk("storescu"), archive.port, [shared_data], profile=reference.profile, called="TOMOWIRE")
    return Run(answers, data_dir)


@pytest.fixture(scope="module")
def listened(
    reference: Reference, shared_data: Path, dcmtk: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    folder = tmp_path_factory.mktemp("listen")
    with serving("listen", "-o", folder, "--any-sop-class") as program:
        answers = storescu(dcmtk("storescu"), program.port, [shared_data], profile=reference.profile)
    return Run(answers, folder)


def test_the_archive_takes_every_object_but_those_that_the_standard_forbids(reference: Reference, served: Run) -> None:
    expected = [
        (path, why_refuse(received, file) or SUCCESS)
        for path, received, file in zip(
            sent_successfully(reference.answers), reference.received, reference.files, strict=True
        )
    ]
    assert [(path, served.answers[path]) for path, _ in expected] == expected
    assert sum(answer == SUCCESS for _, answer in expected) > 1150


def test_the_archive_stores_what_was_sent(reference: Reference, served: Run) -> None:
    first: dict[str, Received] = {}  # of several objects with one UID, by default
    for received, path in zip(reference.received, sent_successfully(reference.answers), strict=True):
        if served.answers[path] == SUCCESS:
            first.setdefault(received.sop_instance_uid, received)
    assert {each.sop_instance_uid: each for each in objects_below(served.folder / "objects")} == first
    assert contents(served.folder) == {uid: each.data_set for uid, each in first.items()}


def test_the_archive_is_consistent_after_that(served: Run) -> None:
    done = run_tomowire("db", "check", "--data-dir", served.folder)
    assert (done.returncode, done.stdout) == (0, "")


def test_listen_keeps_every_object_that_has_a_uid_as_it_was_sent(reference: Reference, listened: Run) -> None:
    last: dict[str, Received] = {}  # it replaces those that came before
    for path, received in zip(sent_successfully(reference.answers), reference.received, strict=True):
        has_uid = UID.fullmatch(received.sop_instance_uid)
        assert listened.answers[path] == (SUCCESS if has_uid else "Unknown Status: 0x117")
        if has_uid:
            last[f"{received.sop_instance_uid}.dcm"] = received
    assert {path.name: read_object(path) for path in listened.folder.iterdir()} == last


@pytest.mark.parametrize(
    "options",
    [
        ["-R"],
        ["+C"],
        ["-pdu", "4096", "--max-send-pdu", "4096"],
        ["-usr", "joe", "-pwd", "secret"],  # user identity, no response asked for
        ["--repeat", "3"],
        ["--abort"],
    ],
    ids=" ".join,
)
def test_other_ways_of_storescu(
    dcmtk: Callable[[str], Path], shared_data: Path, tmp_path: Path, options: list[str]
) -> None:
    path = min((shared_data / "dcm_qa_nih" / "20180918GE" / "mr_0004").iterdir())  # which DCMTK sends as it is
    with serving("serve", "--data-dir", tmp_path / "data") as archive:
        command = [dcmtk("storescu"), "-v", "-aec", "TOMOWIRE", *options, LOOPBACK, str(archive.port), path]
        done = subprocess.run(command, env=NO_DELAY, capture_output=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr
        assert {*read_answers(done.stdout + done.stderr).values()} == {SUCCESS}
        assert archive.process.poll() is None
    assert [*contents(tmp_path / "data").values()] == [path.read_bytes()[inspect(path).offset :]]


def test_dcmsend(dcmtk: Callable[[str], Path], shared_data: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    with serving("serve", "--data-dir", tmp_path / "data") as archive:
        command = [
            dcmtk("dcmsend"),
            "-aec",
            "TOMOWIRE",
            "+sd",
            "+r",
            "-nh",
            "+crf",
            report,
            LOOPBACK,
            str(archive.port),
        ]
        folders = [shared_data / name for name in ("highdicom", "synthetic-dcmtk", "dicomParser")]
        done = subprocess.run([*command, *folders], env=NO_DELAY, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
    (sent,) = re.findall(r"sent to the peer +: (\d+)", report.read_text())
    (taken,) = re.findall(r"with status SUCCESS +: (\d+)", report.read_text())
    assert int(sent) == int(taken) > 40
