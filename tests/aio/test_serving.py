"""The acceptor's side of DIMSE: what requests get for an answer, good ones and bad ones (PS3.7)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.raw_peer import (
    CT,
    ECHO,
    STORE,
    RawPeer,
    associate_rq,
    command_pdu,
    echo_rq,
    message_pdus,
    p_data,
    store_rq,
)
from support.services import Keeper, serve
from tomowire.aio.listen import listen
from tomowire.aio.serving import IncomingRequest
from tomowire.errors import AssociationRejected, ConnectFailed
from tomowire.uids import TRANSFER_SYNTAXES, VERIFICATION
from tomowire.wire.command_set import encode_command
from tomowire.wire.messages import (
    CCancelRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CStoreRSP,
    NActionRQ,
    NActionRSP,
    Response,
)
from tomowire.wire.pdu import AAbort, PDataTF
from tomowire.wire.pdv import Pdv

pytestmark = pytest.mark.usefixtures("no_leaks")

PROCESSING_FAILURE, UNRECOGNIZED = 0x0110, 0x0211
PATIENT = "Doe^Jane"


class Provider:
    """Serves Verification and CT storage with a handler that the test gives."""

    def __init__(self, handler: Callable[[IncomingRequest], Awaitable[None]]) -> None:
        self.handle = handler

    def transfer_syntaxes(self, abstract_syntax: str) -> object:
        return TRANSFER_SYNTAXES if abstract_syntax in {VERIFICATION, CT} else None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return False

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        return None


@asynccontextmanager
async def association_with(
    handler: Callable[[IncomingRequest], Awaitable[None]] | None = None, **options: Any
) -> AsyncIterator[RawPeer]:
    """A raw peer on an association whose requests go to `handler`."""
    server = (
        listen(port=0, services=[Provider(handler)], shutdown_grace=0.5, **options)  # type: ignore[list-item]
        if handler
        else serve(**options)
    )
    async with server, await RawPeer.connect(server.port) as peer:
        await peer.associate(associate_rq(window=(0, 1)))
        yield peer
        await peer.release()


def echo_response(request: IncomingRequest, status: int = 0) -> Response:
    return CEchoRSP(message_id_being_responded_to=request.message_id, status=status)


async def statuses(peer: RawPeer, count: int) -> dict[int, int]:
    """Message ID and status of the next `count` responses."""
    found = {}
    for _ in range(count):
        command = (await peer.read_message()).command
        assert isinstance(command, Response)
        found[command.message_id_being_responded_to] = command.status
    return found


# What is right


@pytest.mark.parametrize("message_id", [0, 1, 65535])
async def test_the_message_id_is_sent_back_whatever_it_is(message_id: int) -> None:
    """Conformance case 45; used again, it is as good as new."""
    async with association_with() as peer:
        for _ in range(3):
            await peer.send(message_pdus(1, echo_rq(message_id)))
            answer = (await peer.read_message()).command
            assert isinstance(answer, CEchoRSP)
            assert (answer.message_id_being_responded_to, answer.status) == (message_id, 0)
            assert answer.affected_sop_class_uid == VERIFICATION


async def test_the_same_message_id_twice_at_once_gets_two_answers() -> None:
    async with association_with() as peer:
        await peer.send(message_pdus(1, echo_rq(5)), message_pdus(1, echo_rq(5)))
        assert await statuses(peer, 1) == {5: 0}
        assert await statuses(peer, 1) == {5: 0}


async def test_requests_are_served_side_by_side_and_answered_as_they_are_done() -> None:
    """PS3.7 D.3.3.3: the window is really used; answers come in the order in which they are ready."""
    gates = {number: asyncio.Event() for number in (1, 2, 3)}

    async def handler(request: IncomingRequest) -> None:
        await gates[request.message_id].wait()
        await request.respond(echo_response(request))

    async with association_with(handler) as peer:
        await peer.send(*(message_pdus(1, echo_rq(number)) for number in gates))
        for number in (2, 3, 1):
            gates[number].set()
            assert await statuses(peer, 1) == {number: 0}


async def test_c_cancel_for_what_is_not_running_is_passed_over() -> None:
    """Conformance case 43 (PS3.7 9.3.2.3)."""
    async with association_with() as peer:
        cancels = [command_pdu(1, CCancelRQ(message_id_being_responded_to=number)) for number in (1, 0, 77)]
        await peer.send(message_pdus(1, echo_rq(1)), *cancels, message_pdus(1, echo_rq(2)))
        assert await statuses(peer, 2) == {1: 0, 2: 0}


async def test_c_cancel_with_a_data_set_of_its_own_holds_no_memory() -> None:
    """It has none by the standard. Its bytes must not stay pinned: four megabytes would fill all blocks."""
    cancel = CCancelRQ(message_id_being_responded_to=1, data_set_type=1)
    async with association_with() as peer:
        for _ in range(6):
            await peer.send(message_pdus(1, cancel, bytes(1 << 20)))
        await peer.send(message_pdus(1, echo_rq(2)))
        assert await statuses(peer, 1) == {2: 0}


async def test_a_running_request_sees_its_cancellation() -> None:
    """And a request that is not meant by it does not."""
    gate = asyncio.Event()

    async def handler(request: IncomingRequest) -> None:
        if isinstance(request.message, CFindRQ):
            await gate.wait()
            status = 0xFE00 if request.cancelled else 0
            await request.respond(CFindRSP(message_id_being_responded_to=request.message_id, status=status))
        else:
            await request.respond(echo_response(request))

    async with association_with(handler) as peer:
        for number in (3, 4):
            await peer.send(message_pdus(3, CFindRQ(message_id=number, affected_sop_class_uid=CT), b""))
        await peer.send(command_pdu(3, CCancelRQ(message_id_being_responded_to=3)), message_pdus(1, echo_rq(5)))
        assert await statuses(peer, 1) == {5: 0}
        gate.set()
        assert await statuses(peer, 2) == {3: 0xFE00, 4: 0}


async def test_a_handler_can_wait_for_its_cancellation() -> None:
    """Several in one handler too; and whoever asks when it has come already does not wait."""

    async def handler(request: IncomingRequest) -> None:
        if isinstance(request.message, CFindRQ):
            await asyncio.gather(request.wait_cancelled(), request.wait_cancelled())
            await request.wait_cancelled()
            await request.respond(CFindRSP(message_id_being_responded_to=request.message_id, status=0xFE00))
        else:
            await request.respond(echo_response(request))

    async with association_with(handler) as peer:
        for number in (3, 4):
            await peer.send(message_pdus(3, CFindRQ(message_id=number, affected_sop_class_uid=CT), b""))
        await peer.send(message_pdus(1, echo_rq(5)))
        assert await statuses(peer, 1) == {5: 0}
        for number in (4, 3):
            await peer.send(command_pdu(3, CCancelRQ(message_id_being_responded_to=number)))
            assert await statuses(peer, 1) == {number: 0xFE00}


@pytest.mark.parametrize("data_set_type", [0x0000, 0x0001, 0x0100, 0x0102, 0xFEFE])
async def test_any_data_set_type_but_0101h_announces_a_data_set(data_set_type: int) -> None:
    """Conformance case 39 (PS3.7 E.1)."""
    keeper = Keeper()
    async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        request = store_rq()
        message = type(request)(
            message_id=1,
            affected_sop_class_uid=CT,
            affected_sop_instance_uid="1.2.3",
            data_set_type=data_set_type,
        )
        await peer.send(message_pdus(3, message, b"data"))
        assert await statuses(peer, 1) == {1: 0}
    assert keeper.stored == {"1.2.3": b"data"}


async def test_fragments_of_any_size_and_together_in_a_pdu() -> None:
    """Conformance cases 32 to 34: only the last bit ends a command or a data set, and it may end it with nothing."""
    command, data = encode_command(store_rq()), b"0123456789"
    pdvs = [
        *(Pdv(3, True, False, command[at : at + 1]) for at in range(len(command))),
        Pdv(3, True, True, b""),
        *(Pdv(3, False, False, data[at : at + 2]) for at in range(0, len(data), 2)),
        Pdv(3, False, True, b""),
    ]
    keeper = Keeper()
    async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(PDataTF(tuple(pdvs)))
        assert await statuses(peer, 1) == {1: 0}
        await peer.send(*(PDataTF((pdv,)) for pdv in pdvs))
        assert await statuses(peer, 1) == {1: 0}
    assert keeper.stored == {"1.2.3": data}


# What the handler does wrong


async def test_an_exception_of_the_handler_is_a_processing_failure_and_the_association_goes_on() -> None:
    async def handler(request: IncomingRequest) -> None:
        if request.message_id == 1:
            raise ValueError(PATIENT)
        await request.respond(echo_response(request))

    async with association_with(handler) as peer:
        await peer.send(message_pdus(1, echo_rq(1)), message_pdus(1, echo_rq(2)))
        assert await statuses(peer, 2) == {1: PROCESSING_FAILURE, 2: 0}


async def test_the_log_says_what_failed_and_where_but_quotes_no_patient(caplog: pytest.LogCaptureFixture) -> None:
    """The text of an exception may come from a data set: it is logged for who asks for it, at level DEBUG."""
    caplog.set_level(logging.DEBUG)

    async def handler(_: IncomingRequest) -> None:
        raise ValueError(f"cannot parse {PATIENT}")

    async with association_with(handler) as peer:
        await peer.send(message_pdus(1, echo_rq(1)))
        answer = (await peer.read_message()).command
        assert PATIENT not in str(answer)
    told = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert not [record for record in told if record.exc_info or PATIENT in record.getMessage()]
    (failure,) = [record.getMessage() for record in told if record.levelno == logging.ERROR]
    assert "the handler of CEchoRQ failed: ValueError at " in failure
    assert "test_serving.py:" in failure
    assert PATIENT in caplog.text


async def test_the_failure_of_another_association_is_the_handlers_failure() -> None:
    """A router whose next station refuses must tell its own caller."""

    async def handler(request: IncomingRequest) -> None:
        if request.message_id == 1:
            raise ConnectFailed("the next station is down")
        raise AssociationRejected("the next station is busy", result=2, source=3, reason=2)

    async with association_with(handler) as peer:
        await peer.send(message_pdus(1, echo_rq(1)), message_pdus(1, echo_rq(2)))
        assert await statuses(peer, 2) == {1: PROCESSING_FAILURE, 2: PROCESSING_FAILURE}


async def test_something_cancelled_inside_a_handler_is_a_failure_too() -> None:
    async def handler(_: IncomingRequest) -> None:
        inner = asyncio.ensure_future(asyncio.Event().wait())
        inner.cancel()
        await inner

    async with association_with(handler) as peer:
        await peer.send(message_pdus(1, echo_rq(1)))
        assert await statuses(peer, 1) == {1: PROCESSING_FAILURE}


async def test_a_handler_that_forgets_to_respond_is_answered_for() -> None:
    async def handler(_: IncomingRequest) -> None:
        return

    async with association_with(handler) as peer:
        await peer.send(message_pdus(1, echo_rq(1)))
        assert await statuses(peer, 1) == {1: PROCESSING_FAILURE}


async def test_a_handler_that_fails_after_its_response_is_not_answered_for_again() -> None:
    async def handler(request: IncomingRequest) -> None:
        await request.respond(echo_response(request))
        raise ValueError

    async with association_with(handler) as peer:
        await peer.send(message_pdus(1, echo_rq(1)))
        assert await statuses(peer, 1) == {1: 0}


async def test_a_response_that_cannot_be_encoded_becomes_one_that_can() -> None:
    async def handler(request: IncomingRequest) -> None:
        await request.respond(echo_response(request, status=70_000))

    async with association_with(handler) as peer:
        await peer.send(message_pdus(1, echo_rq(1)))
        assert await statuses(peer, 1) == {1: PROCESSING_FAILURE}


async def test_pending_responses_do_not_count_as_the_answer() -> None:
    async def handler(request: IncomingRequest) -> None:
        message_id: int = request.message.message_id  # type: ignore[attr-defined]
        for _ in range(2):
            await request.respond(
                CFindRSP(message_id_being_responded_to=message_id, status=0xFF00, data_set_type=1), b""
            )
        raise ValueError

    async with association_with(handler) as peer:
        await peer.send(message_pdus(3, CFindRQ(message_id=1, affected_sop_class_uid=CT), b""))
        assert [await statuses(peer, 1) for _ in range(3)] == [{1: 0xFF00}, {1: 0xFF00}, {1: PROCESSING_FAILURE}]


async def test_a_handler_may_return_without_reading_its_data() -> None:
    """The rest of the data set is passed over, however much it is, and what follows it is understood."""

    async def handler(request: IncomingRequest) -> None:
        if request.data is None:
            await request.respond(echo_response(request))
        else:
            await request.respond(CStoreRSP(message_id_being_responded_to=1, status=0xA700))

    async with association_with(handler) as peer:
        await peer.send(command_pdu(3, store_rq(1)), p_data(3, b"first", command=False, last=False))
        assert await statuses(peer, 1) == {1: 0xA700}
        rest = bytes(1 << 16)
        for _ in range(100):
            await peer.send(p_data(3, rest, command=False, last=False))
        await peer.send(p_data(3, b"", command=False, last=True), message_pdus(1, echo_rq(2)))
        assert await statuses(peer, 1) == {2: 0}


# What the peer does wrong


async def test_an_unknown_command_field_is_an_unrecognized_operation() -> None:
    """Conformance case 41: status 0211H, its data set passed over, and the association goes on."""
    unknown = encode_command(store_rq(9)).replace(b"\0\0\0\1\2\0\0\0\1\0", b"\0\0\0\1\2\0\0\0\x77\0", 1)
    assert unknown != encode_command(store_rq(9))
    async with association_with() as peer:
        await peer.send(p_data(3, unknown, command=True, last=True), p_data(3, b"data", command=False, last=True))
        await peer.send(message_pdus(1, echo_rq(2)))
        raw = await peer.read_pdu()
        assert isinstance(raw, PDataTF)
        # Command field 8077H, Message ID being responded to 9, no data set, status 0211H (PS3.7 E.1).
        answered = bytes(raw.pdvs[0].data)
        for element in (
            "000000010200000077 80",
            "0000200102000000 0900",
            "0000000802000000 0101",
            "0000000902000000 1102",
        ):
            assert bytes.fromhex(element) in answered
        assert await statuses(peer, 1) == {2: 0}


async def test_a_command_that_lacks_an_element_is_a_processing_failure() -> None:
    """In lenient mode, which is an SCP's: what can be answered is answered."""
    whole = encode_command(store_rq(9))
    start = whole.rindex(bytes.fromhex("00000010"))  # (0000,1000) Affected SOP Instance UID stands last
    async with association_with() as peer:
        await peer.send(p_data(3, whole[:start], command=True, last=True), p_data(3, b"data", command=False, last=True))
        await peer.send(message_pdus(1, echo_rq(2)))
        assert await statuses(peer, 2) == {9: PROCESSING_FAILURE, 2: 0}


async def test_unreadable_commands_are_not_read_without_end_from_a_peer_that_reads_no_answers() -> None:
    """Each of them is a request like others: beyond so many that wait nothing more is read."""
    unknown = encode_command(echo_rq(9)).replace(b"\0\0\0\1\2\0\0\0\x30\0", b"\0\0\0\1\2\0\0\0\x77\0", 1)
    flood = p_data(1, unknown, command=True, last=True) * 1000
    async with serve() as server, await RawPeer.connect(server.port, receive_buffer=4096) as peer:
        await peer.associate()
        (association,) = server.associations
        await peer.send_until_held(flood, association.connection)
        assert association.connection.unsent < 1 << 20


async def test_a_service_that_does_not_know_the_operation_refuses_it() -> None:
    """C-STORE where C-ECHO is due, C-ECHO where C-STORE is due, and an operation of DIMSE-N: all 0211H."""
    action = NActionRQ(message_id=3, requested_sop_class_uid=CT, requested_sop_instance_uid="1.2.3", action_type_id=1)
    async with association_with() as peer:
        await peer.send(message_pdus(1, store_rq(1), b"data"), message_pdus(3, echo_rq(2)), message_pdus(3, action))
        answers = {}
        for _ in range(3):
            command = (await peer.read_message()).command
            answers[type(command)] = command.status  # type: ignore[attr-defined]
        assert answers == {CStoreRSP: UNRECOGNIZED, CEchoRSP: UNRECOGNIZED, NActionRSP: UNRECOGNIZED}


async def test_a_response_to_nothing_is_an_abort_for_the_strict() -> None:
    async with serve(malformed="strict") as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(command_pdu(1, CEchoRSP(message_id_being_responded_to=1, status=0)))
        assert isinstance(await peer.read_pdu(), AAbort)


DATA = p_data(3, b"data", command=False, last=True)
COMMAND = command_pdu(3, store_rq())
BREACHES = {
    "data set without a command": DATA,
    "data set where none was announced": command_pdu(1, echo_rq()) + p_data(1, b"data", command=False, last=True),
    "command inside a data set": COMMAND + p_data(3, b"da", command=False, last=False) + COMMAND,
    "data set before the command ends": p_data(3, encode_command(store_rq()), command=True, last=False) + DATA,
    "contexts interleaved": COMMAND + p_data(1, b"data", command=False, last=True),
    "contexts interleaved in a command": p_data(3, b"\0\0", command=True, last=False) + command_pdu(1, echo_rq()),
    "context not accepted": message_pdus(5, echo_rq()),
    "context refused": message_pdus(7, echo_rq()),
    "no pdv": bytes.fromhex("040000000000"),
    "pdv shorter than its header": bytes.fromhex("040000000006 000000010102"),
    "pdv past its pdu": bytes.fromhex("040000000006 000000ff0102"),
    "unknown pdu type": bytes.fromhex("080000000004 00000000"),
    "pdu of 4 GB": bytes.fromhex("0400ffffffff"),
    "nonsense for a command": p_data(1, b"\xff" * 100, command=True, last=True),
}


@pytest.mark.parametrize("breach", BREACHES)
async def test_a_breach_of_the_protocol_is_an_abort_and_no_matter_of_the_other_associations(
    breach: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Conformance cases 2 to 4 and 35 to 37."""
    keeper = Keeper()
    refused = type(STORE)(7, "1.2.840.10008.5.1.4.1.2.2.1", STORE.transfer_syntaxes)
    async with serve(keeper) as server, await RawPeer.connect(server.port) as other:
        await other.associate()
        async with await RawPeer.connect(server.port) as peer:
            await peer.associate(associate_rq(ECHO, STORE, refused))
            await peer.send(BREACHES[breach])
            abort = await peer.expect_abort()
            assert abort.source == 2
            assert abort.reason in {1, 2, 5, 6}
        await other.send(message_pdus(1, echo_rq(7)))
        assert await statuses(other, 1) == {7: 0}
    assert keeper.stored == {}
    assert "the peer broke the protocol and the association was aborted" in caplog.text


async def test_requests_beyond_what_is_served_at_once_wait_and_are_all_answered() -> None:
    """The peer was not granted a window of a thousand."""
    keeper = Keeper()
    keeper.gate.clear()
    async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        for number in range(1000):
            await peer.send(message_pdus(3, store_rq(number, f"1.{number}"), b"x"))
        for _ in range(64):
            await keeper.next_begun()
        async with await RawPeer.connect(server.port) as other:
            await other.associate()
        assert keeper.begun.empty()
        keeper.gate.set()
        assert await statuses(peer, 1000) == dict.fromkeys(range(1000), 0)
    assert keeper.most_running == 64
    assert keeper.order == [f"1.{number}" for number in range(1000)]


async def test_what_waits_is_given_up_when_the_association_ends() -> None:
    keeper = Keeper()
    keeper.gate.clear()
    async with serve(keeper) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(*(message_pdus(3, store_rq(number), b"x") for number in range(70)))
        for _ in range(64):
            await keeper.next_begun()
        (association,) = server.associations
        association.abort()
        for _ in range(64):
            assert isinstance(await keeper.next_end(), asyncio.CancelledError)
    assert keeper.begun.empty()


async def test_unreadable_commands_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A peer must not be able to fill the log."""
    unknown = encode_command(echo_rq(9)).replace(b"\0\0\0\1\2\0\0\0\x30\0", b"\0\0\0\1\2\0\0\0\x77\0", 1)
    async with association_with() as peer:
        await peer.send(p_data(1, unknown, command=True, last=True) * 10)
        for _ in range(10):
            await peer.read_pdu()
    assert len([record for record in caplog.records if "unreadable command set" in record.getMessage()]) == 1
