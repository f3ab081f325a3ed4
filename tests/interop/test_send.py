"""`tomowire send` and `tomowire echo` to other people's receivers: DCMTK's `storescp` and Orthanc."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from support.dcmtk import as_sent, objects_below, storescp, write_profile
from support.network import LOOPBACK, free_port, listening_process
from support.programs import run_tomowire, serving
from tomowire.services.dicom_file import DicomFile
from tomowire.services.discovery import discover

pytestmark = pytest.mark.interop

# DCMTK 3.6.7 accepts a context for them and then cannot receive the object: HTJ2K (three), Deflated Image Frame Compression.
UNKNOWN_TO_DCMTK = {
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
    "1.2.840.10008.1.2.8.1",
}


def readable(folder: Path) -> list[DicomFile]:
    return [each for each in discover([folder]) if isinstance(each, DicomFile)]


@pytest.mark.parametrize("associations", [1, 3])
def test_storescp_gets_every_object_of_the_collection_byte_for_byte(
    shared_data: Path, dcmtk: Callable[[str], Path], tmp_path: Path, associations: int
) -> None:
    files = readable(shared_data)
    profile = write_profile(
        tmp_path / "scp.cfg", [(each.sop_class_uid, each.transfer_syntax_uid) for each in files], together=True
    )
    # Of associations at once, only a forking one can serve more than one.
    fork = ["--fork"] if associations > 1 else []
    with storescp(dcmtk("storescp"), tmp_path / "received", *fork, profile=profile) as port:
        done = run_tomowire("send", f"STORESCP@{LOOPBACK}:{port}", shared_data, "-j", associations, "--json")
    outcomes = {row["path"]: row["outcome"] for row in json.loads(done.stdout)["objects"]}
    known = [file for file in files if file.transfer_syntax_uid not in UNKNOWN_TO_DCMTK]
    assert len(known) > 1200
    assert [str(file.path) for file in known if outcomes[str(file.path)] != "stored"] == []
    assert Counter(objects_below(tmp_path / "received")) == Counter(map(as_sent, known))


def test_what_storescp_aborts_at_does_not_keep_the_others_from_arriving(
    shared_data: Path, dcmtk: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shared_data / "pydicom-data"
    files = readable(folder)
    profile = write_profile(
        tmp_path / "scp.cfg", [(each.sop_class_uid, each.transfer_syntax_uid) for each in files], together=True
    )
    with storescp(dcmtk("storescp"), tmp_path / "received", profile=profile) as port:
        done = run_tomowire("send", f"STORESCP@{LOOPBACK}:{port}", folder, "--json")
    rows = json.loads(done.stdout)["objects"]
    failed = {row["path"] for row in rows if row["outcome"] == "failed" and row["sop_instance_uid"]}
    assert failed == {str(file.path) for file in files if file.transfer_syntax_uid in UNKNOWN_TO_DCMTK} != set()
    assert Counter(objects_below(tmp_path / "received")) == Counter(
        as_sent(file) for file in files if str(file.path) not in failed
    )
    assert done.returncode == 1


def test_echo_to_storescp(dcmtk: Callable[[str], Path], tmp_path: Path) -> None:
    with storescp(dcmtk("storescp"), tmp_path / "received") as port:
        done = run_tomowire("echo", f"STORESCP@{LOOPBACK}:{port}", "--json", "-n", "3")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["ok"] is True
    assert [each["status"] for each in answer["echoes"]] == [0, 0, 0]


def test_echoscu_to_serve(dcmtk: Callable[[str], Path], tmp_path: Path) -> None:
    with serving("serve", "--data-dir", tmp_path / "data") as archive:
        command = [dcmtk("echoscu"), "-aec", "TOMOWIRE", "--repeat", "3", "-v", LOOPBACK, str(archive.port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0
        assert (done.stdout + done.stderr).count("Received Echo Response (Success)") == 3
        wrong = subprocess.run([*command[:2], "OTHER", *command[3:]], capture_output=True, text=True, check=False)
        assert wrong.returncode != 0
        assert "Called AE Title Not Recognized" in wrong.stdout + wrong.stderr


class Orthanc:
    """A running Orthanc, looked at through its REST interface."""

    def __init__(self, dicom_port: int, http_port: int) -> None:
        self.port = dicom_port
        self._url = f"http://{LOOPBACK}:{http_port}"

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._url + path, timeout=10) as answer:
            content: bytes = answer.read()
        return content

    def data_sets(self) -> dict[str, bytes]:
        """SOP Instance UID -> the file that Orthanc stored."""
        found = {}
        for instance in json.loads(self.get("/instances")):
            tags = json.loads(self.get(f"/instances/{instance}"))["MainDicomTags"]
            found[tags["SOPInstanceUID"]] = self.get(f"/instances/{instance}/file")
        return found


@pytest.fixture(scope="module")
def running_orthanc(orthanc: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    folder = tmp_path_factory.mktemp("orthanc")
    dicom_port, http_port = free_port(), free_port()
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomPort": dicom_port,
        "DicomAet": "ORTHANC",
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    command = [orthanc, folder / "orthanc.json"]
    with listening_process(command, dicom_port, log=folder / "log", env={"TCP_NODELAY": "1"}):
        yield Orthanc(dicom_port, http_port)


def essence(content: bytes) -> tuple[set[int], bytes]:
    """The elements of a data set, group lengths left out, and its pixels without padding."""
    data_set = dcmread(BytesIO(content), force=True)
    return {int(tag) for tag in data_set.keys() if tag.element}, data_set.PixelData.rstrip(b"\0")  # noqa: SIM118


def test_orthanc_stores_what_is_sent(shared_data: Path, running_orthanc: Orthanc) -> None:
    folders = [shared_data / name for name in ("synthetic-dcmtk", "dcmjs-dimse", "highdicom")]
    done = run_tomowire("send", f"ORTHANC@{LOOPBACK}:{running_orthanc.port}", *folders, "--json")
    stored = [Path(row["path"]) for row in json.loads(done.stdout)["objects"] if row["outcome"] == "stored"]
    expected: dict[str, list[DicomFile]] = {}
    for file in (each for folder in folders for each in readable(folder)):
        if file.path in stored:
            expected.setdefault(file.sop_instance_uid, []).append(file)
    got = running_orthanc.data_sets()
    assert got.keys() == expected.keys()
    assert len(got) > 20
    for uid, content in got.items():
        if not any(content.endswith(as_sent(file).data_set) for file in expected[uid]):
            # Orthanc decodes and encodes again what it receives: other lengths, the same elements.
            (file,) = expected[uid]
            assert essence(content) == essence(file.path.read_bytes())
