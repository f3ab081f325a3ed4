"""The peers of `tomowire.testing` against DCMTK and pynetdicom: a test must not depend on who reads what they send."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydicom import dcmread

from support.dcmtk import NO_DELAY
from support.network import LOOPBACK, free_port, listening_process
from support.objects import ROOT, SECONDARY_CAPTURE, Sample
from tomowire.testing import Archive, FaultyPeer, FaultySender, Outcome, Rejection

pytestmark = pytest.mark.interop

SAMPLES = (Sample(1), Sample(2, series=2), Sample(3, study=2))
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(dcmtk: Callable[[str], Path]) -> Run:
    """Runs one of DCMTK's tools."""

    def run_tool(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(dcmtk(tool)), *map(str, arguments)]
        return subprocess.run(command, env=NO_DELAY, capture_output=True, text=True, check=False, timeout=60)

    return run_tool


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for sample in SAMPLES:
        paths.append(tmp_path / f"{sample.number}.dcm")
        paths[-1].write_bytes(sample.header + sample.data_set)
    return paths


@pytest.fixture
def full(files: list[Path]) -> Iterator[Archive]:
    with Archive(files) as archive:
        yield archive


# DCMTK's SCUs


def test_dcmtk_stores_in_the_archive(run: Run, files: list[Path]) -> None:
    with Archive() as archive:
        done = run("storescu", "-aec", "ARCHIVE", LOOPBACK, archive.port, *files)
        assert done.returncode == 0, done.stderr
        archive.arrived(3).result(timeout=10)
    assert [each.SOPInstanceUID for each in archive.datasets] == [sample.uid for sample in SAMPLES]


def test_dcmtk_finds_in_the_archive(run: Run, full: Archive) -> None:
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=doe*", "-k", f"StudyInstanceUID={ROOT}.1.1"]
    done = run("findscu", "-v", "-S", "-aec", "ARCHIVE", *keys, LOOPBACK, full.port)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("(Pending)") == 1
    assert "Doe^Jane" in done.stdout + done.stderr


def test_dcmtk_gets_from_the_archive(run: Run, full: Archive, tmp_path: Path) -> None:
    into = tmp_path / "got"
    into.mkdir()
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={ROOT}.1.1"]
    done = run("getscu", "-S", "-aec", "ARCHIVE", "-od", into, *keys, LOOPBACK, full.port)
    assert done.returncode == 0, done.stderr
    assert {dcmread(path).SOPInstanceUID for path in into.iterdir()} == {SAMPLES[0].uid, SAMPLES[1].uid}


def test_dcmtk_has_the_archive_move(run: Run, full: Archive) -> None:
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={ROOT}.1.2"]
    with Archive() as target:
        full.destinations["TARGET"] = target.address
        done = run("movescu", "-S", "-aec", "ARCHIVE", "-aem", "TARGET", *keys, LOOPBACK, full.port)
        assert done.returncode == 0, done.stderr
        target.arrived(1).result(timeout=10)
    assert target.objects.keys() == {SAMPLES[2].uid}


@pytest.mark.parametrize(
    ("rejection", "said"),
    [
        (Rejection.CALLED_AE_TITLE, "Called AE Title Not Recognized"),
        (Rejection.CALLING_AE_TITLE, "Calling AE Title Not Recognized"),
        (Rejection.APPLICATION_CONTEXT, "App Context Name Not Supported"),
        (Rejection.CONGESTION, "Temporary Congestion"),
        (Rejection.LOCAL_LIMIT, "Local Limit Exceeded"),
    ],
)
def test_dcmtk_reads_a_rejection(run: Run, rejection: Rejection, said: str) -> None:
    with FaultyPeer.rejects(rejection) as peer:
        done = run("echoscu", LOOPBACK, peer.port)
    assert said in done.stdout + done.stderr
    assert done.returncode != 0


def test_dcmtk_echoes_with_a_well_behaved_one(run: Run) -> None:
    with FaultyPeer.well_behaved() as peer:
        assert run("echoscu", LOOPBACK, peer.port).returncode == 0
    assert (len(peer.heard.requests), peer.heard.releases) == (1, 1)


@pytest.mark.parametrize(
    ("faulty", "said"),
    [
        (FaultyPeer.resets, "closed|reset|aborted"),
        (lambda: FaultyPeer.answers(0xC001), "C001|Error|Failure"),
        (FaultyPeer.aborts, "abort"),
    ],
    ids=["resets", "answers", "aborts"],
)
def test_dcmtk_notices_what_goes_wrong(
    run: Run, faulty: Callable[[], FaultyPeer], said: str, files: list[Path]
) -> None:
    with faulty() as peer:
        done = run("storescu", "-v", LOOPBACK, peer.port, files[0])
    assert any(each.lower() in (done.stdout + done.stderr).lower() for each in said.split("|"))


# Their SCPs


@pytest.fixture
def storescp(dcmtk: Callable[[str], Path], tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "received"
    folder.mkdir()
    port = free_port()
    with listening_process([dcmtk("storescp"), "+B", "-od", folder, str(port)], port, log=tmp_path / "log"):
        yield f"STORESCP@{LOOPBACK}:{port}"


WAYS = ["resets", "closes", "releases_early", "babbles", "wrong_length", "unproposed_context"]


def test_dcmtk_takes_what_is_well_behaved(storescp: str, tmp_path: Path) -> None:
    outcome = asyncio.run(FaultySender(sop_class_uid=SECONDARY_CAPTURE).well_behaved(storescp))
    assert (outcome.status, outcome.released) == (0, True)
    (file,) = (tmp_path / "received").iterdir()
    assert dcmread(file).SOPInstanceUID == outcome.sop_instance_uid


@pytest.mark.parametrize("way", WAYS)
def test_dcmtk_is_not_told_of_a_whole_object_by_one_that_is_none(storescp: str, way: str, tmp_path: Path) -> None:
    outcome: Outcome = asyncio.run(getattr(FaultySender(patience=5.0), way)(storescp))
    assert outcome.status is None
    assert asyncio.run(FaultySender().well_behaved(storescp)).status == 0


def test_pynetdicom_notices_what_goes_wrong(pynetdicom: ModuleType) -> None:
    def echo(peer: FaultyPeer) -> Any:
        ae = pynetdicom.AE()
        ae.dimse_timeout = ae.acse_timeout = ae.network_timeout = 10
        ae.add_requested_context("1.2.840.10008.1.1")
        association = ae.associate(LOOPBACK, peer.port)
        assert association.is_established
        status = association.send_c_echo()
        association.release()
        return status

    with FaultyPeer.answers(0x0211) as peer:
        assert echo(peer).Status == 0x0211
    with FaultyPeer.resets() as peer:
        assert "Status" not in echo(peer)
