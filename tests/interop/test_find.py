"""C-FIND with other people's programs: our SCU asks DCMTK's `dcmqrscp`, pynetdicom's `qrscp` and Orthanc; theirs ask our SCP."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from types import ModuleType

import pytest
from pydicom import Dataset

from support.network import LOOPBACK, free_port, listening_process
from support.objects import Sample
from support.subprocesses import python_environment
from tomowire import (
    CEchoScu,
    CFindScu,
    Find,
    FindAnswers,
    FindRequest,
    Model,
    Peer,
    Query,
    QueryFailed,
    associate,
    listen,
    querying,
    verification,
)
from tomowire.services.identifiers import decode, encode

pytestmark = pytest.mark.interop

MANY = 120


def a_sample(number: int, study: int, patient: str, name: str, date: str, modality: str, series: int = 1) -> Sample:
    return Sample(
        number,
        series,
        study,
        patient,
        overrides={
            0x00080005: ("CS", "ISO_IR 192"),
            0x00080020: ("DA", date),
            0x00080060: ("CS", modality),
            0x00100010: ("PN", name),
            0x00200010: ("SH", f"S{study}"),
            0x00200011: ("IS", str(series)),
        },
    )


SAMPLES = [
    a_sample(1, 1, "P1", "Doe^Jane", "20240101", "CT"),
    a_sample(2, 1, "P1", "Doe^Jane", "20240101", "CT"),
    a_sample(3, 1, "P1", "Doe^Jane", "20240101", "SR", series=2),
    a_sample(4, 2, "P1", "Doe^Jane", "20240215", "MR"),
    a_sample(5, 3, "P2", "Smith^John", "20240301", "CT"),
    a_sample(6, 4, "P3", "Smithers^Waylon", "20240415", "CT"),
    a_sample(7, 5, "P4", "Müller^Jörg", "20240501", "MR"),
    *(a_sample(100 + number, 6, "P5", "Many^Images", "20240601", "CT") for number in range(MANY)),
]


def uid_of(study: int) -> str:
    return Sample(study=study).study_uid


@pytest.fixture(scope="module", params=["dcmqrscp", "qrscp", "orthanc"])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The kind of a foreign archive that has the samples, and its address."""
    folder, port = tmp_path_factory.mktemp(request.param), free_port()
    command = COMMANDS[request.param](request, folder, port)
    objects = folder / "send"
    objects.mkdir()
    for sample in SAMPLES:
        (objects / f"{sample.number}.dcm").write_bytes(sample.header + sample.data_set)
    environment = {**python_environment(), "TCP_NODELAY": "1"}
    with listening_process(command, port, log=folder / "log", cwd=folder, env=environment):
        address = f"ARCHIVE@{LOOPBACK}:{port}"
        asyncio.run(fill(address, objects))
        yield request.param, address


async def fill(address: str, objects: Path) -> None:
    async with Peer(address) as peer:
        failures = [str(sent.outcome) async for sent in peer.send(objects) if sent.is_failure]
    assert failures == []


def dcmqrscp(request: pytest.FixtureRequest, folder: Path, port: int) -> list[str | Path]:
    (folder / "storage").mkdir()
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 65536\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nARCHIVE {folder / 'storage'} RW (100, 1024mb) ANY\nAETable END\n"
    )
    program = request.getfixturevalue("dcmtk")("dcmqrscp")
    return [program, "-c", folder / "dcmqrscp.cfg"]


def qrscp(request: pytest.FixtureRequest, folder: Path, port: int) -> list[str | Path]:
    request.getfixturevalue("pynetdicom")
    (folder / "instances").mkdir()
    (folder / "qrscp.ini").write_text(
        f"[DEFAULT]\nae_title: ARCHIVE\nport: {port}\nmax_pdu: 65536\nacse_timeout: 30\ndimse_timeout: 30\n"
        f"network_timeout: 30\nbind_address: {LOOPBACK}\ninstance_location: {folder / 'instances'}\n"
        f"database_location: {folder / 'instances.sqlite'}\nlog_identifier: False\n"
    )
    return [sys.executable, "-m", "pynetdicom", "qrscp", "-c", folder / "qrscp.ini"]


def orthanc(request: pytest.FixtureRequest, folder: Path, port: int) -> list[str | Path]:
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomPort": port,
        "DicomAet": "ARCHIVE",
        "HttpServerEnabled": False,
        "DicomAlwaysAllowFind": True,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    return [request.getfixturevalue("orthanc"), folder / "orthanc.json"]


COMMANDS: dict[str, Callable[[pytest.FixtureRequest, Path, int], list[str | Path]]] = {
    "dcmqrscp": dcmqrscp,
    "qrscp": qrscp,
    "orthanc": orthanc,
}

OF_A_LIST = Query.studies().study_uid(uid_of(3), uid_of(5), "1.2.3")
STUDIES: list[tuple[Query, set[int]]] = [
    (Query.studies(), {1, 2, 3, 4, 5, 6}),
    (Query.studies().patient_name("Smith*"), {3, 4}),
    (Query.studies().patient_name("Smith^J?hn"), {3}),
    (Query.studies().patient_name("Nobody"), set()),
    (Query.studies().patient_id("P1"), {1, 2}),
    (Query.studies().accession_number("A4"), {4}),
    (Query.studies().study_date("20240201", "20240331"), {2, 3}),
    (Query.studies().study_date(None, "2024-02-15"), {1, 2}),
    (Query.studies().study_date("20240416", None), {5, 6}),
    (Query.studies().study_date("20240501"), {5}),
    (Query.study(uid_of(3)), {3}),
    (OF_A_LIST, {3, 5}),
]


def distinct(uids: list[str], kind: str) -> list[str]:
    """pynetdicom's qrscp 3.0.4 gives a study as often as it has instances."""
    return list(set(uids)) if kind == "qrscp" else uids


@pytest.mark.parametrize(("query", "studies"), STUDIES)
async def test_studies(archive: tuple[str, str], query: Query, studies: set[int]) -> None:
    kind, address = archive
    async with Peer(address) as peer:
        if kind == "qrscp" and query == OF_A_LIST:  # pynetdicom's qrscp 3.0.4 does not know lists of UIDs, and says so
            with pytest.raises(QueryFailed, match="C320H"):
                _ = [answer async for answer in peer.find(query)]
            return
        found = [answer async for answer in peer.find(query)]
    uids = [answer.StudyInstanceUID for answer in found]
    assert sorted(distinct(uids, kind)) == sorted(map(uid_of, studies))
    for answer in found:
        assert answer.QueryRetrieveLevel == "STUDY"
        assert answer.AccessionNumber == "A" + answer.StudyInstanceUID.rpartition(".")[2]


async def test_every_level(archive: tuple[str, str]) -> None:
    async with Peer(archive[1]) as peer:
        patients = {each.PatientID: str(each.PatientName) async for each in peer.find(Query.patients())}
        assert patients == {
            "P1": "Doe^Jane",
            "P2": "Smith^John",
            "P3": "Smithers^Waylon",
            "P4": "Müller^Jörg",
            "P5": "Many^Images",
        }
        series = [each async for each in peer.find(Query.series(uid_of(1)))]
        assert {(each.SeriesInstanceUID, each.Modality) for each in series} == {
            (SAMPLES[0].series_uid, "CT"),
            (SAMPLES[2].series_uid, "SR"),
        }
        images = [each async for each in peer.find(Query.images(uid_of(1), SAMPLES[0].series_uid))]
        assert {(each.SOPInstanceUID, int(each.InstanceNumber)) for each in images} == {
            (SAMPLES[0].uid, 1),
            (SAMPLES[1].uid, 2),
        }


async def test_patient_root_below_the_patient(archive: tuple[str, str]) -> None:
    query = Query.studies().patient_id("P1")
    kind, address = archive
    async with Peer(address) as peer:
        found = [each.StudyInstanceUID async for each in peer.find(query, model=Model.PATIENT_ROOT)]
    assert sorted(distinct(found, kind)) == [uid_of(1), uid_of(2)]


async def test_left_early_the_association_is_usable(archive: tuple[str, str]) -> None:
    query = Query.images(uid_of(6), SAMPLES[-1].series_uid)
    async with associate(archive[1], [verification(), querying()]) as association:
        scu = CFindScu(association)
        for left_after in (1, 5, MANY):
            async with aclosing(scu.find(query)) as answers:
                for _ in range(left_after):
                    await anext(answers)
            assert (await CEchoScu(association).echo()).is_success
        assert len([each async for each in scu.find(query)]) == MANY


async def test_a_failure_says_what_is_wrong(archive: tuple[str, str]) -> None:
    """PS3.4 C.4.1.3.1: a level that there is not is A900 or Cxxx."""
    wrong = Dataset()
    wrong.QueryRetrieveLevel = "NOWHERE"
    wrong.PatientID = ""
    async with Peer(archive[1]) as peer:
        with pytest.raises(QueryFailed, match="ARCHIVE did not answer the query") as caught:
            _ = [each async for each in peer.find(wrong)]
    assert caught.value.status == 0xA900 or caught.value.status >> 12 == 0xC


# Theirs against our SCP


async def answer(request: FindRequest) -> AsyncIterator[FindAnswers]:
    """What is asked for, three times, with names of one's own."""
    asked = decode(request.identifier, request.transfer_syntax_uid)
    if asked.get("PatientID") == "WRONG":
        raise QueryFailed(0xA900, "wrong", (0x00100020,))
    for number in range(1000 if asked.get("PatientID") == "MANY" else 3):
        asked.PatientName = f"Müller^{number}"
        await asyncio.sleep(0)
        yield FindAnswers([encode(asked, request.transfer_syntax_uid)], optional_keys_supported=number != 1)


async def findscu(program: Path, *options: str) -> str:
    async with listen(LOOPBACK, 0, services=[Find(answer)], aet="ARCHIVE") as server:
        command = [str(program), "-v", "-aec", "ARCHIVE", *options, LOOPBACK, str(server.port)]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, errors="replace", check=False, timeout=60
        )
    return done.stdout + done.stderr


@pytest.mark.parametrize("syntax", ["-x=", "-xe", "-xi"])
@pytest.mark.parametrize(("model", "level"), [("-P", "PATIENT"), ("-S", "SERIES"), ("-O", "STUDY")])
async def test_findscu_gets_the_answers(dcmtk: Callable[[str], Path], model: str, level: str, syntax: str) -> None:
    output = await findscu(
        dcmtk("findscu"), model, syntax, "-k", f"QueryRetrieveLevel={level}", "-k", "PatientID=P1", "-k", "PatientName"
    )
    assert re.findall(r"Find Response: (\d+)", output) == ["1", "2", "3"]
    assert len(re.findall("QueryRetrieveLevel", output)) >= 3
    assert all(f"^{number}" in output for number in range(3))
    assert "Received Final Find Response (Success)" in output


async def test_findscu_is_told_of_a_failure(dcmtk: Callable[[str], Path]) -> None:
    output = await findscu(dcmtk("findscu"), "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=WRONG")
    assert re.search(r"Final Find Response \((Error|Failed).*(Data|Identifier|SOP)", output), output


async def test_findscu_cancels(dcmtk: Callable[[str], Path]) -> None:
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=MANY")
    output = await findscu(dcmtk("findscu"), "-S", "--cancel", "2", *keys)
    assert "Final Find Response (Cancel" in output, output[-2000:]
    assert len(re.findall(r"Find Response: \d+", output)) < 1000


async def test_pynetdicom_gets_the_answers(pynetdicom: ModuleType) -> None:
    def ask(port: int) -> list[tuple[int, str | None]]:
        entity = pynetdicom.AE("PYNETDICOM")
        entity.add_requested_context(Model.STUDY_ROOT.find)
        association = entity.associate(LOOPBACK, port, ae_title="ARCHIVE")
        query = Query.studies().patient_id("P1").dataset()
        got = []
        for status, identifier in association.send_c_find(query, Model.STUDY_ROOT.find):
            got.append((int(status.Status), None if identifier is None else str(identifier.PatientName)))
        association.release()
        return got

    async with listen(LOOPBACK, 0, services=[Find(answer)], aet="ARCHIVE") as server:
        got = await asyncio.to_thread(ask, server.port)
    assert got == [(0xFF00, "Müller^0"), (0xFF01, "Müller^1"), (0xFF00, "Müller^2"), (0x0000, None)]
