"""C-MOVE, the SCU: against our own SCP with a destination, and where the peer misbehaves, against one played by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.cancelling import cancelled_after_each_step, cancelled_at_each_await
from support.files import write_file
from support.network import LOOPBACK
from support.raw_peer import RawPeer, message_pdus, raw_acceptor
from support.retrievals import Stock
from support.services import Keeper
from tomowire import (
    Association,
    AssociationAborted,
    AssociationLost,
    CEchoScu,
    CMoveScu,
    Find,
    FindAnswers,
    FindRequest,
    Model,
    NoAcceptedContext,
    OperationTimeout,
    Peer,
    PeerAddress,
    Progress,
    Query,
    RetrieveFailed,
    Storage,
    SubOperationFailed,
    UsageError,
    Verification,
    associate,
    listen,
    moving,
    verification,
)
from tomowire.services.dicom_file import DicomFile
from tomowire.services.identifiers import decode, encode
from tomowire.services.move_scp import Destination, Move
from tomowire.services.suboperations import RetrieveRequest
from tomowire.wire.messages import CCancelRQ, CMoveRQ, CMoveRSP

pytestmark = pytest.mark.usefixtures("no_leaks")

EXPLICIT = "1.2.840.10008.1.2.1"
STUDY = Query.study("1.2.3")
WAYS = [cancelled_at_each_await, cancelled_after_each_step]
Way = Callable[[Callable[[], Coroutine[Any, Any, Any]]], AsyncIterator[int]]


@pytest.fixture
def files(tmp_path: Path) -> list[DicomFile]:
    return [write_file(tmp_path, number) for number in range(1, 7)]


async def answer_studies(request: FindRequest) -> AsyncGenerator[FindAnswers, None]:
    """Two studies, whatever is asked."""
    asked = decode(request.identifier, request.transfer_syntax_uid)
    for uid in ("1.2.1", "1.2.2"):
        asked.StudyInstanceUID = uid
        yield FindAnswers([encode(asked, request.transfer_syntax_uid)])


@asynccontextmanager
async def archive(stock: Stock, keeper: Keeper) -> AsyncIterator[int]:
    """The port of an archive that moves to DEST, where the objects come to `keeper`."""
    async with listen(LOOPBACK, 0, services=[Storage(keeper.keep)], aet="DEST", shutdown_grace=2.0) as destination:

        async def known(request: RetrieveRequest, title: str) -> Destination | None:
            return Destination(PeerAddress("DEST", LOOPBACK, destination.port)) if title == "DEST" else None

        services = [Verification(), Find(answer_studies), Move(stock.objects, known)]
        async with listen(LOOPBACK, 0, services=services, aet="ARCHIVE", shutdown_grace=2.0) as server:
            yield server.port


@asynccontextmanager
async def associated(stock: Stock, keeper: Keeper, *contexts: Any) -> AsyncIterator[Association]:
    async with (
        archive(stock, keeper) as port,
        associate(f"ARCHIVE@{LOOPBACK}:{port}", contexts or [verification(), moving()], aet="MOVER") as made,
    ):
        yield made


async def all_of(progress: AsyncGenerator[Progress, None]) -> list[Progress]:
    async with aclosing(progress):
        return [each async for each in progress]


@pytest.mark.parametrize("model", list(Model))
async def test_everything_is_moved_and_counted(files: list[DicomFile], model: Model) -> None:
    stock, keeper = Stock(files), Keeper()
    query = STUDY.patient_id("P1") if model is not Model.STUDY_ROOT else STUDY
    async with associated(stock, keeper, moving(model)) as association:
        progress = await all_of(CMoveScu(association).move(query, "DEST", model=model, priority=2))
    assert keeper.stored.keys() == {file.sop_instance_uid for file in files}
    assert progress[-1] == Progress(0, 6, 0, 0)
    assert [sum((each.remaining or 0, each.completed)) for each in progress] == [6] * len(progress)
    (asked,) = stock.asked
    assert (asked.model, asked.message.priority) == (model, 2)
    identifier = decode(asked.identifier, asked.transfer_syntax_uid)
    assert (identifier.QueryRetrieveLevel, identifier.StudyInstanceUID) == ("STUDY", "1.2.3")
    assert len(identifier) == (2 if model is Model.STUDY_ROOT else 3)


async def test_an_unknown_destination_moves_nothing(files: list[DicomFile]) -> None:
    """Case 66."""
    stock, keeper = Stock(files), Keeper()
    async with associated(stock, keeper) as association:
        with pytest.raises(RetrieveFailed, match="does not know the destination 'NOWHERE'") as caught:
            await all_of(CMoveScu(association).move(STUDY, "NOWHERE"))
        assert (await CEchoScu(association).echo()).is_success
    assert caught.value.status == 0xA801
    assert keeper.stored == {}


async def test_what_the_destination_refuses_is_raised_at_the_end(files: list[DicomFile]) -> None:
    keeper = Keeper(status=0xA900)
    async with associated(Stock(files), keeper) as association:
        with pytest.raises(ExceptionGroup) as caught:
            await all_of(CMoveScu(association).move(STUDY, "DEST"))
        assert (await CEchoScu(association).echo()).is_success
    failed = [each.sop_instance_uid for each in caught.value.exceptions if isinstance(each, SubOperationFailed)]
    assert sorted(map(str, failed)) == [file.sop_instance_uid for file in files]


async def test_what_cannot_be_asked_for_sends_nothing(files: list[DicomFile]) -> None:
    stock = Stock(files)
    async with associated(stock, Keeper()) as association:
        scu = CMoveScu(association)
        with pytest.raises(NoAcceptedContext):
            await all_of(scu.move(Query.patients().patient_id("P1"), "DEST"))
        with pytest.raises(UsageError, match="find first"):
            await all_of(scu.move(STUDY.patient_name("Smith"), "DEST"))
        with pytest.raises(UsageError):
            await all_of(scu.move(STUDY, "A TITLE THAT IS TOO LONG"))
        assert (await CEchoScu(association).echo()).is_success
    assert stock.asked == []


async def test_several_moves_at_once(files: list[DicomFile]) -> None:
    stock, keeper = Stock(files), Keeper()
    async with associated(stock, keeper) as association:
        scu = CMoveScu(association)
        ends = await asyncio.gather(*(all_of(scu.move(STUDY, "DEST")) for _ in range(4)))
    assert [progress[-1].completed for progress in ends] == [6] * 4


@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_any_moment_the_association_stays_usable(way: Way, files: list[DicomFile]) -> None:
    stock, keeper = Stock(files[:3]), Keeper()
    runs = 0
    async with associated(stock, keeper) as association:
        scu = CMoveScu(association)
        async for _ in way(lambda: all_of(scu.move(STUDY, "DEST"))):
            async with asyncio.timeout(20):
                assert (await CEchoScu(association).echo()).is_success
            runs += 1
        assert (await all_of(scu.move(STUDY, "DEST")))[-1].completed == 3
    assert runs >= 3


async def test_cancelled_the_peer_stops_even_if_it_waits(files: list[DicomFile]) -> None:
    stock = Stock(files)
    stock.waits_before = True
    async with associated(stock, Keeper()) as association:
        moving_all = asyncio.ensure_future(all_of(CMoveScu(association).move(STUDY, "DEST")))
        async with asyncio.timeout(10):
            await stock.was_asked.wait()
        moving_all.cancel()
        with pytest.raises(asyncio.CancelledError):
            await moving_all
        assert stock.cancelled.is_set()
        assert (await CEchoScu(association).echo()).is_success


async def test_left_early_the_association_is_usable(files: list[DicomFile]) -> None:
    async with associated(Stock(files), Keeper()) as association:
        async with aclosing(CMoveScu(association).move(STUDY, "DEST")) as progress:
            await anext(progress)
        assert (await CEchoScu(association).echo()).is_success


# Of a peer


async def test_what_has_no_unique_key_is_found_first(files: list[DicomFile]) -> None:
    stock, keeper = Stock(files), Keeper()
    async with archive(stock, keeper) as port, Peer(f"ARCHIVE@{LOOPBACK}:{port}") as peer:
        progress = [each async for each in peer.move(Query.studies().patient_name("Doe*"), "DEST")]
    assert [decode(each.identifier, EXPLICIT).StudyInstanceUID for each in stock.asked] == ["1.2.1", "1.2.2"]
    assert progress[-1] == Progress(0, 12, 0, 0)
    assert [each.completed for each in progress] == sorted(each.completed for each in progress)


async def test_one_request_that_fails_does_not_stop_the_next(files: list[DicomFile]) -> None:
    stock, keeper = Stock(files), Keeper()
    stock.refuses = RetrieveFailed(0xA701, "not now")
    async with archive(stock, keeper) as port, Peer(f"ARCHIVE@{LOOPBACK}:{port}") as peer:
        with pytest.raises(ExceptionGroup) as caught:
            await all_of(peer.move(Query.studies().patient_name("Doe*"), "DEST"))
        with pytest.raises(RetrieveFailed, match="not now"):
            await all_of(peer.move(STUDY, "DEST"))
    assert [getattr(each, "status", None) for each in caught.value.exceptions] == [0xA701, 0xA701]
    assert len(stock.asked) == 3


async def test_a_peer_left_early_is_left_in_order(files: list[DicomFile]) -> None:
    stock = Stock(files)
    async with archive(stock, Keeper()) as port, Peer(f"ARCHIVE@{LOOPBACK}:{port}") as peer:
        async for _ in peer.move(STUDY, "DEST"):
            break
    assert len(stock.asked) == 1


# Peers that do not play along


def response(message_id: int, status: int) -> bytes:
    answer = CMoveRSP(
        message_id_being_responded_to=message_id, affected_sop_class_uid=Model.STUDY_ROOT.move, status=status
    )
    return message_pdus(1, answer)


@asynccontextmanager
async def played(script: Callable[[RawPeer, int], Coroutine[Any, Any, None]]) -> AsyncIterator[Association]:
    """An association with a peer that has read the C-MOVE-RQ, whose Message ID it is told, and goes on as `script`."""

    async def play(peer: RawPeer) -> None:
        await peer.accept()
        request = await peer.read_message()
        assert isinstance(request.command, CMoveRQ)
        await script(peer, request.command.message_id)

    async with raw_acceptor(play) as port, associate(f"PEER@{LOOPBACK}:{port}", [moving()]) as association:
        yield association


async def test_a_peer_that_is_silent() -> None:
    async def script(peer: RawPeer, message_id: int) -> None:
        await peer.send(response(message_id, 0xFF00))
        await peer.expect_abort()

    async with played(script) as association:
        with pytest.raises(OperationTimeout, match=r"C-MOVE.*0\.3 s"):
            await all_of(CMoveScu(association).move(STUDY, "DEST", timeout=0.3))


async def test_a_peer_that_does_not_stop() -> None:
    async def script(peer: RawPeer, message_id: int) -> None:
        await peer.send(response(message_id, 0xFF00))
        cancelled = await peer.read_message()
        assert isinstance(cancelled.command, CCancelRQ)
        assert cancelled.command.message_id_being_responded_to == message_id
        await peer.expect_abort()

    async with played(script) as association:
        async with aclosing(CMoveScu(association).move(STUDY, "DEST", grace=0.2)) as progress:
            await anext(progress)
        with pytest.raises(AssociationAborted):
            await all_of(CMoveScu(association).move(STUDY, "DEST"))


async def test_a_peer_that_goes_away() -> None:
    async def script(peer: RawPeer, message_id: int) -> None:
        await peer.send(response(message_id, 0xFF00))
        peer.reset()

    with pytest.raises(AssociationLost):
        async with played(script) as association:
            await all_of(CMoveScu(association).move(STUDY, "DEST"))
