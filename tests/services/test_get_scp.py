"""The SCP of C-GET, against a requestor that plays by hand what it answers to each sub-operation (PS3.4 C.4.3)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from support.cancelling import cancelled_after_each_step
from support.files import data_of, sparse_file, write_file
from support.raw_peer import CT, MR, RELEASE_RQ, echo_rq, message_pdus, store_rq
from support.retrievals import (
    EXPLICIT,
    GET,
    IMPLICIT,
    Counts,
    Requestor,
    Stock,
    asking,
    getting,
    serving,
    write_data_set,
)
from support.services import Keeper
from tomowire.errors import DataSetError, QueryFailed, RetrieveFailed
from tomowire.services.dicom_file import DicomFile
from tomowire.services.get_scp import Get
from tomowire.services.identifiers import decode
from tomowire.services.models import Model
from tomowire.services.storage_scp import Storage
from tomowire.services.suboperations import Retrieval, RetrieveRequest
from tomowire.uids import STORAGE_SOP_CLASSES
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CEchoRSP, CGetRQ, CGetRSP, CStoreRQ, CStoreRSP
from tomowire.wire.pdu import AAbort, AReleaseRP

pytestmark = pytest.mark.usefixtures("no_leaks")

JPEG_LS = "1.2.840.10008.1.2.4.80"


@pytest.fixture
def files(tmp_path: Path) -> list[DicomFile]:
    return [write_file(tmp_path, number) for number in range(1, 21)]


def uids(*numbers: int) -> list[str]:
    return [f"1.2.{number}" for number in numbers]


async def is_usable(requestor: Requestor) -> bool:
    """Whether the association still answers: a further C-GET."""
    requestor.stored.clear()
    await requestor.get(message_id=77)
    counts, _, _ = await requestor.take_all()
    return counts.status == 0


# What goes well


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("batch", [1, 7, 100])
async def test_all_objects_come_as_they_are_stored(tmp_path: Path, batch: int, syntax: str) -> None:
    """Small ones, one that is streamed, and one of odd length, which gets its padding."""
    files = [write_file(tmp_path, number) for number in range(50)]
    files += [sparse_file(tmp_path, 100, 3 << 20), write_file(tmp_path, 101, b"\x10\x00odd")]
    stock = Stock(files, batch=batch)
    async with getting(stock, syntax=syntax) as requestor:
        await requestor.get()
        assert await requestor.take_all() == (Counts(0x0000, None, 52, 0, 0), [], None)
    assert {uid: message.data for uid, message in requestor.stored.items()} == {
        f"1.2.{number}": data_of(number) for number in range(50)
    } | {"1.2.100": b"\x10\x00" + bytes((3 << 20) - 2), "1.2.101": b"\x10\x00odd\0"}
    assert stock.closed.is_set()
    (asked,) = stock.asked
    assert asked.model is Model.STUDY_ROOT
    assert decode(asked.identifier, asked.transfer_syntax_uid).StudyInstanceUID == "1.2.3"
    assert not asked.relational


async def test_no_move_originator_is_told(files: list[DicomFile]) -> None:
    async with getting(Stock(files[:1])) as requestor:
        await requestor.get()
        await requestor.take_all()
    (message,) = requestor.stored.values()
    assert isinstance(message.command, CStoreRQ)
    assert message.command.move_originator_application_entity_title is None
    assert message.command.move_originator_message_id is None


async def test_case_67_no_match() -> None:
    """PS3.4 C.4.3.1.4: success, with zero counts."""
    async with getting(Stock()) as requestor:
        await requestor.get()
        assert await requestor.take_all() == (Counts(0x0000, None, 0, 0, 0), [], None)
    assert requestor.pending == []


async def test_case_68_what_remains_is_told_while_it_can_change(files: list[DicomFile]) -> None:
    """The first pending response comes after the first sub-operation; the counts add up in each of them."""
    async with getting(Stock(files[:4])) as requestor:
        await requestor.get()
        store = await requestor.next_store()
        assert requestor.pending == []
        for number in range(1, 4):
            await requestor.answer(*store)
            following = await requestor.next_store()
            while len(requestor.pending) < number:
                response = (await requestor.peer.read_message()).command
                assert isinstance(response, CGetRSP)
                requestor.pending.append(Counts.of(response))
            store = following
        await requestor.answer(*store)
        counts, _, _ = await requestor.take_all()
    assert counts == Counts(0x0000, None, 4, 0, 0)
    assert requestor.pending[:3] == [Counts(0xFF00, 4 - number, number, 0, 0) for number in range(1, 4)]


async def test_pending_responses_are_not_sent_for_each_of_many(tmp_path: Path) -> None:
    files = [write_file(tmp_path, number) for number in range(300)]
    loop = asyncio.get_running_loop()
    async with getting(Stock(files)) as requestor:
        began = loop.time()
        await requestor.get()
        await requestor.take_all()
        took = loop.time() - began
    assert 1 <= len(requestor.pending) <= took / 0.1 + 1


async def test_as_many_are_outstanding_as_the_requestor_performs(files: list[DicomFile]) -> None:
    """PS3.7 D.3.3.3."""
    async with getting(Stock(files), window=(1, 4)) as requestor:
        await requestor.get()
        stores = [await requestor.next_store() for _ in range(4)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await requestor.next_store()
        for store in reversed(stores):
            await requestor.answer(*store)
        counts, _, _ = await requestor.take_all()
    assert counts == Counts(0, None, 20, 0, 0)


async def test_relational_retrieval_is_agreed_on_where_it_is_wanted(files: list[DicomFile]) -> None:
    """PS3.4 C.5.3.1."""
    for agrees in (True, False):
        stock = Stock(files[:1])
        async with (
            serving(Get(stock.objects, relational=agrees)) as server,
            asking(server.port, relational=True) as requestor,
        ):
            await requestor.get()
            await requestor.take_all()
        assert stock.asked[0].relational is agrees


# What fails


async def test_case_69_and_70_failures_are_listed_and_warnings_are_not(files: list[DicomFile]) -> None:
    statuses = {"1.2.3": 0xA700, "1.2.5": 0xB000, "1.2.6": 0xC123, "1.2.7": 0x0110, "1.2.8": 0xB007, "1.2.9": 0xFE00}
    async with getting(Stock(files)) as requestor:
        await requestor.get()
        counts, failed, comment = await requestor.take_all(statuses)
        assert await is_usable(requestor)
    assert counts == Counts(0xB000, None, 14, 4, 2)
    assert failed == uids(3, 6, 7, 9)
    assert comment is not None
    assert "A700H" in comment


async def test_case_70_warnings_alone(files: list[DicomFile]) -> None:
    async with getting(Stock(files[:3])) as requestor:
        await requestor.get()
        counts, failed, _ = await requestor.take_all({"1.2.2": 0xB006})
    assert (counts, failed) == (Counts(0xB000, None, 2, 0, 1), [])


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
async def test_case_69_all_have_failed(files: list[DicomFile], syntax: str) -> None:
    async with getting(Stock(files), syntax=syntax) as requestor:
        await requestor.get()
        counts, failed, _ = await requestor.take_all(dict.fromkeys(uids(*range(1, 21)), 0xA900))
    assert counts == Counts(0xA702, None, 0, 20, 0)
    assert failed == uids(*range(1, 21))


async def test_case_73_what_is_taken_in_another_transfer_syntax_is_transcoded(tmp_path: Path) -> None:
    """And what cannot be is a failed sub-operation, that one only."""
    files = [
        write_data_set(tmp_path, 1),
        write_file(tmp_path, 2, transfer_syntax=JPEG_LS),
        write_data_set(tmp_path, 3),
        write_file(tmp_path, 4, sop_class=MR),
    ]
    async with getting(Stock(files), PresentationContextRQ(3, CT, (IMPLICIT,))) as requestor:
        await requestor.get()
        counts, failed, comment = await requestor.take_all()
    assert counts == Counts(0xB000, None, 2, 2, 0)
    assert failed == uids(2, 4)
    assert comment
    for number in (1, 3):
        data = requestor.stored[f"1.2.{number}"].data
        assert data is not None
        assert decode(data, IMPLICIT).PatientID == f"P{number}"


async def test_each_object_goes_on_the_context_of_its_transfer_syntax(tmp_path: Path) -> None:
    files = [
        write_file(tmp_path, 1),
        write_file(tmp_path, 2, transfer_syntax=JPEG_LS),
        write_file(tmp_path, 3, sop_class=MR),
    ]
    contexts = (
        PresentationContextRQ(3, CT, (JPEG_LS,)),
        PresentationContextRQ(5, CT, (EXPLICIT,)),
        PresentationContextRQ(7, MR, (EXPLICIT,)),
    )
    async with getting(Stock(files), *contexts, scp_of=(CT, MR)) as requestor:
        await requestor.get()
        counts, _, _ = await requestor.take_all()
    assert counts.status == 0
    assert {uid: message.context_id for uid, message in requestor.stored.items()} == {
        "1.2.1": 5,
        "1.2.2": 3,
        "1.2.3": 7,
    }


async def test_case_74_without_role_selection_the_sub_operations_fail(files: list[DicomFile]) -> None:
    """The association goes on: storage is served beside, so that the context is accepted in the requestor's default role."""
    stock = Stock(files)
    async with (
        serving(Get(stock.objects), Storage(Keeper().keep)) as server,
        asking(server.port, scp_of=()) as requestor,
    ):
        await requestor.get()
        counts, failed, comment = await requestor.take_all()
        assert counts == Counts(0xA702, None, 0, 20, 0)
        assert failed == uids(*range(1, 21))
        assert comment is not None
        assert "SCP role" in comment
        assert requestor.stored == {}
        stock.files, stock.total = (), 0
        assert await is_usable(requestor)


@pytest.mark.parametrize("storage_first", [True, False])
async def test_storing_and_getting_on_one_association(files: list[DicomFile], storage_first: bool) -> None:
    keeper = Keeper()
    services = [Storage(keeper.keep), Get(Stock(files).objects)]
    async with (
        serving(*(services if storage_first else reversed(services))) as server,
        asking(server.port) as requestor,
    ):
        await requestor.peer.send(message_pdus(3, store_rq(9, "1.2.99"), b"data"))
        response = (await requestor.peer.read_message()).command
        assert isinstance(response, CStoreRSP)
        assert response.status == 0
        await requestor.get()
        counts, _, _ = await requestor.take_all()
    assert counts == Counts(0, None, 20, 0, 0)
    assert list(keeper.stored) == ["1.2.99"]


async def test_what_is_only_given_cannot_be_stored() -> None:
    """The context is there because the requestor wants to receive; a C-STORE in it is an operation nobody performs."""
    async with getting(Stock()) as requestor:
        await requestor.peer.send(message_pdus(3, store_rq(9, "1.2.99"), b"data"))
        response = (await requestor.peer.read_message()).command
        assert isinstance(response, CStoreRSP)
        assert response.status == 0x0211
        assert await is_usable(requestor)


async def test_files_that_cannot_be_read(files: list[DicomFile]) -> None:
    os.unlink(files[0].path)
    os.truncate(files[1].path, files[1].offset + 3)
    lost = DicomFile.unread(Path("lost"))
    async with getting(Stock([*files, lost])) as requestor:
        await requestor.get()
        counts, failed, comment = await requestor.take_all()
    assert counts == Counts(0xB000, None, 18, 3, 0)
    assert failed == uids(1, 2)
    assert comment is not None
    assert "cannot be read" in comment
    assert str(files[0].path.parent) not in comment


@pytest.mark.parametrize(
    ("error", "status", "offending"),
    [
        (RetrieveFailed(0xA900, "no level", (0x00080052,)), 0xA900, (0x00080052,)),
        (QueryFailed(0xA701, "too many"), 0xA701, ()),
        (DataSetError("cut short"), 0xC000, ()),
        (ValueError("Doe^Jane"), 0x0110, ()),
    ],
)
async def test_a_handler_that_refuses(error: Exception, status: int, offending: tuple[int, ...]) -> None:
    stock = Stock()
    stock.refuses = error
    async with getting(stock) as requestor:
        await requestor.get()
        response = (await requestor.peer.read_message()).command
        assert isinstance(response, CGetRSP)
        assert Counts.of(response) == Counts(status, None, None, None, None)
        assert response.offending_element == offending
        assert "Doe" not in (response.error_comment or "")
        stock.refuses = None
        assert await is_usable(requestor)


@pytest.mark.parametrize(
    "error", [RetrieveFailed(0xA701, "the index cannot be used now"), ValueError("Doe^Jane"), None]
)
async def test_a_handler_that_fails_in_the_middle(files: list[DicomFile], error: Exception | None) -> None:
    """Or gives fewer than it promised: those that are missing have failed, though nobody can name them."""
    stock = Stock(files[:5], total=8)
    stock.fails = error
    async with getting(stock) as requestor:
        await requestor.get()
        counts, failed, comment = await requestor.take_all()
    assert (counts, failed) == (Counts(0xB000, None, 5, 3, 0), [])
    assert comment
    assert "Doe" not in comment


async def test_a_request_without_an_identifier() -> None:
    async with getting(Stock()) as requestor:
        no_data = CGetRQ(message_id=1, affected_sop_class_uid=GET, data_set_type=0x0101)
        await requestor.peer.send(message_pdus(1, no_data))
        response = (await requestor.peer.read_message()).command
        assert isinstance(response, CGetRSP)
        assert response.status == 0xC000


async def test_another_operation_or_sop_class_is_refused() -> None:
    stock = Stock()
    async with getting(stock) as requestor:
        await requestor.peer.send(message_pdus(1, echo_rq()))
        response = (await requestor.peer.read_message()).command
        assert isinstance(response, CEchoRSP)
        assert response.status == 0x0211
        other = CGetRQ(message_id=1, affected_sop_class_uid=Model.PATIENT_ROOT.get)
        await requestor.peer.send(message_pdus(1, other, b""))
        refused = (await requestor.peer.read_message()).command
        assert isinstance(refused, CGetRSP)
        assert refused.status == 0x0122
    assert stock.asked == []


async def test_only_the_models_that_are_served_are_accepted() -> None:
    get = Get(Stock().objects, models=[Model.PATIENT_ROOT])
    assert get.transfer_syntaxes(Model.PATIENT_ROOT.get) == {IMPLICIT, EXPLICIT}
    assert get.transfer_syntaxes(Model.STUDY_ROOT.get) is None
    assert get.transfer_syntaxes(CT) is None


# Being called off, and the end of the association


async def test_after_a_cancel_no_sub_operation_is_begun(files: list[DicomFile]) -> None:
    """PS3.4 C.4.3.3.2: what is outstanding is finished, and FE00H tells what remains and what failed."""
    stock = Stock(files)
    async with getting(stock, window=(1, 2)) as requestor:
        await requestor.get()
        await requestor.answer(*await requestor.next_store(), 0xC000)
        stores = [await requestor.next_store() for _ in range(2)]
        await requestor.cancel()
        for store, status in zip(stores, (0, 0xB000), strict=True):
            await requestor.answer(*store, status)
        counts, failed, _ = await requestor.take_all()
        assert counts == Counts(0xFE00, 17, 1, 1, 1)
        assert failed == ["1.2.1"]
        assert len(requestor.stored) == 3
        stock.files, stock.total = (), 0
        assert await is_usable(requestor)
    assert stock.closed.is_set()


async def test_a_cancel_while_the_handler_looks_for_objects(files: list[DicomFile]) -> None:
    stock = Stock(files)
    stock.waits_before = True
    async with getting(stock) as requestor:
        await requestor.get()
        await requestor.cancel()
        counts, _, _ = await requestor.take_all()
    assert counts == Counts(0xFE00, None, None, None, None)
    assert stock.cancelled.is_set()


async def test_a_cancel_while_the_handler_looks_for_more_objects(files: list[DicomFile]) -> None:
    stock = Stock(files[:3], total=10)
    stock.waits_after = True
    async with getting(stock) as requestor:
        await requestor.get()
        for _ in range(3):
            await requestor.answer(*await requestor.next_store())
        await requestor.cancel()
        counts, _, _ = await requestor.take_all()
    assert counts == Counts(0xFE00, 7, 3, 0, 0)
    assert stock.cancelled.is_set()


@pytest.mark.parametrize("ends", ["reset", "abort", "close"])
async def test_case_72_the_requestor_goes_away(files: list[DicomFile], ends: str) -> None:
    stock = Stock(files, batch=5)
    async with serving(Get(stock.objects)) as server:
        async with asking(server.port) as requestor:
            await requestor.get()
            await requestor.answer(*await requestor.next_store())
            await requestor.next_store()
            if ends == "reset":
                requestor.peer.reset()
            elif ends == "abort":
                await requestor.peer.send(AAbort(0, 0))
        async with asyncio.timeout(20):
            await stock.closed.wait()
    assert server.associations == []


async def test_the_requestor_releases_in_the_middle(files: list[DicomFile], caplog: pytest.LogCaptureFixture) -> None:
    """It takes no more: what remains has failed, it is told so, and then released."""
    async with getting(Stock(files)) as requestor:
        await requestor.get()
        await requestor.answer(*await requestor.next_store())
        await requestor.next_store()
        await requestor.peer.send(RELEASE_RQ)
        counts, _, _ = await requestor.take_all()
        assert counts == Counts(0xB000, None, 1, 19, 0)
        assert isinstance(await requestor.peer.read_pdu(), AReleaseRP)


async def test_a_requestor_that_answers_no_sub_operation(files: list[DicomFile]) -> None:
    stock = Stock(files)
    async with getting(stock, timeout=0.2) as requestor:
        await requestor.get()
        await requestor.next_store()
        await requestor.peer.expect_abort()
        async with asyncio.timeout(20):
            await stock.closed.wait()


async def test_two_at_once_on_one_association(files: list[DicomFile]) -> None:
    stock = Stock(files)
    async with getting(stock, window=(2, 1)) as requestor:
        await requestor.get(1)
        await requestor.get(2)
        seen: list[int] = []
        stores = 0
        while len(seen) < 2:
            message = await requestor.peer.read_message()
            if isinstance(message.command, CStoreRQ):
                stores += 1
                await requestor.answer(message.context_id, message.command)
            elif isinstance(message.command, CGetRSP) and message.command.status != 0xFF00:
                assert Counts.of(message.command) == Counts(0, None, 20, 0, 0)
                seen.append(message.command.message_id_being_responded_to)
    assert sorted(seen) == [1, 2]
    assert stores == 40


async def test_many_at_once_on_one_association(files: list[DicomFile]) -> None:
    """PS3.4 Table C.4-3, A702H: 16 are served, and the others refused; the responses to what those 16 send are read."""
    seen: dict[int, Counts] = {}
    async with getting(Stock(files[:2]), window=(0, 0)) as requestor, asyncio.timeout(20):
        for message_id in range(1, 81):
            await requestor.get(message_id)
        while len(seen) < 80:
            message = await requestor.peer.read_message()
            if isinstance(message.command, CStoreRQ):
                await requestor.answer(message.context_id, message.command)
            elif isinstance(message.command, CGetRSP) and message.command.status != 0xFF00:
                seen[message.command.message_id_being_responded_to] = Counts.of(message.command)
    assert [seen[number] for number in range(1, 17)] == [Counts(0, None, 2, 0, 0)] * 16
    assert {each.status for number, each in seen.items() if number > 16} == {0xA702}


async def test_the_server_closes_in_the_middle(files: list[DicomFile]) -> None:
    stock = Stock(files)
    server = serving(Get(stock.objects))
    async with server, asking(server.port) as requestor:
        await requestor.get()
        await requestor.next_store()
        async with asyncio.timeout(8):  # the grace of a server that says nothing about it is ten
            await server.close(grace=0)
        assert stock.closed.is_set()


async def test_many_objects_use_little_memory_for_those_that_wait(tmp_path: Path) -> None:
    """The iterator is asked for no more than a little ahead."""
    file = write_file(tmp_path, 1)
    many = [DicomFile(file.path, CT, f"1.2.{number}", EXPLICIT, file.offset, file.size) for number in range(5000)]
    stock = Stock(many)
    async with getting(stock) as requestor:
        await requestor.get()
        await requestor.next_store()
        assert stock.given <= 2000


async def test_the_requestor_goes_away_at_any_moment(files: list[DicomFile]) -> None:
    stock = Stock(files, batch=3)
    async with serving(Get(stock.objects)) as server:

        async def get() -> None:
            async with asking(server.port, window=(1, 3)) as requestor:
                await requestor.get()
                counts, _, _ = await requestor.take_all()
                assert counts == Counts(0, None, 20, 0, 0)

        async for _ in cancelled_after_each_step(get, growth=1.3):
            pass
        async with asyncio.timeout(20):
            await asyncio.gather(*(each.wait_closed() for each in server.associations))


def test_every_storage_class_of_the_standard_can_be_sent() -> None:
    """Some of them are not in the arc of the others: RT Beams Delivery Instruction, Stored Print."""

    async def never(request: RetrieveRequest) -> Retrieval:
        raise NotImplementedError

    get = Get(never)
    assert [uid for uid in STORAGE_SOP_CLASSES if not get.may_be_scp(uid)] == []
    assert not get.may_be_scp("1.2.840.10008.5.1.4.31"), "a worklist"
