"""Query and retrieval over TLS with other people's programs: pynetdicom, Orthanc and DCMTK, in both directions.

DCMTK's own retrieval tools speak no TLS; Orthanc uses DCMTK's library.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from support.certificates import Authority, Identity
from support.dcmqrscp import write_files
from support.filled import fill, small_hospital
from support.network import LOOPBACK, free_port, listening_process
from support.objects import ROOT, SECONDARY_CAPTURE
from support.programs import run_tomowire, serving
from tomowire.services.models import Model
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN

pytestmark = pytest.mark.interop

STUDY = f"{ROOT}.1.1"
OBJECTS = {sample.uid: sample.data_set for sample in small_hospital() if sample.number <= 5}
"""Those of `STUDY`."""
STUDIES_OF_JANE = {f"{ROOT}.1.1", f"{ROOT}.1.2"}
FIND, GET, MOVE = Model.STUDY_ROOT.find, Model.STUDY_ROOT.get, Model.STUDY_ROOT.move


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def context_of(identity: Identity | None, trusted: Authority, *, server: bool, mutual: bool) -> ssl.SSLContext:
    """For pynetdicom."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    context.load_verify_locations(trusted.file)
    if mutual or not server:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def options_of(identity: Identity | None, trusted: Authority | None) -> list[object]:
    """For a command."""
    mine = ["--tls-cert", identity.certificate, "--tls-key", identity.key] if identity is not None else []
    return [*mine, *(["--tls-ca", trusted.file] if trusted is not None else [])]


def files_below(folder: Path) -> dict[str, bytes]:
    """SOP Instance UID and data set of each file that a command has written."""
    found = {}
    for path in folder.rglob("*.dcm"):
        data_set = dcmread(path)
        found[str(data_set.SOPInstanceUID)] = path.read_bytes()[-len(OBJECTS[data_set.SOPInstanceUID]) :]
    return found


# Their requestors, this archive


@dataclass
class Kept:
    """What pynetdicom has received."""

    objects: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, event: Any) -> int:
        with self.lock:
            self.objects[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
        return 0x0000


@dataclass(frozen=True)
class Archive:
    port: int
    destination: int
    mutual: bool


@pytest.fixture(scope="module", params=["one side", "both sides"])
def archive(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Archive]:
    """With certificates on one side or both, and a destination at a port where nobody listens yet."""
    mutual, data_dir, port = request.param == "both sides", tmp_path_factory.mktemp("archive") / "data", free_port()
    asyncio.run(fill(data_dir, small_hospital()))
    options = options_of(authority.sign(LOOPBACK, rsa=True), authority if mutual else None)
    node = ["--node", f"DEST@{LOOPBACK}:{port},tls", "--node-tls-ca", authority.file]
    with serving("serve", "--data-dir", data_dir, *node, *options) as program:
        yield Archive(program.port, port, mutual)


@contextmanager
def association(pynetdicom: ModuleType, archive: Archive, authority: Authority, kept: Kept) -> Iterator[Any]:
    entity = pynetdicom.AE("PYNETDICOM")
    for uid in (FIND, GET, MOVE):
        entity.add_requested_context(uid)
    entity.add_requested_context(SECONDARY_CAPTURE, EXPLICIT_VR_LITTLE_ENDIAN)
    mine = authority.sign("pynetdicom") if archive.mutual else None
    context = context_of(mine, authority, server=False, mutual=archive.mutual)
    opened = entity.associate(
        LOOPBACK,
        archive.port,
        ae_title="TOMOWIRE",
        ext_neg=[pynetdicom.build_role(SECONDARY_CAPTURE, scp_role=True)],
        evt_handlers=[(pynetdicom.evt.EVT_C_STORE, kept.keep)],
        tls_args=(context, LOOPBACK),
    )
    assert opened.is_established
    try:
        yield opened
    finally:
        opened.release()


def identifier(level: str, **keys: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def test_pynetdicom_finds_gets_and_moves(archive: Archive, authority: Authority, pynetdicom: ModuleType) -> None:
    got, moved = Kept(), Kept()
    entity = pynetdicom.AE("DEST")
    entity.add_supported_context(SECONDARY_CAPTURE, EXPLICIT_VR_LITTLE_ENDIAN)
    destination = entity.start_server(
        (LOOPBACK, archive.destination),
        block=False,
        evt_handlers=[(pynetdicom.evt.EVT_C_STORE, moved.keep)],
        ssl_context=context_of(authority.sign(LOOPBACK, rsa=True), authority, server=True, mutual=archive.mutual),
    )
    try:
        with association(pynetdicom, archive, authority, got) as opened:
            found = [*opened.send_c_find(identifier("STUDY", PatientID="JANE", StudyInstanceUID=""), FIND)]
            gets = [*opened.send_c_get(identifier("STUDY", StudyInstanceUID=STUDY), GET)]
            moves = [*opened.send_c_move(identifier("STUDY", StudyInstanceUID=STUDY), "DEST", MOVE)]
    finally:
        destination.shutdown()
    assert {answer.StudyInstanceUID for _, answer in found if answer is not None} == STUDIES_OF_JANE
    assert [int(status.Status) for status, _ in (found[-1], gets[-1], moves[-1])] == [0, 0, 0]
    assert got.objects == moved.objects == OBJECTS


def test_findscu_finds(archive: Archive, authority: Authority, dcmtk: Callable[[str], Path]) -> None:
    mine = authority.sign("dcmtk", rsa=True)
    tls = ["+tls", mine.key, mine.certificate, "+cf", authority.file]
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=JANE", "-k", "StudyInstanceUID"]
    command = [dcmtk("findscu"), "-S", *tls, "-aec", "TOMOWIRE", *keys, LOOPBACK, archive.port]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(uid in done.stdout + done.stderr for uid in STUDIES_OF_JANE)


# Our requestors, their archives


class _Answers:
    """A small archive of pynetdicom's, with the objects of `STUDY`."""

    def __init__(self, destination: tuple[str, int, dict[str, Any]], objects: list[Dataset]) -> None:
        self._destination = destination
        self._objects = objects

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        level = event.identifier.QueryRetrieveLevel
        unique = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[level]
        seen = set()
        for each in self._selected(event.identifier):
            if each[unique].value not in seen:
                seen.add(each[unique].value)
                answer = Dataset()
                for element in event.identifier:
                    answer[element.tag] = each.get(element.tag, element)
                answer.QueryRetrieveLevel = level
                yield 0xFF00, answer

    def get(self, event: Any) -> Iterator[Any]:
        selected = self._selected(event.identifier)
        yield len(selected)
        for each in selected:
            yield 0xFF00, each

    def move(self, event: Any) -> Iterator[Any]:
        yield self._destination
        yield from self.get(event)

    def _selected(self, query: Dataset) -> list[Dataset]:
        keys = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        asked = {
            key: set(query[key].value if query[key].VM > 1 else [query[key].value]) for key in keys if query.get(key)
        }
        return [each for each in self._objects if all(each[key].value in asked[key] for key in asked)]


@pytest.fixture(params=["one side", "both sides"])
def scp(
    request: pytest.FixtureRequest, tmp_path: Path, authority: Authority, pynetdicom: ModuleType
) -> Iterator[tuple[str, int, bool]]:
    """The address of a `_Answers`, the port at which it knows DEST, and whether it asks for certificates."""
    mutual, port = request.param == "both sides", free_port()
    write_files(tmp_path / "theirs", [sample for sample in small_hospital() if sample.number <= 5])
    objects = [dcmread(path) for path in sorted((tmp_path / "theirs").iterdir())]
    entity = pynetdicom.AE("ARCHIVE")
    for uid in (FIND, GET, MOVE):
        entity.add_supported_context(uid)
    entity.add_supported_context(SECONDARY_CAPTURE, EXPLICIT_VR_LITTLE_ENDIAN, scu_role=True, scp_role=True)
    entity.add_requested_context(SECONDARY_CAPTURE, EXPLICIT_VR_LITTLE_ENDIAN)
    theirs = context_of(authority.sign("pynetdicom"), authority, server=False, mutual=mutual)
    store = pynetdicom.build_context(SECONDARY_CAPTURE, EXPLICIT_VR_LITTLE_ENDIAN)
    answers = _Answers((LOOPBACK, port, {"tls_args": (theirs, LOOPBACK), "contexts": [store]}), objects)
    events = pynetdicom.evt
    handlers = [(events.EVT_C_FIND, answers.find), (events.EVT_C_GET, answers.get), (events.EVT_C_MOVE, answers.move)]
    context = context_of(authority.sign(LOOPBACK), authority, server=True, mutual=mutual)
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers, ssl_context=context)
    try:
        yield f"ARCHIVE@{LOOPBACK}:{server.socket.getsockname()[1]}", port, mutual
    finally:
        server.shutdown()


@pytest.mark.parametrize("method", ["get", "move"])
def test_objects_of_pynetdicom_are_retrieved(
    scp: tuple[str, int, bool], authority: Authority, tmp_path: Path, method: str
) -> None:
    address, port, mutual = scp
    mine = options_of(authority.sign(LOOPBACK) if mutual or method == "move" else None, authority)
    move = ("--method", "move", "--aet", "DEST", "--bind", LOOPBACK, "--port", port, "--receive-tls")
    shown = () if mutual else ("--tls-client-auth", "none")
    options = (*move, *shown) if method == "move" else ()
    done = run_tomowire("retrieve", address, "--study-uid", STUDY, "-o", tmp_path / "got", *options, *mine)
    assert done.returncode == 0, done.stderr
    assert set(files_below(tmp_path / "got")) == set(OBJECTS)


def test_studies_of_pynetdicom_are_found(scp: tuple[str, int, bool], authority: Authority) -> None:
    address, _, mutual = scp
    mine = options_of(authority.sign("tomowire") if mutual else None, authority)
    done = run_tomowire("query", address, "--format", "json", *mine)
    assert done.returncode == 0, done.stderr
    assert [each["0020000D"]["Value"] for each in json.loads(done.stdout)] == [[STUDY]]


@pytest.fixture(scope="module")
def orthanc_archive(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[tuple[str, int]]:
    """Orthanc with mutual TLS; its address, and the port at which it knows DEST, with TLS too."""
    program = request.getfixturevalue("orthanc")
    folder, port, destination = tmp_path_factory.mktemp("orthanc"), free_port(), free_port()
    identity = authority.sign(LOOPBACK, rsa=True)
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomPort": port,
        "DicomAet": "ARCHIVE",
        "HttpServerEnabled": False,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(identity.certificate),
        "DicomTlsPrivateKey": str(identity.key),
        "DicomTlsTrustedCertificates": str(authority.file),
        "DicomModalities": {"dest": {"AET": "DEST", "Host": LOOPBACK, "Port": destination, "UseDicomTls": True}},
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    address = f"ARCHIVE@{LOOPBACK}:{port}"
    with listening_process([program, folder / "orthanc.json"], port, log=folder / "log", cwd=folder):
        write_files(folder / "send", [sample for sample in small_hospital() if sample.number <= 5])
        sent = run_tomowire("send", address, folder / "send", *options_of(authority.sign("t", rsa=True), authority))
        assert sent.returncode == 0, sent.stderr
        yield address, destination


@pytest.mark.parametrize("method", ["get", "move"])
def test_orthanc_stores_and_is_asked_for_its_objects(
    orthanc_archive: tuple[str, int], authority: Authority, tmp_path: Path, method: str
) -> None:
    address, port = orthanc_archive
    mine = options_of(authority.sign(LOOPBACK, rsa=True), authority)
    found = run_tomowire("query", address, "--format", "json", *mine)
    assert [each["0020000D"]["Value"] for each in json.loads(found.stdout)] == [[STUDY]], found.stderr
    move = ("--method", "move", "--aet", "DEST", "--bind", LOOPBACK, "--port", port, "--receive-tls")
    options = move if method == "move" else ()
    done = run_tomowire("retrieve", address, "--study-uid", STUDY, "-o", tmp_path / "got", *options, *mine)
    assert done.returncode == 0, done.stderr
    assert files_below(tmp_path / "got") == OBJECTS  # as they were
