"""The performing side of DIMSE-N, asked by hand: what it refuses, and what it makes of its handlers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydicom import Dataset

from support.network import LOOPBACK
from support.raw_peer import RawMessage, RawPeer, associate_rq, message_pdus
from tomowire.aio.listen import listen
from tomowire.errors import OperationFailed, UsageError
from tomowire.protocol.status import NO_SUCH_SOP_INSTANCE
from tomowire.services.attribute_lists import encode_list
from tomowire.services.normalized import EventReporter
from tomowire.services.normalized_handling import NormalizedAnswer, NormalizedRequest
from tomowire.services.normalized_scp import Normalized
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN as EXPLICIT
from tomowire.wire.elements import DATA_SET_PRESENT
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import (
    NActionRQ,
    NActionRSP,
    NCreateRQ,
    NCreateRSP,
    NDeleteRQ,
    NEventReportRQ,
    NGetRQ,
    NGetRSP,
    NSetRQ,
    Request,
    Response,
)
from tomowire.wire.pdu import AAbort

MPPS = "1.2.840.10008.3.1.2.3.3"
PRINTER = "1.2.840.10008.5.1.1.16"

pytestmark = pytest.mark.usefixtures("no_leaks")

REQUESTS: list[Request] = [
    NCreateRQ(message_id=1, affected_sop_class_uid=MPPS, affected_sop_instance_uid="1.2.3"),
    NSetRQ(message_id=1, requested_sop_class_uid=MPPS, requested_sop_instance_uid="1.2.3", data_set_type=0x0101),
    NGetRQ(message_id=1, requested_sop_class_uid=MPPS, requested_sop_instance_uid="1.2.3"),
    NActionRQ(message_id=1, requested_sop_class_uid=MPPS, requested_sop_instance_uid="1.2.3", action_type_id=4),
    NDeleteRQ(message_id=1, requested_sop_class_uid=MPPS, requested_sop_instance_uid="1.2.3"),
    NEventReportRQ(message_id=1, affected_sop_class_uid=MPPS, affected_sop_instance_uid="1.2.3", event_type_id=4),
]
KEYWORDS = ["create", "set", "get", "action", "delete", "event"]
EACH = list(zip(REQUESTS, KEYWORDS, strict=True))


@asynccontextmanager
async def asking(provider: Normalized) -> AsyncIterator[RawPeer]:
    """A requestor by hand, with an association for MPPS."""
    async with (
        listen(LOOPBACK, 0, services=[provider], shutdown_grace=2) as server,
        await RawPeer.connect(server.port) as peer,
    ):
        await peer.associate(associate_rq(PresentationContextRQ(1, MPPS, (EXPLICIT,))))
        yield peer


async def ask(peer: RawPeer, request: Request, data: bytes | None = None) -> RawMessage:
    await peer.send(message_pdus(1, request, data))
    return await peer.read_message()


async def respond(peer: RawPeer, request: Request, data: bytes | None = None) -> Any:
    response = (await ask(peer, request, data)).command
    assert isinstance(response, Response)
    assert response.message_id_being_responded_to == request.message_id
    return response


def handler_of(answer: Any) -> Any:
    async def handler(request: NormalizedRequest) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return handler


@pytest.mark.parametrize(("request_", "keyword"), EACH, ids=KEYWORDS)
async def test_each_operation_has_its_handler_and_its_response(request_: Request, keyword: str) -> None:
    """The response echoes class and instance as the affected ones (PS3.7 10.1.x: "="), and the type of action or event."""
    options: dict[str, Any] = {keyword: handler_of(None)}
    async with asking(Normalized([MPPS], **options)) as peer:
        response = await respond(peer, request_)
        await peer.release()
    assert response.command_field == request_.command_field | 0x8000
    assert (response.status, response.has_data_set) == (0, False)
    assert (response.affected_sop_class_uid, response.affected_sop_instance_uid) == (MPPS, "1.2.3")
    if keyword in ("action", "event"):
        assert 4 in (getattr(response, "action_type_id", None), getattr(response, "event_type_id", None))


@pytest.mark.parametrize(("request_", "keyword"), EACH, ids=KEYWORDS)
async def test_an_operation_without_a_handler_is_unrecognized(request_: Request, keyword: str) -> None:
    options: dict[str, Any] = {each: handler_of(None) for each in KEYWORDS if each != keyword}
    async with asking(Normalized([MPPS], **options)) as peer:
        response = await respond(peer, request_)
        await peer.release()
    assert (response.status, response.affected_sop_instance_uid) == (0x0211, "1.2.3")


async def test_another_sop_class_than_that_of_the_context_is_not_known() -> None:
    """PS3.7 C.5: 0118H is the status that all six services have for it."""
    async with asking(Normalized([MPPS, PRINTER], get=handler_of(None))) as peer:
        request = NGetRQ(message_id=1, requested_sop_class_uid=PRINTER, requested_sop_instance_uid="1.2.3")
        response = await respond(peer, request)
        await peer.release()
    assert response.status == 0x0118
    assert response.error_comment == "SOP class is not that of the presentation context"


@pytest.mark.parametrize("uid", ["", "one", "1" * 65])
async def test_an_instance_uid_that_is_none_is_refused(uid: str) -> None:
    async with asking(Normalized([MPPS], delete=handler_of(None))) as peer:
        request = NDeleteRQ(message_id=1, requested_sop_class_uid=MPPS, requested_sop_instance_uid=uid)
        response = await respond(peer, request)
        await peer.release()
    assert response.status == 0x0117


async def test_a_handler_fails_an_operation_with_all_that_can_be_said() -> None:
    failure = OperationFailed(
        NO_SUCH_SOP_INSTANCE,
        "never heard of it",
        offending_elements=(0x00080018,),
        attribute_identifiers=(0x00100010,),
        error_id=9,
    )
    async with asking(Normalized([MPPS], get=handler_of(failure), action=handler_of(failure))) as peer:
        got = await respond(peer, REQUESTS[2])
        acted = await respond(peer, REQUESTS[3])
        await peer.release()
    for response in (got, acted):
        assert (response.status, response.error_comment, response.error_id) == (0x0112, "never heard of it", 9)
        assert response.offending_element == (0x00080018,)
    assert got.attribute_identifier_list == (0x00100010,)


async def test_a_status_of_its_own_with_a_data_set() -> None:
    """PS3.7 C.4.2 and C.4.3: a warning may come with the attributes that it is about."""
    wrong = Dataset()
    wrong.Rows = 7
    answer = NormalizedAnswer(wrong, 0x0116, "out of range", attribute_identifiers=(0x00280010,), error_id=3)
    async with asking(Normalized([MPPS], create=handler_of(answer))) as peer:
        message = await ask(peer, REQUESTS[0])
        await peer.release()
    response = message.command
    assert isinstance(response, NCreateRSP)
    assert (response.status, response.error_comment, response.error_id) == (0x0116, "out of range", 3)
    assert response.attribute_identifier_list == (0x00280010,)
    assert message.data == b"\x28\x00\x10\x00US\x02\x00\x07\x00"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("done", "returned str, which is no answer"),
        (True, "returned bool, which is no answer"),
        (70000, "returned 70000, which is no status"),
        (-1, "returned -1, which is no status"),
        (0xFF00, "returned 65280, which is no status"),
        (0xFE00, "returned 65024, which is no status"),
        (NormalizedAnswer(status=0xFF01), "returned 65281, which is no status"),
    ],
)
async def test_nonsense_of_a_handler_is_a_failure_and_a_log_entry(
    answer: object, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(Normalized([MPPS], set=handler_of(answer), get=handler_of(None))) as peer:
        refused = await respond(peer, REQUESTS[1])
        answered = await respond(peer, REQUESTS[2])
        await peer.release()
    assert (refused.status, refused.error_comment) == (0x0110, "internal error")
    assert answered.status == 0
    assert f"the handler of N-SET {said}" in caplog.text


@pytest.mark.parametrize("status", [0x0000, 0x0001, 0xB000, 0xFE00, 0xFF00, 0x12345, -1])
async def test_what_failed_is_answered_with_the_status_of_a_failure(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    failure = OperationFailed(status, "Smith^John")
    async with asking(Normalized([MPPS], set=handler_of(failure), get=handler_of(None))) as peer:
        refused = await respond(peer, REQUESTS[1])
        answered = await respond(peer, REQUESTS[2])
        await peer.release()
    assert (refused.status, refused.error_comment) == (0x0110, "internal error")
    assert answered.status == 0
    assert f"the handler of N-SET raised OperationFailed with {status}, which is no status of a failure" in caplog.text
    assert "Smith" not in caplog.text


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("status", True),
        ("status", "Smith^John"),
        ("dataset", "Smith^John"),
        ("comment", b"Smith^John"),
        ("sop_instance_uid", "../Smith^John"),
        ("attribute_identifiers", ("PatientName",)),
        ("attribute_identifiers", (1 << 32,)),
        ("offending_elements", (-1,)),
        ("error_id", 70000),
        ("then", "Smith^John"),
    ],
)
async def test_an_answer_that_no_response_can_hold_is_nonsense(
    field: str, wrong: object, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {field: wrong}
    async with asking(Normalized([MPPS], create=handler_of(NormalizedAnswer(**options)))) as peer:
        refused = await respond(peer, REQUESTS[0])
        await peer.release()
    assert (refused.status, refused.error_comment) == (0x0110, "internal error")
    assert "UsageError: the handler of N-CREATE returned " in caplog.text
    assert "Smith" not in caplog.text


@pytest.mark.parametrize(
    ("number", "field", "status"),
    [
        (3, "action_type_id", 0x0123),  # PS3.7 C.5.24: no such action
        (3, "action_type_id", 0x0114),  # C.5.16: no such argument
        (3, "action_type_id", 0x0115),  # C.5.10: invalid argument value
        (5, "event_type_id", 0x0113),  # no such event type
        (5, "event_type_id", 0x0114),
        (5, "event_type_id", 0x0115),
    ],
)
async def test_a_failure_says_which_action_or_event_it_is_about(number: int, field: str, status: int) -> None:
    async with asking(Normalized([MPPS], **{KEYWORDS[number]: handler_of(OperationFailed(status))})) as peer:
        response = await respond(peer, REQUESTS[number])
        await peer.release()
    assert (response.status, getattr(response, field)) == (status, 4)


@pytest.mark.parametrize("answer", [OperationFailed(0x0213), 0x0213, NormalizedAnswer(status=0x0213)])
async def test_what_was_not_created_has_no_instance_uid(answer: object) -> None:
    """PS3.7 10.1.5.1.3: one is told of what has been made."""
    request = NCreateRQ(message_id=1, affected_sop_class_uid=MPPS)
    async with asking(Normalized([MPPS], create=handler_of(answer))) as peer:
        response = await respond(peer, request)
        await peer.release()
    assert (response.status, response.affected_sop_instance_uid) == (0x0213, None)


async def no_answer(request: NormalizedRequest) -> AsyncIterator[int]:
    yield 0


@pytest.mark.parametrize("handler", [no_answer, Normalized, Dataset(), 0x0000])
def test_what_is_no_handler_is_refused_when_the_service_is_made(handler: Any) -> None:
    with pytest.raises(UsageError, match="the handler of N-GET"):
        Normalized([MPPS], get=handler)


async def test_a_handler_that_is_no_async_function_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def plain(request: NormalizedRequest) -> int:
        return 0

    async with asking(Normalized([MPPS], get=plain)) as peer:  # type: ignore[arg-type]
        assert (await respond(peer, REQUESTS[2])).status == 0x0110
        await peer.release()
    assert "UsageError: the handler of N-GET is no async function (`async def`): " in caplog.text


@pytest.mark.parametrize(
    ("sop_classes", "options", "said"),
    [
        (MPPS, {}, "SOP classes are given as a list"),
        ([MPPS], {"transfer_syntaxes": EXPLICIT}, "transfer syntaxes are given as a list"),
        ([MPPS], {"members": {PRINTER: [MPPS]}}, f"{PRINTER} has members, and is not among"),
        ([MPPS], {"get": handler_of(None), "handler_timeout": 0}, "cannot do its work in 0 s"),
    ],
)
def test_what_would_never_work_is_refused_when_the_service_is_made(
    sop_classes: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Normalized(sop_classes, **options)


async def test_a_data_set_for_a_delete_is_nonsense(caplog: pytest.LogCaptureFixture) -> None:
    async with asking(Normalized([MPPS], delete=handler_of(b"\x08\x00\x05\x00CS\x00\x00"))) as peer:
        assert (await respond(peer, REQUESTS[4])).status == 0x0110
        await peer.release()
    assert "the handler of N-DELETE returned a data set" in caplog.text


async def test_a_handler_that_raises_fails_its_operation_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with asking(
        Normalized([MPPS], set=handler_of(ZeroDivisionError("Smith^John")), get=handler_of(None))
    ) as peer:
        failed = await respond(peer, REQUESTS[1])
        answered = await respond(peer, REQUESTS[2])
        await peer.release()
    assert (failed.status, failed.affected_sop_instance_uid, answered.status) == (0x0110, "1.2.3", 0)
    assert (
        f"): N-SET of 1.2.3: the handler {__name__}.handler_of.<locals>.handler failed: ZeroDivisionError"
        in caplog.text
    )
    assert "Smith" not in caplog.text
    assert len(caplog.records) == 1


async def test_a_data_set_that_cannot_be_read_fails_when_the_handler_reads_it() -> None:
    async def read(request: NormalizedRequest) -> Dataset:
        return request.dataset()

    async with asking(Normalized([MPPS], create=read)) as peer:
        request = NCreateRQ(message_id=1, affected_sop_class_uid=MPPS, data_set_type=DATA_SET_PRESENT)
        response = await respond(peer, request, b"\x10\x00\x10\x00PN\xff\x00Smith^Jo")
        await peer.release()
    assert response.status == 0x0110
    assert "the data set" in response.error_comment
    assert "Smith" not in response.error_comment


async def test_an_answer_that_cannot_be_encoded(caplog: pytest.LogCaptureFixture) -> None:
    bad = Dataset()
    bad.Rows = 1
    bad["Rows"]._value = "Smith^John"
    async with asking(Normalized([MPPS], get=handler_of(bad))) as peer:
        response = await respond(peer, REQUESTS[2])
        await peer.release()
    assert (response.status, response.error_comment) == (0x0110, "the answer cannot be encoded")
    assert "the answer to N-GET cannot be encoded" in caplog.text
    assert "Smith" not in caplog.text


async def test_a_data_set_that_is_too_large_is_refused() -> None:
    async with asking(Normalized([MPPS], set=handler_of(None), largest=1000)) as peer:
        request = NSetRQ(message_id=1, requested_sop_class_uid=MPPS, requested_sop_instance_uid="1.2.3")
        refused = await respond(peer, request, bytes(1002))
        taken = await respond(peer, request, bytes(1000))
        await peer.release()
    assert (refused.status, refused.error_comment) == (0x0213, "a data set of more than 1000 bytes")
    assert taken.status == 0


async def test_data_sets_are_held_in_the_memory_of_the_server() -> None:
    """Of which half is for data sets: what is larger is refused, and all of it is free again when a request has been served."""
    used: list[int] = []

    async def note(request: NormalizedRequest) -> None:
        assert request.association.budget is not None
        used.append(request.association.budget.data.used)

    request = NSetRQ(message_id=1, requested_sop_class_uid=MPPS, requested_sop_instance_uid="1.2.3")
    async with (
        listen(LOOPBACK, 0, services=[Normalized([MPPS], set=note)], memory=8 << 20) as server,
        await RawPeer.connect(server.port) as peer,
    ):
        await peer.associate(associate_rq(PresentationContextRQ(1, MPPS, (EXPLICIT,))))
        taken = await respond(peer, request, bytes(2 << 20))
        refused = await respond(peer, request, bytes(5 << 20))
        again = await respond(peer, request, bytes(1 << 20))
        await peer.release()
    assert [each.status for each in (taken, refused, again)] == [0, 0x0213, 0]
    assert "memory" in refused.error_comment
    assert used == [2 << 20, 1 << 20]


async def test_a_handler_that_takes_too_long_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    cancelled = asyncio.Event()

    async def hang(request: NormalizedRequest) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with asking(Normalized([MPPS], set=hang, handler_timeout=0.05)) as peer:
        response = await respond(peer, REQUESTS[1])
        await peer.release()
    assert (response.status, response.error_comment) == (0x0110, "not done within 0.05 s")
    assert cancelled.is_set()
    assert "the handler of N-SET took too long" in caplog.text


async def test_a_handler_that_does_not_end_when_it_is_cancelled_holds_up_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    let_go, ended = asyncio.Event(), asyncio.Event()

    async def stubborn(request: NormalizedRequest) -> None:
        try:
            await let_go.wait()
        except asyncio.CancelledError:
            await let_go.wait()
        finally:
            ended.set()

    async with asking(Normalized([MPPS], set=stubborn, get=handler_of(None), handler_timeout=0.05)) as peer:
        assert (await respond(peer, REQUESTS[1])).error_comment == "not done within 0.05 s"
        assert (await respond(peer, REQUESTS[2])).status == 0
        await peer.release()
    assert "stubborn has been cancelled after 0.05 s, and goes on" in caplog.text
    let_go.set()
    async with asyncio.timeout(10):
        await ended.wait()


async def test_a_timeout_of_the_handlers_own_is_its_failure(caplog: pytest.LogCaptureFixture) -> None:
    async with asking(Normalized([MPPS], set=handler_of(TimeoutError()), handler_timeout=60)) as peer:
        assert (await respond(peer, REQUESTS[1])).error_comment == "internal error"
        await peer.release()
    assert "handler failed: TimeoutError" in caplog.text


async def test_a_cancellation_inside_a_handler_is_its_failure() -> None:
    async with asking(Normalized([MPPS], set=handler_of(asyncio.CancelledError()))) as peer:
        assert (await respond(peer, REQUESTS[1])).status == 0x0110
        await peer.release()


async def test_a_handler_is_cancelled_when_the_peer_aborts() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(request: NormalizedRequest) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with asking(Normalized([MPPS], set=hang)) as peer:
        await peer.send(message_pdus(1, REQUESTS[1]))
        async with asyncio.timeout(10):
            await begun.wait()
            await peer.send(AAbort(0, 0))
            await ended.wait()


async def test_what_comes_after_the_response_may_meet_the_end_of_the_association(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The peer releases as soon as it has its answer, and takes no event any more."""
    ended = asyncio.Event()

    async def act(request: NormalizedRequest) -> NormalizedAnswer:
        async def tell() -> None:
            try:
                await EventReporter(request.association).report(MPPS, "1.2.3", 1)
            finally:
                ended.set()

        return NormalizedAnswer(then=tell)

    caplog.set_level(logging.WARNING)
    async with asking(Normalized([MPPS], action=act)) as peer:
        assert isinstance((await ask(peer, REQUESTS[3])).command, NActionRSP)
        assert isinstance((await peer.read_message()).command, NEventReportRQ)
        await peer.release()
        async with asyncio.timeout(10):
            await ended.wait()
    assert "after N-ACTION: the peer released the association before it had answered" in caplog.text


async def test_a_failure_after_the_response_is_logged_and_not_answered_again(caplog: pytest.LogCaptureFixture) -> None:
    async def boom() -> None:
        raise ZeroDivisionError

    provider = Normalized([MPPS], action=handler_of(NormalizedAnswer(then=boom)), get=handler_of(None))
    async with asking(provider) as peer:
        assert (await respond(peer, REQUESTS[3])).status == 0
        assert isinstance((await ask(peer, REQUESTS[2])).command, NGetRSP)
        await peer.release()
    assert "after N-ACTION: the handler" in caplog.text
    assert "boom failed: ZeroDivisionError" in caplog.text


def test_what_has_no_attributes_is_no_data_set() -> None:
    assert encode_list(None, EXPLICIT) is None
    assert encode_list(b"", EXPLICIT) is None
    assert encode_list(Dataset(), EXPLICIT) is None
    assert encode_list(b"odd", EXPLICIT) == b"odd\0"


async def test_a_service_class_is_one_class_that_derives_from_it() -> None:
    class PerformedProcedureSteps(Normalized):
        def __init__(self) -> None:
            super().__init__([MPPS], create=self.begin)
            self.steps: list[str] = []

        async def begin(self, request: NormalizedRequest) -> None:
            if request.sop_instance_uid in self.steps:
                raise OperationFailed(0x0111)
            self.steps.append(request.sop_instance_uid)

    provider = PerformedProcedureSteps()
    async with asking(provider) as peer:
        statuses = [(await respond(peer, REQUESTS[0])).status for _ in range(2)]
        await peer.release()
    assert statuses == [0x0000, 0x0111]
    assert provider.steps == ["1.2.3"]
