"""DCMTK's `movescu` and `getscu` and pynetdicom's SCU retrieve from the archive."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydicom import Dataset

from support.dcmtk import NO_DELAY, objects_below, storescp
from support.filled import fill, small_hospital
from support.network import LOOPBACK, free_port
from support.objects import ROOT, SECONDARY_CAPTURE, Sample
from support.programs import Program, serving
from support.receiver import Receiver
from tomowire import Storage, StoreRequest, listen
from tomowire.services.models import Level, Model
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

pytestmark = pytest.mark.interop

EVERY = [(model, level) for model in Model for level in model.levels]
OPTIONS = {Model.PATIENT_ROOT: "-P", Model.STUDY_ROOT: "-S", Model.PATIENT_STUDY_ONLY: "-O"}
ROOTS = [(model, level) for model, level in EVERY if model is not Model.PATIENT_STUDY_ONLY]
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"

LARGE = range(100, 160)
"""The objects of a study of its own."""

COMPRESSED = Sample(200, 3, 200, transfer_syntax_uid=JPEG_BASELINE)
"""In a study with `PLAIN`, which is not compressed. What stands for its pixel data nobody can decode."""
PLAIN = Sample(201, 3, 200)

NAMED = {Level.PATIENT: "JANE", Level.STUDY: f"{ROOT}.1.1", Level.SERIES: f"{ROOT}.2.1.1", Level.IMAGE: f"{ROOT}.3.2"}
BELOW = {Level.PATIENT: {1, 2, 3, 4, 5, 6}, Level.STUDY: {1, 2, 3, 4, 5}, Level.SERIES: {1, 2, 3}, Level.IMAGE: {2}}
"""What is asked for at each level, and the numbers of the objects that this is."""

Keys = dict[str, str]


@dataclass(frozen=True)
class Scene:
    """A running archive, and the ports at which its two destinations are."""

    archive: Program
    storescp: int
    receiver: int

    @property
    def port(self) -> int:
        return self.archive.port


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    data_dir = tmp_path_factory.mktemp("archive") / "data"
    large = [Sample(number, 1, 100) for number in LARGE]
    asyncio.run(fill(data_dir, [*small_hospital(), *large, COMPRESSED, PLAIN]))
    ports = free_port(), free_port()
    nodes = [part for title, port in zip(("STORESCP", "RECEIVER"), ports, strict=True) for part in node(title, port)]
    with serving("serve", "--data-dir", data_dir, *nodes) as archive:
        yield Scene(archive, *ports)


def node(title: str, port: int) -> tuple[str, str]:
    return "--node", f"{title}@{LOOPBACK}:{port}"


@dataclass(frozen=True)
class Run:
    """What one of DCMTK's tools said, and how it ended."""

    output: str
    code: int


def run(program: Path, *options: object) -> Run:
    command = [str(part) for part in (program, "-d", "-aec", "TOMOWIRE", *options)]
    done = subprocess.run(command, env=NO_DELAY, capture_output=True, check=False, timeout=60)
    return Run((done.stdout + done.stderr).decode(errors="replace"), done.returncode)


def keys(wanted: Keys) -> list[str]:
    return [part for keyword, value in wanted.items() for part in ("-k", f"{keyword}={value}")]


def wanted(model: Model, level: Level) -> Keys:
    """The keys that name what is retrieved: those above the level as far as the model has them, and that of the level."""
    above = {each.unique_key: NAMED[each] for each in model.levels[: model.levels.index(level)]}
    return {"QueryRetrieveLevel": level.value, **above, level.unique_key: NAMED[level]}


def counts(output: str) -> dict[str, int]:
    """Those of the last response, in the words of DCMTK's debug log."""
    return {
        name: int(count) for name, count in re.findall(r"(\w+) Suboper\w+ *: (\d+|none)", output) if count != "none"
    }


def data_sets(numbers: set[int]) -> set[tuple[str, bytes]]:
    return {(sample.uid, sample.data_set) for sample in small_hospital() if sample.number in numbers}


def stored(folder: Path) -> set[tuple[str, bytes]]:
    return {(each.sop_instance_uid, each.data_set) for each in objects_below(folder)}


# C-MOVE


@contextmanager
def destination(dcmtk: Callable[[str], Path], scene: Scene, folder: Path, *options: str) -> Iterator[None]:
    with storescp(dcmtk("storescp"), folder, *options, port=scene.storescp):
        yield


@pytest.mark.parametrize("syntax", ["-xe", "-xi"])
@pytest.mark.parametrize(("model", "level"), EVERY)
def test_movescu_at_every_level_of_every_model(
    scene: Scene, dcmtk: Callable[[str], Path], tmp_path: Path, model: Model, level: Level, syntax: str
) -> None:
    folder = tmp_path / "moved"
    with destination(dcmtk, scene, folder):
        done = run(
            dcmtk("movescu"),
            OPTIONS[model],
            syntax,
            "-aem",
            "STORESCP",
            *keys(wanted(model, level)),
            LOOPBACK,
            scene.port,
        )
    assert done.code == 0, done.output
    assert "0x0000: Success" in done.output
    assert stored(folder) == data_sets(BELOW[level])
    last = counts(done.output)
    assert (last["Completed"], last["Failed"], last["Warning"]) == (len(BELOW[level]), 0, 0)


@pytest.mark.parametrize(
    ("title", "query", "said"),
    [
        ("NOBODY", wanted(Model.STUDY_ROOT, Level.STUDY), "0xa801"),
        ("STORESCP", {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": f"{ROOT}.2.1.1"}, "0xa900"),
        ("STORESCP", {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}, "0xa900"),
        ("STORESCP", {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.3"}, "0x0000"),
    ],
)
def test_movescu_is_told_why_nothing_is_moved(
    scene: Scene, dcmtk: Callable[[str], Path], tmp_path: Path, title: str, query: Keys, said: str
) -> None:
    folder = tmp_path / "moved"
    with destination(dcmtk, scene, folder):
        done = run(dcmtk("movescu"), "-S", "-aem", title, *keys(query), LOOPBACK, scene.port)
    assert re.search(said, done.output), done.output
    assert stored(folder) == set()


@asynccontextmanager
async def receiving(scene: Scene, on_object: Callable[[StoreRequest], Any]) -> AsyncIterator[Receiver]:
    """The destination RECEIVER in this event loop, which does what the test wants."""
    receiver = Receiver(on_object=on_object)
    async with listen(LOOPBACK, scene.receiver, aet="RECEIVER", services=[Storage(receiver.keep)]) as server:
        receiver.server = server
        yield receiver


def refusing(request: StoreRequest) -> int | None:
    """The second object is refused, the third kept with a warning."""
    return {Sample(2).uid: 0xC123, Sample(3).uid: 0xB007}.get(request.sop_instance_uid)


async def test_movescu_hears_of_failures_and_warnings(scene: Scene, dcmtk: Callable[[str], Path]) -> None:
    """PS3.4 Table C.4-2: B000H, and a warning is no failure."""
    query = keys(wanted(Model.STUDY_ROOT, Level.STUDY))
    async with receiving(scene, refusing):
        done = await asyncio.to_thread(run, dcmtk("movescu"), "-S", "-aem", "RECEIVER", *query, LOOPBACK, scene.port)
    assert "0xb000" in done.output, done.output
    last = counts(done.output)
    assert (last["Completed"], last["Failed"], last["Warning"]) == (3, 1, 1)


async def test_movescu_cancels(scene: Scene, dcmtk: Callable[[str], Path]) -> None:
    """PS3.4 C.4.2.3.1: FE00H. Objects are held up from the second on until `movescu` has sent its C-CANCEL."""
    query = keys({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": Sample(study=100).study_uid})
    cancelled = asyncio.Event()
    came = 0

    async def hold(request: StoreRequest) -> None:
        nonlocal came
        came += 1
        if came > 1:
            await cancelled.wait()

    async with receiving(scene, hold):
        options = (
            "-d",
            "-S",
            "-aec",
            "TOMOWIRE",
            "-aem",
            "RECEIVER",
            "--cancel",
            "1",
            *query,
            LOOPBACK,
            str(scene.port),
        )
        process = await asyncio.create_subprocess_exec(
            dcmtk("movescu"), *options, env=NO_DELAY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert process.stdout is not None
        output = b""
        async for line in process.stdout:
            output += line
            if b"Cancel R" in line:
                cancelled.set()
        await process.wait()
    text = output.decode(errors="replace")
    assert "0xfe00" in text, text
    last = counts(text)
    assert 1 <= last["Completed"] < len(LARGE), text
    assert last["Failed"] == 0
    assert last["Completed"] + last["Remaining"] == len(LARGE)


# C-GET


@pytest.mark.parametrize(("model", "level"), EVERY)
def test_getscu_at_every_level_of_every_model(
    scene: Scene, dcmtk: Callable[[str], Path], tmp_path: Path, model: Model, level: Level
) -> None:
    query = keys(wanted(model, level))
    done = run(dcmtk("getscu"), OPTIONS[model], "+B", "-od", tmp_path, *query, LOOPBACK, scene.port)
    assert done.code == 0, done.output
    assert "0x0000: Success" in done.output
    assert stored(tmp_path) == data_sets(BELOW[level])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": f"{ROOT}.3.2"}, "0xa900"),
        ({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.3"}, "0x0000"),
    ],
)
def test_getscu_is_told_why_nothing_comes(
    scene: Scene, dcmtk: Callable[[str], Path], tmp_path: Path, query: Keys, said: str
) -> None:
    done = run(dcmtk("getscu"), "-S", "-od", tmp_path, *keys(query), LOOPBACK, scene.port)
    assert said in done.output, done.output
    assert [*tmp_path.iterdir()] == []


def test_getscu_gets_what_it_can_read(scene: Scene, dcmtk: Callable[[str], Path], tmp_path: Path) -> None:
    """It takes nothing compressed, and what cannot be decoded fails alone."""
    query = keys({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": PLAIN.study_uid})
    done = run(dcmtk("getscu"), "-S", "+B", "-od", tmp_path, *query, LOOPBACK, scene.port)
    assert "0xb000" in done.output, done.output
    last = counts(done.output)
    assert (last["Completed"], last["Failed"]) == (1, 1)
    assert stored(tmp_path) == {(PLAIN.uid, PLAIN.data_set)}


# pynetdicom


@dataclass(frozen=True)
class Answer:
    """The statuses that pynetdicom got, and of the last response the counts and the list of what failed."""

    statuses: list[int]
    completed: int
    failed: int
    warning: int
    failed_uids: set[str]


def identifier(wanted: Keys) -> Dataset:
    query = Dataset()
    for keyword, value in wanted.items():
        setattr(query, keyword, value)
    return query


def answer_of(responses: Iterator[tuple[Dataset, Dataset | None]]) -> Answer:
    answers = [*responses]
    last, listed = answers[-1]
    uids = listed.get("FailedSOPInstanceUIDList", []) if listed is not None else []
    return Answer(
        [status.Status for status, _ in answers],
        last.NumberOfCompletedSuboperations,
        last.NumberOfFailedSuboperations,
        last.NumberOfWarningSuboperations,
        {uids} if isinstance(uids, str) else set(uids),
    )


@contextmanager
def pynetdicom_association(
    pynetdicom: ModuleType,
    scene: Scene,
    model: Model,
    on_store: Callable[[Any], int] | None = None,
    *,
    role: bool = True,
) -> Iterator[Any]:
    entity = pynetdicom.AE("PYNETDICOM")
    for uid in (model.move, model.get):
        entity.add_requested_context(uid)
    entity.add_requested_context(SECONDARY_CAPTURE, [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
    roles = [pynetdicom.build_role(SECONDARY_CAPTURE, scp_role=True)] if role else []
    handlers = [(pynetdicom.evt.EVT_C_STORE, on_store)] if on_store is not None else []
    association = entity.associate(LOOPBACK, scene.port, ae_title="TOMOWIRE", ext_neg=roles, evt_handlers=handlers)
    assert association.is_established
    try:
        yield association
        assert association.is_established
    finally:
        association.release()


@pytest.mark.parametrize(("model", "level"), EVERY)
async def test_pynetdicom_moves_at_every_level_of_every_model(
    scene: Scene, pynetdicom: ModuleType, model: Model, level: Level
) -> None:
    def move() -> Answer:
        with pynetdicom_association(pynetdicom, scene, model) as association:
            return answer_of(association.send_c_move(identifier(wanted(model, level)), "RECEIVER", model.move))

    async with receiving(scene, lambda request: None) as receiver:
        answer = await asyncio.to_thread(move)
    assert answer.statuses == [0xFF00] * (len(answer.statuses) - 1) + [0x0000]
    assert (answer.completed, answer.failed, answer.warning) == (len(BELOW[level]), 0, 0)
    assert {*receiver.received.items()} == data_sets(BELOW[level])


async def test_pynetdicom_hears_which_objects_were_refused(scene: Scene, pynetdicom: ModuleType) -> None:
    def move() -> Answer:
        with pynetdicom_association(pynetdicom, scene, Model.STUDY_ROOT) as association:
            query = identifier(wanted(Model.STUDY_ROOT, Level.SERIES))
            return answer_of(association.send_c_move(query, "RECEIVER", Model.STUDY_ROOT.move))

    async with receiving(scene, refusing):
        answer = await asyncio.to_thread(move)
    assert answer.statuses[-1] == 0xB000
    assert (answer.completed, answer.failed, answer.warning) == (1, 1, 1)
    assert answer.failed_uids == {Sample(2).uid}


@pytest.mark.parametrize(("model", "level"), EVERY)
def test_pynetdicom_gets_at_every_level_of_every_model(
    scene: Scene, pynetdicom: ModuleType, model: Model, level: Level
) -> None:
    came: set[tuple[str, bytes]] = set()

    def keep(event: Any) -> int:
        came.add((event.request.AffectedSOPInstanceUID, event.request.DataSet.getvalue()))
        return 0x0000

    with pynetdicom_association(pynetdicom, scene, model, keep) as association:
        answer = answer_of(association.send_c_get(identifier(wanted(model, level)), model.get))
    assert answer.statuses == [0xFF00] * (len(answer.statuses) - 1) + [0x0000]
    assert (answer.completed, answer.failed, answer.warning) == (len(BELOW[level]), 0, 0)
    assert came == data_sets(BELOW[level])


def test_pynetdicom_refuses_and_warns(scene: Scene, pynetdicom: ModuleType) -> None:
    def keep(event: Any) -> int:
        return {Sample(2).uid: 0xA700, Sample(3).uid: 0xB000}.get(event.request.AffectedSOPInstanceUID, 0x0000)

    with pynetdicom_association(pynetdicom, scene, Model.STUDY_ROOT, keep) as association:
        query = identifier(wanted(Model.STUDY_ROOT, Level.SERIES))
        answer = answer_of(association.send_c_get(query, Model.STUDY_ROOT.get))
    assert answer.statuses[-1] == 0xB000
    assert (answer.completed, answer.failed, answer.warning) == (1, 1, 1)
    assert answer.failed_uids == {Sample(2).uid}


def test_pynetdicom_did_not_ask_for_the_role(scene: Scene, pynetdicom: ModuleType) -> None:
    """PS3.7 D.3.3.4: without it this side must not send; all sub-operations fail, and the association goes on."""
    with pynetdicom_association(pynetdicom, scene, Model.STUDY_ROOT, lambda event: 0x0000, role=False) as association:
        query = identifier(wanted(Model.STUDY_ROOT, Level.SERIES))
        answer = answer_of(association.send_c_get(query, Model.STUDY_ROOT.get))
    assert answer.statuses[-1] == 0xA702
    assert (answer.completed, answer.failed, answer.warning) == (0, 3, 0)
    assert answer.failed_uids == {Sample(number).uid for number in (1, 2, 3)}


def test_pynetdicom_cancels_a_get(scene: Scene, pynetdicom: ModuleType) -> None:
    """It handles one object after another, so the C-CANCEL is on its way before it answers the first."""
    came: list[str] = []

    def keep(event: Any) -> int:
        if not came:
            event.assoc.send_c_cancel(1, query_model=Model.STUDY_ROOT.get)
        came.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    with pynetdicom_association(pynetdicom, scene, Model.STUDY_ROOT, keep) as association:
        query = identifier({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": Sample(study=100).study_uid})
        answer = answer_of(association.send_c_get(query, Model.STUDY_ROOT.get, msg_id=1))
    assert answer.statuses[-1] == 0xFE00
    assert (answer.completed, answer.failed, answer.warning) == (len(came), 0, 0)
    assert len(came) < len(LARGE)


def test_pynetdicom_negotiates_relational_queries(scene: Scene, pynetdicom: ModuleType) -> None:
    """PS3.4 C.5.1.1, C.5.3.1: an object by its UID alone."""
    from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

    model = Model.STUDY_ROOT
    entity = pynetdicom.AE("PYNETDICOM")
    entity.add_requested_context(SECONDARY_CAPTURE, EXPLICIT_VR_LITTLE_ENDIAN)
    asked: list[Any] = [pynetdicom.build_role(SECONDARY_CAPTURE, scp_role=True)]
    for uid in (model.find, model.get):
        entity.add_requested_context(uid)
        negotiation = SOPClassExtendedNegotiation()
        negotiation.sop_class_uid = uid
        negotiation.service_class_application_information = b"\x01"
        asked.append(negotiation)
    came: list[str] = []

    def keep(event: Any) -> int:
        came.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    handlers = [(pynetdicom.evt.EVT_C_STORE, keep)]
    association = entity.associate(LOOPBACK, scene.port, ae_title="TOMOWIRE", ext_neg=asked, evt_handlers=handlers)
    assert association.is_established
    query = identifier({"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": Sample(9).uid, "PatientID": ""})
    try:
        found = [*association.send_c_find(query, model.find)]
        got = answer_of(association.send_c_get(query, model.get))
    finally:
        association.release()
    assert [(status.Status, answer and answer.PatientID) for status, answer in found] == [(0xFF00, "JOERG"), (0, None)]
    assert (got.statuses[-1], got.completed, came) == (0x0000, 1, [Sample(9).uid])
