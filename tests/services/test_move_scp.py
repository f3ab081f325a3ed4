"""The SCP of C-MOVE, with a requestor played by hand and destinations that do what a test wants (PS3.4 C.4.2)."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from support.cancelling import cancelled_after_each_step
from support.files import data_of, write_file
from support.network import LOOPBACK, free_port
from support.raw_peer import CT, MR, RawPeer, message_pdus, raw_acceptor
from support.retrievals import (
    EXPLICIT,
    IMPLICIT,
    MOVE,
    Counts,
    Requestor,
    Stock,
    asking,
    destination,
    moving,
    serving,
    write_data_set,
)
from tomowire import PeerAddress, Storage, StoreRequest
from tomowire.errors import RetrieveFailed
from tomowire.protocol.status import Status
from tomowire.services import lanes, move_scp, put_off, suboperations, supply
from tomowire.services.dicom_file import DicomFile
from tomowire.services.identifiers import decode
from tomowire.services.models import Model
from tomowire.services.move_scp import Destination, Move
from tomowire.services.suboperations import Retrieval, RetrieveRequest
from tomowire.wire.messages import CMoveRQ, CMoveRSP, CStoreRQ, CStoreRSP
from tomowire.wire.pdu import AAssociateRQ

pytestmark = pytest.mark.usefixtures("no_leaks")

JPEG_LS = "1.2.840.10008.1.2.4.80"
Answer = Callable[[StoreRequest], Awaitable[int] | int]


class Receiver:
    """A destination that keeps what it is sent, and answers what `answer` says."""

    def __init__(self, answer: Answer = lambda request: 0) -> None:
        self.answer = answer
        self.stored: dict[str, bytes] = {}
        self.requests: list[StoreRequest] = []
        self.arrived = asyncio.Event()

    async def keep(self, request: StoreRequest) -> int:
        self.requests.append(request)
        self.arrived.set()
        data = await request.data.read()
        status = self.answer(request)
        if not isinstance(status, int):
            status = await status
        if status == 0:
            self.stored[request.sop_instance_uid] = data
        return status

    async def has_got(self, count: int) -> None:
        """Wait until so many have been begun to be sent."""
        async with asyncio.timeout(10):
            while len(self.requests) < count:
                self.arrived.clear()
                await self.arrived.wait()

    @asynccontextmanager
    async def listening(self, **options: int) -> AsyncIterator[Destination]:
        async with destination(Storage(self.keep)) as server:
            yield at(server.port, **options)


def at(port: int, **options: int) -> Destination:
    associations = options.pop("associations", 1)
    return Destination(PeerAddress("DEST", LOOPBACK, port), associations, options={"retry_waits": (0.0,), **options})


@pytest.fixture
def files(tmp_path: Path) -> list[DicomFile]:
    return [write_file(tmp_path, number) for number in range(1, 21)]


def uids(*numbers: int) -> list[str]:
    return [f"1.2.{number}" for number in numbers]


def number_of(request: StoreRequest) -> int:
    return int(request.sop_instance_uid.rpartition(".")[2])


# What goes well


@pytest.mark.parametrize("associations", [1, 3])
async def test_all_objects_arrive_as_they_are_stored(files: list[DicomFile], associations: int) -> None:
    receiver, stock = Receiver(), Stock(files, batch=3)
    async with receiver.listening(associations=associations) as dest, moving(stock, dest) as requestor:
        await requestor.move()
        assert await requestor.take_all() == (Counts(0, None, 20, 0, 0), [], None)
    assert receiver.stored == {f"1.2.{number}": data_of(number) for number in range(1, 21)}
    assert len({request.association.peer_address for request in receiver.requests}) <= associations
    assert stock.closed.is_set()


async def test_case_71_the_originator_is_told(files: list[DicomFile]) -> None:
    """PS3.7 9.1.1.1: the AE title that asked for the move, and the Message ID of its request; we call by the title it called."""
    receiver = Receiver()
    async with receiver.listening() as dest, moving(Stock(files[:2]), dest) as requestor:
        await requestor.move(message_id=4711)
        await requestor.take_all()
    for request in receiver.requests:
        assert request.message.move_originator_application_entity_title == "WORKSTATION"
        assert request.message.move_originator_message_id == 4711
        assert (request.association.calling_ae_title, request.association.called_ae_title) == ("ARCHIVE", "DEST")


async def test_a_destination_may_want_another_calling_title(files: list[DicomFile]) -> None:
    receiver = Receiver()
    async with receiver.listening() as known:
        dest = Destination(known.address, aet="GATEWAY")
        async with moving(Stock(files[:1]), dest) as requestor:
            await requestor.move()
            await requestor.take_all()
    assert receiver.requests[0].association.calling_ae_title == "GATEWAY"


async def test_case_66_an_unknown_destination(files: list[DicomFile], caplog: pytest.LogCaptureFixture) -> None:
    """A801H, and nobody is asked for objects; the association goes on."""
    receiver, stock = Receiver(), Stock(files)
    async with receiver.listening() as dest, moving(stock, dest) as requestor:
        await requestor.move("dest")
        counts, failed, comment = await requestor.take_all()
        assert (counts, failed) == (Counts(0xA801, None, None, None, None), [])
        assert comment == "the move destination dest is not known here"
        assert f"C-MOVE to 'dest' ended with {Status(0xA801)}: {comment}; 0 completed, 0 failed" in caplog.text
        assert stock.asked == []
        await requestor.move()
        counts, _, _ = await requestor.take_all()
        assert counts.status == 0


async def test_case_67_no_match_needs_no_association() -> None:
    async with moving(Stock(), at(free_port())) as requestor:
        await requestor.move()
        assert await requestor.take_all() == (Counts(0, None, 0, 0, 0), [], None)
    assert requestor.pending == []


async def test_case_68_pending_responses_tell_what_remains(files: list[DicomFile]) -> None:
    go_on = asyncio.Event()

    async def hold(request: StoreRequest) -> int:
        if number_of(request) > 5:
            await go_on.wait()
        return 0

    receiver = Receiver(hold)
    async with receiver.listening(window=1) as dest, moving(Stock(files), dest) as requestor:
        await requestor.move()
        while not requestor.pending or requestor.pending[-1].completed != 5:
            response = (await requestor.peer.read_message()).command
            assert isinstance(response, CMoveRSP)
            requestor.pending.append(Counts.of(response))
        go_on.set()
        counts, _, _ = await requestor.take_all()
    assert counts == Counts(0, None, 20, 0, 0)
    assert all(each.status == 0xFF00 for each in requestor.pending)
    assert all((each.remaining or 0) + (each.completed or 0) == 20 for each in requestor.pending)
    assert requestor.pending[0].completed


@pytest.mark.parametrize("associations", [1, 3])
async def test_a_move_keeps_its_associations_and_begins_before_it_knows_all(tmp_path: Path, associations: int) -> None:
    """The handler gives the last of its objects, ten for each one that is asked for ahead, when the first has arrived."""
    file = write_file(tmp_path, 1)
    files = [replace(file, sop_instance_uid=f"1.2.{number}") for number in range(1, 2001)]
    receiver, stock = Receiver(), Stock(files)
    stock.last_after = receiver.arrived
    async with receiver.listening(associations=associations) as dest, moving(stock, dest) as requestor:
        await requestor.move()
        async with asyncio.timeout(30):
            counts, failed, _ = await requestor.take_all()
    assert (counts, failed) == (Counts(0, None, 2000, 0, 0), [])
    assert len(receiver.stored) == 2000
    assert len({request.association for request in receiver.requests}) == associations


@pytest.mark.parametrize("known", [True, False])
async def test_a_kind_of_object_that_turns_up_late(files: list[DicomFile], tmp_path: Path, known: bool) -> None:
    """What is known beforehand is proposed from the start; anything else takes one association more, whatever its number."""
    files[9], files[15] = write_file(tmp_path, 10, sop_class=MR), write_file(tmp_path, 16, sop_class=MR)
    receiver, stock = Receiver(), Stock(files, batch=3)
    if known:
        stock.kinds = frozenset({(CT, EXPLICIT), (MR, EXPLICIT)})
    async with receiver.listening() as dest, moving(stock, dest) as requestor:
        await requestor.move()
        counts, _, _ = await requestor.take_all()
    assert counts == Counts(0, None, 20, 0, 0)
    assert len({request.association for request in receiver.requests}) == (1 if known else 2)


async def test_kinds_of_objects_that_have_waited_long_have_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many classes there are, no more than so many files are kept for later; an object that is none stops nothing."""
    monkeypatch.setattr(supply, "_MOST_PARKED", 3)
    monkeypatch.setattr(supply, "_AHEAD", 4)
    files = [
        write_file(tmp_path, number, sop_class=f"1.2.840.10008.5.1.4.1.1.{number % 7 + 1}") for number in range(60)
    ]
    files.insert(30, replace(files[0], sop_class_uid="", sop_instance_uid="1.2.99"))
    receiver = Receiver()
    scp = Storage(receiver.keep, any_sop_class=True)
    async with destination(scp) as server, moving(Stock(files, batch=5), at(server.port)) as requestor:
        await requestor.move()
        async with asyncio.timeout(30):
            counts, failed, _ = await requestor.take_all()
    assert (counts, failed) == (Counts(0xB000, None, 60, 1, 0), ["1.2.99"])
    assert len(receiver.stored) == 60
    assert len({request.association for request in receiver.requests}) > 1


async def test_an_association_that_ends_while_objects_are_waited_for(files: list[DicomFile]) -> None:
    """That is no failure of the next object, which has a new one."""
    noticed = asyncio.Event()

    class Noticing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("ARCHIVE -> DEST"):
                noticed.set()

    receiver, stock = Receiver(), Stock(files, batch=19)
    stock.last_after = asyncio.Event()
    log, handler = logging.getLogger("tomowire.association"), Noticing()
    async with receiver.listening() as dest, moving(stock, dest) as requestor, asyncio.timeout(30):
        await requestor.move()
        while not requestor.pending or requestor.pending[-1].completed != 19:
            response = (await requestor.peer.read_message()).command
            assert isinstance(response, CMoveRSP)
            requestor.pending.append(Counts.of(response))
        log.addHandler(handler)
        try:
            receiver.requests[0].association.connection.kill()
            await noticed.wait()
        finally:
            log.removeHandler(handler)
        stock.last_after.set()
        counts, _, _ = await requestor.take_all()
    assert counts == Counts(0, None, 20, 0, 0)
    assert len({request.association for request in receiver.requests}) == 2


@pytest.mark.parametrize("associations", [1, 2])
async def test_what_comes_late_is_sent_as_many_at_once_as_what_comes_early(
    files: list[DicomFile], associations: int
) -> None:
    """All who wait for objects get some when a batch comes, though the next one takes its time."""
    together: set[int] = set()
    all_there = asyncio.Event()

    async def answer(request: StoreRequest) -> int:
        if number_of(request) > 12:
            together.add(number_of(request))
            if len(together) == 8:
                all_there.set()
            await all_there.wait()
        return 0

    receiver, stock = Receiver(answer), Stock(files, batch=12, total=30)
    stock.last_after, stock.waits_after = asyncio.Event(), True
    async with receiver.listening(associations=associations) as dest, moving(stock, dest) as requestor:
        await requestor.move()
        async with asyncio.timeout(30):
            while not requestor.pending or requestor.pending[-1].completed != 12:
                response = (await requestor.peer.read_message()).command
                assert isinstance(response, CMoveRSP)
                requestor.pending.append(Counts.of(response))
            stock.last_after.set()
            await all_there.wait()
        await requestor.cancel()
        counts, _, _ = await requestor.take_all()
    assert counts == Counts(0xFE00, 10, 20, 0, 0)


async def test_no_more_than_some_objects_wait_to_be_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A destination that is out of resources at first, for every object, and drops the connection now and then."""
    monkeypatch.setattr(put_off, "_MOST", 4)
    monkeypatch.setattr(supply, "_AHEAD", 4)
    file = write_file(tmp_path, 1)
    files = [replace(file, sop_instance_uid=f"1.2.{number}") for number in range(1, 101)]
    seen: dict[str, int] = {}
    late: list[int] = []

    def answer(request: StoreRequest) -> int:
        uid = request.sop_instance_uid
        seen[uid] = seen.get(uid, 0) + 1
        late.append(sum(count == 1 for count in seen.values()))
        if seen[uid] == 1 and number_of(request) % 10 == 0:
            request.association.connection.kill()
        return 0xA700 if seen[uid] == 1 else 0

    receiver = Receiver(answer)
    async with receiver.listening(window=1) as known:
        dest = Destination(known.address, options={"retry_waits": (0.001,), "window": 1})
        async with moving(Stock(files), dest) as requestor:
            await requestor.move()
            async with asyncio.timeout(30):
                counts, failed, _ = await requestor.take_all()
    assert (counts, failed) == (Counts(0, None, 100, 0, 0), [])
    assert max(late) <= 12


# A destination that several moves share


async def test_moves_share_the_associations_of_a_destination(files: list[DicomFile]) -> None:
    """PS3.8 7.1.2: of two moves, to who takes one association, the second has it when the first is done. It may be called off."""
    go_on, most = asyncio.Event(), 0

    async def hold(request: StoreRequest) -> int:
        nonlocal most
        most = max(most, len(server.associations))
        await go_on.wait()
        return 0

    receiver = Receiver(hold)
    async with destination(Storage(receiver.keep)) as server, asyncio.timeout(30):
        known = at(server.port)
        dest = Destination(known.address, 2, options=known.options, turns=asyncio.Semaphore(1))

        async def find(request: RetrieveRequest, title: str) -> Destination:
            return dest

        first, second, third = Stock(files[:8]), Stock(files[8:16]), Stock(files[16:])
        stocks = iter((first, second, third))

        async def objects(request: RetrieveRequest) -> Retrieval:
            return await next(stocks).objects(request)

        async with (
            serving(Move(objects, find)) as archive,
            asking(archive.port, service=MOVE) as one,
            asking(archive.port, service=MOVE) as two,
            asking(archive.port, service=MOVE) as three,
        ):
            await one.move()
            await receiver.has_got(1)
            for requestor, stock in ((two, second), (three, third)):
                await requestor.move()
                await stock.closed.wait()
            await two.cancel()
            assert (await two.take_all())[0] == Counts(0xFE00, 8, 0, 0, 0)
            assert {number_of(request) for request in receiver.requests} <= set(range(1, 9))
            go_on.set()
            assert (await one.take_all())[0] == Counts(0, None, 8, 0, 0)
            assert (await three.take_all())[0] == Counts(0, None, 4, 0, 0)
    assert most == 1
    assert set(receiver.stored) == set(uids(*range(1, 9), *range(17, 21)))


@pytest.mark.parametrize("gone", ["first", "second"])
async def test_the_turn_of_a_requestor_that_goes_away(files: list[DicomFile], gone: str) -> None:
    """Its place, or its waiting for one, is over."""
    go_on = asyncio.Event()

    async def hold(request: StoreRequest) -> int:
        await go_on.wait()
        return 0

    receiver, stock = Receiver(hold), Stock(files)
    turns = asyncio.Semaphore(1)
    async with receiver.listening() as known, asyncio.timeout(30):
        dest = Destination(known.address, options=known.options, turns=turns)

        async def find(request: RetrieveRequest, title: str) -> Destination:
            return dest

        async with (
            serving(Move(stock.objects, find)) as archive,
            asking(archive.port, service=MOVE) as one,
            asking(archive.port, service=MOVE) as two,
        ):
            await one.move()
            await receiver.has_got(1)
            stock.closed.clear()
            await two.move()
            await stock.closed.wait()
            (one if gone == "first" else two).peer.reset()
            await stock.asked[gone == "second"].association.wait_closed()
            go_on.set()
            left = two if gone == "first" else one
            assert (await left.take_all())[0] == Counts(0, None, 20, 0, 0)
    assert not turns.locked()


async def test_a_requestor_that_waits_long_is_told_that_nothing_has_changed(
    files: list[DicomFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many give up after half a minute without a response."""
    monkeypatch.setattr(suboperations, "KEEP_ALIVE", 0.05)
    go_on = asyncio.Event()

    async def hold(request: StoreRequest) -> int:
        await go_on.wait()
        return 0

    async with Receiver(hold).listening() as dest, moving(Stock(files), dest) as requestor:
        await requestor.move()
        for _ in range(3):
            response = (await requestor.peer.read_message()).command
            assert isinstance(response, CMoveRSP)
            assert Counts.of(response) == Counts(0xFF00, 20, 0, 0, 0)
        go_on.set()
        counts, _, _ = await requestor.take_all()
    assert counts == Counts(0, None, 20, 0, 0)


# What fails


@pytest.mark.parametrize("associations", [1, 3])
async def test_refusals_a_warning_and_a_dropped_connection(tmp_path: Path, associations: int) -> None:
    """1,000 objects to a destination that refuses every tenth, drops the connection once and answers one with a warning.

    The object during which it dropped the connection is sent again, and arrives.
    """
    files = [write_file(tmp_path, number) for number in range(1, 1001)]
    dropped = False

    def answer(request: StoreRequest) -> int:
        nonlocal dropped
        number = number_of(request)
        if number == 333 and not dropped:
            dropped = True
            request.association.connection.kill()
        return 0xC000 if number % 10 == 0 else 0xB000 if number == 555 else 0

    receiver = Receiver(answer)
    async with receiver.listening(associations=associations) as dest, moving(Stock(files), dest) as requestor:
        await requestor.move()
        counts, failed, _ = await requestor.take_all()
    assert dropped
    assert counts == Counts(0xB000, None, 899, 100, 1)
    assert sorted(failed) == sorted(uids(*range(10, 1001, 10)))
    assert set(receiver.stored) == set(uids(*range(1, 1001))) - set(failed) - {"1.2.555"}


async def test_case_72_a_destination_that_is_not_there(files: list[DicomFile]) -> None:
    async with moving(Stock(files), at(free_port())) as requestor:
        await requestor.move()
        counts, failed, comment = await requestor.take_all()
    assert counts == Counts(0xA702, None, 0, 20, 0)
    assert sorted(failed) == sorted(uids(*range(1, 21)))
    assert comment is not None
    assert comment.startswith("cannot connect to DEST@")


async def test_a_destination_that_is_not_there_is_not_tried_for_each_object(
    files: list[DicomFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move_scp, "_AHEAD", 5)
    tried = 0

    async def reject(peer: RawPeer) -> None:
        nonlocal tried
        tried += 1
        await peer.reject()

    async with raw_acceptor(reject) as port, moving(Stock(files, batch=3), at(port)) as requestor:
        await requestor.move()
        counts, failed, _ = await requestor.take_all()
    assert counts == Counts(0xA702, None, 0, 20, 0)
    assert sorted(failed) == sorted(uids(*range(1, 21)))
    assert tried == 1


async def test_case_72_a_destination_that_goes_away_for_good(files: list[DicomFile]) -> None:
    async with destination() as unused:
        port = unused.port
    receiver = Receiver()
    server = destination(Storage(receiver.keep))

    async def answer(request: StoreRequest) -> int:
        if number_of(request) == 8:
            closing.append(asyncio.create_task(server.close(grace=0)))
            await asyncio.sleep(10)
        return 0

    closing: list[asyncio.Task[None]] = []
    receiver.answer = answer
    async with server:
        port = server.port
        async with moving(Stock(files), at(port, window=1)) as requestor:
            await requestor.move()
            counts, failed, _ = await requestor.take_all()
        await asyncio.gather(*closing)
    assert counts == Counts(0xB000, None, 7, 13, 0)
    assert sorted(failed) == sorted(uids(*range(8, 21)))


async def test_case_72_a_destination_that_answers_nothing(files: list[DicomFile]) -> None:
    async def silent(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_until_closed()

    async with raw_acceptor(silent) as port, moving(Stock(files[:2]), at(port), timeout=0.2) as requestor:
        await requestor.move()
        counts, failed, comment = await requestor.take_all()
    assert counts == Counts(0xA702, None, 0, 2, 0)
    assert sorted(failed) == uids(1, 2)
    assert comment is not None
    assert "nothing moved" in comment


async def test_case_73_what_the_destination_does_not_take_is_transcoded(tmp_path: Path) -> None:
    """It takes Implicit VR only. What cannot be made into that fails, and so does a SOP class that it does not know."""
    files = [
        write_data_set(tmp_path, 1),
        write_file(tmp_path, 2, transfer_syntax=JPEG_LS),
        write_data_set(tmp_path, 3),
        write_file(tmp_path, 4, sop_class=MR),
    ]
    receiver = Receiver()
    simple = Storage(receiver.keep, sop_classes={CT}, transfer_syntaxes={IMPLICIT})
    async with destination(simple) as server, moving(Stock(files), at(server.port)) as requestor:
        await requestor.move()
        counts, failed, _ = await requestor.take_all()
    assert counts == Counts(0xB000, None, 2, 2, 0)
    assert sorted(failed) == uids(2, 4)
    assert {uid: decode(data, IMPLICIT).PatientID for uid, data in receiver.stored.items()} == {
        "1.2.1": "P1",
        "1.2.3": "P3",
    }


async def test_what_is_proposed_to_the_destination(tmp_path: Path) -> None:
    """What is stored, each in a context of its own, and one more for each SOP class with what can be made of it."""
    files = [
        write_file(tmp_path, 1),
        write_file(tmp_path, 2, transfer_syntax=JPEG_LS),
        write_file(tmp_path, 3, sop_class=MR),
    ]
    requests: list[AAssociateRQ] = []

    async def note(peer: RawPeer) -> None:
        requests.append(await peer.accept())
        while True:
            message = await peer.read_message()
            command = message.command
            assert isinstance(command, CStoreRQ)
            await peer.send(message_pdus(message.context_id, stored(command)))
            if command.affected_sop_instance_uid == "1.2.3":
                break
        await peer.answer_release()

    async with raw_acceptor(note) as port, moving(Stock(files), at(port)) as requestor:
        await requestor.move()
        counts, _, _ = await requestor.take_all()
    assert counts.status == 0
    assert [(each.abstract_syntax, each.transfer_syntaxes) for each in requests[0].presentation_contexts] == [
        (CT, (EXPLICIT,)),
        (CT, (JPEG_LS,)),
        (MR, (EXPLICIT,)),
        (CT, (IMPLICIT,)),
        (MR, (IMPLICIT,)),
    ]


def stored(request: CStoreRQ) -> CStoreRSP:
    return CStoreRSP(
        message_id_being_responded_to=request.message_id,
        affected_sop_class_uid=request.affected_sop_class_uid,
        affected_sop_instance_uid=request.affected_sop_instance_uid,
        status=0,
    )


async def test_files_that_cannot_be_read(files: list[DicomFile]) -> None:
    os.unlink(files[0].path)
    lost = DicomFile.unread(Path("lost"))
    async with Receiver().listening() as dest, moving(Stock([*files, lost]), dest) as requestor:
        await requestor.move()
        counts, failed, _ = await requestor.take_all()
    assert (counts, failed) == (Counts(0xB000, None, 19, 2, 0), ["1.2.1"])


async def test_a_handler_that_fails_in_the_middle(files: list[DicomFile]) -> None:
    stock = Stock(files[:5], total=8)
    stock.fails = RetrieveFailed(0xA701, "the index cannot be used now")
    async with Receiver().listening() as dest, moving(stock, dest) as requestor:
        await requestor.move()
        counts, failed, comment = await requestor.take_all()
    assert (counts, failed, comment) == (Counts(0xB000, None, 5, 3, 0), [], "the index cannot be used now")


@pytest.mark.parametrize("what", ["objects", "destination"])
async def test_a_handler_that_refuses(what: str) -> None:
    stock = Stock()
    refusal = RetrieveFailed(0xA900, "no level", (0x00080052,))

    async def known(request: RetrieveRequest, title: str) -> Destination | None:
        if what == "destination":
            raise refusal
        return at(1)

    if what == "objects":
        stock.refuses = refusal
    async with serving(Move(stock.objects, known)) as server, asking(server.port, service=MOVE) as requestor:
        await requestor.move()
        response = (await requestor.peer.read_message()).command
    assert isinstance(response, CMoveRSP)
    assert Counts.of(response) == Counts(0xA900, None, None, None, None)
    assert response.offending_element == (0x00080052,)


async def test_another_sop_class_is_refused() -> None:
    async with moving(Stock(), None) as requestor:
        other = CMoveRQ(message_id=1, affected_sop_class_uid=Model.PATIENT_ROOT.move, move_destination="DEST")
        await requestor.peer.send(message_pdus(1, other, b""))
        refused = (await requestor.peer.read_message()).command
    assert isinstance(refused, CMoveRSP)
    assert refused.status == 0x0122


# Being called off, and the end of the association


async def test_after_a_cancel_no_sub_operation_is_begun(files: list[DicomFile]) -> None:
    """What is outstanding is finished; FE00H tells what remains and what failed."""
    go_on = asyncio.Event()

    async def hold(request: StoreRequest) -> int:
        await go_on.wait()
        return 0xC000 if number_of(request) == 2 else 0

    receiver = Receiver(hold)
    async with receiver.listening(window=3) as dest, moving(Stock(files), dest) as requestor:
        await requestor.move()
        await receiver.has_got(3)
        await requestor.cancel()
        await answered_after_cancel(requestor)
        go_on.set()
        counts, failed, _ = await requestor.take_all()
    assert counts == Counts(0xFE00, 17, 2, 1, 0)
    assert failed == ["1.2.2"]
    assert len(receiver.requests) == 3


async def answered_after_cancel(requestor: Requestor) -> None:
    """See to it that the C-CANCEL has been read: what comes after it on the same connection has been answered."""
    await requestor.move("NOBODY", message_id=99)
    response = (await requestor.peer.read_message()).command
    assert isinstance(response, CMoveRSP)
    assert (response.message_id_being_responded_to, response.status) == (99, 0xA801)


async def test_a_cancel_does_not_wait_for_a_destination_that_hangs(
    files: list[DicomFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had not answered counts as failed: nothing is assumed."""
    monkeypatch.setattr(lanes, "STOP_GRACE", 0.2)

    async def hang(request: StoreRequest) -> int:
        if number_of(request) > 2:
            await asyncio.get_running_loop().create_future()
        return 0

    receiver = Receiver(hang)
    async with receiver.listening(window=2) as dest, moving(Stock(files), dest) as requestor:
        await requestor.move()
        await receiver.has_got(4)
        await requestor.cancel()
        counts, failed, comment = await requestor.take_all()
    assert counts == Counts(0xFE00, 16, 2, 2, 0)
    assert sorted(failed) == uids(3, 4)
    assert comment is not None
    assert "not answered" in comment


@pytest.mark.parametrize("waits", ["to be associated", "to try again"])
async def test_a_cancel_while_nothing_is_sent(files: list[DicomFile], waits: str) -> None:
    """It does not wait for an association that is not there yet, nor for the time to try again."""
    reached = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        if waits == "to try again":
            await peer.reject(result=2, source=3, reason=2)
            reached.set()
        else:
            await peer.read_pdu()
            reached.set()
            await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        dest = Destination(PeerAddress("DEST", LOOPBACK, port), options={"retry_waits": (60.0,)})
        async with moving(Stock(files), dest) as requestor:
            await requestor.move()
            async with asyncio.timeout(10):
                await reached.wait()
            await requestor.cancel()
            async with asyncio.timeout(20):
                counts, failed, _ = await requestor.take_all()
    assert (counts, failed) == (Counts(0xFE00, 20, 0, 0, 0), [])


async def test_a_cancel_while_the_destination_is_out_of_resources(files: list[DicomFile]) -> None:
    """Those that it has refused so far have failed: they would have been sent again, but nobody wants that any more."""
    receiver = Receiver(lambda request: 0xA700)
    async with receiver.listening() as known:
        dest = Destination(known.address, options={"retry_waits": (60.0,), "window": 1})
        async with moving(Stock(files[:3], total=3), dest) as requestor:
            await requestor.move()
            await receiver.has_got(3)
            await requestor.cancel()
            async with asyncio.timeout(20):
                counts, failed, _ = await requestor.take_all()
    assert (counts.failed or 0) + (counts.remaining or 0) == 3
    assert counts.completed == 0
    assert len(failed) == counts.failed


@pytest.mark.parametrize("what", ["objects", "more objects", "destination"])
async def test_a_cancel_while_a_handler_waits(files: list[DicomFile], what: str) -> None:
    stock = Stock(files[:3], total=10)
    stock.waits_before, stock.waits_after = what == "objects", what == "more objects"
    asked = asyncio.Event()

    async def known(request: RetrieveRequest, title: str) -> Destination | None:
        if what == "destination":
            asked.set()
            await asyncio.get_running_loop().create_future()
        return at(1)

    async with serving(Move(stock.objects, known)) as server, asking(server.port, service=MOVE) as requestor:
        await requestor.move()
        async with asyncio.timeout(10):
            await (asked if what == "destination" else stock.was_asked).wait()
        await requestor.cancel()
        counts, _, _ = await requestor.take_all()
    assert counts.status == 0xFE00
    assert counts.completed in (None, 0)
    assert stock.cancelled.is_set() is (what != "destination")


async def test_the_requestor_goes_away(files: list[DicomFile]) -> None:
    """Nobody wants the objects any more: the destination's association ends too, and nothing is left behind."""
    ended = asyncio.Event()

    async def hang(request: StoreRequest) -> int:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()
        return 0

    receiver, stock = Receiver(hang), Stock(files)
    async with receiver.listening() as dest, moving(stock, dest) as requestor:
        await requestor.move()
        await receiver.has_got(1)
        requestor.peer.reset()
        async with asyncio.timeout(20):
            await ended.wait()
            await stock.closed.wait()


async def test_the_requestor_goes_away_at_any_moment(files: list[DicomFile]) -> None:
    """Nothing is left of it, here or at the destination."""
    receiver, stock = Receiver(), Stock(files, batch=3)
    async with destination(Storage(receiver.keep)) as server:

        async def known(request: RetrieveRequest, title: str) -> Destination | None:
            return at(server.port, associations=2)

        async with serving(Move(stock.objects, known)) as archive:

            async def move() -> None:
                async with asking(archive.port, service=MOVE) as requestor:
                    await requestor.move()
                    await requestor.take_all()

            async for _ in cancelled_after_each_step(move, growth=1.3):
                pass
            async with asyncio.timeout(20):
                await asyncio.gather(*(each.wait_closed() for each in (*archive.associations, *server.associations)))
    assert len(receiver.stored) == 20
