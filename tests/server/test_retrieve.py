"""Retrieving from a whole archive, over real sockets; and what happens to objects that change meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom import Dataset

from support.filled import ABOVE, fill, small_hospital
from support.network import LOOPBACK, free_port
from support.objects import ROOT, SECONDARY_CAPTURE, Sample, chunks_of, stream
from support.raw_peer import RawPeer, associate_rq, message_pdus
from support.receiver import Receiver
from tomowire import (
    AssociationAborted,
    AssociationError,
    Level,
    Model,
    Peer,
    Query,
    Retrieved,
    Storage,
    StoreRequest,
    associate,
    listen,
)
from tomowire.aio.address import PeerAddress
from tomowire.aio.association import Association
from tomowire.aio.responses import responses
from tomowire.errors import RetrieveFailed, UsageError
from tomowire.protocol.negotiation import ProposedContext
from tomowire.server.app import Archive, Settings
from tomowire.server.archive import ArchiveStorage
from tomowire.server.incoming import DuplicatePolicy
from tomowire.server.index.backend import backend_for
from tomowire.server.index.readers import IndexReaders
from tomowire.server.index.rows import NewRow
from tomowire.server.nodes import Node
from tomowire.server.retrieve import ArchiveRetrieve
from tomowire.services.dicom_file import DicomFile, inspect
from tomowire.services.get import getting
from tomowire.services.identifiers import decode, encode
from tomowire.services.move_scp import Destination
from tomowire.services.suboperations import RetrieveRequest
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CFindRQ, CGetRQ, CMoveRQ, Response
from tomowire.wire.user_information import ExtendedNegotiation

PENDING, SUCCESS, SOME_FAILED, ALL_FAILED = 0xFF00, 0x0000, 0xB000, 0xA702
SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


def identifier(level: Level | str, **keys: Any) -> Dataset:
    data_set = Dataset()
    data_set.QueryRetrieveLevel = str(level)
    for keyword, value in keys.items():
        setattr(data_set, keyword, value)
    return data_set


JANE = {Level.PATIENT: "JANE", Level.STUDY: f"{ROOT}.1.1", Level.SERIES: f"{ROOT}.2.1.1", Level.IMAGE: f"{ROOT}.3.2"}
BELOW = {Level.PATIENT: {1, 2, 3, 4, 5, 6}, Level.STUDY: {1, 2, 3, 4, 5}, Level.SERIES: {1, 2, 3}, Level.IMAGE: {2}}
"""Of the small hospital: what is retrieved at each level, and the numbers of the objects that this is."""

EVERY = [(model, level) for model in Model for level in model.levels]


def one_of(model: Model, level: Level) -> Dataset:
    above = {
        keyword: key for keyword, key in ABOVE[level].items() if keyword != "PatientID" or level is not Level.STUDY
    }
    if model is not Model.STUDY_ROOT:
        above = dict(ABOVE[level])
    return identifier(level, **above, **{level.unique_key: JANE[level]})


# What the archive says of a request


class Somebody:
    """Stands for an association, which is of no matter here."""


def request_for(query: Dataset, model: Model = Model.STUDY_ROOT, *, relational: bool = False) -> RetrieveRequest:
    message = CGetRQ(message_id=1, affected_sop_class_uid=model.get)
    data = encode(query, IMPLICIT_VR_LITTLE_ENDIAN)
    return RetrieveRequest(
        model, data, IMPLICIT_VR_LITTLE_ENDIAN, cast("Any", Somebody()), message, relational=relational
    )


def retrieving(storage: ArchiveStorage, **nodes: Node) -> ArchiveRetrieve:
    return ArchiveRetrieve(storage.index, storage.root, nodes, "TOMOWIRE")


async def located(files: AsyncIterator[Sequence[DicomFile]]) -> list[DicomFile]:
    return [file async for batch in files for file in batch]


@pytest.fixture
def postgres_url(emptied_postgres_url: str) -> str:
    """These tests leave nothing but objects in a database."""
    return emptied_postgres_url


@pytest.fixture
async def hospital(no_leaks: None, tmp_path: Path, index_url: str | None) -> AsyncIterator[ArchiveStorage]:
    await fill(tmp_path, small_hospital(), index_url=index_url)
    policy = DuplicatePolicy.REPLACE
    async with ArchiveStorage(tmp_path, policy=policy, fsync=False, index_url=index_url) as storage:
        yield storage


@pytest.mark.parametrize(("model", "level"), EVERY)
async def test_the_files_of_every_level(hospital: ArchiveStorage, model: Model, level: Level) -> None:
    retrieval = await retrieving(hospital).objects(request_for(one_of(model, level), model))
    files = await located(retrieval.files)
    assert retrieval.total == len(files)
    assert {file.sop_instance_uid for file in files} == {Sample(number).uid for number in BELOW[level]}
    assert files == [inspect(file.path) for file in files]


@pytest.mark.parametrize(
    "query",
    [
        identifier(Level.STUDY, StudyInstanceUID=""),
        identifier(Level.SERIES, StudyInstanceUID=f"{ROOT}.1.1", SeriesInstanceUID=""),
        identifier(Level.SERIES, SeriesInstanceUID=f"{ROOT}.2.1.1"),
        identifier(Level.PATIENT, PatientID="JANE"),
        identifier("", StudyInstanceUID=f"{ROOT}.1.1"),
    ],
)
async def test_what_names_nothing_is_refused(hospital: ArchiveStorage, query: Dataset) -> None:
    """PS3.4 Table C.4-2: A900H, identifier does not match SOP class."""
    with pytest.raises(RetrieveFailed) as failed:
        await retrieving(hospital).objects(request_for(query))
    assert failed.value.status == 0xA900
    assert len(failed.value.offending_elements) == 1


async def test_a_relational_retrieval(hospital: ArchiveStorage) -> None:
    """PS3.4 C.4.2.2.2.1: an image by its UID alone."""
    query = identifier(Level.IMAGE, SOPInstanceUID=[f"{ROOT}.3.2", f"{ROOT}.3.9"])
    retrieval = await retrieving(hospital).objects(request_for(query, relational=True))
    assert {file.sop_instance_uid for file in await located(retrieval.files)} == {f"{ROOT}.3.2", f"{ROOT}.3.9"}


async def test_what_is_replaced_meanwhile_is_found_and_what_is_stored_meanwhile_is_not(
    hospital: ArchiveStorage,
) -> None:
    retrieval = await retrieving(hospital).objects(request_for(one_of(Model.STUDY_ROOT, Level.SERIES)))
    changed = Sample(2, 1, 1, "JANE", content="second", size=100)
    for sample in (changed, Sample(50, 1, 1, "JANE")):
        await hospital.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))
    files = {file.sop_instance_uid: file for file in await located(retrieval.files)}
    assert files.keys() == {Sample(number).uid for number in (1, 2, 3)}
    file = files[changed.uid]
    assert file.path.read_bytes()[file.offset :] == changed.data_set


def remove(file: DicomFile) -> None:
    file.path.unlink()


def shorten(file: DicomFile) -> None:
    file.path.write_bytes(file.path.read_bytes()[:-2])


def lengthen(file: DicomFile) -> None:
    file.path.write_bytes(file.path.read_bytes() + b"\0\0")


async def test_a_file_that_is_not_what_was_stored_is_none_to_be_sent(
    hospital: ArchiveStorage, caplog: pytest.LogCaptureFixture
) -> None:
    query = request_for(one_of(Model.STUDY_ROOT, Level.SERIES))
    before = await located((await retrieving(hospital).objects(query)).files)
    shorten(before[0])
    lengthen(before[1])
    after = await located((await retrieving(hospital).objects(query)).files)
    assert [file.sop_instance_uid for file in after] == [file.sop_instance_uid for file in before]
    assert [file.transfer_syntax_uid for file in after] == ["", "", EXPLICIT_VR_LITTLE_ENDIAN]
    assert caplog.text.count("has not the size that it was stored with") == 2


async def test_an_object_that_is_removed_meanwhile_still_counts(
    hospital: ArchiveStorage, caplog: pytest.LogCaptureFixture
) -> None:
    retrieval = await retrieving(hospital).objects(request_for(one_of(Model.STUDY_ROOT, Level.SERIES)))
    async with removed(hospital, Sample(2).uid):
        files = await located(retrieval.files)
    assert retrieval.total == len(files) == 3
    assert [file.sop_instance_uid for file in files if not file.sop_class_uid] == [Sample(2).uid]
    assert f"{Sample(2).uid} cannot be sent: it has been removed meanwhile" in caplog.text


@contextlib.asynccontextmanager
async def removed(storage: ArchiveStorage, uid: str) -> AsyncIterator[None]:
    from tomowire.server.index.schema import instances

    gone = instances.delete().where(instances.c.sop_instance_uid == uid)
    await storage.records.write(lambda connection: connection.execute(gone))
    yield


async def test_an_index_that_cannot_be_used(no_leaks: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """PS3.4 Table C.4-2: A701H, out of resources, unable to calculate number of matches."""
    readers = IndexReaders(backend_for(None, tmp_path / "missing"))
    try:
        with pytest.raises(RetrieveFailed) as failed:
            await ArchiveRetrieve(readers, tmp_path, {}, "TOMOWIRE").objects(
                request_for(one_of(Model.STUDY_ROOT, Level.STUDY))
            )
        assert failed.value.status == 0xA701
        assert "index" in caplog.text
    finally:
        await readers.close()


@pytest.mark.parametrize("index_url", ["sqlite"], indirect=True)
async def test_an_index_that_is_lost_meanwhile(hospital: ArchiveStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    retrieval = await retrieving(hospital).objects(request_for(one_of(Model.STUDY_ROOT, Level.SERIES)))
    (hospital.root / "index.sqlite").rename(hospital.root / "moved")
    while not hospital.index._idle.empty():  # connections that have it open
        hospital.index._idle.get().close()
    try:
        files = await located(retrieval.files)
    finally:
        (hospital.root / "moved").rename(hospital.root / "index.sqlite")
    assert [file.sop_class_uid for file in files] == ["", "", ""]
    assert {file.sop_instance_uid for file in files} == {Sample(number).uid for number in (1, 2, 3)}


async def test_many_objects_take_little_memory(no_leaks: None, tmp_path: Path, index_url: str | None) -> None:
    """Ten thousand UIDs as text would take a megabyte."""
    await fill(tmp_path, [], index_url=index_url)
    with contextlib.closing(backend_for(index_url, tmp_path, fsync=False).open_writer()) as index:
        records = (Sample(number).record for number in range(10_001))
        index.insert(1, [NewRow(record, 0, 300, 1000, b"", 0, "MODALITY") for record in records])
    async with ArchiveStorage(tmp_path, fsync=False, index_url=index_url) as storage:
        archive = retrieving(storage)
        request = request_for(identifier(Level.STUDY, StudyInstanceUID=Sample().study_uid))
        await archive.objects(request)  # what is imported and cached stays
        tracemalloc.start()
        try:
            retrieval = await archive.objects(request)
            assert tracemalloc.get_traced_memory()[0] < 500_000
        finally:
            tracemalloc.stop()
        batches = [batch async for batch in retrieval.files]
    assert [len(batch) for batch in batches] == [64, 936] + [1000] * 9 + [1]
    assert len({file.sop_instance_uid for batch in batches for file in batch}) == retrieval.total == 10_001


async def test_destinations(hospital: ArchiveStorage) -> None:
    """PS3.8 9.3.2: spaces around an AE title are not significant."""
    archive = retrieving(hospital, VIEWER=Node("VIEWER", "workstation", 104, 4))
    request = request_for(Dataset())
    expected = await archive.destination(request, "VIEWER")
    assert expected is not None
    assert expected.turns is not None
    assert expected.turns._value == 4
    assert replace(expected, turns=None) == Destination(PeerAddress("VIEWER", "workstation", 104), 4, "TOMOWIRE")
    assert await archive.destination(request, " VIEWER  ") == expected
    for unknown in ("viewer", "VIEWER2", "", "TOMOWIRE"):
        assert await archive.destination(request, unknown) is None


def test_two_nodes_of_one_title() -> None:
    with pytest.raises(UsageError, match="two nodes are named VIEWER"):
        Archive(Settings(Path("nowhere"), nodes=(Node("VIEWER", "a", 1), Node("VIEWER", "b", 1))))


# Over the network


@dataclass(frozen=True)
class Answer:
    """What came back: the statuses, and of the last response the counts and the list of what failed."""

    statuses: list[int]
    counts: tuple[int | None, ...]
    failed: set[str]


Retrieve = Callable[..., Awaitable[Answer]]


async def asked(association: Association, message: CGetRQ | CMoveRQ, query: Dataset) -> Answer:
    context = association.context(message.affected_sop_class_uid)
    data = encode(query, context.transfer_syntax)
    received = responses(association, context, message, data, name="test", timeout=20, grace=5)
    answers: list[tuple[Any, bytes | None]] = [each async for each in received]
    last, listed = answers[-1]
    uids = decode(listed, context.transfer_syntax).FailedSOPInstanceUIDList if listed else []
    return Answer(
        [response.status for response, _ in answers],
        (
            last.number_of_completed_suboperations,
            last.number_of_failed_suboperations,
            last.number_of_warning_suboperations,
            last.number_of_remaining_suboperations,
        ),
        {uids} if isinstance(uids, str) else set(uids),
    )


async def get(association: Association, query: Dataset, model: Model = Model.STUDY_ROOT) -> Answer:
    message = CGetRQ(message_id=association.next_message_id(), affected_sop_class_uid=model.get)
    return await asked(association, message, query)


async def move(
    association: Association, query: Dataset, model: Model = Model.STUDY_ROOT, destination: str = "RECEIVER"
) -> Answer:
    message = CMoveRQ(
        message_id=association.next_message_id(), affected_sop_class_uid=model.move, move_destination=destination
    )
    return await asked(association, message, query)


@dataclass(frozen=True)
class Scene:
    """An archive with the small hospital, an association with it that serves C-STORE, and a destination that it knows."""

    root: Path
    association: Association
    got: Receiver
    moved: Receiver
    originators: list[tuple[str | None, int | None, str]]

    def path_of(self, number: int) -> Path:
        (path,) = self.root.glob(f"objects/*/*/*/{Sample(number).uid}.dcm")
        return path


@pytest.fixture
async def scene(no_leaks: None, tmp_path: Path, index_url: str | None) -> AsyncIterator[Scene]:
    await fill(tmp_path, small_hospital(), index_url=index_url)
    got, moved = Receiver(), Receiver()
    originators: list[tuple[str | None, int | None, str]] = []

    def note(request: Any) -> None:
        message = request.message
        originators.append(
            (
                message.move_originator_application_entity_title,
                message.move_originator_message_id,
                request.association.calling_ae_title,
            )
        )

    moved.on_object = note
    contexts = [
        *(ProposedContext(uid, SYNTAXES) for model in Model for uid in (model.get, model.move)),
        *getting(SECONDARY_CAPTURE)[1:],
    ]
    async with listen(LOOPBACK, 0, services=[Storage(moved.keep)]) as server:
        got.server = moved.server = server
        nodes = (Node("RECEIVER", LOOPBACK, server.port), Node("NOBODY", LOOPBACK, free_port()))
        async with (
            Archive(Settings(tmp_path, port=0, nodes=nodes, index_url=index_url)) as archive,
            associate(
                f"TOMOWIRE@{LOOPBACK}:{archive.port}", contexts, aet="TESTER", services=[Storage(got.keep)]
            ) as association,
        ):
            yield Scene(tmp_path, association, got, moved, originators)


def data_sets(level: Level) -> dict[str, bytes]:
    return {sample.uid: sample.data_set for sample in small_hospital() if sample.number in BELOW[level]}


@pytest.mark.parametrize(("model", "level"), EVERY)
async def test_get_at_every_level_of_every_model(scene: Scene, model: Model, level: Level) -> None:
    answer = await get(scene.association, one_of(model, level), model)
    assert answer.statuses[-1] == SUCCESS
    assert {*answer.statuses[:-1]} <= {PENDING}
    assert answer.counts == (len(BELOW[level]), 0, 0, None)
    assert scene.got.received == data_sets(level)


@pytest.mark.parametrize(("model", "level"), EVERY)
async def test_move_at_every_level_of_every_model(scene: Scene, model: Model, level: Level) -> None:
    answer = await move(scene.association, one_of(model, level), model)
    assert answer.statuses[-1] == SUCCESS
    assert answer.counts == (len(BELOW[level]), 0, 0, None)
    assert scene.moved.received == data_sets(level)
    assert {(title, calling) for title, _, calling in scene.originators} == {("TESTER", "TOMOWIRE")}


@pytest.mark.parametrize("retrieve", [get, move])
async def test_nothing_is_there(scene: Scene, retrieve: Retrieve) -> None:
    answer = await retrieve(scene.association, identifier(Level.STUDY, StudyInstanceUID="1.2.3"))
    assert (answer.statuses, answer.counts) == ([SUCCESS], (0, 0, 0, None))


@pytest.mark.parametrize("retrieve", [get, move])
@pytest.mark.parametrize("damage", [remove, shorten, lengthen])
async def test_an_object_that_cannot_be_sent_is_a_failed_sub_operation(
    scene: Scene, retrieve: Retrieve, damage: Callable[[DicomFile], None]
) -> None:
    damage(inspect(scene.path_of(2)))
    answer = await retrieve(scene.association, one_of(Model.STUDY_ROOT, Level.SERIES))
    assert answer.statuses[-1] == SOME_FAILED
    assert answer.counts == (2, 1, 0, None)
    assert answer.failed == {Sample(2).uid}
    answer = await retrieve(scene.association, one_of(Model.STUDY_ROOT, Level.IMAGE))
    assert (answer.statuses[-1], answer.counts) == (ALL_FAILED, (0, 1, 0, None))
    assert scene.association.is_established


async def test_moves_to_who_is_not_known_and_to_who_is_not_there(scene: Scene) -> None:
    query = one_of(Model.STUDY_ROOT, Level.SERIES)
    answer = await move(scene.association, query, destination="receiver")
    assert (answer.statuses, answer.failed) == ([0xA801], set())
    answer = await move(scene.association, query, destination="NOBODY")
    assert answer.statuses[-1] == ALL_FAILED
    assert answer.counts == (0, 3, 0, None)
    assert answer.failed == {Sample(number).uid for number in (1, 2, 3)}
    assert scene.moved.received == {}


# PS3.4 C.5.1.1, C.5.2.1, C.5.3.1: relational queries and retrievals


@pytest.mark.parametrize(("proposed", "agreed"), [(b"\x01", True), (b"\x00", False)])
async def test_relational_keys_when_they_were_negotiated(scene: Scene, proposed: bytes, agreed: bool) -> None:
    """An image by its UID alone: found, and counted; without the negotiation refused."""
    model = Model.STUDY_ROOT
    port = int(scene.association.peer_address.rpartition(":")[2])
    contexts = [PresentationContextRQ(2 * n + 1, uid, SYNTAXES[1:]) for n, uid in enumerate(operations_of(model))]
    request = associate_rq(*contexts, called="TOMOWIRE")
    negotiation = tuple(ExtendedNegotiation(uid, proposed) for uid in operations_of(model))
    query = identifier(Level.IMAGE, SOPInstanceUID=[f"{ROOT}.3.2", f"{ROOT}.3.9"])
    data = encode(query, IMPLICIT_VR_LITTLE_ENDIAN)
    async with await RawPeer.connect(port) as peer:
        accepted = await peer.associate(with_negotiation(request, negotiation))
        answered = accepted.user_information.extended_negotiations
        assert [each.application_information for each in answered] == [proposed] * 3
        finals = []
        for number, message in enumerate(requests_of(model)):
            await peer.send(message_pdus(2 * number + 1, message, data))
            finals.append(await final_response(peer))
        await peer.release()
    if agreed:
        # Found; moved; and for C-GET there is no context for the objects, but they are known.
        assert [final.status for final in finals] == [SUCCESS, SUCCESS, ALL_FAILED]
        assert scene.moved.received.keys() == {f"{ROOT}.3.2", f"{ROOT}.3.9"}
    else:
        assert [final.status for final in finals] == [0xA900] * 3


def operations_of(model: Model) -> tuple[str, str, str]:
    return model.find, model.move, model.get


def requests_of(model: Model) -> tuple[CFindRQ, CMoveRQ, CGetRQ]:
    return (
        CFindRQ(message_id=1, affected_sop_class_uid=model.find),
        CMoveRQ(message_id=2, affected_sop_class_uid=model.move, move_destination="RECEIVER"),
        CGetRQ(message_id=3, affected_sop_class_uid=model.get),
    )


def with_negotiation(request: Any, negotiation: tuple[ExtendedNegotiation, ...]) -> Any:
    from dataclasses import replace

    information = replace(request.user_information, extended_negotiations=negotiation)
    return replace(request, user_information=information)


async def final_response(peer: RawPeer) -> Response:
    while True:
        command = (await peer.read_message()).command
        assert isinstance(command, Response)
        if command.status != PENDING:
            return command


# What ends in the middle


@dataclass(frozen=True)
class Held:
    """A destination that takes objects and does not answer, and an archive that knows it."""

    settings: Settings
    begun: asyncio.Event
    """The destination has got an object."""

    ended: asyncio.Event
    """Its association has ended before it answered."""


@pytest.fixture
async def held(no_leaks: None, tmp_path: Path) -> AsyncIterator[Held]:
    await fill(tmp_path, small_hospital())
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hold(request: StoreRequest) -> int:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return SUCCESS

    async with listen(LOOPBACK, 0, services=[Storage(hold)], shutdown_grace=0.1) as server:
        nodes = (Node("RECEIVER", LOOPBACK, server.port),)
        yield Held(Settings(tmp_path, port=0, nodes=nodes, shutdown_grace=0.1), begun, ended)


MOVING = [ProposedContext(Model.STUDY_ROOT.move, SYNTAXES)]


async def test_a_requestor_that_goes_away_ends_its_move(held: Held) -> None:
    async with asyncio.timeout(20), Archive(held.settings) as archive:
        async with associate(f"TOMOWIRE@{LOOPBACK}:{archive.port}", MOVING) as association:
            asked = asyncio.create_task(move(association, one_of(Model.STUDY_ROOT, Level.STUDY)))
            await held.begun.wait()
            association.abort()
            with pytest.raises(AssociationError):
                await asked
        await held.ended.wait()


async def test_an_archive_that_ends_takes_its_moves_with_it(held: Held) -> None:
    async with asyncio.timeout(20), contextlib.AsyncExitStack() as archives:
        archive = await archives.enter_async_context(Archive(held.settings))
        with contextlib.suppress(AssociationError):  # its release finds nobody
            async with associate(f"TOMOWIRE@{LOOPBACK}:{archive.port}", MOVING) as association:
                asked = asyncio.create_task(move(association, one_of(Model.STUDY_ROOT, Level.STUDY)))
                await held.begun.wait()
                await archives.aclose()
                with pytest.raises(AssociationError):
                    await asked
        await held.ended.wait()


async def test_moves_to_a_node_share_its_associations(no_leaks: None, tmp_path: Path) -> None:
    """It takes one of ours at once, whoever asks; the second move waits for the end of the first."""
    await fill(tmp_path, small_hospital())
    begun, go_on, both_asked = asyncio.Event(), asyncio.Event(), asyncio.Event()
    receiver = Receiver()
    requestors: list[int | None] = []

    async def hold(request: StoreRequest) -> None:
        requestors.append(request.message.move_originator_message_id)
        begun.set()
        await go_on.wait()

    receiver.on_object = hold
    query = one_of(Model.STUDY_ROOT, Level.STUDY)
    async with asyncio.timeout(20), listen(LOOPBACK, 0, services=[Storage(receiver.keep)]) as server:
        receiver.server = server
        node = Node("RECEIVER", LOOPBACK, server.port)
        async with Archive(Settings(tmp_path, port=0, nodes=(node,))) as archive:
            peer = f"TOMOWIRE@{LOOPBACK}:{archive.port}"
            selected = ArchiveRetrieve._selected

            async def note(self: ArchiveRetrieve, request: RetrieveRequest) -> Any:
                result = await selected(self, request)
                if request.message.message_id == 2:
                    both_asked.set()
                return result

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(ArchiveRetrieve, "_selected", note)
                async with associate(peer, MOVING, window=2) as association:
                    moves = [asyncio.create_task(move(association, query))]
                    await begun.wait()
                    moves.append(asyncio.create_task(move(association, query)))
                    await both_asked.wait()
                    go_on.set()
                    answers = await asyncio.gather(*moves)
    assert [each.counts for each in answers] == [(5, 0, 0, None)] * 2
    assert receiver.most_associations == 1
    assert requestors == [1] * 5 + [2] * 5


async def test_what_kinds_of_objects_a_move_brings(hospital: ArchiveStorage) -> None:
    """The associations of a C-MOVE are planned with them; a C-GET has no use for them."""
    retrieve = retrieving(hospital)
    query = one_of(Model.STUDY_ROOT, Level.STUDY)
    to_get = request_for(query)
    message = CMoveRQ(message_id=1, affected_sop_class_uid=Model.STUDY_ROOT.move, move_destination="RECEIVER")
    got, moved = await retrieve.objects(to_get), await retrieve.objects(replace(to_get, message=message))
    files = await located(moved.files)
    assert files == await located(got.files)
    assert (moved.total, moved.kinds) == (5, {(file.sop_class_uid, file.transfer_syntax_uid) for file in files})
    assert got.kinds == frozenset()


async def test_too_many_moves_to_one_destination(held: Held, tmp_path: Path) -> None:
    """One that answers nothing keeps those who want to send to it, and nobody else."""
    query = one_of(Model.STUDY_ROOT, Level.STUDY)
    async with asyncio.timeout(20), Archive(held.settings) as archive:
        peer = f"TOMOWIRE@{LOOPBACK}:{archive.port}"
        async with contextlib.AsyncExitStack() as stack:
            three = [await stack.enter_async_context(associate(peer, MOVING, window=16)) for _ in range(3)]
            moves = [asyncio.create_task(move(three[number // 8], query)) for number in range(17)]
            done, going_on = await asyncio.wait(moves, return_when=asyncio.FIRST_COMPLETED)
            assert [each.result().statuses for each in done] == [[0xA702]]
            assert len(going_on) == 16
            news = [each async for each in Peer(peer).get(Query.study(JANE[Level.STUDY]), tmp_path / "got")]
            assert len([each for each in news if isinstance(each, Retrieved)]) == len(BELOW[Level.STUDY])
            for association in three:
                association.abort()
            await asyncio.wait(moves)
            assert {type(each.exception()) for each in going_on} == {AssociationAborted}


async def test_too_many_at_once(held: Held) -> None:
    """Each may hold objects in memory for as long as its destination does not answer. PS3.4 Table C.4-2: A702H."""
    query = one_of(Model.STUDY_ROOT, Level.STUDY)
    async with asyncio.timeout(20), Archive(held.settings) as archive:
        peer = f"TOMOWIRE@{LOOPBACK}:{archive.port}"
        async with associate(peer, MOVING, window=16) as association, associate(peer, MOVING) as other:
            moves = [asyncio.create_task(move(association, query)) for _ in range(9)]
            done, going_on = await asyncio.wait(moves, return_when=asyncio.FIRST_COMPLETED)
            assert [each.result().statuses for each in done] == [[0xA702]]
            assert len(going_on) == 8
            answer = await move(other, identifier(Level.STUDY, StudyInstanceUID="1.2.3"))
            assert answer.statuses == [SUCCESS]
            association.abort()
            await asyncio.wait(moves)
            assert {type(each.exception()) for each in going_on} == {AssociationAborted}
