"""A request with many responses: each of them whole, and what becomes of the association when it is left early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from support.cancelling import cancelled_after_each_step, cancelled_at_each_await
from support.network import LOOPBACK
from support.raw_peer import RELEASE_RP, RawMessage, RawPeer, command_pdu, message_pdus, raw_acceptor
from tomowire.aio import operation
from tomowire.aio.association import Association
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.aio.responses import LARGEST_DATA_SET, responses
from tomowire.aio.serving import IncomingRequest
from tomowire.errors import AssociationAborted, AssociationLost, OperationTimeout, PeerMisbehaved, UsageError
from tomowire.protocol.negotiation import ProposedContext
from tomowire.services.verification import CEchoScu, Verification, verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.messages import CCancelRQ, CEchoRSP, CFindRQ, CFindRSP, Response
from tomowire.wire.pdu import AAbort, AReleaseRQ

pytestmark = pytest.mark.usefixtures("no_leaks")

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
CONTEXTS = [verification(), ProposedContext(FIND, (EXPLICIT_VR_LITTLE_ENDIAN,))]
FIND_CONTEXT = 3
IDENTIFIER = b"identifier"
SUCCESS, CANCEL, PENDING, PENDING_WITH_WARNING, FAILURE = 0x0000, 0xFE00, 0xFF00, 0xFF01, 0xC000

WAYS = [cancelled_at_each_await, cancelled_after_each_step]
Way = Callable[[Callable[[], Coroutine[Any, Any, Any]]], AsyncIterator[int]]
Script = Callable[[RawPeer], Awaitable[None]]
Responses = AsyncGenerator[tuple[Response, bytes | None], None]


def find(
    association: Association, identifier: bytes = IDENTIFIER, timeout: float | None = 10.0, grace: float = 5.0
) -> Responses:
    request = CFindRQ(message_id=association.next_message_id(), affected_sop_class_uid=FIND)
    context = association.context(FIND)
    return responses(association, context, request, identifier, name="C-FIND", timeout=timeout, grace=grace)


async def all_of(answers: Responses) -> list[tuple[int, bytes | None]]:
    async with aclosing(answers):
        return [(response.status, data) async for response, data in answers]


@asynccontextmanager
async def association_with(script: Script, **options: Any) -> AsyncIterator[Association]:
    """An association with a peer that accepts it and then plays `script`."""

    async def play(peer: RawPeer) -> None:
        await peer.accept(window=(16, 1))
        await script(peer)

    async with (
        raw_acceptor(play) as port,
        associate(f"PEER@{LOOPBACK}:{port}", CONTEXTS, **options) as association,
    ):
        yield association


async def read_find(peer: RawPeer) -> RawMessage:
    message = await peer.read_message()
    assert isinstance(message.command, CFindRQ)
    assert message.context_id == FIND_CONTEXT
    return message


async def read_cancel(peer: RawPeer, of: RawMessage) -> None:
    """What comes next is the C-CANCEL of that request, on its presentation context and without a data set."""
    assert isinstance(of.command, CFindRQ)
    expected = CCancelRQ(message_id_being_responded_to=of.command.message_id)
    assert await peer.read_message() == RawMessage(FIND_CONTEXT, expected, None)


def answer(request: RawMessage, status: int, data: bytes | None = None, fragment: int = 1 << 14) -> bytes:
    assert isinstance(request.command, CFindRQ)
    response = CFindRSP(
        message_id_being_responded_to=request.command.message_id,
        status=status,
        data_set_type=0x0101 if data is None else 1,
    )
    return message_pdus(request.context_id, response, data, fragment)


async def answer_echo(peer: RawPeer) -> None:
    message = await peer.read_message()
    number: int = message.command.message_id  # type: ignore[attr-defined]
    await peer.send(command_pdu(message.context_id, CEchoRSP(message_id_being_responded_to=number, status=0)))


class Finder:
    """Serves C-FIND with so many answers of so many bytes; it ends with FE00 at the next answer after a C-CANCEL."""

    def __init__(self, count: int, size: int = 6) -> None:
        self.count = count
        self.size = size
        self.identifiers: set[bytes] = set()
        self.ends: list[int] = []

    def transfer_syntaxes(self, abstract_syntax: str) -> set[str] | None:
        return {EXPLICIT_VR_LITTLE_ENDIAN} if abstract_syntax == FIND else None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return False

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        return None

    async def handle(self, request: IncomingRequest) -> None:
        assert request.data is not None
        self.identifiers.add(await request.data.read())
        sent = 0
        while sent < self.count and not request.cancelled:
            await self._respond(request, PENDING, self.answer(sent))
            await asyncio.sleep(0)  # let a C-CANCEL come in
            sent += 1
        self.ends.append(CANCEL if request.cancelled else SUCCESS)
        await self._respond(request, self.ends[-1], None)

    def answer(self, number: int) -> bytes:
        return (b"%06d" % number).ljust(self.size, b".")

    async def _respond(self, request: IncomingRequest, status: int, data: bytes | None) -> None:
        response = CFindRSP(
            message_id_being_responded_to=request.message_id,
            status=status,
            data_set_type=0x0101 if data is None else 1,
        )
        await request.respond(response, data)


@asynccontextmanager
async def association_to(finder: Finder, **options: Any) -> AsyncIterator[Association]:
    async with (
        listen(LOOPBACK, 0, services=[Verification(), finder], shutdown_grace=2.0) as server,
        associate(f"PEER@{LOOPBACK}:{server.port}", CONTEXTS, **options) as association,
    ):
        yield association


# To the end


@pytest.mark.parametrize("count", [0, 1, 300])
async def test_every_response_is_yielded_in_order_and_the_final_one_last(count: int) -> None:
    finder = Finder(count)
    async with association_to(finder) as association:
        expected = [(PENDING, b"%06d" % number) for number in range(count)]
        assert await all_of(find(association)) == [*expected, (SUCCESS, None)]
    assert finder.identifiers == {IDENTIFIER}


@pytest.mark.parametrize("fragment", [2, 10_000, 1 << 20])
async def test_a_data_set_is_whole_however_it_comes(fragment: int) -> None:
    """With a pending status of either kind; a final response may have one too, if only because a peer is careless."""
    large = bytes(range(256)) * 60

    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        assert request.data == IDENTIFIER
        await peer.send(answer(request, PENDING, large, fragment), answer(request, PENDING_WITH_WARNING, b"", fragment))
        await peer.send(answer(request, FAILURE, b"why", fragment))
        await peer.answer_release()

    async with association_with(script) as association:
        got = await all_of(find(association))
    assert got == [(PENDING, large), (PENDING_WITH_WARNING, b""), (FAILURE, b"why")]


async def test_the_first_response_does_not_wait_for_the_second() -> None:
    taken = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        await peer.send(answer(request, PENDING, b"1"))
        await taken.wait()
        await peer.send(answer(request, SUCCESS))
        await peer.answer_release()

    async with association_with(script) as association, aclosing(find(association)) as answers:
        assert (await anext(answers))[1] == b"1"
        taken.set()
        assert (await anext(answers))[0].status == SUCCESS
        with pytest.raises(StopAsyncIteration):
            await anext(answers)


async def test_several_at_once_do_not_get_each_others_responses() -> None:
    async def script(peer: RawPeer) -> None:
        requests = [await read_find(peer) for _ in range(3)]
        for number in range(5):
            await peer.send(*(answer(each, PENDING, b"%s %d" % (each.data or b"", number)) for each in requests))
        await peer.send(*(answer(each, SUCCESS) for each in reversed(requests)))
        await peer.answer_release()

    async with association_with(script) as association:
        found = await asyncio.gather(*(all_of(find(association, name)) for name in (b"a", b"b", b"c")))
    for name, answers in zip((b"a", b"b", b"c"), found, strict=True):
        assert [data for _, data in answers] == [*(b"%s %d" % (name, number) for number in range(5)), None]


# One request inside the iteration of another, by the same task


@pytest.mark.parametrize("window", [1, 2])
async def test_a_request_while_the_answers_of_another_are_unread(window: int) -> None:
    """There are 12 MB of them, more than an association receives ahead of its readers. They are all still there afterwards."""
    finder = Finder(600, 20_000)
    expected = [*((PENDING, finder.answer(number)) for number in range(600)), (SUCCESS, None)]
    async with asyncio.timeout(30), association_to(finder, window=window) as association:
        outer, got = find(association), []
        async with aclosing(outer):
            async for response, data in outer:
                got.append((response.status, data))
                if len(got) in (1, 300):
                    assert await all_of(find(association, b"inner")) == expected
                    assert await CEchoScu(association).echo() == SUCCESS
        assert got == expected
        assert association.is_established
    assert finder.ends == [SUCCESS] * 3


async def test_a_c_find_in_another_is_never_held_up_by_what_it_is_asked_in() -> None:
    """Three deep, and each of them left early: nothing of it is lost or left behind."""
    finder = Finder(300, 20_000)
    async with asyncio.timeout(30), association_to(finder, window=1) as association:
        async with aclosing(find(association)) as first:
            await anext(first)
            async with aclosing(find(association)) as second:
                await anext(second)
                async with aclosing(find(association)) as third:
                    assert (await anext(third))[1] == finder.answer(0)
                assert (await anext(second))[1] == finder.answer(1)
            assert (await anext(first))[1] == finder.answer(1)
        assert await CEchoScu(association).echo() == SUCCESS


async def test_more_unread_answers_than_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks in between is told so at once; the answers are there all the same."""
    monkeypatch.setattr(operation, "MOST_COPIED", 1 << 20)
    finder = Finder(600, 20_000)
    async with asyncio.timeout(30), association_to(finder, window=1) as association:
        got = []
        async with aclosing(find(association)) as outer:
            async for response, data in outer:
                got.append((response.status, data))
                if len(got) == 1:
                    with pytest.raises(
                        UsageError, match="C-FIND was asked for while more than 1 MiB of responses to C-FIND"
                    ):
                        await all_of(find(association, b"inner"))
        assert got == [*((PENDING, finder.answer(number)) for number in range(600)), (SUCCESS, None)]
        assert await CEchoScu(association).echo() == SUCCESS
    assert finder.identifiers == {IDENTIFIER}


async def test_who_gives_up_in_between_takes_nothing_from_a_half_read_answer() -> None:
    large = bytes(range(256)) * 10_000
    given_up = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        outer = await read_find(peer)
        whole = answer(outer, PENDING, large)
        await peer.send(answer(outer, PENDING, b"first"), whole[: len(whole) // 2 + 7])
        inner = await read_find(peer)
        await given_up.wait()
        await peer.send(whole[len(whole) // 2 + 7 :])
        await read_cancel(peer, inner)
        await peer.send(answer(inner, CANCEL), answer(outer, SUCCESS))
        await peer.answer_release()

    async with asyncio.timeout(30), association_with(script) as association, aclosing(find(association)) as outer:
        await anext(outer)
        limit = asyncio.timeout(0.3)
        try:
            async with limit:
                asyncio.get_running_loop().call_later(0.4, given_up.set)
                await all_of(find(association))
        except TimeoutError:
            assert limit.expired()
        assert (await anext(outer))[1] == large
        assert [each.status async for each, _ in outer] == [SUCCESS]


async def test_a_data_set_larger_than_any_identifier_is_an_abort() -> None:
    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        await peer.send(answer(request, PENDING, bytes(LARGEST_DATA_SET)))
        await peer.send(answer(request, PENDING, bytes(LARGEST_DATA_SET + 2)))
        assert isinstance(await peer.expect_abort(), AAbort)

    async with association_with(script) as association:
        answers = find(association)
        _, data = await anext(answers)
        assert data == bytes(LARGEST_DATA_SET)
        with pytest.raises(PeerMisbehaved, match=f"a data set of more than {LARGEST_DATA_SET} bytes"):
            await anext(answers)
        with pytest.raises(AssociationAborted):
            await CEchoScu(association).echo()


async def test_a_final_response_counts_without_a_data_set_that_is_too_large() -> None:
    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        await peer.send(answer(request, FAILURE, bytes(2 * LARGEST_DATA_SET)))
        await answer_echo(peer)
        await peer.answer_release()

    async with association_with(script) as association, aclosing(find(association)) as answers:
        ((last, data),) = [each async for each in answers]
        assert (last.status, last.has_data_set, data) == (FAILURE, True, None)
        assert await CEchoScu(association).echo() == SUCCESS


@pytest.mark.parametrize("answers_before", [0, 2])
async def test_a_peer_that_falls_silent_is_late(answers_before: int) -> None:
    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        await peer.send(*(answer(request, PENDING, b"x") for _ in range(answers_before)))
        await peer.expect_abort()

    async with association_with(script) as association:
        answers = find(association, timeout=0.2)
        for _ in range(answers_before):
            assert (await anext(answers))[0].status == PENDING
        with pytest.raises(OperationTimeout, match=r"C-FIND: nothing moved for 0\.2 s"):
            await anext(answers)


async def test_what_ends_the_association_is_raised() -> None:
    """In the middle of a data set: no half identifier is handed out."""

    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        await peer.send(answer(request, PENDING, b"whole"), answer(request, PENDING, bytes(100))[:-50])
        peer.close()

    async with association_with(script) as association:
        answers = find(association)
        assert (await anext(answers))[1] == b"whole"
        with pytest.raises(AssociationLost):
            await anext(answers)


# Left early


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("window", [1, 16])
async def test_cancelled_at_any_moment_it_leaves_the_association_usable(way: Way, window: int) -> None:
    """An identifier in memory is sent whole or not at all, and the peer answers C-CANCEL: there is no reason to abort."""
    finder = Finder(12)
    runs = 0
    async with association_to(finder, window=window) as association:
        async for _ in way(lambda: all_of(find(association))):
            async with asyncio.timeout(20):
                assert (await CEchoScu(association).echo()).is_success
            runs += 1
        assert await all_of(find(association))
    assert runs > 5
    assert CANCEL in finder.ends
    assert finder.ends[-1] == SUCCESS


@pytest.mark.parametrize("left_after", [1, 2, 11, 12, 13])
async def test_left_after_any_response_it_leaves_the_association_usable(left_after: int) -> None:
    finder = Finder(12)
    async with association_to(finder, window=1) as association:
        for way_out in ("aclose", "throw", "drop"):
            answers = find(association)
            for _ in range(left_after):
                await anext(answers)
            if way_out == "aclose":
                await answers.aclose()
            elif way_out == "throw":
                with pytest.raises(ZeroDivisionError):
                    await answers.athrow(ZeroDivisionError())
            del answers  # of a generator that is dropped asyncio takes care
            async with asyncio.timeout(20):
                assert (await CEchoScu(association).echo()).is_success
    assert len(finder.ends) == 3


@pytest.mark.parametrize("status", [CANCEL, SUCCESS, FAILURE])
async def test_c_cancel_is_sent_and_what_comes_until_the_final_response_is_passed_over(status: int) -> None:
    """The final response may also cross the C-CANCEL, and then say anything (PS3.7 9.3.2.3)."""
    rest = 40

    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        await peer.send(answer(request, PENDING, b"1"))
        await read_cancel(peer, request)
        # 10 MB: more than there is memory to receive into, so that none of it may be kept
        await peer.send(*(answer(request, PENDING, bytes(1 << 18)) for _ in range(rest)))
        await peer.send(answer(request, status))
        await answer_echo(peer)
        await peer.answer_release()

    async with association_with(script) as association:
        async with aclosing(find(association)) as answers:
            async for _ in answers:
                break
        assert (await CEchoScu(association).echo()).is_success


async def test_after_the_final_response_nothing_is_cancelled() -> None:
    """Not even while responses that came before it have not been taken."""

    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        await peer.send(answer(request, PENDING, b"1"), answer(request, PENDING, b"2"), answer(request, SUCCESS))
        await answer_echo(peer)
        await answer_echo(peer)
        await peer.answer_release()

    async with association_with(script) as association:
        async with aclosing(find(association)) as answers:
            await anext(answers)
            assert (await CEchoScu(association).echo()).is_success  # its answer comes after all those of the C-FIND
        assert (await CEchoScu(association).echo()).is_success


async def test_what_waits_for_its_turn_sends_nothing_when_it_is_cancelled() -> None:
    echo_is_held = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await echo_is_held.wait()
        await answer_echo(peer)
        await peer.answer_release()

    async with association_with(script, window=1) as association:
        first = asyncio.ensure_future(CEchoScu(association).echo())
        second = asyncio.ensure_future(all_of(find(association)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        echo_is_held.set()
        assert (await first).is_success


@pytest.mark.parametrize("grace", [0.0, 0.05])
async def test_a_peer_that_does_not_end_it_within_the_grace_time_is_aborted(grace: float) -> None:
    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        await peer.send(answer(request, PENDING, b"1"))
        await read_cancel(peer, request)
        await peer.send(answer(request, PENDING, b"2"))
        assert isinstance(await peer.expect_abort(), AAbort)

    async with association_with(script) as association:
        async with aclosing(find(association, grace=grace)) as answers:
            await anext(answers)
        with pytest.raises(AssociationAborted, match="did not end it within"):
            await CEchoScu(association).echo()


async def test_a_second_cancellation_does_not_wait_for_the_grace_time() -> None:
    request_seen, cancel_seen = asyncio.Event(), asyncio.Event()

    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        request_seen.set()
        await read_cancel(peer, request)
        cancel_seen.set()
        await peer.expect_abort()

    async with association_with(script) as association:
        task = asyncio.ensure_future(all_of(find(association, timeout=None, grace=3600.0)))
        for seen in (request_seen, cancel_seen):
            await seen.wait()
            assert not task.done()
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
        assert not association.is_established


async def test_a_deadline_around_it_is_a_timeout_error() -> None:
    """`asyncio.timeout` works by cancelling: what it expects comes out, and the association is kept."""

    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        await read_cancel(peer, request)
        await peer.send(answer(request, CANCEL))
        await answer_echo(peer)
        await peer.answer_release()

    async with association_with(script) as association:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.1):
                await all_of(find(association))
        assert not isinstance(caught.value, OperationTimeout)
        assert (await CEchoScu(association).echo()).is_success


@pytest.mark.parametrize("ends", ["abort", "close", "release"])
async def test_an_association_that_ends_meanwhile_does_not_hide_why_it_was_left(ends: str) -> None:
    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        await peer.send(answer(request, PENDING, b"1"))
        await read_cancel(peer, request)
        if ends == "abort":
            await peer.send(AAbort(0, 0))
        elif ends == "release":
            await peer.send(AReleaseRQ())
            await peer.read_until_closed()

    async with association_with(script) as association:
        answers = find(association)
        await anext(answers)
        with pytest.raises(ZeroDivisionError):
            await answers.athrow(ZeroDivisionError())
        assert not association.is_established


async def test_left_while_the_association_is_being_released_it_sends_nothing() -> None:
    """No request can follow an A-RELEASE-RQ (PS3.8 Table 9-10, Sta7)."""
    release_seen, may_answer = asyncio.Event(), asyncio.Event()

    async def script(peer: RawPeer) -> None:
        request = await read_find(peer)
        await peer.send(answer(request, PENDING, b"1"))
        assert await peer.read_pdu() == AReleaseRQ()
        release_seen.set()
        await may_answer.wait()
        await peer.send(answer(request, SUCCESS), RELEASE_RP)
        assert await peer.read_until_closed() == b""

    async with association_with(script) as association:
        answers = find(association)
        await anext(answers)
        releasing = asyncio.ensure_future(association.release())
        await release_seen.wait()
        await answers.aclose()
        may_answer.set()
        await releasing
