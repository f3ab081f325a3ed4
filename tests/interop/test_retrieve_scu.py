"""C-GET and C-MOVE asked of other people's archives: DCMTK's `dcmqrscp`, pynetdicom's `qrscp` and Orthanc."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from support.network import LOOPBACK, free_port, listening_process
from support.objects import Sample
from support.subprocesses import python_environment
from tomowire import (
    CEchoScu,
    CGetScu,
    CMoveScu,
    Model,
    NotConfirmed,
    Peer,
    Progress,
    Query,
    Retrieved,
    RetrieveFailed,
    Server,
    Status,
    Storage,
    StoreRequest,
    SubOperationFailed,
    associate,
    getting,
    listen,
    moving,
    verification,
)
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.part10 import FileMeta, encode_file_meta

pytestmark = pytest.mark.interop

IMAGE_CLASSES = "1.2.840.10008.5.1.4.1.1."
CT, MR, SR, SC = (IMAGE_CLASSES + end for end in ("2", "4", "88.33", "7"))
MANY = 60
MANY_CLASSES = [
    IMAGE_CLASSES + end
    for end in (
        "1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "2", "2.1", "3.1", "4", "4.1", "6.1", "7", "7.1", "7.2", "7.3", "7.4",
        "12.1", "12.2", "20", "128",
    )
]  # fmt: skip


@dataclass(frozen=True)
class An:
    """An object, with the class that it says it is of."""

    sample: Sample
    sop_class: str

    @property
    def file(self) -> bytes:
        return (
            encode_file_meta(FileMeta(self.sop_class, self.sample.uid, EXPLICIT_VR_LITTLE_ENDIAN))
            + self.sample.data_set
        )


def an(number: int, study: int, patient: str, sop_class: str, series: int = 1) -> An:
    name = {"P1": "Doe^Jane", "P2": "Smith^John"}.get(patient, "Many^Images")
    overrides = {0x00080016: ("UI", sop_class), 0x00100010: ("PN", name), 0x00200011: ("IS", str(series))}
    return An(Sample(number, series, study, patient, overrides=overrides), sop_class)


OBJECTS = [
    an(1, 1, "P1", CT),
    an(2, 1, "P1", CT),
    an(3, 1, "P1", SR, series=2),
    an(4, 2, "P1", MR),
    an(5, 3, "P2", SC),
    *(an(100 + number, 4, "P3", CT) for number in range(MANY)),
    *(an(300 + number, 5, "P4", uid, series=number) for number, uid in enumerate(MANY_CLASSES)),
]
DOE = {each.sample.uid for each in OBJECTS[:4]}


def uid(number: int) -> str:
    return Sample(number).uid


@dataclass(frozen=True)
class Archive:
    kind: str
    address: str
    destination_port: int


@pytest.fixture(scope="module", params=["dcmqrscp", "qrscp", "orthanc"])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """A foreign archive that has the objects, and knows the destination DEST at a port where nobody listens yet."""
    folder, port, destination = tmp_path_factory.mktemp(request.param), free_port(), free_port()
    command = COMMANDS[request.param](request, folder, port, destination)
    objects = folder / "send"
    objects.mkdir()
    for each in OBJECTS:
        (objects / f"{each.sample.number}.dcm").write_bytes(each.file)
    environment = {**python_environment(), "TCP_NODELAY": "1"}
    with listening_process(command, port, log=folder / "log", cwd=folder, env=environment):
        address = f"ARCHIVE@{LOOPBACK}:{port}"
        asyncio.run(fill(address, objects))
        yield Archive(request.param, address, destination)


async def fill(address: str, *paths: Path) -> None:
    async with Peer(address) as peer:
        failures = [str(sent.outcome) async for sent in peer.send(*paths) if sent.is_failure]
    assert failures == []


def dcmqrscp(request: pytest.FixtureRequest, folder: Path, port: int, destination: int) -> list[str | Path]:
    (folder / "storage").mkdir()
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 65536\nMaxAssociations = 16\n"
        f"HostTable BEGIN\ndest = (DEST, {LOOPBACK}, {destination})\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nARCHIVE {folder / 'storage'} RW (100, 1024mb) ANY\nAETable END\n"
    )
    return [request.getfixturevalue("dcmtk")("dcmqrscp"), "-c", folder / "dcmqrscp.cfg"]


def qrscp(request: pytest.FixtureRequest, folder: Path, port: int, destination: int) -> list[str | Path]:
    request.getfixturevalue("pynetdicom")
    (folder / "instances").mkdir()
    (folder / "qrscp.ini").write_text(
        f"[DEFAULT]\nae_title: ARCHIVE\nport: {port}\nmax_pdu: 65536\nacse_timeout: 30\ndimse_timeout: 30\n"
        f"network_timeout: 30\nbind_address: {LOOPBACK}\ninstance_location: {folder / 'instances'}\n"
        f"database_location: {folder / 'instances.sqlite'}\nlog_identifier: False\n"
        f"[DEST]\naddress: {LOOPBACK}\nport: {destination}\n"
    )
    return [sys.executable, "-m", "pynetdicom", "qrscp", "-c", folder / "qrscp.ini"]


def orthanc(request: pytest.FixtureRequest, folder: Path, port: int, destination: int) -> list[str | Path]:
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomPort": port,
        "DicomAet": "ARCHIVE",
        "HttpServerEnabled": False,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {"dest": ["DEST", LOOPBACK, destination]},
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    return [request.getfixturevalue("orthanc"), folder / "orthanc.json"]


COMMANDS: dict[str, Callable[[pytest.FixtureRequest, Path, int, int], list[str | Path]]] = {
    "dcmqrscp": dcmqrscp,
    "qrscp": qrscp,
    "orthanc": orthanc,
}


QUERIES: list[tuple[Query, set[str]]] = [
    (Query.patients().patient_id("P1"), DOE),
    (Query.patients().patient_name("Doe*"), DOE),
    (Query.study(Sample(study=1).study_uid), {uid(1), uid(2), uid(3)}),
    (Query.studies().patient_name("Doe^Jane"), DOE),
    (Query.series(Sample(study=1).study_uid), {uid(1), uid(2), uid(3)}),
    (Query.series(Sample(study=1).study_uid).modality("OT").series_uid(Sample(series=2).series_uid), {uid(3)}),
    (Query.images(Sample().study_uid, Sample().series_uid), {uid(1), uid(2)}),
    (Query.images(Sample().study_uid, Sample().series_uid).sop_instance_uid(uid(2)), {uid(2)}),
    (Query.studies().patient_name("Nobody"), set()),
]


@pytest.mark.parametrize(("query", "expected"), QUERIES)
async def test_get(archive: Archive, query: Query, expected: set[str], tmp_path: Path) -> None:
    async with Peer(archive.address) as peer:
        news = [each async for each in peer.get(query, tmp_path)]
    got = [each for each in news if isinstance(each, Retrieved)]
    assert {each.sop_instance_uid for each in got} == expected
    assert len(got) == len(expected)
    for each in got:
        assert each.status == 0
        assert each.path is not None
        assert dcmread(each.path).SOPInstanceUID == each.sop_instance_uid
    progress = [each for each in news if isinstance(each, Progress)]
    assert (progress[-1].remaining, progress[-1].completed, progress[-1].failed) == (0, len(expected), 0)
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


async def test_a_key_that_matches_nothing_never_brings_everything(archive: Archive, tmp_path: Path) -> None:
    """dcmqrscp and qrscp do not know the key at this level, and answer with all that they have."""
    async with Peer(archive.address) as peer:
        news = peer.get(Query.studies().modality("NM"), tmp_path / "got")
        if archive.kind != "orthanc":
            with pytest.raises(NotConfirmed, match="ModalitiesInStudy"):
                assert [each async for each in news if isinstance(each, Retrieved)] == []
        else:
            assert [each async for each in news if isinstance(each, Retrieved)] == []


async def test_many_classes_come_over_several_associations(archive: Archive, tmp_path: Path) -> None:
    async with Peer(archive.address) as peer:
        news = [each async for each in peer.get(Query.study(Sample(study=5).study_uid), tmp_path)]
    got = {each.sop_instance_uid: each.sop_class_uid for each in news if isinstance(each, Retrieved)}
    assert got == {Sample(300 + number).uid: sop_class for number, sop_class in enumerate(MANY_CLASSES)}


async def test_what_is_stored_comes_as_it_is_stored(archive: Archive, tmp_path: Path) -> None:
    if archive.kind != "orthanc":
        pytest.skip(
            "DCMTK's archive takes nothing compressed; neither it nor pynetdicom's tells the classes of its objects"
        )
    files = [Path(str(get_testdata_file(name, download=False))) for name in ("MR_small_RLE.dcm", "JPEG2000.dcm")]
    await asyncio.to_thread(lambda: asyncio.run(fill(archive.address, *files)))
    for file in files:
        stored = dcmread(file)
        async with Peer(archive.address) as peer:
            news = [each async for each in peer.get(Query.study(stored.StudyInstanceUID), tmp_path)]
        got = {each.sop_instance_uid: each for each in news if isinstance(each, Retrieved)}
        object_of_it = got[stored.SOPInstanceUID]
        assert object_of_it.transfer_syntax_uid == stored.file_meta.TransferSyntaxUID
        assert dcmread(str(object_of_it.path)).PixelData == stored.PixelData


async def tell(progress: AsyncGenerator[Progress, None], told: list[Progress]) -> None:
    async for each in progress:
        told.append(each)  # noqa: PERF401  an extension would lose them when it raises


@pytest.mark.parametrize("model", [Model.PATIENT_ROOT, Model.STUDY_ROOT])
async def test_get_on_an_association_of_ones_own(archive: Archive, model: Model) -> None:
    received: list[str] = []

    async def keep(request: StoreRequest) -> Status:
        received.append(request.sop_instance_uid)
        return Status(0xB000 if request.sop_instance_uid == uid(1) else 0)

    query = Query.study(Sample(study=1).study_uid)
    query = query.patient_id("P1") if model is Model.PATIENT_ROOT else query
    contexts = [verification(), getting(CT, model=model)]
    async with associate(archive.address, contexts, services=[Storage(keep)]) as association:
        progress: list[Progress] = []
        with pytest.raises((ExceptionGroup, RetrieveFailed)) as caught:
            await tell(CGetScu(association).get(query, model=model), progress)
        assert (await CEchoScu(association).echo()).is_success
    # The report had no presentation context.
    assert progress[-1].failed == 1
    if archive.kind == "orthanc":  # 1.10 stops there, with C000H
        assert isinstance(caught.value, RetrieveFailed)
        return
    assert sorted(received) == [uid(1), uid(2)]
    assert isinstance(caught.value, ExceptionGroup)
    assert [getattr(each, "sop_instance_uid", None) for each in caught.value.exceptions] in ([uid(3)], [None])
    assert progress[-1].completed + progress[-1].warning == 2


@dataclass
class Destination:
    """Where objects are moved to: it refuses some, and warns of others."""

    received: list[str]
    statuses: dict[str, int]

    async def keep(self, request: StoreRequest) -> Status:
        status = Status(self.statuses.get(request.sop_instance_uid, 0))
        await request.data.pass_over()
        # pynetdicom 3.0.4 drops an answer that comes before its own thread waits for it ("unexpected C-STORE service message").
        await asyncio.sleep(0.005)
        if not status.is_failure:
            self.received.append(request.sop_instance_uid)
        return status

    def listening(self, archive: Archive) -> Server:
        services = [Storage(self.keep)]
        return listen(LOOPBACK, archive.destination_port, services=services, aet="DEST", shutdown_grace=2.0)


@pytest.mark.parametrize(("query", "expected"), QUERIES)
async def test_move(archive: Archive, query: Query, expected: set[str]) -> None:
    destination = Destination([], {})
    async with destination.listening(archive), Peer(archive.address, aet="MOVER") as peer:
        progress = [each async for each in peer.move(query, "DEST")]
    assert sorted(destination.received) == sorted(expected)
    assert (progress[-1].remaining, progress[-1].completed, progress[-1].failed) == (0, len(expected), 0)


async def test_what_the_destination_refuses(archive: Archive) -> None:
    destination = Destination([], {uid(101): 0xA900, uid(102): 0xB007})
    query = Query.study(Sample(study=4).study_uid)
    async with (
        destination.listening(archive),
        associate(archive.address, [verification(), moving()], aet="MOVER") as association,
    ):
        progress: list[Progress] = []
        with pytest.raises((ExceptionGroup, RetrieveFailed)) as caught:
            await tell(CMoveScu(association).move(query, "DEST"), progress)
        assert (await CEchoScu(association).echo()).is_success
    if archive.kind == "orthanc":  # 1.10 stops there, with C000H
        assert isinstance(caught.value, RetrieveFailed)
        return
    assert isinstance(caught.value, ExceptionGroup)
    assert len(destination.received) == MANY - 1
    (failure,) = caught.value.exceptions
    assert isinstance(failure, SubOperationFailed)
    assert failure.sop_instance_uid in (uid(101), None)
    assert progress[-1].failed == 1


async def test_an_unknown_destination(archive: Archive) -> None:
    async with Peer(archive.address, aet="MOVER") as peer:
        with pytest.raises(RetrieveFailed) as caught:
            _ = [each async for each in peer.move(Query.study(Sample().study_uid), "NOWHERE")]
    if archive.kind != "orthanc":
        assert caught.value.status == 0xA801
        assert "does not know the destination 'NOWHERE'" in str(caught.value)


@pytest.mark.parametrize("left_after", [1, 5, MANY])
async def test_a_move_left_early(archive: Archive, left_after: int) -> None:
    destination = Destination([], {})
    query = Query.study(Sample(study=4).study_uid)
    async with (
        destination.listening(archive),
        associate(archive.address, [verification(), moving()], aet="MOVER") as association,
    ):
        async with aclosing(CMoveScu(association).move(query, "DEST", grace=10)) as progress:
            for _ in range(left_after):
                await anext(progress, None)  # of two that have come only the later is told
        assert (await CEchoScu(association).echo()).is_success


@pytest.mark.parametrize("cancellation", ["complete_in_flight", "reject_in_flight"])
@pytest.mark.parametrize("left_after", [1, 5])
async def test_a_get_left_early(archive: Archive, left_after: int, cancellation: str, tmp_path: Path) -> None:
    query = Query.study(Sample(study=4).study_uid)
    async with Peer(archive.address) as peer:
        news = peer.get(query, tmp_path, cancellation=cancellation, grace=10)  # type: ignore[arg-type]
        got = 0
        async with aclosing(news):
            async for each in news:
                got += isinstance(each, Retrieved)
                if got == left_after:
                    break
        kept = len(os.listdir(tmp_path))
        assert left_after <= kept <= MANY
        assert [each async for each in peer.find(query)] != []
