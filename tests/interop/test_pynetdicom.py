"""Storage and verification with pynetdicom, in both directions, in all kinds of transfer syntaxes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from support.dcmtk import as_sent, read_object
from support.network import LOOPBACK
from support.programs import run_tomowire, serving
from tomowire.services.dicom_file import inspect

pytestmark = pytest.mark.interop

# One of each kind: what PS3.5 Annex A tells apart.
OF_PYDICOM = {
    "implicit": "MR_small_implicit.dcm",
    "explicit": "CT_small.dcm",
    "big endian": "MR_small_bigendian.dcm",
    "deflated": "image_dfl.dcm",
    "RLE": "MR_small_RLE.dcm",
    "JPEG baseline": "SC_rgb_jpeg_dcmtk.dcm",
    "JPEG extended": "JPGExtended.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG 2000": "MR_small_jp2klossless.dcm",
    "waveform": "waveform_ecg.dcm",
    "structured report": "test-SR.dcm",
    "no pixels": "rtplan.dcm",
}


@pytest.fixture(params=OF_PYDICOM, scope="session")
def path(request: pytest.FixtureRequest) -> Path:
    found = get_testdata_file(OF_PYDICOM[request.param], download=False)
    assert isinstance(found, str)
    return Path(found)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    data_dir = tmp_path_factory.mktemp("archive")
    # Some of pydicom's files are one object in several transfer syntaxes.
    with serving("serve", "--data-dir", data_dir, "--duplicates", "replace") as program:
        yield program.port, data_dir


def test_what_pynetdicom_sends_is_stored_as_it_is(
    archive: tuple[int, Path], path: Path, pynetdicom: ModuleType
) -> None:
    port, data_dir = archive
    file = inspect(path)
    sent: list[bytes] = []
    entity = pynetdicom.AE("PYNETDICOM")
    entity.add_requested_context(file.sop_class_uid, file.transfer_syntax_uid)
    remember = (pynetdicom.evt.EVT_DIMSE_SENT, lambda event: sent.append(event.message.data_set.getvalue()))
    association = entity.associate(LOOPBACK, port, ae_title="TOMOWIRE", evt_handlers=[remember])
    assert association.is_established
    try:
        assert association.send_c_store(dcmread(path)).Status == 0x0000
    finally:
        association.release()
    (stored,) = (data_dir / "objects").rglob(f"{file.sop_instance_uid}*.dcm")
    assert [read_object(stored).data_set] == sent
    assert read_object(stored).transfer_syntax_uid == file.transfer_syntax_uid


def test_pynetdicom_gets_an_echo_from_the_archive(archive: tuple[int, Path], pynetdicom: ModuleType) -> None:
    entity = pynetdicom.AE("PYNETDICOM")
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate(LOOPBACK, archive[0], ae_title="TOMOWIRE")
    assert association.is_established
    # Once: asked again at once, pynetdicom may give the answer to its own reactor instead of whoever waits for it.
    assert association.send_c_echo().Status == 0
    association.release()
    assert not entity.associate(LOOPBACK, archive[0], ae_title="ANOTHER").is_established


@dataclass
class Receiver:
    """What pynetdicom's SCP has received, and what it answers."""

    peer: str
    status: int = 0
    received: list[tuple[str, bytes]] = field(default_factory=list)

    def keep(self, event: Any) -> int:
        self.received.append((str(event.context.transfer_syntax), event.request.DataSet.getvalue()))
        return self.status


@pytest.fixture(scope="module")
def scp(pynetdicom: ModuleType) -> Iterator[Receiver]:
    """A storage SCP for everything."""
    receiver = Receiver("")
    entity = pynetdicom.AE("PYNETDICOM")
    for context in pynetdicom.AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, pynetdicom.ALL_TRANSFER_SYNTAXES)
    entity.add_supported_context("1.2.840.10008.1.1")
    handlers = [(pynetdicom.evt.EVT_C_STORE, receiver.keep)]
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
    receiver.peer = f"PYNETDICOM@{LOOPBACK}:{server.socket.getsockname()[1]}"
    yield receiver
    server.shutdown()


def test_pynetdicom_receives_what_is_sent(path: Path, scp: Receiver) -> None:
    scp.received.clear()
    scp.status = 0x0000
    done = run_tomowire("send", scp.peer, path, "--json")
    assert done.returncode == 0, done.stderr
    expected = as_sent(inspect(path))
    assert scp.received == [(expected.transfer_syntax_uid, expected.data_set)]


def test_pynetdicom_answers_an_echo(scp: Receiver) -> None:
    assert run_tomowire("echo", scp.peer).returncode == 0


@pytest.mark.parametrize(
    ("status", "outcome", "code"), [(0xB000, "warning", 0), (0xA700, "failed", 1), (0xC123, "failed", 1)]
)
def test_a_status_of_the_peer_is_told_and_counted(scp: Receiver, status: int, outcome: str, code: int) -> None:
    scp.status = status
    path = get_testdata_file("CT_small.dcm", download=False)
    done = run_tomowire("send", scp.peer, path, "--json", "--retries", "0")
    (row,) = json.loads(done.stdout)["objects"]
    assert (row["outcome"], row["status"], done.returncode) == (outcome, status, code)
    assert f"{status:04X}H" in done.stderr
