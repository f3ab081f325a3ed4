"""An association from the requestor's end, with a peer of which every byte is scripted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.network import LOOPBACK
from support.raw_peer import (
    CT,
    MR,
    RELEASE_RP,
    RELEASE_RQ,
    Closed,
    RawMessage,
    RawPeer,
    Unexpected,
    command_pdu,
    echo_rq,
    p_data,
    raw_acceptor,
)
from tomowire.aio.association import Association
from tomowire.aio.connect import associate
from tomowire.errors import (
    AssociationAborted,
    AssociationLost,
    AssociationReleased,
    NoAcceptedContext,
    OperationTimeout,
    PeerMisbehaved,
    UsageError,
)
from tomowire.protocol.negotiation import ProposedContext
from tomowire.protocol.upper_layer import UpperLayer
from tomowire.services.storage import storage
from tomowire.services.verification import CEchoScu, verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tomowire.wire.command_set import Message
from tomowire.wire.messages import CCancelRQ, CEchoRQ, CEchoRSP, CFindRQ, CFindRSP, CStoreRQ, CStoreRSP, Response
from tomowire.wire.pdu import AAbort, AReleaseRP, AReleaseRQ, PDataTF

pytestmark = pytest.mark.usefixtures("no_leaks")

CONTEXTS = [verification(), storage(CT, [EXPLICIT_VR_LITTLE_ENDIAN])]
Script = Callable[[RawPeer], Awaitable[None]]


@asynccontextmanager
async def association_with(
    script: Script,
    contexts: list[ProposedContext] | None = None,
    *,
    accept: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Association]:
    """An association with a peer that accepts it and then plays `script`."""

    async def play(peer: RawPeer) -> None:
        await peer.accept(**(accept or {}))
        await script(peer)

    async with (
        raw_acceptor(play) as port,
        associate(f"PEER@{LOOPBACK}:{port}", contexts or CONTEXTS, **options) as association,
    ):
        yield association


def response_to(message: RawMessage, status: int = 0) -> bytes:
    """The PDU of the right response to a C-ECHO or C-STORE."""
    kind: type[Response] = CEchoRSP if isinstance(message.command, CEchoRQ) else CStoreRSP
    return command_pdu(message.context_id, kind(message_id_being_responded_to=message_id(message), status=status))


def message_id(message: RawMessage) -> int:
    number: int = message.command.message_id  # type: ignore[attr-defined]
    return number


async def answer_everything(peer: RawPeer) -> None:
    """A peer as it should be, until it is asked for release."""
    while True:
        try:
            await peer.send(response_to(await peer.read_message()))
        except Unexpected as error:
            assert isinstance(error.pdu, AReleaseRQ)
            await peer.send(RELEASE_RP)
            assert await peer.read_until_closed() == b""
            return


async def say_nothing(peer: RawPeer) -> None:
    """A peer that reads and never answers."""
    await peer.read_until_closed()


# Facts


async def test_what_was_negotiated_can_be_asked_for() -> None:
    contexts = [*CONTEXTS, storage(MR, [IMPLICIT_VR_LITTLE_ENDIAN]), storage(CT, [IMPLICIT_VR_LITTLE_ENDIAN])]
    async with association_with(
        answer_everything, contexts, accept={"refuse": [MR], "maximum_length": 4096}
    ) as association:
        assert association.is_requestor
        assert association.is_established
        assert association.error is None
        assert association.called_ae_title == "PEER"
        assert association.payload_maximum == 4096 - 6
        assert [each.context_id for each in association.contexts(CT)] == [3, 7]
        assert association.context(CT).context_id == 3
        assert association.context(CT, IMPLICIT_VR_LITTLE_ENDIAN).context_id == 7
        for wanted, why in [
            ((MR,), "MR Image Storage: the peer does not support this SOP class"),
            ((CT, "1.2.840.10008.1.2.2"), "CT Image Storage in Explicit VR Big Endian"),
            (("1.2.3",), "not proposed on this association"),
        ]:
            with pytest.raises(NoAcceptedContext, match=why):
                association.context(*wanted)
    assert not association.is_established
    assert association.error is None, "it was released"


async def test_before_it_is_established_it_says_so() -> None:
    association = Association(UpperLayer(is_requestor=True))
    with pytest.raises(UsageError, match="not established"):
        _ = association.agreement
    with pytest.raises(UsageError, match="not established"):
        association.operation(echo_rq(), name="C-ECHO", timeout=1)
    await association.wait_closed()


# What the peer does with a request


async def test_a_peer_that_never_answers_is_given_up_after_the_timeout() -> None:
    aborts: list[AAbort] = []

    async def script(peer: RawPeer) -> None:
        await peer.read_message()
        pdu = await peer.read_pdu()
        assert isinstance(pdu, AAbort)
        aborts.append(pdu)

    async with association_with(script) as association:
        began = asyncio.get_running_loop().time()
        with pytest.raises(OperationTimeout, match=r"C-ECHO: nothing moved for 0\.2 s; the association was aborted"):
            await CEchoScu(association).echo(timeout=0.2)
        assert asyncio.get_running_loop().time() - began < 5
        assert isinstance(association.error, AssociationAborted)
        assert "nothing moved" in str(association.error)
        with pytest.raises(AssociationAborted):
            await CEchoScu(association).echo()
        await association.wait_closed()
    assert aborts == [AAbort(0, 0)]


async def test_an_answer_that_comes_too_late_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: RawPeer) -> None:
        message = await peer.read_message()
        assert isinstance(await peer.read_pdu(), AAbort)
        await peer.send(response_to(message), response_to(message))

    caplog.set_level(logging.ERROR)
    async with association_with(script) as association:
        with pytest.raises(OperationTimeout):
            await CEchoScu(association).echo(timeout=0.1)
        await association.wait_closed()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (CEchoRSP(message_id_being_responded_to=2, status=0), "CEchoRSP for Message ID 2, which is not in use"),
        (CEchoRSP(message_id_being_responded_to=0, status=0), "Message ID 0"),
        (CStoreRSP(message_id_being_responded_to=1, status=0), "CStoreRSP in response to CEchoRQ"),
        (CEchoRSP(message_id_being_responded_to=1, status=0xFF00), "status of pending"),
        (CEchoRQ(message_id=1, affected_sop_class_uid=VERIFICATION), "CEchoRQ, but there is no service"),
    ],
)
async def test_an_answer_that_breaks_the_protocol_is_the_peers_fault(answer: Message, problem: str) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read_message()
        await peer.send(command_pdu(1, answer))
        assert isinstance(await peer.read_pdu(), AAbort)

    async with association_with(script) as association:
        with pytest.raises(PeerMisbehaved, match=problem):
            await CEchoScu(association).echo()
        await association.wait_closed()


async def test_a_second_answer_is_a_breach_even_when_the_first_was_taken() -> None:
    async def script(peer: RawPeer) -> None:
        answer = response_to(await peer.read_message())
        await peer.send(answer + answer)
        assert isinstance(await peer.read_pdu(), AAbort)

    async with association_with(script) as association:
        assert (await CEchoScu(association).echo()).is_success, "what has come has come"
        await association.wait_closed()
        assert isinstance(association.error, AssociationAborted)


async def test_an_unreadable_answer_is_an_abort() -> None:
    """Strict mode, which is an SCU's."""

    async def script(peer: RawPeer) -> None:
        await peer.read_message()
        await peer.send(p_data(1, bytes(20), command=True, last=True))
        assert await peer.read_pdu() == AAbort(2, 6)

    async with association_with(script) as association:
        with pytest.raises(AssociationAborted, match="the peer broke the protocol"):
            await CEchoScu(association).echo()
        await association.wait_closed()


async def test_an_answer_with_a_data_set_that_nobody_wants_holds_no_memory() -> None:
    async def script(peer: RawPeer) -> None:
        for number in range(8):
            message = await peer.read_message()
            answer = CEchoRSP(message_id_being_responded_to=message_id(message), status=0, data_set_type=1)
            await peer.send(command_pdu(1, answer))
            for _ in range(16):
                await peer.send(p_data(1, bytes(1 << 16), command=False, last=False))
            await peer.send(p_data(1, b"", command=False, last=True))
            assert message_id(message) == number + 1
        await peer.answer_release()

    async with association_with(script) as association:
        for _ in range(8):
            assert (await CEchoScu(association).echo(timeout=5)).is_success


async def test_c_cancel_is_sent_only_for_what_can_be_cancelled() -> None:
    """PS3.7 9.3.2.3: not before the request, and not after its final response."""
    seen: list[Message] = []

    async def script(peer: RawPeer) -> None:
        find = await peer.read_message()
        seen.append(find.command)
        cancel = await peer.read_message()
        assert cancel.context_id == find.context_id
        seen.append(cancel.command)
        await peer.send(command_pdu(3, CFindRSP(message_id_being_responded_to=message_id(find), status=0xFE00)))
        await peer.answer_release()

    async with association_with(script) as association:
        request = CFindRQ(message_id=association.next_message_id(), affected_sop_class_uid=CT)
        async with association.operation(request, name="C-FIND", timeout=5) as operation:
            await association.cancel(3, operation)
            await association.send(3, request, b"")
            await association.cancel(3, operation)
            assert (await operation.only_response()).status == 0xFE00
            await association.cancel(3, operation)
    assert seen == [request, CCancelRQ(message_id_being_responded_to=request.message_id)]


async def test_c_cancel_from_an_scp_is_passed_over() -> None:
    async def script(peer: RawPeer) -> None:
        message = await peer.read_message()
        await peer.send(command_pdu(1, CCancelRQ(message_id_being_responded_to=1)), response_to(message))
        await peer.answer_release()

    async with association_with(script) as association:
        assert (await CEchoScu(association).echo()).is_success


@pytest.mark.parametrize(
    ("end", "error", "text"),
    [
        (
            lambda peer: peer.send(AAbort(0, 0)),
            AssociationAborted,
            "the peer aborted the association: by its application",
        ),
        (lambda peer: peer.send(AAbort(2, 1)), AssociationAborted, "it does not know the PDU"),
        (
            lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            AssociationAborted,
            "the peer broke the protocol",
        ),
        (lambda peer: _async(peer.close), AssociationLost, "closed without a release or an abort"),
        (lambda peer: _async(peer.reset), AssociationLost, "closed without a release or an abort"),
        (lambda peer: _async(peer.half_close), AssociationLost, "closed without a release or an abort"),
    ],
    ids=["user abort", "provider abort", "nonsense", "close", "reset", "half close"],
)
async def test_all_who_wait_are_told_how_the_association_ended(
    end: Callable[[RawPeer], Awaitable[None]], error: type[Exception], text: str
) -> None:
    """Three outstanding, one that waits for a place in the window."""

    async def script(peer: RawPeer) -> None:
        for _ in range(3):
            await peer.read_message()
        await end(peer)
        if peer.socket.fileno() >= 0:
            await peer.read_until_closed()

    async with association_with(script, accept={"window": (3, 1)}, artim_timeout=0.3) as association:
        scu = CEchoScu(association)
        results = await asyncio.gather(*(scu.echo() for _ in range(4)), return_exceptions=True)
        assert [type(result) for result in results] == [error] * 4
        assert text in str(results[0])
        with pytest.raises(error):
            await scu.echo()
        await association.wait_closed()
        assert isinstance(association.error, error)


async def _async(function: Callable[[], None]) -> None:
    function()


async def test_a_peer_that_asks_for_release_before_it_has_answered() -> None:
    """It gets its response; our request gets none."""
    released = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.read_message()
        await peer.send(RELEASE_RQ)
        assert isinstance(await peer.read_pdu(), AReleaseRP)
        released.set()

    async with association_with(script) as association:
        with pytest.raises(AssociationReleased, match="before it had answered"):
            await CEchoScu(association).echo()
        await association.wait_closed()
        assert association.error is None
        assert released.is_set()
        with pytest.raises(AssociationReleased):
            await CEchoScu(association).echo()


async def test_a_response_whose_data_set_is_cut_short() -> None:
    """What has come can be used; the rest is missing, and that is said."""

    async def script(peer: RawPeer) -> None:
        await peer.read_message()
        pending = CFindRSP(message_id_being_responded_to=1, status=0xFF00, data_set_type=1)
        await peer.send(command_pdu(3, pending), p_data(3, b"identifier", command=False, last=True))
        await peer.send(command_pdu(3, pending), p_data(3, b"ident", command=False, last=False))

    request = CFindRQ(message_id=1, affected_sop_class_uid=CT)
    async with (
        association_with(script) as association,
        association.operation(request, name="C-FIND", timeout=5) as operation,
    ):
        await association.send(3, request, b"")
        response, data = await operation.next_response()
        assert (response.status, await data.read() if data else None) == (0xFF00, b"identifier")
        _, data = await operation.next_response()
        assert data is not None
        with pytest.raises(AssociationLost):
            await data.read()


# The window


class Hoarder:
    """A peer that answers nothing until nothing more comes, and notes how many requests were outstanding then."""

    def __init__(self, total: int, *, backwards: bool = False) -> None:
        self.total = total
        self.backwards = backwards
        self.batches: list[int] = []

    async def __call__(self, peer: RawPeer) -> None:
        left = self.total
        while left:
            held = [await peer.read_message()]
            try:
                async with asyncio.timeout(0.15):
                    while len(held) < left:
                        held.append(await peer.read_message())
            except TimeoutError:
                pass
            self.batches.append(len(held))
            left -= len(held)
            for message in reversed(held) if self.backwards else held:
                await peer.send(response_to(message, status=0x0110 + message_id(message) % 2))
        await peer.answer_release()


@pytest.mark.parametrize(
    ("proposed", "granted", "total", "batches"),
    [
        (16, None, 3, [1, 1, 1]),
        (16, (3, 1), 8, [3, 3, 2]),
        (2, (2, 1), 4, [2, 2]),
        (1, None, 2, [1, 1]),
        (1, (9, 9), 2, [1, 1]),
        (0, (0, 1), 40, [40]),
        (0, (4, 1), 8, [4, 4]),
        (4, (0, 1), 8, [4, 4]),
    ],
)
async def test_as_many_requests_are_outstanding_as_were_negotiated_and_no_more(
    proposed: int, granted: tuple[int, int] | None, total: int, batches: list[int]
) -> None:
    """PS3.7 D.3.3.3: the smaller of the two, 0 for no limit; without an answer it is 1, and more than proposed is not granted."""
    peer = Hoarder(total)
    async with association_with(peer, window=proposed, accept={"window": granted}) as association:
        assert association.window == batches[0] or association.window == 0
        scu = CEchoScu(association)
        statuses = await asyncio.gather(*(scu.echo() for _ in range(total)))
    assert peer.batches == batches
    assert [int(status) for status in statuses] == [0x0110 + number % 2 for number in range(1, total + 1)]


async def test_answers_may_come_in_any_order() -> None:
    peer = Hoarder(6, backwards=True)
    async with association_with(peer, accept={"window": (6, 1)}) as association:
        scu = CEchoScu(association)
        statuses = await asyncio.gather(*(scu.echo() for _ in range(6)))
    assert [int(status) for status in statuses] == [0x0111, 0x0110] * 3
    assert peer.batches == [6]


async def test_a_window_of_1_is_not_proposed() -> None:
    requests = []

    async def script(peer: RawPeer) -> None:
        requests.append((await peer.accept()).user_information.asynchronous_operations_window)
        await peer.answer_release()

    async with raw_acceptor(script) as port:
        for window in (1, 5):
            async with associate(f"PEER@{LOOPBACK}:{port}", CONTEXTS, window=window):
                pass
    assert requests[0] is None
    assert requests[1] is not None
    assert requests[1].maximum_invoked == 5


# Sending


async def test_a_tiny_maximum_length_is_kept_to() -> None:
    """Conformance case 22: never a PDU above it, the PDV's own header counted."""
    lengths: list[int] = []

    async def script(peer: RawPeer) -> None:
        data = b""
        while True:
            header = await peer.read(6)
            length = int.from_bytes(header[2:], "big")
            lengths.append(length)
            body = await peer.read(length)
            if not body[5] & 1:
                data += body[6:]
            if body[5] & 3 == 2:
                break
        assert data == bytes(range(256)) * 4
        await peer.send(command_pdu(3, CStoreRSP(message_id_being_responded_to=1, status=0)))
        await peer.answer_release()

    request = CStoreRQ(message_id=1, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2.3")
    async with (
        association_with(script, accept={"maximum_length": 64}) as association,
        association.operation(request, name="C-STORE", timeout=5) as operation,
    ):
        await association.send(3, request, bytes(range(256)) * 4)
        assert (await operation.only_response()).status == 0
    assert max(lengths) == 64
    assert lengths.count(64) > 15


async def test_messages_are_never_mixed_however_they_are_sent() -> None:
    """Conformance case 36 from the sending side: in pieces and whole, from several tasks."""
    received: list[tuple[int, bytes | None]] = []

    async def script(peer: RawPeer) -> None:
        for _ in range(9):
            message = await peer.read_message()  # fails if the fragments of two messages are mixed
            received.append((message_id(message), message.data))
            await peer.send(response_to(message))
        await peer.answer_release()

    async with association_with(script, accept={"window": (0, 1), "maximum_length": 256}) as association:

        async def in_pieces(number: int) -> None:
            request = CStoreRQ(message_id=number, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2")
            async with association.operation(request, name="C-STORE", timeout=5) as operation:
                async with association.sending(3, request, operation) as sender:
                    for turn in range(20):
                        await asyncio.sleep(0)
                        await sender.write(memoryview(bytes([number]) * 500), last=turn == 19)
                await operation.only_response()

        async def whole(number: int) -> None:
            request = CStoreRQ(message_id=number, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2")
            async with association.operation(request, name="C-STORE", timeout=5) as operation:
                await association.send(3, request, bytes([number]) * 10_000)
                await operation.only_response()

        echo = CEchoScu(association).echo
        await asyncio.gather(
            in_pieces(101), whole(102), echo(), in_pieces(103), whole(104), echo(), echo(), whole(105), whole(106)
        )
    for number, data in received:
        assert data == (bytes([number]) * 10_000 if number > 100 else None)


async def test_a_message_given_up_in_the_middle_is_an_abort() -> None:
    """Nothing else can follow half a message."""
    aborts = []

    async def script(peer: RawPeer) -> None:
        pdus: list[object] = []
        while not isinstance(pdus[-1:][0] if pdus else None, AAbort):
            pdus.append(await peer.read_pdu())
        aborts.append(pdus[-1])
        assert all(isinstance(pdu, PDataTF) for pdu in pdus[:-1])

    request = CStoreRQ(message_id=1, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2")
    async with association_with(script) as association:

        async def give_up() -> None:
            async with association.sending(3, request) as sender:
                await sender.write(memoryview(b"half"), last=False)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await give_up()
        with pytest.raises(AssociationAborted):
            await CEchoScu(association).echo()
        await association.wait_closed()
    assert aborts == [AAbort(0, 0)]


async def test_what_cannot_be_encoded_is_the_callers_fault_and_harms_nothing() -> None:
    async with association_with(answer_everything) as association:
        for bad in (
            CStoreRQ(message_id=70_000, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2"),
            CStoreRQ(message_id=9, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2.\N{SNOWMAN}"),
        ):

            async def send(request: CStoreRQ = bad) -> None:
                async with association.operation(request, name="C-STORE", timeout=5):
                    await association.send(3, request, b"")

            with pytest.raises(UsageError):
                await send()
        assert (await CEchoScu(association).echo()).is_success


# Release


async def test_the_answer_to_a_request_may_come_after_our_release_request() -> None:
    """Conformance case 12 (PS3.8 AR-6)."""

    async def script(peer: RawPeer) -> None:
        message = await peer.read_message()
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        await peer.send(response_to(message), RELEASE_RP)
        assert await peer.read_until_closed() == b""

    async with association_with(script) as association:
        echo = asyncio.create_task(CEchoScu(association).echo())
        await asyncio.sleep(0)
        await association.release()
        assert (await echo).is_success


async def test_a_request_after_our_release_request_is_refused_here() -> None:
    async def script(peer: RawPeer) -> None:
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        await started.wait()
        await peer.send(RELEASE_RP)

    started = asyncio.Event()
    async with association_with(script) as association:
        release = asyncio.create_task(association.release())
        await asyncio.sleep(0)
        with pytest.raises(AssociationReleased):
            await CEchoScu(association).echo()
        started.set()
        await release


async def test_both_sides_ask_for_release_at_once() -> None:
    """Conformance case 11: the requestor answers first (PS3.8 AR-8, AR-9), then waits for the answer to its own."""

    async def script(peer: RawPeer) -> None:
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        await peer.send(RELEASE_RQ)
        assert isinstance(await peer.read_pdu(), AReleaseRP)
        await peer.send(RELEASE_RP)
        assert await peer.read_until_closed() == b""

    async with association_with(script) as association:
        await association.release(timeout=5)
        assert association.error is None


async def test_the_acceptor_can_ask_for_release_too() -> None:
    """Nobody is waiting for anything: the next use says what happened."""

    async def script(peer: RawPeer) -> None:
        await peer.send(RELEASE_RQ)
        assert isinstance(await peer.read_pdu(), AReleaseRP)

    async with association_with(script) as association:
        await association.wait_closed()
        await association.release()
        with pytest.raises(AssociationReleased, match="the peer has released"):
            await CEchoScu(association).echo()


async def test_a_peer_that_does_not_answer_the_release_is_aborted() -> None:
    seen: list[object] = []

    async def script(peer: RawPeer) -> None:
        seen.extend([await peer.read_pdu(), await peer.read_pdu()])

    async with association_with(script) as association:
        with pytest.raises(OperationTimeout, match=r"did not answer the release request within 0\.2 s"):
            await association.release(timeout=0.2)
        assert association.connection.is_closed
    assert seen == [AReleaseRQ(), AAbort(0, 0)]


async def test_release_waits_for_a_message_that_is_being_sent() -> None:
    async def script(peer: RawPeer) -> None:
        message = await peer.read_message()
        assert message.data == b"first half, second half"
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        await peer.send(RELEASE_RP)

    request = CStoreRQ(message_id=1, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2")
    async with association_with(script) as association:
        async with association.sending(3, request) as sender:
            await sender.write(memoryview(b"first half, "), last=False)
            release = asyncio.create_task(association.release())
            await asyncio.sleep(0)
            await sender.write(memoryview(b"second half"), last=True)
        await release


async def test_release_does_not_wait_for_ever_for_a_message_that_is_not_continued() -> None:
    request = CStoreRQ(message_id=1, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2")
    async with association_with(say_nothing) as association, association.sending(3, request) as sender:
        await sender.write(memoryview(b"half"), last=False)
        with pytest.raises(OperationTimeout):
            await association.release(timeout=0.1)
        with pytest.raises(AssociationAborted):
            await sender.write(memoryview(b"more"), last=True)


# Abort and close


async def test_abort_is_told_to_the_peer_and_to_all_who_wait() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read_message()
        assert await peer.read_pdu() == AAbort(0, 0)
        peer.half_close()
        with pytest.raises(Closed):
            await peer.read_pdu()

    async with association_with(script) as association:
        echo = asyncio.create_task(CEchoScu(association).echo())
        await asyncio.sleep(0)
        association.abort()
        association.abort()
        with pytest.raises(AssociationAborted, match="aborted on this side"):
            await echo
        await association.wait_closed()


async def test_closing_does_not_wait_long_for_a_peer_that_stays() -> None:
    stay = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await stay.wait()

    async with association_with(script) as association:
        async with asyncio.timeout(1):
            await association.close(grace=0.1)
        assert association.connection.is_closed
        await association.close()
    stay.set()


async def test_a_peer_that_aborts_and_reads_nothing_cannot_keep_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stays connected with a closed receive window: what waits to be sent is given up after a time."""
    monkeypatch.setattr("tomowire.aio.connection._LINGER", 0.2)
    stay = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read(12)  # the message has begun
        await peer.send(AAbort(0, 0))
        await stay.wait()

    request = CStoreRQ(message_id=1, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2")
    async with (
        raw_acceptor(script, receive_buffer=4096) as port,
        associate(f"PEER@{LOOPBACK}:{port}", CONTEXTS) as association,
    ):

        async def send() -> None:
            async with association.sending(3, request) as sender:
                for _ in range(100):
                    await sender.write(memoryview(bytes(1 << 20)), last=False)

        with pytest.raises(AssociationAborted, match="the peer aborted"):
            await send()
        async with asyncio.timeout(20):
            await association.wait_closed()
        stay.set()
