"""C-GET, the SCU: against our own SCP, and where the peer misbehaves, against one played by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from support.cancelling import cancelled_after_each_step, cancelled_at_each_await
from support.files import data_of, sparse_file, write_file
from support.network import LOOPBACK
from support.raw_peer import CT, MR, RawMessage, RawPeer, message_pdus, raw_acceptor, store_rq
from support.retrievals import Stock
from support.services import Keeper
from tomowire import (
    Association,
    AssociationLost,
    CEchoScu,
    CFindScu,
    CGetScu,
    Find,
    FindAnswers,
    FindRequest,
    Level,
    Model,
    OperationTimeout,
    PeerAddress,
    Progress,
    Query,
    Receiver,
    RetrieveFailed,
    Status,
    Storage,
    StoreRequest,
    SubOperationFailed,
    UsageError,
    Verification,
    associate,
    getting,
    listen,
    querying,
    verification,
)
from tomowire.services.dicom_file import DicomFile
from tomowire.services.get_scp import Get
from tomowire.services.identifiers import encode
from tomowire.services.retrieval import Retrieved, get_parts
from tomowire.services.retrieve_plan import Part
from tomowire.wire.items import PresentationContextAC
from tomowire.wire.messages import CCancelRQ, CGetRQ, CGetRSP, CStoreRSP
from tomowire.wire.pdu import AAssociateAC, AAssociateRQ
from tomowire.wire.user_information import RoleSelection, UserInformation

pytestmark = pytest.mark.usefixtures("no_leaks")

STUDY = Query.study("1.2.3")
NO_DATA = 0x0101
WAYS = [cancelled_at_each_await, cancelled_after_each_step]
Way = Callable[[Callable[[], Coroutine[Any, Any, Any]]], AsyncIterator[int]]


@pytest.fixture
def files(tmp_path: Path) -> list[DicomFile]:
    return [write_file(tmp_path, number) for number in range(1, 7)]


@asynccontextmanager
async def associated(stock: Stock, keep: Any, *sop_classes: str, **options: Any) -> AsyncIterator[Association]:
    """An association with an archive; what it sends goes to the handler `keep`, or to that service."""
    service = keep if isinstance(keep, Storage) else Storage(keep)
    contexts = [verification(), getting(*(sop_classes or (CT,)))]
    services = [Verification(), Get(stock.objects)]
    async with (
        listen(LOOPBACK, 0, services=services, aet="ARCHIVE", shutdown_grace=2.0) as server,
        associate(f"ARCHIVE@{LOOPBACK}:{server.port}", contexts, services=[service], **options) as made,
    ):
        yield made


async def all_of(progress: AsyncGenerator[Progress, None]) -> list[Progress]:
    async with aclosing(progress):
        return [each async for each in progress]


async def tell(progress: AsyncGenerator[Progress, None], told: list[Progress]) -> None:
    async for each in progress:
        told.append(each)  # noqa: PERF401  an extension would lose them when it raises


def test_contexts() -> None:
    contexts = getting("CT Image Storage", MR, model=Model.PATIENT_ROOT, transfer_syntaxes=["1.2.840.10008.1.2.1"])
    assert [(each.abstract_syntax, each.scu, each.scp) for each in contexts] == [
        ("1.2.840.10008.5.1.4.1.2.1.3", True, False),
        (CT, False, True),
        (MR, False, True),
    ]


@pytest.mark.parametrize("performed", [1, 16])
async def test_the_objects_come_to_the_handler(tmp_path: Path, files: list[DicomFile], performed: int) -> None:
    stock, keeper = Stock([*files, sparse_file(tmp_path, 7, 3 << 20)]), Keeper()
    async with associated(stock, keeper.keep, performed=performed) as association:
        progress = await all_of(CGetScu(association).get(STUDY, priority=1))
        assert (await CEchoScu(association).echo()).is_success
    assert keeper.stored == {f"1.2.{number}": data_of(number) for number in range(1, 7)} | {
        "1.2.7": b"\x10\x00" + bytes((3 << 20) - 2)
    }
    assert progress[-1] == Progress(0, 7, 0, 0)
    assert [sum((each.remaining or 0, each.completed)) for each in progress] == [7] * len(progress)
    (asked,) = stock.asked
    assert (asked.model, asked.message.priority) == (Model.STUDY_ROOT, 1)


async def test_what_is_refused_here_has_failed(files: list[DicomFile]) -> None:
    """A handler's failure, a warning, and a class without a presentation context."""
    stock = Stock([*files, DicomFile(files[0].path, MR, "1.2.99", files[0].transfer_syntax_uid, files[0].offset, 16)])

    async def keep(request: StoreRequest) -> Status:
        await request.data.pass_over()
        return Status({"1.2.1": 0xA700, "1.2.2": 0xB000}.get(request.sop_instance_uid, 0))

    told: list[Progress] = []
    async with associated(stock, keep) as association:
        with pytest.raises(ExceptionGroup) as caught:
            await tell(CGetScu(association).get(STUDY), told)
        assert (await CEchoScu(association).echo()).is_success
    failed = [each.sop_instance_uid for each in caught.value.exceptions if isinstance(each, SubOperationFailed)]
    assert sorted(map(str, failed)) == ["1.2.1", "1.2.99"]
    assert told[-1] == Progress(0, 4, 2, 1)


async def test_a_failure_is_raised(files: list[DicomFile]) -> None:
    stock = Stock(files)
    stock.refuses = RetrieveFailed(0xA900, "no such study")
    async with associated(stock, Keeper().keep) as association:
        with pytest.raises(RetrieveFailed, match="no such study") as caught:
            await all_of(CGetScu(association).get(STUDY))
        assert (await CEchoScu(association).echo()).is_success
    assert caught.value.status == 0xA900


@pytest.mark.parametrize("cancellation", ["complete_in_flight", "reject_in_flight"])
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_any_moment_the_association_stays_usable(
    way: Way, cancellation: Any, files: list[DicomFile]
) -> None:
    stock, keeper = Stock(files[:3]), Keeper()
    receiver = Receiver(keeper.keep)
    runs = 0
    async with associated(stock, receiver) as association:
        scu = CGetScu(association, receiver)
        async for _ in way(lambda: all_of(scu.get(STUDY, cancellation=cancellation))):
            async with asyncio.timeout(20):
                assert (await CEchoScu(association).echo()).is_success
            runs += 1
        assert (await all_of(scu.get(STUDY)))[-1].completed == 3
    assert runs >= 3


@asynccontextmanager
async def cancelled_in_flight(keeper: Keeper, files: list[DicomFile], cancellation: Any) -> AsyncIterator[None]:
    """A C-GET that is cancelled while the handler holds its first object; entered when C-CANCEL is being answered."""
    receiver = Receiver(keeper.keep)
    keeper.gate.clear()
    async with associated(Stock(files), receiver) as association:
        work = asyncio.ensure_future(all_of(CGetScu(association, receiver).get(STUDY, cancellation=cancellation)))
        await keeper.next_begun()
        work.cancel()
        yield
        async with asyncio.timeout(10):
            await asyncio.wait([work])
        assert work.cancelled()
        keeper.gate.set()
        assert (await CEchoScu(association).echo()).is_success
        # Nothing is left of the refusal.
        assert (await all_of(CGetScu(association, receiver).get(STUDY)))[-1].completed == len(files)


async def test_what_is_in_flight_is_rejected(files: list[DicomFile]) -> None:
    keeper = Keeper()
    async with cancelled_in_flight(keeper, files, "reject_in_flight"):
        assert isinstance(await keeper.next_end(), asyncio.CancelledError)  # though nobody lets it go on
        assert keeper.stored == {}


async def test_what_is_in_flight_is_completed(files: list[DicomFile]) -> None:
    keeper = Keeper()
    async with cancelled_in_flight(keeper, files, "complete_in_flight"):
        keeper.gate.set()
        assert await keeper.next_end() is None
    assert len(keeper.stored) == len(files)


async def test_what_comes_after_the_cancellation_is_rejected() -> None:
    """PS3.4 C.4.3.3: the peer may still send what it has begun to send."""
    kept, statuses = Keeper(), []

    async def script(peer: RawPeer, message_id: int) -> None:
        await peer.send(get_rsp(message_id, 0xFF00))
        assert isinstance((await peer.read_message()).command, CCancelRQ)
        await peer.send(message_pdus(3, store_rq(1), b"\x10\x00object"))
        statuses.append(store_status(await peer.read_message()))
        await peer.send(get_rsp(message_id, 0xFE00))
        await peer.answer_release()

    receiver = Receiver(kept.keep)
    async with (
        played(script, receiver) as association,
        aclosing(CGetScu(association, receiver).get(STUDY, cancellation="reject_in_flight")) as progress,
    ):
        await anext(progress)
    assert (statuses, kept.stored) == ([0x0110], {})


async def test_rejecting_takes_a_receiver(files: list[DicomFile]) -> None:
    stock = Stock(files)
    async with associated(stock, Keeper().keep) as association:
        with pytest.raises(UsageError, match="Receiver"):
            await all_of(CGetScu(association).get(STUDY, cancellation="reject_in_flight"))
        with pytest.raises(UsageError, match="and not 'reject'"):
            await all_of(CGetScu(association).get(STUDY, cancellation="reject"))  # type: ignore[arg-type]
    assert stock.asked == []


async def test_a_retrieval_while_the_answers_of_a_query_are_unread(files: list[DicomFile]) -> None:
    """There are 12 MB of them, more than an association receives ahead of its readers."""
    stock, keeper = Stock(files), Keeper()
    answers = Dataset()
    answers.QueryRetrieveLevel = "STUDY"
    answers.StudyDescription = "." * 20_000

    async def answer(request: FindRequest) -> AsyncGenerator[FindAnswers, None]:
        for _ in range(600):
            yield FindAnswers([encode(answers, request.transfer_syntax_uid)])

    services = [Find(answer), Get(stock.objects)]
    contexts = [querying(), getting(CT)]
    found = 0
    async with (
        asyncio.timeout(30),
        listen(LOOPBACK, 0, services=services, shutdown_grace=2.0) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", contexts, services=[Storage(keeper.keep)], window=1) as association,
    ):
        async for _ in CFindScu(association).find(Query.studies()):
            found += 1
            if found == 1:
                progress = await all_of(CGetScu(association).get(STUDY))
    assert (found, progress[-1], len(keeper.stored)) == (600, Progress(0, 6, 0, 0), 6)


# Time, and peers that do not play along


def get_rsp(message_id: int, status: int) -> bytes:
    answer = CGetRSP(
        message_id_being_responded_to=message_id, affected_sop_class_uid=Model.STUDY_ROOT.get, status=status
    )
    return message_pdus(1, answer)


def store_status(message: RawMessage) -> int:
    assert isinstance(message.command, CStoreRSP)
    return message.command.status


async def accept_roles(peer: RawPeer) -> None:
    """Accept all contexts, and that the requestor is SCP of the storage class."""
    request = await peer.read_pdu()
    assert isinstance(request, AAssociateRQ)
    (asked,) = request.user_information.role_selections
    assert (asked.sop_class_uid, asked.scu, asked.scp) == (CT, False, True)
    contexts = tuple(
        PresentationContextAC(each.context_id, 0, each.transfer_syntaxes[0]) for each in request.presentation_contexts
    )
    information = UserInformation(
        implementation_class_uid="1.2.3", role_selections=(RoleSelection(CT, scu=False, scp=True),)
    )
    await peer.send(AAssociateAC(request.called_ae_title, request.calling_ae_title, contexts, information))


@asynccontextmanager
async def played(
    script: Callable[[RawPeer, int], Coroutine[Any, Any, None]], service: Storage
) -> AsyncIterator[Association]:
    """An association with a peer that has read the C-GET-RQ, whose Message ID it is told, and goes on as `script`."""

    async def play(peer: RawPeer) -> None:
        await accept_roles(peer)
        request = await peer.read_message()
        assert isinstance(request.command, CGetRQ)
        await script(peer, request.command.message_id)

    async with (
        raw_acceptor(play) as port,
        associate(f"PEER@{LOOPBACK}:{port}", [getting(CT)], services=[service]) as association,
    ):
        yield association


async def test_objects_that_come_are_a_sign_of_life() -> None:
    """No response to the C-GET for three times the time-out; objects all the while."""

    async def script(peer: RawPeer, message_id: int) -> None:
        for number in range(1, 8):
            await asyncio.sleep(0.5)
            await peer.send(message_pdus(3, store_rq(number, f"1.2.{number}"), b"\x10\x00object"))
            assert store_status(await peer.read_message()) == 0
        await peer.send(get_rsp(message_id, 0x0000))
        await peer.answer_release()

    keeper = Keeper()
    async with played(script, Storage(keeper.keep)) as association:
        await all_of(CGetScu(association).get(STUDY, timeout=1.2))
    assert len(keeper.stored) == 7


async def test_time_that_the_handler_takes_does_not_count() -> None:
    async def script(peer: RawPeer, message_id: int) -> None:
        await peer.send(message_pdus(3, store_rq(1), b"\x10\x00object"))
        assert store_status(await peer.read_message()) == 0
        await peer.send(get_rsp(message_id, 0x0000))
        await peer.answer_release()

    async def keep(request: StoreRequest) -> Status:
        await asyncio.sleep(1.0)
        return Status(0)

    async with played(script, Storage(keep)) as association:
        assert await all_of(CGetScu(association).get(STUDY, timeout=0.3)) == [Progress(None, 0, 0, 0)]


async def test_a_peer_that_is_silent() -> None:
    async def script(peer: RawPeer, message_id: int) -> None:
        await peer.send(message_pdus(3, store_rq(1), b"\x10\x00object"))
        assert store_status(await peer.read_message()) == 0
        await peer.expect_abort()

    keeper = Keeper()
    async with played(script, Storage(keeper.keep)) as association:
        with pytest.raises(OperationTimeout, match=r"C-GET.*nothing came for 0\.3 s"):
            await all_of(CGetScu(association).get(STUDY, timeout=0.3))
    assert len(keeper.stored) == 1


async def test_a_peer_that_does_not_stop() -> None:
    async def script(peer: RawPeer, message_id: int) -> None:
        await peer.send(get_rsp(message_id, 0xFF00))
        assert isinstance((await peer.read_message()).command, CCancelRQ)
        await peer.expect_abort()

    async with played(script, Storage(Keeper().keep)) as association:
        async with aclosing(CGetScu(association).get(STUDY, grace=0.2)) as progress:
            await anext(progress)
        assert not association.is_established


async def test_a_peer_that_goes_away_in_the_middle_of_an_object() -> None:
    async def script(peer: RawPeer, message_id: int) -> None:
        whole = message_pdus(3, store_rq(1), bytes(100_000))
        await peer.send(whole[:50_000])
        peer.reset()

    keeper = Keeper()
    with pytest.raises(AssociationLost):
        async with played(script, Storage(keeper.keep)) as association:
            await all_of(CGetScu(association).get(STUDY))
    assert keeper.stored == {}


@pytest.mark.parametrize(("completed", "warning", "missing"), [(1, 0, 0), (0, 1, 0), (3, 0, 2), (2, 2, 3)])
async def test_a_peer_that_counts_more_than_it_has_sent(completed: int, warning: int, missing: int) -> None:
    """Else who asked for three objects, and got one, would be told that all is well."""

    async def script(peer: RawPeer) -> None:
        await accept_roles(peer)
        request = await peer.read_message()
        await peer.send(message_pdus(3, store_rq(instance="1.2.1"), data_of(1)))
        assert store_status(await peer.read_message()) == 0
        final = CGetRSP(
            message_id_being_responded_to=request.command.message_id,
            affected_sop_class_uid=Model.STUDY_ROOT.get,
            status=0,
            number_of_completed_suboperations=completed,
            number_of_warning_suboperations=warning,
            number_of_failed_suboperations=0,
        )
        await peer.send(message_pdus(1, final))
        await peer.answer_release()

    part = Part(Level.STUDY, (("StudyInstanceUID", "1.2.3"),), (), frozenset({CT}), completed + warning)
    came: list[str] = []
    async with raw_acceptor(script) as port:
        address = PeerAddress("PEER", LOOPBACK, port)
        results = get_parts(address, [part], Keeper().keep, Model.STUDY_ROOT, options={})
        error: ExceptionGroup[Exception] | None = None
        try:
            async with aclosing(results):
                async for each in results:
                    came += [each.sop_instance_uid] if isinstance(each, Retrieved) else []
        except ExceptionGroup as group:
            error = group
    assert came == ["1.2.1"]
    said = [str(each) for each in error.exceptions] if error is not None else []
    assert said == ([f"the peer says that it has sent {missing} more objects than have come"] if missing else [])
