"""C-FIND, both sides: over real sockets, and where the other side misbehaves, against a peer played by hand."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from pydicom import Dataset

from support.cancelling import cancelled_after_each_step, cancelled_at_each_await
from support.network import LOOPBACK
from support.raw_peer import RawMessage, RawPeer, associate_rq, message_pdus, raw_acceptor
from tomowire import (
    Association,
    AssociationAborted,
    CEchoScu,
    CFindScu,
    Find,
    FindAnswers,
    FindRequest,
    Level,
    Model,
    NoAcceptedContext,
    OperationTimeout,
    Peer,
    PeerAddress,
    PeerMisbehaved,
    Query,
    QueryFailed,
    Server,
    UsageError,
    Verification,
    associate,
    listen,
    querying,
    verification,
)
from tomowire.aio.serving import ServiceProvider
from tomowire.errors import DataSetError
from tomowire.services.answering import LARGEST_IDENTIFIER
from tomowire.services.find import associate_for_queries
from tomowire.services.identifiers import decode, encode
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CCancelRQ, CEchoRQ, CFindRQ, CFindRSP
from tomowire.wire.pdu import AReleaseRQ
from tomowire.wire.user_information import ExtendedNegotiation, UserInformation

pytestmark = pytest.mark.usefixtures("no_leaks")

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
CONTEXT = PresentationContextRQ(1, STUDY_FIND, (IMPLICIT,))
NO_DATA = 0x0101
WAYS = [cancelled_at_each_await, cancelled_after_each_step]
Way = Callable[[Callable[[], Coroutine[Any, Any, Any]]], AsyncIterator[int]]


class Archive:
    """A handler with so many answers, in batches; it remembers what was asked, and how it ended."""

    def __init__(self, count: int = 3, batch: int = 1) -> None:
        self.count = count
        self.batch = batch
        self.asked: list[FindRequest] = []
        self.given = 0
        self.ends: list[type[BaseException] | None] = []
        self.fails: BaseException | None = None
        self.optional_keys_supported = True
        self.ended = asyncio.Event()
        self.waits = False
        """Whether it waits for ever after its answers."""

    async def answer(self, request: FindRequest) -> AsyncGenerator[FindAnswers, None]:
        self.asked.append(request)
        try:
            for first in range(0, self.count, self.batch):
                await asyncio.sleep(0)
                numbers = range(first, min(first + self.batch, self.count))
                answers = [self.one(number, request.transfer_syntax_uid) for number in numbers]
                self.given += len(answers)
                yield FindAnswers(answers, self.optional_keys_supported)
            if self.waits:
                await asyncio.get_running_loop().create_future()
            if self.fails is not None:
                raise self.fails
        except BaseException as error:
            self.ends.append(type(error))
            raise
        else:
            self.ends.append(None)
        finally:
            self.ended.set()

    @staticmethod
    def one(number: int, transfer_syntax_uid: str) -> bytes:
        made = Dataset()
        made.QueryRetrieveLevel = "STUDY"
        made.PatientName = f"Müller^{number}"
        made.PatientID = str(number)
        return encode(made, transfer_syntax_uid)


@asynccontextmanager
async def serving(archive: Archive, **options: Any) -> AsyncIterator[Server]:
    services: list[ServiceProvider] = [Verification(), Find(archive.answer, **options)]
    async with listen(LOOPBACK, 0, services=services, aet="ARCHIVE", shutdown_grace=2.0) as server:
        yield server


@asynccontextmanager
async def associated(archive: Archive, *contexts: Any, **options: Any) -> AsyncIterator[Association]:
    async with (
        serving(archive) as server,
        associate(f"ARCHIVE@{LOOPBACK}:{server.port}", contexts or [verification(), querying()], **options) as made,
    ):
        yield made


async def ids(answers: AsyncGenerator[Dataset, None]) -> list[str]:
    async with aclosing(answers):
        return [answer.PatientID async for answer in answers]


# The SCU, and both together


@pytest.mark.parametrize("batch", [1, 7, 1000])
@pytest.mark.parametrize("count", [0, 1, 150])
async def test_answers_come_in_order(count: int, batch: int) -> None:
    archive = Archive(count, batch)
    async with associated(archive) as association:
        assert await ids(CFindScu(association).find(Query.studies())) == [str(number) for number in range(count)]
    assert archive.ends == [None]


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT])
async def test_the_handler_gets_what_was_asked(transfer_syntax: str) -> None:
    archive = Archive(1)
    context = querying(Model.PATIENT_ROOT)
    context = type(context)(context.abstract_syntax, (transfer_syntax,))
    query = Query.patients().patient_name("Łuk*")
    async with associated(archive, context, aet="ASKER") as association:
        (answer,) = [each async for each in CFindScu(association).find(query)]
    assert str(answer.PatientName) == "Müller^0"
    (request,) = archive.asked
    assert (request.model, request.transfer_syntax_uid) == (Model.PATIENT_ROOT, transfer_syntax)
    assert request.association.calling_ae_title == "ASKER"
    assert not request.relational
    asked = decode(request.identifier, transfer_syntax)
    assert asked.QueryRetrieveLevel == "PATIENT"
    assert str(asked.PatientName) == "Łuk*"
    assert "NumberOfPatientRelatedStudies" in asked


async def test_a_data_set_is_sent_as_it_is() -> None:
    archive = Archive()
    raw = Dataset()
    raw.QueryRetrieveLevel = "PATIENT"
    raw.PatientComments = "*"
    async with associated(archive, querying(Model.PATIENT_ROOT), querying(Model.PATIENT_STUDY_ONLY)) as association:
        scu = CFindScu(association)
        assert len(await ids(scu.find(raw))) == 3
        assert len(await ids(scu.find(raw, model=Model.PATIENT_STUDY_ONLY))) == 3
    assert [each.model for each in archive.asked] == [Model.PATIENT_ROOT, Model.PATIENT_STUDY_ONLY]
    assert decode(archive.asked[0].identifier, EXPLICIT) == raw


async def test_what_cannot_be_asked() -> None:
    archive = Archive()
    broken = Dataset()
    broken.add_new(0x00280010, "US", "many")
    async with associated(archive) as association:
        scu = CFindScu(association)
        with pytest.raises(NoAcceptedContext):
            await ids(scu.find(Query.patients()))
        with pytest.raises(UsageError, match="Study Root model has no PATIENT level"):
            await ids(scu.find(Query.patients(), model=Model.STUDY_ROOT))
        with pytest.raises(DataSetError):
            await ids(scu.find(broken))
        assert await ids(scu.find(Query.studies())) == ["0", "1", "2"]
    assert len(archive.asked) == 1


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (0xA700, "short of something"),
        (0xA900, "look at its level and its keys"),
        (0xC001, "could not process it"),
        (0x0110, "processing failure"),
        (0xFE00, "nobody here has cancelled it"),
    ],
)
async def test_a_failure_at_the_end_is_raised_after_the_answers(status: int, advice: str) -> None:
    archive = Archive()
    archive.fails = QueryFailed(status, "no such thing", (0x0020000D, 0x00090010))
    async with associated(archive) as association:
        answers = CFindScu(association).find(Query.studies())
        got = [(await anext(answers)).PatientID for _ in range(3)]
        with pytest.raises(QueryFailed) as caught:
            await anext(answers)
        assert (await CEchoScu(association).echo()).is_success
    assert got == ["0", "1", "2"]
    failure = caught.value
    assert (failure.status, failure.error_comment) == (status, "no such thing")
    assert failure.offending_elements == (0x0020000D, 0x00090010)
    for part in (f"{status:04X}H", "ARCHIVE", "no such thing", "StudyInstanceUID (0020,000D)", "(0009,0010)", advice):
        assert part in str(failure)


def identifier(level: str, **keys: Any) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize(
    ("query", "model", "lacking", "advice"),
    [
        (Query.series(), Model.STUDY_ROOT, ("StudyInstanceUID",), "give StudyInstanceUID one value"),
        (Query.series("1.2"), Model.STUDY_ROOT, (), "look at its level"),
        (
            Query.images(series_uid="1.3").study_uid("1.2", "1.4"),
            Model.PATIENT_ROOT,
            ("PatientID", "StudyInstanceUID"),
            "give PatientID one value and StudyInstanceUID exactly one value",
        ),
        (
            identifier("SERIES", PatientID="*"),
            Model.PATIENT_ROOT,
            ("PatientID", "StudyInstanceUID"),
            "exactly one value",
        ),
        (identifier("ROOM"), Model.PATIENT_ROOT, (), "look at its level"),
        (identifier("PATIENT"), Model.PATIENT_ROOT, (), "look at its level"),
    ],
)
async def test_which_keys_lack_one_value(
    query: Query | Dataset, model: Model, lacking: tuple[str, ...], advice: str
) -> None:
    """PS3.4 C.4.1.2.1."""
    archive = Archive()
    archive.fails = QueryFailed(0xA900)
    async with associated(archive, querying(model)) as association:
        with pytest.raises(QueryFailed) as caught:
            await ids(CFindScu(association).find(query, model=model))
    assert caught.value.lacking == lacking
    assert advice in str(caught.value)


async def test_several_queries_at_once() -> None:
    archive = Archive(40)
    async with associated(archive) as association:
        scu = CFindScu(association)
        found = await asyncio.gather(*(ids(scu.find(Query.studies())) for _ in range(5)))
    assert found == [[str(number) for number in range(40)]] * 5


@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_any_moment_the_association_stays_usable(way: Way) -> None:
    archive = Archive(8)
    runs = 0
    async with associated(archive) as association:
        scu = CFindScu(association)
        async for _ in way(lambda: ids(scu.find(Query.studies()))):
            async with asyncio.timeout(20):
                assert (await CEchoScu(association).echo()).is_success
            runs += 1
        assert len(await ids(scu.find(Query.studies()))) == 8
    assert runs > 3
    assert len(archive.ends) == len(archive.asked)


@pytest.mark.parametrize("left_after", [1, 2, 39, 40])
async def test_left_early_the_peer_stops(left_after: int) -> None:
    archive = Archive(40)
    archive.waits = True
    async with associated(archive) as association:
        async with aclosing(CFindScu(association).find(Query.studies())) as answers:
            for _ in range(left_after):
                await anext(answers)
        assert len(archive.ends) == 1  # when the iterator is left the peer has stopped, even if it was waiting
        assert (await CEchoScu(association).echo()).is_success


Script = Callable[[RawPeer], Awaitable[None]]


@asynccontextmanager
async def played(script: Script) -> AsyncIterator[Association]:
    async def play(peer: RawPeer) -> None:
        await peer.accept()
        await script(peer)

    async with (
        raw_acceptor(play) as port,
        associate(f"PEER@{LOOPBACK}:{port}", [querying()]) as association,
    ):
        yield association


def response(request: RawMessage, status: int, data: bytes | None = None) -> bytes:
    assert isinstance(request.command, CFindRQ)
    answer = CFindRSP(
        message_id_being_responded_to=request.command.message_id,
        affected_sop_class_uid=STUDY_FIND,
        status=status,
        data_set_type=NO_DATA if data is None else 1,
    )
    return message_pdus(request.context_id, answer, data)


async def test_either_kind_of_pending_is_an_answer_and_a_warning_at_the_end_is_told_and_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def script(peer: RawPeer) -> None:
        request = await peer.read_message()
        one, two = (Archive.one(number, EXPLICIT) for number in (1, 2))
        await peer.send(response(request, 0xFF00, one), response(request, 0xFF01, two), response(request, 0xB001))
        await peer.answer_release()

    async with played(script) as association:
        assert await ids(CFindScu(association).find(Query.studies())) == ["1", "2"]
    assert "ended the query with a warning, and may not have given all matches: " in caplog.text
    assert "B001" in caplog.text


async def test_a_pending_response_without_an_identifier_is_the_peers_fault() -> None:
    async def script(peer: RawPeer) -> None:
        request = await peer.read_message()
        await peer.send(response(request, 0xFF00))
        await peer.read_message()
        await peer.send(response(request, 0xFE00))
        await peer.answer_release()

    async with played(script) as association:
        with pytest.raises(PeerMisbehaved, match="without an identifier"):
            await ids(CFindScu(association).find(Query.studies()))


async def test_an_answer_that_is_no_data_set_does_not_keep_the_others_back() -> None:
    async def script(peer: RawPeer) -> None:
        request = await peer.read_message()
        for data in (Archive.one(1, EXPLICIT), b"nonsense, this is", Archive.one(2, EXPLICIT)):
            await peer.send(response(request, 0xFF00, data))
        await peer.send(response(request, 0x0000))
        await peer.answer_release()

    got: list[str] = []

    async def collect(answers: AsyncGenerator[Dataset, None]) -> None:
        async for answer in answers:
            got.append(answer.PatientID)  # noqa: PERF401 - kept when the iteration raises

    async with played(script) as association:
        with pytest.raises(ExceptionGroup, match="1 of the peer's answers cannot be read") as caught:
            await collect(CFindScu(association).find(Query.studies()))
    assert got == ["1", "2"]
    (error,) = caught.value.exceptions
    assert isinstance(error, DataSetError)
    assert "the identifier" in str(error)


async def test_a_peer_that_does_not_answer_and_one_that_does_not_stop() -> None:
    async def script(peer: RawPeer) -> None:
        request = await peer.read_message()
        await peer.send(response(request, 0xFF00, Archive.one(1, EXPLICIT)))
        await peer.expect_abort()

    async with played(script) as association:
        with pytest.raises(OperationTimeout, match="C-FIND"):
            await ids(CFindScu(association).find(Query.studies(), timeout=0.2))
    async with played(script) as association:
        async with aclosing(CFindScu(association).find(Query.studies(), grace=0.2)) as answers:
            await anext(answers)
        with pytest.raises(AssociationAborted):
            await ids(CFindScu(association).find(Query.studies()))


# The SCP


@asynccontextmanager
async def asking(
    archive: Archive, *, extended: bytes | None = None, context: PresentationContextRQ = CONTEXT, **options: Any
) -> AsyncIterator[tuple[RawPeer, bytes | None]]:
    """A peer by hand with an association, and the answer to its extended negotiation."""
    asked = associate_rq(context, called="ARCHIVE")
    if extended is not None:
        item = ExtendedNegotiation(STUDY_FIND, extended)
        information = UserInformation(implementation_class_uid="1.2.3", extended_negotiations=(item,))
        asked = type(asked)("ARCHIVE", "ASKER", asked.presentation_contexts, information)
    async with serving(archive, **options) as server, await RawPeer.connect(server.port) as peer:
        granted = (await peer.associate(asked)).user_information.extended_negotiations
        assert len(granted) <= 1
        yield peer, granted[0].application_information if granted else None
        await peer.release()


def find_rq(message_id: int = 7, sop_class: str = STUDY_FIND, data: bytes | None = b"") -> bytes:
    request = CFindRQ(
        message_id=message_id, affected_sop_class_uid=sop_class, data_set_type=NO_DATA if data is None else 1
    )
    return message_pdus(1, request, data)


def cancel_rq(message_id: int = 7) -> bytes:
    return message_pdus(1, CCancelRQ(message_id_being_responded_to=message_id))


async def read_response(peer: RawPeer) -> tuple[int, bytes | None]:
    message = await peer.read_message()
    command = message.command
    assert isinstance(command, CFindRSP)
    assert (message.context_id, command.message_id_being_responded_to) == (1, 7)
    assert command.affected_sop_class_uid == STUDY_FIND
    return command.status, message.data


async def statuses(peer: RawPeer) -> list[int]:
    """Those of all responses up to the final one."""
    got: list[int] = []
    while not got or got[-1] in (0xFF00, 0xFF01):
        got.append((await read_response(peer))[0])
    return got


async def test_no_match_is_one_success_without_an_identifier() -> None:
    """Case 53; PS3.4 C.4.1.3.2."""
    async with asking(Archive(0)) as (peer, _):
        await peer.send(find_rq())
        assert await read_response(peer) == (0x0000, None)


@pytest.mark.parametrize(("supported", "status"), [(True, 0xFF00), (False, 0xFF01)])
async def test_pending_says_whether_optional_keys_are_supported(supported: bool, status: int) -> None:
    """Case 65; PS3.4 C.4.1.3.2."""
    archive = Archive(2)
    archive.optional_keys_supported = supported
    async with asking(archive) as (peer, _):
        await peer.send(find_rq())
        assert await read_response(peer) == (status, Archive.one(0, IMPLICIT))
        assert await read_response(peer) == (status, Archive.one(1, IMPLICIT))
        assert await read_response(peer) == (0x0000, None)


async def test_cancel_ends_a_handler_that_waits() -> None:
    """Case 44; PS3.7 9.1.2.1.5: FE00."""
    archive = Archive(2)
    archive.waits = True
    async with asking(archive) as (peer, _):
        await peer.send(find_rq())
        for _ in range(2):
            assert (await read_response(peer))[0] == 0xFF00
        await peer.send(cancel_rq())
        assert await read_response(peer) == (0xFE00, None)
        assert archive.ends == [asyncio.CancelledError]


async def test_cancel_ends_a_long_answer_soon() -> None:
    """Many matches in one batch, and more than fits between the two: the rest of them is not sent any more."""
    archive = Archive()
    one = Archive.one(0, IMPLICIT)
    iterators: list[AsyncIterator[FindAnswers]] = []

    async def answer(request: FindRequest) -> AsyncIterator[FindAnswers]:
        archive.asked.append(request)
        try:
            yield FindAnswers([one] * 300_000)
        finally:
            archive.ends.append(None)

    def remembered(request: FindRequest) -> AsyncIterator[FindAnswers]:
        iterators.append(answer(request))  # so that nothing but `aclose` ends it
        return iterators[-1]

    archive.answer = remembered  # type: ignore[assignment,method-assign]
    async with asking(archive) as (peer, _):
        await peer.send(find_rq())
        assert (await read_response(peer))[0] == 0xFF00
        await peer.send(cancel_rq())
        assert (await statuses(peer))[-1] == 0xFE00
        assert archive.ends == [None]


async def test_many_answers_do_not_keep_others_waiting() -> None:
    """Not even when all of them fit into the buffers, so that sending them waits for nobody."""
    turns, meanwhile = 0, 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def answer(request: FindRequest) -> AsyncIterator[FindAnswers]:
        nonlocal meanwhile
        before = turns
        yield FindAnswers([b""] * 640)
        meanwhile = turns - before

    archive = Archive()
    archive.answer = answer  # type: ignore[assignment,method-assign]
    async with asking(archive) as (peer, _), asyncio.TaskGroup() as group:
        counting = group.create_task(count_turns())
        await peer.send(find_rq())
        assert len(await statuses(peer)) == 641
        counting.cancel()
    assert meanwhile >= 10


async def test_cancel_for_what_is_over_or_was_never_asked_changes_nothing() -> None:
    """Case 43; PS3.7 9.3.2.3."""
    async with asking(Archive(1)) as (peer, _):
        await peer.send(cancel_rq())
        await peer.send(find_rq())
        assert await statuses(peer) == [0xFF00, 0x0000]
        await peer.send(cancel_rq(), find_rq())
        assert await statuses(peer) == [0xFF00, 0x0000]


async def test_a_handler_that_does_not_stop_when_cancelled_is_stopped_at_its_next_answer() -> None:
    begun = asyncio.Event()

    async def stubborn(request: FindRequest) -> AsyncIterator[FindAnswers]:
        try:
            begun.set()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            pass
        yield FindAnswers([b""])
        pytest.fail("asked for more")

    archive = Archive()
    archive.answer = stubborn  # type: ignore[assignment,method-assign]
    async with asking(archive) as (peer, _):
        await peer.send(find_rq())
        await begun.wait()
        await peer.send(cancel_rq())
        assert await statuses(peer) == [0xFE00]


async def test_the_handlers_own_time_out_is_not_a_cancel() -> None:
    archive = Archive(1)
    archive.fails = TimeoutError()
    async with asking(archive) as (peer, _):
        await peer.send(find_rq())
        assert await statuses(peer) == [0xFF00, 0x0110]


@pytest.mark.parametrize(
    ("error", "status", "comment", "offending"),
    [
        (
            QueryFailed(0xA900, "StudyInstanceUID is missing", (0x0020000D,)),
            0xA900,
            "StudyInstanceUID is missing",
            True,
        ),
        (QueryFailed(0xA700), 0xA700, None, False),
        (DataSetError("not to be read"), 0xC000, "not to be read", False),
        (RuntimeError("secret"), 0x0110, "internal error", False),
    ],
)
async def test_what_a_handler_raises_becomes_the_status(
    error: Exception, status: int, comment: str | None, offending: bool
) -> None:
    archive = Archive(0)
    archive.fails = error
    async with asking(archive) as (peer, _):
        await peer.send(find_rq())
        command = (await peer.read_message()).command
        assert isinstance(command, CFindRSP)
        assert (command.status, command.error_comment) == (status, comment)
        assert command.offending_element == ((0x0020000D,) if offending else ())
        await peer.send(find_rq())  # the association can be used further
        assert (await statuses(peer)) == [status]


async def test_a_handler_without_yield_is_told_to_whoever_wrote_it(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: FindRequest) -> None:
        raise AssertionError(request)  # never begun

    async with (
        listen(LOOPBACK, 0, services=[Find(lambda request: answer(request))], aet="ARCHIVE") as server,  # type: ignore[arg-type, return-value]
        Peer(f"ARCHIVE@{LOOPBACK}:{server.port}") as peer,
    ):
        with pytest.raises(QueryFailed):
            await ids(peer.find(Query.studies()))
    gc.collect()  # a coroutine that nobody has closed warns
    assert "the query handler returned a coroutine: it has to be an async generator" in caplog.text


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (find_rq(sop_class="1.2.840.10008.5.1.4.1.2.1.1"), 0x0122),  # case 42: not that of the context
        (find_rq(sop_class="1.2.3"), 0x0122),
        (find_rq(data=None), 0xC000),
        (message_pdus(1, CEchoRQ(message_id=7, affected_sop_class_uid=STUDY_FIND)), 0x0211),
        (find_rq(data=bytes(LARGEST_IDENTIFIER + 2)), 0xA700),
    ],
)
async def test_requests_that_are_no_queries(request_bytes: bytes, status: int) -> None:
    archive = Archive()
    async with asking(archive) as (peer, _):
        await peer.send(request_bytes)
        answer = (await peer.read_message()).command
        assert getattr(answer, "status", None) == status
        await peer.send(find_rq())
        assert await statuses(peer) == [0xFF00] * 3 + [0x0000]
    assert len(archive.asked) == 1


async def test_a_peer_that_goes_away_ends_the_handler() -> None:
    archive = Archive(1)
    archive.waits = True
    async with serving(archive) as server:
        async with await RawPeer.connect(server.port) as peer:
            await peer.associate(associate_rq(CONTEXT, called="ARCHIVE"))
            await peer.send(find_rq())
            await read_response(peer)
            peer.reset()
        async with asyncio.timeout(20):
            await archive.ended.wait()
    assert archive.ends == [asyncio.CancelledError]


@pytest.mark.parametrize(
    ("relational", "proposed", "answered"),
    [
        (False, None, None),
        (False, b"\x01", b"\x00"),
        (True, b"\x01", b"\x01"),
        (True, b"\x00", b"\x00"),
        (True, b"\x01\x01\x01\x01\x01\x01\x01", b"\x01\x00\x00\x00\x00\x00\x00"),
        (False, b"\x01\x01\x01", b"\x00\x00\x00"),
        (True, b"\x01" * 20, b"\x01\x00\x00\x00\x00\x00\x00"),  # case 31: what nobody knows is ignored
        (True, b"", b"\x00"),
    ],
)
async def test_extended_negotiation(relational: bool, proposed: bytes | None, answered: bytes | None) -> None:
    """PS3.4 C.5.1.1, PS3.7 D.3.3.5: answered if proposed, with what is supported, and the handler is told."""
    archive = Archive(0)
    async with asking(archive, extended=proposed, relational=relational) as (peer, granted):
        assert granted == answered
        await peer.send(find_rq())
        assert await statuses(peer) == [0x0000]
    assert archive.asked[0].relational is (answered is not None and answered[0] == 1)


async def test_only_the_models_and_transfer_syntaxes_that_it_has() -> None:
    find = Find(Archive().answer, models=[Model.STUDY_ROOT])
    taken = find.transfer_syntaxes(STUDY_FIND)
    assert taken is not None
    assert IMPLICIT in taken
    assert EXPLICIT in taken
    assert "1.2.840.10008.1.2.4.50" not in taken
    assert find.transfer_syntaxes(Model.PATIENT_ROOT.find) is None
    assert find.transfer_syntaxes(Model.STUDY_ROOT.move) is None
    everything = Find(Archive().answer)
    assert all(everything.transfer_syntaxes(model.find) is not None for model in Model)
    assert not everything.may_be_scp(STUDY_FIND)


# Peer


async def test_peer_finds() -> None:
    archive = Archive(5)
    async with serving(archive) as server, Peer(f"ARCHIVE@{LOOPBACK}:{server.port}", aet="ASKER") as peer:
        query = Query.studies().patient_name("M*")
        assert [study.PatientID async for study in peer.find(query)] == ["0", "1", "2", "3", "4"]
        several = await asyncio.gather(*(ids(peer.find(each)) for each in (query, Query.patients(), query.dataset())))
        assert [len(each) for each in several] == [5, 5, 5]
        assert len(await ids(peer.find(query, model=Model.PATIENT_ROOT))) == 5
    models = [each.model for each in archive.asked]
    assert sorted(map(str, models)) == ["Patient Root"] * 2 + ["Study Root"] * 3
    assert {each.association.calling_ae_title for each in archive.asked} == {"ASKER"}


async def test_peer_find_left_early_cancels_and_releases(caplog: pytest.LogCaptureFixture) -> None:
    archive = Archive(5)
    archive.waits = True
    with caplog.at_level("INFO", "tomowire.association"):
        async with serving(archive) as server, Peer(f"ARCHIVE@{LOOPBACK}:{server.port}") as peer:
            async for study in peer.find(Query.studies()):
                assert study.QueryRetrieveLevel == Level.STUDY
                break
    assert len(archive.ends) == 1
    ends = [record.getMessage() for record in caplog.records if "released" in record.getMessage()]
    assert len(ends) == 2  # of both sides, and of neither an abort
    assert "abort" not in caplog.text


@pytest.mark.parametrize("way", WAYS)
async def test_peer_find_cancelled_at_any_moment_leaves_nothing(way: Way) -> None:
    archive = Archive(4)
    runs = 0
    async with serving(archive) as server, Peer(f"ARCHIVE@{LOOPBACK}:{server.port}") as peer:
        async for _ in way(lambda: ids(peer.find(Query.studies()))):
            runs += 1
        assert len(await ids(peer.find(Query.studies()))) == 4
    assert runs > 5
    assert len(archive.ends) == len(archive.asked)  # each handler has come to an end


async def test_peer_find_raises_what_went_wrong() -> None:
    archive = Archive(1)
    archive.fails = QueryFailed(0xC000, "no")
    async with serving(archive, models=[Model.STUDY_ROOT]) as server:
        peer = Peer(f"ARCHIVE@{LOOPBACK}:{server.port}")
        with pytest.raises(QueryFailed, match="no"):
            await ids(peer.find(Query.studies()))
        with pytest.raises(NoAcceptedContext):
            await ids(peer.find(Query.patients()))


async def test_the_query_that_failed_is_told_also_where_the_release_is_not_answered_then() -> None:
    """As the commands ask: a refusal ends no association in disorder, and how the release went counts less than it."""
    asked_for_release = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        message = await peer.read_message()
        refusal = CFindRSP(message_id_being_responded_to=message.command.message_id, status=0xA900)
        await peer.send(message_pdus(message.context_id, refusal, None))
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        asked_for_release.set()
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        address = PeerAddress("ANY", LOOPBACK, port)
        with pytest.raises(QueryFailed):
            async with associate_for_queries(address, [querying()], release_timeout=0.1) as association:
                await ids(CFindScu(association).find(Query.studies()))
    assert asked_for_release.is_set()
