"""DIMSE-N between our two sides: each operation, its data sets, statuses and UIDs, roles, time-outs and cancellation."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from support.network import LOOPBACK
from support.raw_peer import RawPeer, command_pdu, raw_acceptor
from tomowire.aio.association import Association
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.errors import (
    DataSetError,
    InvalidUid,
    NoAcceptedContext,
    OperationTimeout,
    PeerMisbehaved,
    UsageError,
)
from tomowire.protocol.negotiation import ProposedContext
from tomowire.services.identifiers import TRANSFER_SYNTAXES
from tomowire.services.normalized import EventReporter, NormalizedScu
from tomowire.services.normalized_handling import NormalizedAnswer, NormalizedRequest
from tomowire.services.normalized_scp import Normalized
from tomowire.services.verification import CEchoScu, Verification, verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN as EXPLICIT
from tomowire.uids import IMPLICIT_VR_LITTLE_ENDIAN as IMPLICIT
from tomowire.wire.messages import (
    NCreateRQ,
    NCreateRSP,
    NDeleteRQ,
    NDeleteRSP,
    NEventReportRQ,
    NGetRQ,
    NGetRSP,
    NSetRQ,
    NSetRSP,
)

MPPS = "1.2.840.10008.3.1.2.3.3"
COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
GRAYSCALE_PRINT = "1.2.840.10008.5.1.1.9"
PRINTER = "1.2.840.10008.5.1.1.16"
FILM_SESSION = "1.2.840.10008.5.1.1.1"

pytestmark = pytest.mark.usefixtures("no_leaks")


def dataset(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


@asynccontextmanager
async def joined(provider: Normalized, *contexts: ProposedContext, **options: Any) -> AsyncIterator[Association]:
    """An association with a server that has the provider; by default with a context for MPPS."""
    proposed = contexts or (ProposedContext(MPPS, (EXPLICIT,)),)
    async with (
        listen(LOOPBACK, 0, services=[Verification(), provider], shutdown_grace=2) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", [verification(), *proposed], **options) as association,
    ):
        yield association


def answering(
    answer: Any, seen: list[NormalizedRequest] | None = None
) -> Callable[[NormalizedRequest], Awaitable[Any]]:
    """A handler that notes the request, and returns the answer, or raises it."""

    async def handler(request: NormalizedRequest) -> Any:
        if seen is not None:
            seen.append(request)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return handler


async def test_create_carries_attributes_both_ways() -> None:
    seen: list[NormalizedRequest] = []
    provider = Normalized([MPPS], create=answering(dataset(PerformedProcedureStepID="P1"), seen))
    async with joined(provider) as association:
        response = await NormalizedScu(association).create(
            MPPS, dataset(PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100"), sop_instance_uid="1.2.3"
        )
    assert (response.status, response.is_success) == (0, True)
    assert (response.sop_class_uid, response.sop_instance_uid) == (MPPS, "1.2.3")
    assert response.dataset().PerformedProcedureStepID == "P1"
    (request,) = seen
    assert (request.operation, request.sop_class_uid, request.sop_instance_uid) == ("N-CREATE", MPPS, "1.2.3")
    assert request.dataset().PatientName == "Müller^Jörg"
    assert b"M\xfcller^J\xf6rg" in (request.data or b"")
    assert request.association.calling_ae_title == "TOMOWIRE"


async def test_create_without_an_instance_is_given_one() -> None:
    seen: list[NormalizedRequest] = []
    async with joined(Normalized([MPPS], create=answering(None, seen))) as association:
        scu = NormalizedScu(association)
        first, second = await scu.create(MPPS), await scu.create(MPPS)
    assert first.sop_instance_uid == seen[0].sop_instance_uid
    assert first.sop_instance_uid is not None
    assert first.sop_instance_uid.startswith("2.25.")
    assert first.sop_instance_uid != second.sop_instance_uid
    assert isinstance(seen[0].message, NCreateRQ)
    assert seen[0].message.affected_sop_instance_uid is None


async def test_a_handler_may_name_the_instance_itself() -> None:
    answer = NormalizedAnswer(sop_instance_uid="1.2.99")
    async with joined(Normalized([MPPS], create=answering(answer))) as association:
        response = await NormalizedScu(association).create(MPPS)
    assert response.sop_instance_uid == "1.2.99"


async def test_set_changes_attributes() -> None:
    seen: list[NormalizedRequest] = []
    async with joined(Normalized([MPPS], set=answering(0x0001, seen))) as association:
        response = await NormalizedScu(association).set(
            MPPS, "1.2.3", dataset(PerformedProcedureStepStatus="COMPLETED")
        )
    assert response.is_warning
    assert response.data is None
    assert len(response.dataset()) == 0
    assert seen[0].dataset().PerformedProcedureStepStatus == "COMPLETED"


async def test_get_asks_for_tags_and_gets_values() -> None:
    seen: list[NormalizedRequest] = []
    answer = NormalizedAnswer(dataset(PrinterStatus="NORMAL"), 0x0107, attribute_identifiers=(0x00091001,))
    async with joined(Normalized([MPPS], get=answering(answer, seen))) as association:
        scu = NormalizedScu(association)
        response = await scu.get(MPPS, "1.2.3", [0x21100010, 0x00091001])
        await scu.get(MPPS, "1.2.3")
    assert response.is_warning
    assert response.dataset().PrinterStatus == "NORMAL"
    assert response.attribute_identifiers == (0x00091001,)
    assert [each.attribute_identifiers for each in seen] == [(0x21100010, 0x00091001), ()]


async def test_action_has_a_type_and_a_reply() -> None:
    seen: list[NormalizedRequest] = []
    reply = dataset(TransactionUID="1.2.8")
    context = ProposedContext(COMMITMENT, (IMPLICIT,))
    async with joined(Normalized([COMMITMENT], action=answering(reply, seen)), context) as association:
        response = await NormalizedScu(association).action(
            COMMITMENT, COMMITMENT_INSTANCE, 1, dataset(TransactionUID="1.2.7")
        )
    assert (response.type_id, response.sop_instance_uid) == (1, COMMITMENT_INSTANCE)
    assert response.dataset().TransactionUID == "1.2.8"
    assert (seen[0].type_id, seen[0].dataset().TransactionUID) == (1, "1.2.7")


async def test_delete_has_no_data_sets() -> None:
    seen: list[NormalizedRequest] = []
    async with joined(Normalized([MPPS], delete=answering(None, seen))) as association:
        response = await NormalizedScu(association).delete(MPPS, "1.2.3")
    assert response.is_success
    assert (seen[0].operation, seen[0].data) == ("N-DELETE", None)


async def test_bytes_go_and_come_as_they_are() -> None:
    data = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"
    seen: list[NormalizedRequest] = []
    async with joined(Normalized([MPPS], set=answering(data, seen))) as association:
        response = await NormalizedScu(association).set(MPPS, "1.2.3", data)
    assert seen[0].data == data
    assert response.data == data
    assert response.dataset().SpecificCharacterSet == "ISO_IR 100"


# Notifications


async def test_the_acceptor_reports_an_event_once_the_action_is_answered() -> None:
    """As in storage commitment (PS3.4 J.3.3): the report comes after the response, on the same association."""
    order: list[str] = []
    told = asyncio.Event()
    reported: list[Any] = []

    async def commit(request: NormalizedRequest) -> NormalizedAnswer:
        async def tell() -> None:
            reporter = EventReporter(request.association)
            information = dataset(TransactionUID="1.2.7")
            reported.append(await reporter.report(COMMITMENT, COMMITMENT_INSTANCE, 1, information))
            told.set()

        return NormalizedAnswer(then=tell)

    async def on_event(request: NormalizedRequest) -> Dataset:
        order.append(f"event {request.type_id} {request.dataset().TransactionUID}")
        return dataset(TransactionUID="1.2.9")

    context = ProposedContext(COMMITMENT, (EXPLICIT,))
    services = [Normalized([COMMITMENT], event=on_event)]
    async with joined(Normalized([COMMITMENT], action=commit), context, services=services) as association:
        response = await NormalizedScu(association).action(COMMITMENT, COMMITMENT_INSTANCE, 1)
        order.append(f"answered {response.status}")
        async with asyncio.timeout(10):
            await told.wait()
    assert sorted(order) == ["answered 0000H (success)", "event 1 1.2.7"]
    assert reported[0].dataset().TransactionUID == "1.2.9"
    assert (reported[0].is_success, reported[0].type_id) == (True, 1)


async def test_a_requestor_with_the_scp_role_reports_events() -> None:
    """As a commitment SCP does that opens an association of its own: roles reversed (PS3.7 D.3.3.4)."""
    seen: list[NormalizedRequest] = []
    context = ProposedContext(COMMITMENT, (EXPLICIT,), scu=False, scp=True)
    async with joined(Normalized([COMMITMENT], event=answering(None, seen)), context) as association:
        response = await EventReporter(association).report(COMMITMENT, COMMITMENT_INSTANCE, 2)
        with pytest.raises(NoAcceptedContext, match="this side is not SCU of"):
            await NormalizedScu(association).action(COMMITMENT, COMMITMENT_INSTANCE, 1)
    assert response.is_success
    assert seen[0].type_id == 2
    assert isinstance(seen[0].message, NEventReportRQ)


async def test_who_takes_no_events_does_not_grant_the_scp_role() -> None:
    context = ProposedContext(COMMITMENT, (EXPLICIT,), scu=False, scp=True)
    async with joined(Normalized([COMMITMENT], action=answering(None)), context) as association:
        with pytest.raises(NoAcceptedContext, match="the requestor has to propose itself as SCP"):
            await EventReporter(association).report(COMMITMENT, COMMITMENT_INSTANCE, 1)


async def test_an_acceptor_as_scu_asks_a_requestor_that_is_scp() -> None:
    """Roles reversed: the acceptor invokes operations on what the requestor has."""
    asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def on_event(request: NormalizedRequest) -> NormalizedAnswer:
        async def ask() -> None:
            asked.set_result(await NormalizedScu(request.association).get(COMMITMENT, "1.2.3"))

        return NormalizedAnswer(then=ask)

    context = ProposedContext(COMMITMENT, (EXPLICIT,), scu=False, scp=True)
    services = [Normalized([COMMITMENT], get=answering(dataset(TransactionUID="1.2.7")))]
    async with joined(Normalized([COMMITMENT], event=on_event), context, services=services) as association:
        await EventReporter(association).report(COMMITMENT, COMMITMENT_INSTANCE, 1)
        async with asyncio.timeout(10):
            response = await asked
    assert response.dataset().TransactionUID == "1.2.7"


# Meta SOP classes


async def test_a_meta_class_stands_for_its_members() -> None:
    seen: list[NormalizedRequest] = []
    provider = Normalized(
        [GRAYSCALE_PRINT], get=answering(dataset(PrinterStatus="NORMAL"), seen), members={GRAYSCALE_PRINT: [PRINTER]}
    )
    async with joined(provider, ProposedContext(GRAYSCALE_PRINT, (EXPLICIT,))) as association:
        scu = NormalizedScu(association, GRAYSCALE_PRINT)
        response = await scu.get(PRINTER, "1.2.840.10008.5.1.1.17")
        stranger = await scu.get(MPPS, "1.2.3")
        with pytest.raises(NoAcceptedContext, match="was not proposed"):
            await NormalizedScu(association).get(PRINTER, "1.2.840.10008.5.1.1.17")
    assert (response.sop_class_uid, response.is_success) == (PRINTER, True)
    assert stranger.status == 0x0118
    assert len(seen) == 1


# The SCU, when things go wrong


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (
            lambda scu: scu.get(MPPS, "1.2", "PatientID"),
            UsageError,
            "a list of tags, such as 0x00100020, and not as 'PatientID'",
        ),
        (lambda scu: scu.get(MPPS, "1.2", ["PatientID"]), UsageError, "a list of tags"),
        (lambda scu: scu.get(MPPS, "1.2", 0x00100020), UsageError, "a list of tags"),
        (lambda scu: scu.get(MPPS, "1.2", [1 << 32]), UsageError, "a list of tags"),
        (lambda scu: scu.get(MPPS, "1.2", [-1]), UsageError, "a list of tags"),
        (lambda scu: scu.action(MPPS, "1.2", 70000), UsageError, "a number of 16 bits, and not 70000"),
        (lambda scu: scu.action(MPPS, "1.2", None), UsageError, "a number of 16 bits, and not None"),
        (
            lambda scu: scu.set(MPPS, "1.2", {"PatientID": "1"}),
            UsageError,
            "a pydicom Dataset or as bytes, and not as dict",
        ),
        (lambda scu: scu.set(MPPS, "1.2", "text"), UsageError, "and not as str"),
        (lambda scu: scu.set(MPPS, None, b""), InvalidUid, "N-SET: 'None' is not the UID of a SOP instance"),
        (lambda scu: scu.delete(MPPS, "../x"), InvalidUid, "N-DELETE: '../x' is not the UID"),
        (lambda scu: scu.create(MPPS, sop_instance_uid=""), InvalidUid, "N-CREATE: '' is not the UID"),
        (lambda scu: scu.delete(MPPS, "1" * 300_000), InvalidUid, "is not the UID"),
    ],
)
async def test_a_wrong_argument_is_said_in_words_and_nothing_is_sent(
    call: Any, kind: type[Exception], said: str
) -> None:
    seen: list[NormalizedRequest] = []
    handlers: dict[str, Any] = dict.fromkeys(("create", "set", "get", "action", "delete"), answering(None, seen))
    async with joined(Normalized([MPPS], **handlers)) as association:
        with pytest.raises(kind, match=re.escape(said)):
            await call(NormalizedScu(association))
        assert (await CEchoScu(association).echo()).is_success
    assert seen == []


async def test_a_data_set_that_cannot_be_encoded_is_not_sent() -> None:
    bad = dataset(Rows=1)
    bad["Rows"]._value = "nonsense"
    async with joined(Normalized([MPPS], create=answering(None))) as association:
        with pytest.raises(DataSetError, match="the data set cannot be encoded"):
            await NormalizedScu(association).create(MPPS, bad)
        assert (await CEchoScu(association).echo()).is_success


async def test_a_response_that_is_too_large_is_passed_over() -> None:
    answer = dataset(TextValue="x" * 5000)
    async with joined(Normalized([MPPS], get=answering(answer))) as association:
        with pytest.raises(
            DataSetError, match=r"the peer answered 0000H \(success\), with a data set of more than 4096"
        ):
            await NormalizedScu(association, largest=4096).get(MPPS, "1.2.3")
        assert (await NormalizedScu(association).get(MPPS, "1.2.3")).dataset().TextValue == "x" * 5000


async def test_a_silent_peer_ends_in_a_timeout() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        with pytest.raises(OperationTimeout, match=r"N-CREATE \(Modality Performed Procedure Step\): nothing moved"):
            async with associate(f"ANY@{LOOPBACK}:{port}", [ProposedContext(MPPS, (EXPLICIT,))]) as association:
                await NormalizedScu(association).create(MPPS, timeout=0.05)


async def test_a_created_instance_without_a_uid_is_the_peers_fault() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        for status in (0, 0x0110):
            message = await peer.read_message()
            assert isinstance(message.command, NCreateRQ)
            answer = NCreateRSP(message_id_being_responded_to=message.command.message_id, status=status)
            await peer.send(command_pdu(message.context_id, answer))
        await peer.answer_release()

    async with (
        raw_acceptor(script) as port,
        associate(f"ANY@{LOOPBACK}:{port}", [ProposedContext(MPPS, (EXPLICIT,))]) as association,
    ):
        with pytest.raises(PeerMisbehaved, match="does not say which"):
            await NormalizedScu(association).create(MPPS)
        failed = await NormalizedScu(association).create(MPPS)
    assert (failed.status, failed.sop_instance_uid, failed.sop_class_uid) == (0x0110, None, MPPS)


async def test_a_response_says_what_the_peer_says() -> None:
    """Error comment, error ID, offending elements and attribute identifiers, from a peer that names another UID than asked."""

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        message = await peer.read_message()
        assert isinstance(message.command, NGetRQ)
        answer = NGetRSP(
            message_id_being_responded_to=message.command.message_id,
            status=0x0107,
            affected_sop_instance_uid="1.2.4",
            offending_element=(0x00100010,),
            error_comment="not all of it",
            error_id=7,
            attribute_identifier_list=(0x00100020, 0x00100030),
        )
        await peer.send(command_pdu(message.context_id, answer))
        await peer.answer_release()

    async with (
        raw_acceptor(script) as port,
        associate(f"ANY@{LOOPBACK}:{port}", [ProposedContext(MPPS, (EXPLICIT,))]) as association,
    ):
        response = await NormalizedScu(association).get(MPPS, "1.2.3")
    assert (response.status, response.sop_instance_uid, response.sop_class_uid) == (0x0107, "1.2.4", MPPS)
    assert (response.error_comment, response.error_id) == ("not all of it", 7)
    assert (response.offending_elements, response.attribute_identifiers) == ((0x00100010,), (0x00100020, 0x00100030))


async def test_cancelled_while_it_waits_the_association_goes_on() -> None:
    held = asyncio.Event()
    begun = asyncio.Event()

    async def slow(request: NormalizedRequest) -> None:
        begun.set()
        await held.wait()

    async with joined(Normalized([MPPS], set=slow)) as association:
        task = asyncio.create_task(NormalizedScu(association).set(MPPS, "1.2.3", dataset(Modality="CT")))
        async with asyncio.timeout(10):
            await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.set()
        assert (await CEchoScu(association).echo()).is_success


@pytest.mark.parametrize("steps", range(12))
async def test_cancelled_at_any_moment_nothing_is_left(steps: int) -> None:
    """After so many turns of the loop: before the data set is encoded, while it is sent, and while the answer is waited for."""
    async with joined(Normalized([MPPS], get=answering(dataset(TextValue="x" * 100_000)))) as association:
        task = asyncio.create_task(NormalizedScu(association).get(MPPS, "1.2.3"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await CEchoScu(association).echo()).is_success
        assert (await NormalizedScu(association).get(MPPS, "1.2.3")).is_success


async def test_an_abort_of_the_peer_ends_it() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_message()
        peer.reset()

    async with raw_acceptor(script) as port:
        with pytest.raises(ConnectionError):
            async with associate(f"ANY@{LOOPBACK}:{port}", [ProposedContext(MPPS, (EXPLICIT,))]) as association:
                await NormalizedScu(association).delete(MPPS, "1.2.3")


async def test_an_answer_of_another_kind_ends_the_association() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        request = await peer.read_message()
        assert isinstance(request.command, NGetRQ)
        answer = NDeleteRSP(message_id_being_responded_to=request.command.message_id, status=0)
        await peer.send(command_pdu(request.context_id, answer))
        await peer.expect_abort()

    async with raw_acceptor(script) as port:
        with pytest.raises(PeerMisbehaved, match="NDeleteRSP in response to NGetRQ"):
            async with associate(f"ANY@{LOOPBACK}:{port}", [ProposedContext(MPPS, (EXPLICIT,))]) as association:
                await NormalizedScu(association).get(MPPS, "1.2.3")


# Transfer syntaxes, several at once, and data sets that take their time


@pytest.mark.parametrize("syntax", sorted(TRANSFER_SYNTAXES))
async def test_data_sets_in_every_transfer_syntax_that_one_without_pixels_can_have(syntax: str) -> None:
    async def mirror(request: NormalizedRequest) -> Dataset:
        return request.dataset()

    sent = dataset(PatientName="Λάμδα", Rows=513, ReferencedImageSequence=Sequence([dataset(InstanceNumber=7)]))
    async with joined(Normalized([MPPS], set=mirror), ProposedContext(MPPS, (syntax,))) as association:
        response = await NormalizedScu(association).set(MPPS, "1.2.3", sent)
    received = response.dataset()
    assert (response.transfer_syntax_uid, received.PatientName, received.Rows) == (syntax, "Λάμδα", 513)
    assert received.ReferencedImageSequence[0].InstanceNumber == 7
    assert "SpecificCharacterSet" not in sent, "what was given is not changed"


async def test_as_many_run_at_once_as_the_window_allows() -> None:
    running, most, release = 0, 0, asyncio.Event()

    async def slow(request: NormalizedRequest) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 4:
            release.set()
        await release.wait()
        running -= 1

    async with joined(Normalized([MPPS], delete=slow), window=4) as association:
        scu = NormalizedScu(association)
        async with asyncio.timeout(20):
            responses = await asyncio.gather(*(scu.delete(MPPS, f"1.2.{number}") for number in range(12)))
    assert all(each.is_success for each in responses)
    assert most == 4


async def test_cancelled_while_a_large_data_set_is_taken_the_association_goes_on() -> None:
    """What has been given to the connection is sent to its end; its place in the window is free when it has been answered."""
    cancelled = asyncio.Event()
    sizes: list[int] = []

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await cancelled.wait()
        first = await peer.read_message()
        assert isinstance(first.command, NSetRQ)
        sizes.append(len(first.data or b""))
        late = NSetRSP(message_id_being_responded_to=first.command.message_id, status=0)
        await peer.send(command_pdu(1, late))
        second = await peer.read_message()
        assert isinstance(second.command, NDeleteRQ)
        await peer.send(command_pdu(1, NDeleteRSP(message_id_being_responded_to=second.command.message_id, status=0)))
        await peer.answer_release()

    data = bytes(8 << 20)
    async with (
        raw_acceptor(script, receive_buffer=1 << 16) as port,
        associate(f"ANY@{LOOPBACK}:{port}", [ProposedContext(MPPS, (EXPLICIT,))], window=1) as association,
    ):
        scu = NormalizedScu(association)
        task = asyncio.create_task(scu.set(MPPS, "1.2.3", data))
        while not association.connection.is_writing_paused:
            await asyncio.wait([task], timeout=0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        deleting = asyncio.create_task(scu.delete(MPPS, "1.2.3"))
        cancelled.set()
        assert (await deleting).is_success
    assert sizes == [len(data)]


async def test_a_requestor_without_a_handler_for_events_says_so() -> None:
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def act(request: NormalizedRequest) -> NormalizedAnswer:
        async def tell() -> None:
            told.set_result(await EventReporter(request.association).report(MPPS, "1.2.3", 1))

        return NormalizedAnswer(then=tell)

    services = [Normalized([MPPS], get=answering(None))]
    async with joined(Normalized([MPPS], action=act), services=services) as association:
        await NormalizedScu(association).action(MPPS, "1.2.3", 1)
        async with asyncio.timeout(10):
            assert (await told).status == 0x0211
