"""Queries to a whole archive, over real sockets."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom import Dataset

from support.filled import ABOVE, FOUND, fill, small_hospital
from support.objects import ROOT, Sample
from support.raw_peer import RawPeer, associate_rq, command_pdu, message_pdus
from tomowire import CFindScu, CStoreScu, Level, Model, QueryFailed, associate, storage
from tomowire.aio.association import Association
from tomowire.aio.responses import responses
from tomowire.protocol.status import Status
from tomowire.server.app import Archive, Settings
from tomowire.server.find import ArchiveFind
from tomowire.server.index.backend import backend_for
from tomowire.server.index.readers import IndexReaders
from tomowire.server.index.rows import NewRow
from tomowire.services.find_scp import FindRequest
from tomowire.services.identifiers import decode, encode
from tomowire.services.models import querying
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CCancelRQ, CFindRQ, CFindRSP

PENDING, WITHOUT_OPTIONAL_KEYS, SUCCESS = 0xFF00, 0xFF01, 0x0000


def identifier(level: Level | str, **keys: Any) -> Dataset:
    data_set = Dataset()
    data_set.QueryRetrieveLevel = str(level)
    for keyword, value in keys.items():
        setattr(data_set, keyword, value)
    return data_set


@contextlib.asynccontextmanager
async def associated(root: Path, index_url: str | None) -> AsyncIterator[Association]:
    """An association with an archive over `root`, with a context for each model."""
    contexts = [*map(querying, Model), *storage("Secondary Capture Image Storage")]
    async with (
        Archive(Settings(root, port=0, index_url=index_url)) as archive,
        associate(f"TOMOWIRE@127.0.0.1:{archive.port}", contexts) as association,
    ):
        yield association


@pytest.fixture
def postgres_url(emptied_postgres_url: str) -> str:
    """These tests leave nothing but objects in a database."""
    return emptied_postgres_url


@pytest.fixture
async def association(no_leaks: None, tmp_path: Path, index_url: str | None) -> AsyncIterator[Association]:
    await fill(tmp_path, small_hospital(), index_url=index_url)
    async with associated(tmp_path, index_url) as association:
        yield association


async def found(association: Association, query: Dataset, model: Model = Model.STUDY_ROOT) -> list[Dataset]:
    return [answer async for answer in CFindScu(association).find(query, model=model)]


async def statuses(association: Association, query: Dataset, model: Model = Model.STUDY_ROOT) -> list[tuple[int, bool]]:
    """Of each response the status, and whether there is an identifier."""
    context = association.context(model.find)
    request = CFindRQ(message_id=association.next_message_id(), affected_sop_class_uid=model.find)
    data = encode(query, context.transfer_syntax)
    received = responses(association, context, request, data, name="C-FIND", timeout=10, grace=5)
    return [(response.status, answer is not None) async for response, answer in received]


@pytest.mark.parametrize(("model", "level"), [(model, level) for model in Model for level in model.levels])
async def test_every_level_of_every_model(association: Association, model: Model, level: Level) -> None:
    above = {
        keyword: key for keyword, key in ABOVE[level].items() if keyword != "PatientID" or model.levels[0] != level
    }
    answers = await found(association, identifier(level, **above, **{level.unique_key: ""}), model)
    assert {answer[level.unique_key].value for answer in answers} >= FOUND[level]
    if above:
        assert len(answers) == len(FOUND[level])
    for answer in answers:
        assert answer.QueryRetrieveLevel == level
        assert answer.RetrieveAETitle == "TOMOWIRE"
        assert answer.InstanceAvailability == "ONLINE"


async def test_what_is_asked_for_comes_back_and_nothing_else(association: Association) -> None:
    query = identifier(
        Level.STUDY,
        StudyInstanceUID=f"{ROOT}.1.1",
        PatientName="",
        ModalitiesInStudy="",
        NumberOfStudyRelatedInstances="",
        NumberOfStudyRelatedSeries="",
        AccessionNumber="",
        StudyDescription="",
    )
    (answer,) = await found(association, query)
    archive_says = {"QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability"}
    assert {element.keyword for element in answer} == {element.keyword for element in query} | archive_says
    assert (answer.PatientName, answer.AccessionNumber) == ("Doe^Jane", "A1")
    assert sorted(answer.ModalitiesInStudy) == ["CT", "MR"]
    assert (answer.NumberOfStudyRelatedInstances, answer.NumberOfStudyRelatedSeries) == (5, 2)
    assert not answer.StudyDescription


async def test_nothing_found_is_one_response_without_an_identifier(association: Association) -> None:
    assert await statuses(association, identifier(Level.STUDY, PatientID="NOBODY")) == [(SUCCESS, False)]


async def test_a_key_that_is_not_supported_is_told_with_every_answer(association: Association) -> None:
    """PS3.4 C.4.1.1.4: FF01 for a key that was asked for and is not supported."""
    one = {"StudyInstanceUID": f"{ROOT}.1.1"}
    supported = identifier(Level.STUDY, **one, PatientName="", StudyDescription="")
    assert await statuses(association, supported) == [(PENDING, True), (SUCCESS, False)]
    unsupported = identifier(Level.STUDY, **one, InterpretationAuthor="")
    assert await statuses(association, unsupported) == [(WITHOUT_OPTIONAL_KEYS, True), (SUCCESS, False)]
    (answer,) = await found(association, unsupported)
    assert answer.InterpretationAuthor == ""


@pytest.mark.parametrize(("asked_in", "answered_in"), [("ISO_IR 100", "ISO_IR 100"), ("ISO_IR 192", "ISO_IR 192")])
async def test_the_query_has_another_character_set_than_the_object(
    association: Association, asked_in: str, answered_in: str
) -> None:
    """PS3.4 C.4.1.1.3: values are compared as text; each side declares its own character set."""
    query = identifier(Level.STUDY, SpecificCharacterSet=asked_in, PatientName="Müller*", StudyInstanceUID="")
    (answer,) = await found(association, query)
    assert (answer.PatientName, answer.SpecificCharacterSet) == ("Müller^Jörg", answered_in)


async def test_each_answer_has_the_character_set_that_it_needs(association: Association) -> None:
    answers = await found(association, identifier(Level.PATIENT, PatientName="", PatientID=""), Model.PATIENT_ROOT)
    assert {(str(answer.PatientName), answer.get("SpecificCharacterSet")) for answer in answers} == {
        ("Doe^Jane", None),
        ("Müller^Jörg", "ISO_IR 192"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "ISO_IR 192"),
    }


@pytest.mark.parametrize(
    ("query", "model"),
    [
        (Dataset(), Model.STUDY_ROOT),
        (identifier("SOMETHING"), Model.STUDY_ROOT),
        (identifier(Level.PATIENT), Model.STUDY_ROOT),
        (identifier(Level.SERIES, StudyInstanceUID=f"{ROOT}.1.1"), Model.PATIENT_STUDY_ONLY),
        (identifier(Level.SERIES, SeriesInstanceUID=""), Model.STUDY_ROOT),
        (identifier(Level.IMAGE, StudyInstanceUID=f"{ROOT}.1.1"), Model.STUDY_ROOT),
        (identifier(Level.STUDY, StudyInstanceUID=""), Model.PATIENT_ROOT),
    ],
)
async def test_what_is_no_query_of_the_model_is_refused(
    association: Association, query: Dataset, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """PS3.4 C.4.1.2.1 and C.4.1.1.4: an identifier that does not match the SOP class, and which element it is about."""
    query.PatientName = ""
    with pytest.raises(QueryFailed) as caught:
        await found(association, query, model)
    assert caught.value.status == 0xA900
    assert caught.value.offending_elements
    assert f"query not answered: {Status(0xA900)}: {caught.value.error_comment}" in caplog.text
    assert len(await found(association, identifier(Level.STUDY, StudyInstanceUID=f"{ROOT}.1.1"))) == 1


LEVEL = b"\x08\0\x52\0CS\x06\0STUDY "


@pytest.mark.parametrize(
    ("query", "comment"),
    [
        (LEVEL[:-2], "the identifier ends inside (0008,0052) (at byte 12)"),
        (LEVEL + b"\x10\0\x10", "the identifier: 3 bytes are left over after (0008,0052)"),
        (LEVEL + b"\x08\0\x32\x10SQ\0\0\x04\0\0\0\xfe\xff\0\xe0", "the identifier: (0008,1032) has an item cut short"),
        (b"\x08\0\x05\0CS\x04\0A\0B " + LEVEL, "the identifier: (0008,0005) names no character set"),
    ],
)
async def test_bytes_that_are_no_data_set_are_refused(association: Association, query: bytes, comment: str) -> None:
    """PS3.4 Table C.4-1: C000H, cannot understand; the comment is an LO of 64 characters (PS3.7 Table E.1-1)."""
    context = association.context(Model.STUDY_ROOT.find)
    assert context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    request = CFindRQ(message_id=association.next_message_id(), affected_sop_class_uid=Model.STUDY_ROOT.find)
    received = responses(association, context, request, query, name="", timeout=10, grace=5)
    ((response, _),) = [each async for each in received]
    assert isinstance(response, CFindRSP)
    assert response.status & 0xF000 == 0xC000
    assert response.error_comment == comment


async def test_what_got_success_is_found(association: Association, tmp_path: Path) -> None:
    sample = Sample(100, study=100)
    path = tmp_path / "sample.dcm"
    path.write_bytes(sample.header + sample.data_set)
    query = identifier(Level.STUDY, StudyInstanceUID=sample.study_uid)
    assert await found(association, query) == []
    assert (await CStoreScu(association).send(path)).is_success
    assert len(await found(association, query)) == 1


def index_many(root: Path, index_url: str | None, count: int, comments: str = "") -> None:
    """Instances of one series in the index of an archive; files there are none."""
    overrides = {0x00104000: ("LT", comments)} if comments else {}
    with contextlib.closing(backend_for(index_url, root, fsync=False).open_writer()) as index:
        records = (Sample(number, overrides=overrides).record for number in range(count))
        index.insert(1, [NewRow(record, 1, 300, 1000, b"", 0, "MODALITY") for record in records])


IMAGES = identifier(
    Level.IMAGE, StudyInstanceUID=Sample().study_uid, SeriesInstanceUID=Sample().series_uid, SOPInstanceUID=""
)


@pytest.fixture
async def large(no_leaks: None, tmp_path: Path, index_url: str | None) -> AsyncIterator[Association]:
    await fill(tmp_path, [], index_url=index_url)
    index_many(tmp_path, index_url, 5000)
    async with associated(tmp_path, index_url) as association:
        yield association


async def test_many_answers_all_come_and_take_no_memory(large: Association) -> None:
    await found(large, IMAGES)  # what is imported and cached stays
    tracemalloc.start()
    try:
        numbers = set()
        async for answer in CFindScu(large).find(IMAGES):
            numbers.add(int(answer.SOPInstanceUID.rpartition(".")[2]))
        assert numbers == {*range(5000)}
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


async def test_cancelled_it_ends_at_once_and_the_association_is_of_use(large: Association) -> None:
    async with aclosing(CFindScu(large).find(IMAGES)) as answers:
        await anext(answers)
    assert large.is_established
    assert len(await found(large, identifier(Level.STUDY, StudyInstanceUID=""))) == 1


async def test_a_peer_that_reads_slowly_can_still_cancel(no_leaks: None, tmp_path: Path, index_url: str | None) -> None:
    """PS3.4 C.4.1.3.2: FE00, and on the way there whole responses only. There are 100 MB of answers, and few are ahead of it."""
    await fill(tmp_path, [], index_url=index_url)
    index_many(tmp_path, index_url, 5000, comments="x" * 20_000)
    context = PresentationContextRQ(1, Model.STUDY_ROOT.find, (IMPLICIT_VR_LITTLE_ENDIAN,))
    query = identifier(Level.IMAGE, **{each.keyword: each.value for each in IMAGES}, PatientComments="")
    request = CFindRQ(message_id=7, affected_sop_class_uid=Model.STUDY_ROOT.find)
    async with (
        Archive(Settings(tmp_path, port=0, index_url=index_url)) as archive,
        await RawPeer.connect(archive.port) as peer,
    ):
        await peer.associate(associate_rq(context, called="TOMOWIRE"))
        await peer.send(message_pdus(1, request, encode(query, IMPLICIT_VR_LITTLE_ENDIAN)))
        before = [await peer.read_message() for _ in range(200)]
        await peer.send(command_pdu(1, CCancelRQ(message_id_being_responded_to=7)))
        after = [await peer.read_message()]
        while after[-1].data is not None:
            after.append(await peer.read_message())
        assert after[-1].command.status == 0xFE00
        assert len(after) < 2500
        for answer in before + after[:-1]:
            assert answer.command.status == PENDING
            assert len(decode(answer.data, IMPLICIT_VR_LITTLE_ENDIAN).PatientComments) == 20_000
        await peer.release()


class Somebody:
    """Stands for an association: all that matters here is which one it is."""


def request_for(query: Dataset) -> FindRequest:
    message = CFindRQ(message_id=1, affected_sop_class_uid=Model.STUDY_ROOT.find)
    data = encode(query, IMPLICIT_VR_LITTLE_ENDIAN)
    return FindRequest(Model.STUDY_ROOT, data, IMPLICIT_VR_LITTLE_ENDIAN, cast("Any", Somebody()), message)


async def test_the_index_cannot_be_used(no_leaks: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    readers = IndexReaders(backend_for(None, tmp_path / "missing"))
    try:
        with pytest.raises(QueryFailed) as caught:
            await anext(aiter(ArchiveFind(readers, "TOMOWIRE").answer(request_for(identifier(Level.STUDY)))))
        assert caught.value.status == 0xA700  # PS3.4 C.4.1.1.4: out of resources
        assert "index" in caplog.text
    finally:
        await readers.close()


async def test_the_first_answer_does_not_wait_for_the_others(
    no_leaks: None, tmp_path: Path, index_url: str | None
) -> None:
    await fill(tmp_path, [], index_url=index_url)
    index_many(tmp_path, index_url, 1000)
    readers = IndexReaders(backend_for(index_url, tmp_path))
    sizes: Sequence[int] = [
        len(answers.identifiers) async for answers in ArchiveFind(readers, "TOMOWIRE").answer(request_for(IMAGES))
    ]
    await readers.close()
    assert (sizes[0], sum(sizes), max(sizes)) == (1, 1000, 200)


async def test_queries_whose_answers_nobody_takes_leave_room_for_others(
    no_leaks: None, tmp_path: Path, index_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a connection to the index, and files open for it."""
    monkeypatch.setattr("tomowire.server.find._PATIENCE", 0.05)
    await fill(tmp_path, [], index_url=index_url)
    index_many(tmp_path, index_url, 100)
    readers = IndexReaders(backend_for(index_url, tmp_path))
    archive = ArchiveFind(readers, "TOMOWIRE")
    one, other = request_for(IMAGES), request_for(IMAGES)
    async with contextlib.AsyncExitStack() as stack:
        open_ones = [await stack.enter_async_context(aclosing(archive.answer(one))) for _ in range(4)]
        for answers in open_ones:
            await anext(answers)
        with pytest.raises(QueryFailed) as caught:
            await anext(aiter(archive.answer(one)))
        assert caught.value.status == 0xA700
        assert sum([len(answers.identifiers) async for answers in archive.answer(other)]) == 100
        await open_ones[0].aclose()
        assert sum([len(answers.identifiers) async for answers in archive.answer(one)]) == 100
    await readers.close()
