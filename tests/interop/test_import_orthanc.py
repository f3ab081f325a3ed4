"""`tomowire import` of the storage folder that a real Orthanc has filled, compressed and not, with its index and without."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from support.network import LOOPBACK, free_port, listening_process
from support.programs import run_tomowire
from support.stored import contents, findings

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def objects(shared_data: Path) -> list[Path]:
    """Real objects, with and without pixels, of one UID each."""
    found: dict[str, Path] = {}
    for path in sorted(shared_data.rglob("*.dcm")):
        if path.stat().st_size < 600_000 and len(found) < 12:
            data_set = dcmread(path, stop_before_pixels=True, force=True)
            if "SOPInstanceUID" in data_set and "StudyInstanceUID" in data_set and "PatientID" in data_set:
                found.setdefault(data_set.SOPInstanceUID, path)
    return list(found.values())


@pytest.fixture(scope="module", params=[True, False], ids=["compressed", "plain"])
def storage(
    request: pytest.FixtureRequest,
    orthanc: Path,
    dcmtk: Callable[[str], Path],
    objects: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("orthanc")
    port = free_port()
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "StorageCompression": request.param,
        "DicomPort": port,
        "HttpServerEnabled": False,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with listening_process([orthanc, folder / "orthanc.json"], port, log=folder / "log"):
        subprocess.run([dcmtk("storescu"), "-R", LOOPBACK, str(port), *objects], check=True, capture_output=True)
    return folder / "storage"


@pytest.mark.parametrize("index", [True, False], ids=["with index", "without"])
def test_all_objects_come(storage: Path, objects: list[Path], tmp_path: Path, *, index: bool) -> None:
    if not index:
        (storage / "index").rename(storage.parent / "index")
    try:
        done = run_tomowire("import", storage, "--data-dir", tmp_path / "data", "--json")
    finally:
        if not index:
            (storage.parent / "index").rename(storage / "index")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    stored = [row for row in answer["files"] if row["result"] == "stored"]
    assert len(stored) == len(objects)
    assert set(answer["results"]) <= {"stored", "skipped"}
    held = contents(tmp_path / "data")
    assert held.keys() == {dcmread(path, stop_before_pixels=True, force=True).SOPInstanceUID for path in objects}
    assert findings(tmp_path / "data") == []
    for path in objects:
        sent = dcmread(path, force=True)
        [kept] = (tmp_path / "data" / "objects").rglob(f"{sent.SOPInstanceUID}.dcm")
        pixels = dcmread(kept).get("PixelData", b"")
        assert pixels == sent.get("PixelData", b"")
