"""`tomowire retrieve` as a process: what comes, under which names, what it does not get again, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset

from support.dcmqrscp import dcmqrscp, write_files
from support.dcmtk import read_object
from support.network import LOOPBACK, free_port
from support.objects import ROOT, SECONDARY_CAPTURE, Sample
from support.programs import Program, run_on_a_terminal, run_tomowire, serving, start, tomowire
from support.raw_peer import (
    ECHO,
    RawPeer,
    associate_rq,
    command_pdu,
    echo_rq,
    message_pdus,
    p_data,
    raw_acceptor,
    store_rq,
)
from support.retrievals import Stock, Unmoved
from support.stored import files_below
from tomowire import Find, FindAnswers, FindRequest, Server, Storage, StoreRequest, Verification, listen
from tomowire.services.dicom_file import inspect
from tomowire.services.get_scp import Get
from tomowire.services.identifiers import encode
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CCancelRQ, CMoveRQ, CMoveRSP

STUDY, OTHER = f"{ROOT}.1.1", f"{ROOT}.1.2"
SERIES = f"{ROOT}.2.1.1"
JANE = {0x00100010: ("PN", "Doe^Jane"), 0x00080060: ("CS", "CT")}
JOHN = {0x00100010: ("PN", "Smith^John"), 0x00080060: ("CS", "MR")}
SAMPLES = [
    *(Sample(number, overrides=JANE) for number in (1, 2)),
    Sample(3, series=2, overrides=JANE),
    Sample(4, study=2, overrides=JANE, size=3 << 20),
    Sample(5, study=3, patient_id="../../P2", overrides=JOHN),
]
DATA_SETS = {sample.uid: sample.data_set for sample in SAMPLES}


@dataclass(frozen=True)
class Archive:
    """An archive that has the samples, and knows DEST at `destination`, a port of this machine."""

    peer: str
    destination: int
    data_dir: Path | None = None

    def by(self, method: str) -> list[str]:
        """Options for that method."""
        return ["--method", method, "--aet", "DEST", *(["--port", str(self.destination)] if method == "move" else [])]


@pytest.fixture(scope="module", params=["tomowire", pytest.param("dcmqrscp", marks=pytest.mark.interop)])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "tomowire":
        with own_archive(folder) as made:
            yield made
        return
    destination = free_port()
    program = request.getfixturevalue("dcmtk")("dcmqrscp")
    with dcmqrscp(program, folder, SAMPLES, destination) as address:
        yield Archive(address, destination)


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Archive]:
    """An archive of our own, for one test to spoil."""
    with own_archive(tmp_path / "archive") as made:
        yield made


@contextmanager
def own_archive(folder: Path) -> Iterator[Archive]:
    destination = free_port()
    folder.mkdir(exist_ok=True)
    write_files(folder / "send", SAMPLES)
    node = f"DEST@{LOOPBACK}:{destination}"
    with serving("serve", "--data-dir", folder / "data", "--aet", "ARCHIVE", "--node", node) as program:
        peer = f"ARCHIVE@{LOOPBACK}:{program.port}"
        assert run_tomowire("send", peer, folder / "send").returncode == 0
        yield Archive(peer, destination, folder / "data")


def data_sets(folder: Path) -> dict[str, bytes]:
    """SOP Instance UID -> data set, of all files in a folder; nothing else may be there."""
    read = [read_object(path) for path in sorted(folder.rglob("*")) if path.is_file()]
    found = {each.sop_instance_uid: each.data_set for each in read}
    assert len(found) == len(read)
    return found


def expected(*numbers: int) -> dict[str, bytes]:
    return {Sample(number).uid: DATA_SETS[Sample(number).uid] for number in numbers}


@pytest.mark.parametrize("method", ["get", "move"])
@pytest.mark.parametrize(
    ("keys", "numbers"),
    [
        (["--study-uid", STUDY], (1, 2, 3)),
        (["--study-uid", STUDY, "--study-uid", OTHER], (1, 2, 3, 4)),
        (["--patient", "Smith*"], (5,)),
        (["-L", "patient", "--patient-id", "P1"], (1, 2, 3, 4)),
        (["-L", "series", "--study-uid", STUDY, "--modality", "CT"], (1, 2, 3)),
        (["-L", "image", "--study-uid", STUDY, "--series-uid", SERIES, "-k", f"SOPInstanceUID={ROOT}.3.2"], (2,)),
    ],
)
async def test_what_comes(
    keys: list[str], numbers: tuple[int, ...], method: str, archive: Archive, tmp_path: Path
) -> None:
    """The data sets bit by bit, in files of their UIDs."""
    done = await tomowire("retrieve", archive.peer, "-o", tmp_path / "out", *archive.by(method), *keys)
    assert (done.code, done.stdout) == (0, ""), done.stderr
    assert data_sets(tmp_path / "out") == expected(*numbers)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{Sample(number).uid}.dcm" for number in numbers}
    assert re.fullmatch(rf"tomowire: {len(numbers)} retrieved \([0-9.]+ MB in [0-9.]+ s, \d+ MB/s\)\n", done.stderr)


@pytest.mark.parametrize("method", ["get", "move"])
async def test_the_summary_for_programs(method: str, archive: Archive, tmp_path: Path) -> None:
    keys = ["--study-uid", STUDY, "--study-uid", OTHER]
    done = await tomowire("retrieve", archive.peer, "-o", tmp_path, *archive.by(method), *keys, "--json")
    assert (done.code, done.stderr) == (0, "")
    summary = done.json
    rows = {row["sop_instance_uid"]: row for row in summary.pop("objects")}
    assert summary.pop("seconds") > 0
    sizes = {uid: len(data_set) for uid, data_set in expected(1, 2, 3, 4).items()}
    assert summary == {
        "peer": archive.peer,
        "method": method,
        "bytes": sum(sizes.values()),
        "stored": 4,
        "failed": 0,
        "resumed": 0,
        "not_retrieved": 0,
        "interrupted": False,
        "error": None,
    }
    assert rows[SAMPLES[0].uid] == {
        "sop_instance_uid": SAMPLES[0].uid,
        "outcome": "stored",
        "reason": None,
        "path": str(tmp_path / f"{SAMPLES[0].uid}.dcm"),
        "bytes": sizes[SAMPLES[0].uid],
        "replaced": False,
        "sop_class_uid": SECONDARY_CAPTURE,
        "transfer_syntax_uid": SAMPLES[0].transfer_syntax_uid,
    }
    assert {uid: row["bytes"] for uid, row in rows.items()} == sizes


async def test_what_the_answers_do_not_confirm_is_retrieved_only_when_asked_for(ours: Archive, tmp_path: Path) -> None:
    """Body Part Examined is no key of a study, and the archive answers with all of them (PS3.4 C.2.2.1.3)."""
    asking = ["retrieve", ours.peer, "-o", tmp_path / "out", "-k", "BodyPartExamined=HAND"]
    refused = await tomowire(*asking)
    assert refused.code == 1
    assert "do not confirm BodyPartExamined" in refused.stderr
    assert data_sets(tmp_path / "out") == {}
    done = await tomowire(*asking, "--unconfirmed")
    assert len(data_sets(tmp_path / "out")) > 4
    assert "BodyPartExamined" not in done.stderr


async def test_names_are_made_of_a_template_and_lead_nowhere_else(archive: Archive, tmp_path: Path) -> None:
    template = "{patient_id}/{modality}/{sop_instance_uid}.dcm"
    done = await tomowire("retrieve", archive.peer, "-o", tmp_path / "out", "--patient", "*", "--name", template)
    assert done.code == 0, done.stderr
    files = files_below(tmp_path, ".")
    assert f"out/P1/CT/{SAMPLES[0].uid}.dcm" in files
    assert f"out/_.._P2/MR/{SAMPLES[4].uid}.dcm" in files
    assert len(files) == len(SAMPLES)


async def test_a_name_that_two_objects_may_have_is_told(archive: Archive, tmp_path: Path) -> None:
    keys = ["--study-uid", STUDY, "--name", "{series_number}-{instance_number}"]
    done = await tomowire("retrieve", archive.peer, "-o", tmp_path, *keys)
    assert done.code == 0
    assert done.stderr.startswith("tomowire: without {sop_instance_uid} in --name two objects may get the same name")


async def test_progress_on_a_terminal(archive: Archive, tmp_path: Path) -> None:
    arguments = ["retrieve", archive.peer, "-o", tmp_path, "--study-uid", STUDY]
    output = await asyncio.to_thread(run_on_a_terminal, arguments)
    assert f"from {archive.peer[:7]}".encode() in output
    assert b"3/3" in output, "objects, and how many there are"
    assert b" MB, " in output


@pytest.mark.parametrize("method", ["get", "move"])
async def test_what_is_there_is_not_got_again(method: str, archive: Archive, tmp_path: Path) -> None:
    """Of one series a part is missing, of another the whole; names do not matter, and what is hidden may be half a file."""
    write_files(tmp_path / "out", [SAMPLES[0], SAMPLES[3]])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / ".incoming-1").mkdir()
    half = SAMPLES[1].header + SAMPLES[1].data_set[:-10]
    (tmp_path / "out" / ".incoming-1" / "0").write_bytes(half)
    arguments = [
        "retrieve",
        archive.peer,
        "-o",
        tmp_path / "out",
        "--patient-id",
        "P1",
        "--resume",
        *archive.by(method),
    ]
    done = await tomowire(*arguments, "--json")
    assert (done.code, done.stderr) == (0, "")
    assert (done.json["stored"], done.json["resumed"], done.json["failed"]) == (2, 2, 0)
    outcomes = {row["sop_instance_uid"]: row["outcome"] for row in done.json["objects"]}
    assert outcomes == dict(zip(DATA_SETS, ("resumed", "stored", "stored", "resumed"), strict=False))
    assert {row["path"] for row in done.json["objects"] if row["outcome"] == "resumed"} == set(map(str, before))
    assert data_sets(tmp_path / "out") == expected(1, 2, 3, 4)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    again = await tomowire(*arguments)
    assert again.code == 0
    assert "0 retrieved" in again.stderr
    assert again.stderr.endswith(", 4 there before\n")


async def test_a_file_that_is_cut_short_is_got_again(archive: Archive, tmp_path: Path) -> None:
    """Another program wrote it, and had no room for the end."""
    write_files(tmp_path, SAMPLES[:3])
    (tmp_path / "2.dcm").write_bytes((SAMPLES[1].header + SAMPLES[1].data_set)[:-1])
    done = await tomowire("retrieve", archive.peer, "-o", tmp_path, "--study-uid", STUDY, "--resume", "--json")
    assert (done.code, done.json["stored"], done.json["resumed"]) == (0, 1, 2)
    assert read_object(tmp_path / f"{SAMPLES[1].uid}.dcm").data_set == SAMPLES[1].data_set


@pytest.mark.parametrize(
    ("level", "stored", "there"), [("patient", 3, 1), ("study", 3, 1), ("series", 2, 1), ("image", 1, 1)]
)
async def test_it_goes_on_at_every_level(level: str, stored: int, there: int, archive: Archive, tmp_path: Path) -> None:
    write_files(tmp_path, [SAMPLES[0]])
    keys = {
        "patient": ["--patient-id", "P1"],
        "study": ["--patient-id", "P1"],
        "series": ["--study-uid", STUDY],
        "image": ["--study-uid", STUDY, "--series-uid", SERIES],
    }
    done = await tomowire("retrieve", archive.peer, "-o", tmp_path, "-L", level, *keys[level], "--resume", "--json")
    assert (done.code, done.stderr) == (0, "")
    assert (done.json["stored"], done.json["resumed"]) == (stored, there)


async def test_without_resume_all_is_got_again(archive: Archive, tmp_path: Path) -> None:
    for replaced in (False, True):
        done = await tomowire("retrieve", archive.peer, "-o", tmp_path, "--study-uid", OTHER, "--json")
        assert [row["replaced"] for row in done.json["objects"]] == [replaced]


@pytest.mark.parametrize("method", ["get", "move"])
async def test_nothing_that_matches_is_a_failure(method: str, archive: Archive, tmp_path: Path) -> None:
    done = await tomowire("retrieve", archive.peer, "-o", tmp_path, "--patient", "Nobody", *archive.by(method))
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == f"tomowire: {archive.peer} has nothing that matches\n"
    assert not any(os.scandir(tmp_path)), "nothing is left"


@pytest.mark.parametrize("method", ["get", "move"])
async def test_what_the_peer_cannot_send_is_told_and_the_rest_comes(method: str, ours: Archive, tmp_path: Path) -> None:
    assert ours.data_dir is not None
    lost = SAMPLES[1]
    spoil(ours.data_dir, lost)
    arguments = ["retrieve", ours.peer, "-o", tmp_path / "out", "--patient-id", "P1", *ours.by(method)]
    done = await tomowire(*arguments, "--json")
    assert done.code == 1
    assert data_sets(tmp_path / "out") == expected(1, 3, 4)
    assert (done.json["stored"], done.json["failed"]) == (3, 1)
    (failed,) = (row for row in done.json["objects"] if row["outcome"] == "failed")
    assert failed["sop_instance_uid"] == lost.uid
    assert f"tomowire: {lost.uid}: ARCHIVE could not transfer it" in done.stderr
    assert "ARCHIVE did not transfer 1 of the objects: B000H" in done.json["error"]
    assert "it says 'the object cannot be read: No such file or directory'" in done.json["error"], (
        "its Error Comment (0000,0902)"
    )
    assert f"tomowire: {done.json['error']}" in done.stderr


def spoil(data_dir: Path, sample: Sample) -> None:
    """Remove the file of an object that the index knows."""
    files = list((data_dir / "objects").rglob("*.dcm"))
    (path,) = (path for path in files if read_object(path).sop_instance_uid == sample.uid)
    path.unlink()


async def test_what_cannot_be_written_is_told_with_the_reason(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / f"{SAMPLES[1].uid}.dcm" / "in the way").mkdir(parents=True)
    done = await tomowire("retrieve", archive.peer, "-o", tmp_path, "--study-uid", STUDY, "--json")
    assert done.code == 1
    assert (done.json["stored"], done.json["failed"]) == (2, 1)
    (failed,) = (row for row in done.json["objects"] if row["outcome"] == "failed")
    assert failed["sop_instance_uid"] == SAMPLES[1].uid
    assert failed["reason"].startswith("cannot write the file: ")
    ours, theirs = done.stderr.splitlines()
    assert ours == f"tomowire: {SAMPLES[1].uid}: {failed['reason']}"
    assert theirs == f"tomowire: {done.json['error']}"
    assert "ARCHIVE did not transfer 1 of the objects: B000H" in theirs  # PS3.4 Table C.4-3
    if archive.data_dir is not None:  # DCMTK's archive says no more
        assert theirs.endswith("it says 'refused with A700H (refused: out of resources)'")


async def test_objects_that_go_elsewhere_are_missed(archive: Archive, tmp_path: Path) -> None:
    """The peer knows the AE title, but at another address."""

    async def swallow(request: StoreRequest) -> int:
        return 0

    async with listen(LOOPBACK, archive.destination, services=[Storage(swallow)]):
        options = ["--method", "move", "--aet", "DEST", "--port", "0"]
        done = await tomowire("retrieve", archive.peer, "-o", tmp_path, "--study-uid", STUDY, *options)
    assert done.code == 1
    assert f"{archive.peer} says that it has sent 3 more than came here" in done.stderr
    assert f"it must know DEST@{LOOPBACK}:" in done.stderr


@pytest.mark.parametrize("title", ["DEST", "NOBODY"])
async def test_where_it_listens_is_told_when_nothing_comes(title: str, archive: Archive, tmp_path: Path) -> None:
    """The peer knows the AE title at another port, where nobody listens, or does not know it."""
    options = ["--method", "move", "--aet", title, "--port", "0"]
    done = await tomowire("retrieve", archive.peer, "-o", tmp_path, "--study-uid", STUDY, *options)
    assert done.code == 1
    here = rf"tomowire: listening here on {LOOPBACK}:\d+ as {title}: the peer must have that address\n"
    assert len(re.findall(here, done.stderr)) == 1


async def test_a_port_that_is_taken_is_told(archive: Archive, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        options = ["--method", "move", "--port", str(other.getsockname()[1])]
        done = await tomowire("retrieve", archive.peer, "-o", tmp_path, "--study-uid", STUDY, *options)
    assert done.code == 3
    assert "another program listens there" in done.stderr


class Source:
    """An SCP in the test's own event loop that has one study, and gives its objects as a test wants."""

    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        self.count: int | None = None
        """Number of Study Related Instances, if it says that."""
        self.server: Server

    @property
    def peer(self) -> str:
        return f"ANY@{LOOPBACK}:{self.server.port}"

    async def answer(self, request: FindRequest) -> AsyncIterator[FindAnswers]:
        answer = Dataset()
        answer.QueryRetrieveLevel = "STUDY"
        answer.SOPClassesInStudy = SECONDARY_CAPTURE
        answer.StudyInstanceUID = STUDY
        answer.NumberOfStudyRelatedInstances = self.count
        yield FindAnswers([encode(answer, request.transfer_syntax_uid)])


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[Source]:
    write_files(tmp_path / "samples", SAMPLES[:3])
    source = Source(Stock([inspect(path) for path in sorted((tmp_path / "samples").iterdir())]))
    services = [Find(source.answer), Get(source.stock.objects)]
    async with listen(LOOPBACK, 0, services=services, shutdown_grace=0) as server:
        source.server = server
        yield source


async def test_ctrl_c_cancels_it_at_the_peer_and_what_has_come_stays(source: Source, tmp_path: Path) -> None:
    """PS3.7 9.3.2.3: C-CANCEL."""
    source.stock.waits_after = True
    folder = tmp_path / "out"
    arguments = ["retrieve", source.peer, "-o", folder, "--study-uid", STUDY, "--json"]
    program = await asyncio.to_thread(start, arguments)
    await appeared(folder, 3)
    assert await asyncio.to_thread(program.end, signal.SIGINT) == 130
    async with asyncio.timeout(10):
        await source.stock.cancelled.wait()
    assert program.stderr.text == "tomowire: interrupted\n"
    summary = json.loads(program.stdout.text)
    assert (summary["interrupted"], summary["stored"]) == (True, 3)
    assert data_sets(folder) == expected(1, 2, 3)
    assert not list(folder.glob(".*"))


async def test_ctrl_c_again_says_nothing_of_what_was_coming(tmp_path: Path) -> None:
    """An object is half here, and the peer does not answer the C-CANCEL."""
    unmoved = Unmoved()

    storage = PresentationContextRQ(3, SECONDARY_CAPTURE, (EXPLICIT_VR_LITTLE_ENDIAN,))
    async with raw_acceptor(unmoved.script) as port:
        options = ["--method", "move", "--port", "0", "-v"]
        arguments = ["retrieve", f"ANY@{LOOPBACK}:{port}", "-o", tmp_path, "--study-uid", STUDY, *options]
        program = await asyncio.to_thread(start, arguments)
        listening = await asyncio.to_thread(program.stderr.wait_for, rf"listening as TOMOWIRE@{LOOPBACK}:(\d+)")
        async with asyncio.timeout(30), await RawPeer.connect(int(listening[1])) as sender:
            await unmoved.asked.wait()
            await sender.associate(associate_rq(ECHO, storage, called="TOMOWIRE"))
            begun = command_pdu(3, store_rq(sop_class=SECONDARY_CAPTURE))
            await sender.send(begun, p_data(3, bytes(100), command=False, last=False))
            async with await RawPeer.connect(int(listening[1])) as other:
                await other.associate(associate_rq(ECHO, called="TOMOWIRE"))
                await other.send(command_pdu(1, echo_rq()))
                await other.read_message()  # what came before it has been read too
                await other.release()
            program.process.send_signal(signal.SIGINT)
            await unmoved.cancelled.wait()
            assert await asyncio.to_thread(program.end, signal.SIGINT, 4.0) == 130
    assert " ERROR " not in program.stderr.text
    assert program.stderr.text.endswith("tomowire: interrupted\n")


@pytest.mark.parametrize("is_lost", [False, True], ids=["Ctrl-C", "lost"])
async def test_how_many_have_not_come_is_told(is_lost: bool, source: Source, tmp_path: Path) -> None:
    """The peer says that there are ten, and three have come."""
    source.stock.waits_after, source.count = True, 10
    told: list[Program] = []
    for options in ([], ["--json"]):
        folder = tmp_path / f"out{len(options)}"
        arguments = ["retrieve", source.peer, "-o", folder, "--study-uid", STUDY, *options]
        program = await asyncio.to_thread(start, arguments)
        await appeared(folder, 3)
        if is_lost:
            for association in source.server.associations:
                association.abort()
        else:
            program.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(program.process.wait, 20) == (1 if is_lost else 130)
        program.stdout.join()
        program.stderr.join()
        told.append(program)
    for_people, for_programs = told
    assert re.search(r": 3 retrieved \(.*\), 7 not retrieved; --resume gets the rest\n", for_people.stderr.text)
    assert json.loads(for_programs.stdout.text)["not_retrieved"] == 7


async def test_ctrl_c_during_a_move(tmp_path: Path) -> None:
    """It is cancelled at the peer, and nobody listens any more."""
    asked, ended = asyncio.Event(), asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        request = await peer.read_message()
        asked.set()
        cancel = await peer.read_message()
        assert isinstance(request.command, CMoveRQ)
        assert cancel.command == CCancelRQ(message_id_being_responded_to=request.command.message_id)
        ended.set()
        final = CMoveRSP(
            message_id_being_responded_to=request.command.message_id,
            affected_sop_class_uid=request.command.affected_sop_class_uid,
            status=0xFE00,
        )
        await peer.send(message_pdus(request.context_id, final))
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        options = ["--method", "move", "--port", "0", "-v"]
        arguments = ["retrieve", f"ANY@{LOOPBACK}:{port}", "-o", tmp_path, "--study-uid", STUDY, *options]
        program = await asyncio.to_thread(start, arguments)
        listening = await asyncio.to_thread(program.stderr.wait_for, rf"listening as TOMOWIRE@{LOOPBACK}:(\d+)")
        async with asyncio.timeout(30):
            await asked.wait()
        assert await asyncio.to_thread(program.end, signal.SIGINT) == 130
        assert ended.is_set()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, int(listening[1])), timeout=5).close()
    assert not any(os.scandir(tmp_path))


async def test_a_peer_that_goes_away_leaves_what_has_come(source: Source, tmp_path: Path) -> None:
    source.stock.waits_after = True
    folder = tmp_path / "out"
    program = await asyncio.to_thread(start, ["retrieve", source.peer, "-o", folder, "--study-uid", STUDY, "--json"])
    await appeared(folder, 3)
    for association in source.server.associations:
        association.abort()
    assert await asyncio.to_thread(program.process.wait, 20) == 1, "something was retrieved"
    program.stdout.join()
    summary = json.loads(program.stdout.text)
    assert (summary["interrupted"], summary["stored"], summary["failed"]) == (False, 3, 0)
    assert "abort" in summary["error"]
    assert data_sets(folder) == expected(1, 2, 3)


async def appeared(folder: Path, count: int) -> None:
    """Wait until so many files are there, which a process of its own writes."""
    async with asyncio.timeout(30):
        while len(list(folder.glob("*.dcm"))) < count:  # noqa: ASYNC110, ASYNC240 - there is nobody to tell
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--study-uid", STUDY], "Missing option '-o'"),
        (["-o", "."], "which ones? Name at least one key"),
        (["-o", ".", "--study-uid", STUDY, "--name", "../{sop_instance_uid}"], "is not a path below the folder"),
        (["-o", ".", "--series-uid", "1.2.3"], "--series-uid needs -L series, or -L image"),
        (["-o", ".", "-k", "SOPInstanceUID=1.2.3"], "SOPInstanceUID is no key of the STUDY level: ask at IMAGE level"),
        (["-o", ".", "--study-uid", STUDY, "--name", "x"], "all objects would get the same name"),
        (["-o", ".", "--study-uid", STUDY, "--method", "ftp"], "'ftp' is not one of"),
    ],
)
async def test_2_usage(arguments: list[str], said: str) -> None:
    done = await tomowire("retrieve", f"ANY@{LOOPBACK}:{free_port()}", *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_other_exit_codes(source: Source, tmp_path: Path) -> None:
    arguments = ["-o", tmp_path / "out", "--study-uid", STUDY]
    nobody = await tomowire("retrieve", f"ANY@{LOOPBACK}:{free_port()}", *arguments)
    assert nobody.code == 3
    async with listen(LOOPBACK, 0, services=[Verification()], aet="RIGHT") as server:
        rejected = await tomowire("retrieve", f"WRONG@{LOOPBACK}:{server.port}", *arguments)
    assert rejected.code == 4
    no_context = await tomowire("retrieve", source.peer, *arguments, "--method", "move", "--port", "0", "--json")
    assert no_context.code == 5
    assert no_context.json["error"].endswith("; another way may be open: --method get")

    async with listen(LOOPBACK, 0, services=[Get(source.stock.objects)]) as server:
        without_find = f"ANY@{LOOPBACK}:{server.port}"
        no_find = await tomowire("retrieve", without_find, *arguments)
        no_find_to_move = await tomowire("move", without_find, "--dest", "X", "--patient", "A*")
    assert (no_find.code, no_find_to_move.code) == (5, 5)
    assert (
        "- FIND: the peer does not support this SOP class: it has to be enabled there; a retrieval by unique keys alone needs"
        in no_find.stderr
    )
    assert no_find.stderr.endswith(": move --study-uid, or retrieve --method move --study-uid\n")
    assert "--method get" not in no_find.stderr + no_find_to_move.stderr
    assert "; a retrieval by unique keys alone needs no C-FIND: move --study-uid" in no_find_to_move.stderr

    async def silent(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_until_closed()

    async with raw_acceptor(silent) as port:
        late = await tomowire("retrieve", f"ANY@{LOOPBACK}:{port}", *arguments, "--timeout", "0.1")
    assert late.code == 6
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / "file" / "out" / "of"):
        no_folder = await tomowire("retrieve", source.peer, "-o", output, "--study-uid", STUDY)
        assert no_folder.code == 2
        assert f"Invalid value for '-o' / '--output': Directory '{tmp_path / 'file'}' is a file." in no_folder.stderr
