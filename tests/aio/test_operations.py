"""Our own requests: Message IDs, the window of PS3.7 D.3.3.3, and when the peer is late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.clock import ManualClock
from support.raw_peer import echo_rq
from tomowire.aio.blocks import BlockPool
from tomowire.aio.operation import Operation
from tomowire.aio.operations import Operations
from tomowire.aio.streams import DataStream
from tomowire.errors import AssociationAborted, AssociationLost, OperationTimeout, UsageError
from tomowire.wire.messages import CEchoRSP, CFindRQ, CFindRSP, CStoreRSP, Response

PENDING = 0xFF00


class Line:
    """A clock, a connection of which only the backlog is known, and the operations between them."""

    def __init__(self, window: int = 1) -> None:
        self.clock = ManualClock()
        self.unsent = 0
        self.ends: list[str] = []
        loop: Any = self.clock
        self.operations = Operations(loop, unsent=lambda: self.unsent, on_late=self.ends.append)
        self.operations.window = window

    def echo(self, timeout: float | None = 30.0) -> Operation:
        return self.operations.new(echo_rq(self.operations.next_message_id()), "C-ECHO", timeout)

    @asynccontextmanager
    async def sent(self, timeout: float | None = 30.0) -> AsyncIterator[Operation]:
        """A C-ECHO that is on its way. (`next_response` is asked for late: it would look at the real clock.)"""
        async with self.echo(timeout) as operation:
            self.operations.on_sent(operation.request.message_id)
            yield operation

    def answer(self, operation: Operation, status: int = 0) -> str | None:
        return self.operations.on_response(echo_rsp(operation.request.message_id, status), None)


def echo_rsp(message_id: int, status: int = 0) -> Response:
    return CEchoRSP(message_id_being_responded_to=message_id, status=status)


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


# Message IDs


def test_message_ids_begin_with_1_and_begin_again_after_65535() -> None:
    operations = Line().operations
    assert [operations.next_message_id() for _ in range(3)] == [1, 2, 3]
    for _ in range(4, 0x10000):
        last = operations.next_message_id()
    assert last == 0xFFFF
    assert operations.next_message_id() == 1, "0 is valid, but some peers take it for missing"


async def test_a_message_id_in_use_is_passed_over() -> None:
    line = Line(window=0)
    async with line.sent(), line.sent():
        for _ in range(3, 0x10000):
            line.operations.next_message_id()
        assert line.operations.next_message_id() == 3


async def test_the_same_message_id_twice_is_the_callers_mistake() -> None:
    line = Line(window=0)
    async with line.operations.new(echo_rq(7), "first", None):
        with pytest.raises(UsageError, match="Message ID 7 is in use"):
            async with line.operations.new(echo_rq(7), "second", None):
                raise AssertionError


async def test_when_every_message_id_is_in_use_that_is_said() -> None:
    line = Line(window=0)
    held = [line.operations.new(echo_rq(number), "held", None) for number in range(1, 0x10000)]
    for each in held:
        line.operations.add(each)
    with pytest.raises(UsageError, match="65535"):
        line.operations.next_message_id()


# The window


@pytest.mark.parametrize("window", [1, 2, 5])
async def test_no_more_are_admitted_than_were_negotiated_and_in_the_order_in_which_they_came(window: int) -> None:
    line = Line(window)
    inside: list[int] = []
    most = 0
    order: list[int] = []

    async def one(number: int) -> None:
        nonlocal most
        async with line.echo():
            inside.append(number)
            order.append(number)
            most = max(most, len(inside))
            await asyncio.sleep(0)
            inside.remove(number)

    await asyncio.gather(*(one(number) for number in range(20)))
    assert most == window
    assert order == list(range(20))


async def test_a_window_of_0_is_no_limit() -> None:
    line = Line(window=0)
    held = [line.echo() for _ in range(100)]
    for each in held:
        await each.__aenter__()
    assert all(each.admitted for each in held)
    for each in held:
        await each.__aexit__(None, None, None)


async def test_one_who_gives_up_waiting_does_not_take_a_place() -> None:
    line = Line()
    first, second, third = line.echo(), line.echo(), line.echo()
    await first.__aenter__()
    waiting = asyncio.ensure_future(second.__aenter__())
    behind = asyncio.ensure_future(third.__aenter__())
    await settle()
    waiting.cancel()
    await settle()
    assert not behind.done()
    await first.__aexit__(None, None, None)
    await asyncio.wait_for(behind, 20)
    assert third.admitted
    await third.__aexit__(None, None, None)


async def test_one_who_is_cancelled_in_the_moment_of_being_admitted_gives_the_place_on() -> None:
    line = Line()
    first, second, third = line.echo(), line.echo(), line.echo()
    await first.__aenter__()
    waiting = asyncio.ensure_future(second.__aenter__())
    behind = asyncio.ensure_future(third.__aenter__())
    await settle()
    await first.__aexit__(None, None, None)  # admits the second, whose task has not run yet
    assert second.admitted
    waiting.cancel()
    await asyncio.wait_for(behind, 20)
    assert waiting.cancelled()
    await third.__aexit__(None, None, None)


async def test_an_unanswered_request_keeps_its_place_until_the_final_response_comes() -> None:
    line = Line()
    async with line.sent() as given_up:
        pass
    following = line.echo()
    waiting = asyncio.ensure_future(following.__aenter__())
    await settle()
    assert not waiting.done(), "the peer is still at it: a second request would be one too many"
    assert line.answer(given_up) is None
    await asyncio.wait_for(waiting, 20)
    assert line.answer(given_up) is not None, "its Message ID is free now"
    await following.__aexit__(None, None, None)


async def test_the_final_response_frees_the_place_of_who_has_not_looked_at_it() -> None:
    """Whoever iterates over the answers of one request may ask something else meanwhile."""
    line = Line()
    async with line.sent() as first:
        second = line.echo()
        waiting = asyncio.ensure_future(second.__aenter__())
        await settle()
        assert not waiting.done()
        assert line.answer(first) is None
        await asyncio.wait_for(waiting, 20)
    third = line.echo()
    behind = asyncio.ensure_future(third.__aenter__())
    await settle()
    assert not behind.done(), "the place was given back once, and not again at the end"
    await second.__aexit__(None, None, None)
    await asyncio.wait_for(behind, 20)
    await third.__aexit__(None, None, None)


async def test_a_request_that_was_never_sent_leaves_nothing_behind() -> None:
    line = Line()
    async with line.echo() as operation:
        pass
    async with asyncio.timeout(20), line.echo():
        assert "not in use" in (line.answer(operation) or "")


async def test_when_the_association_ends_those_who_wait_for_a_place_are_told() -> None:
    line = Line()
    await line.echo().__aenter__()
    waiting = asyncio.ensure_future(line.echo().__aenter__())
    await settle()
    line.operations.fail(AssociationLost("gone"))
    with pytest.raises(AssociationLost):
        await waiting
    with pytest.raises(AssociationLost):
        await line.echo().__aenter__()


# Responses


async def test_a_response_goes_to_its_request() -> None:
    line = Line(window=0)
    async with line.sent() as first, line.sent() as second:
        assert line.answer(second, 0x0110) is None
        assert line.answer(first) is None
        assert (await first.next_response())[0].status == 0
        assert (await second.next_response())[0].status == 0x0110


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (echo_rsp(9), "CEchoRSP for Message ID 9, which is not in use"),
        (echo_rsp(0), "CEchoRSP for Message ID 0, which is not in use"),
        (CStoreRSP(message_id_being_responded_to=1, status=0), "CStoreRSP in response to CEchoRQ"),
        (echo_rsp(1, PENDING), "CEchoRSP with a status of pending"),
    ],
)
async def test_a_response_that_fits_nothing_is_named(response: Response, problem: str) -> None:
    line = Line()
    data = DataStream()
    block = BlockPool(lambda: None).current
    data.push(memoryview(b"x"), block, last=True)
    async with line.sent() as operation:
        assert problem in (line.operations.on_response(response, data) or "")
        assert not operation.has_responses
    assert block.pins == 0


async def test_a_second_final_response_is_a_breach() -> None:
    line = Line()
    async with line.sent() as operation:
        assert line.answer(operation) is None
        assert "had answered already" in (line.answer(operation) or "")


async def test_a_response_before_the_request_was_sent_is_a_breach() -> None:
    line = Line()
    async with line.echo() as operation:
        assert "not in use" in (line.answer(operation) or "")


async def test_several_responses_come_one_by_one_and_the_data_set_of_each_until_the_next() -> None:
    line = Line()
    request = CFindRQ(message_id=1, affected_sop_class_uid="1.2")
    blocks = []
    async with line.operations.new(request, "C-FIND", 10.0) as operation:
        line.operations.on_sent(1)
        for status in (PENDING, PENDING, 0):
            data = DataStream()
            block = BlockPool(lambda: None).current
            data.push(memoryview(b"identifier"), block, last=True)
            blocks.append(block)
            response = CFindRSP(message_id_being_responded_to=1, status=status)
            assert line.operations.on_response(response, data if status else None) is None
        response, taken = await operation.next_response()
        assert response.status == PENDING
        assert taken is not None
        assert await taken.read() == b"identifier"
        assert blocks[0].pins == 1
        await operation.next_response()
        assert [block.pins for block in blocks[:2]] == [0, 1]
    assert [block.pins for block in blocks[:2]] == [0, 0]


async def test_an_abandoned_operation_with_several_responses_waits_for_the_last() -> None:
    line = Line()
    async with line.operations.new(CFindRQ(message_id=1, affected_sop_class_uid="1.2"), "C-FIND", 10.0):
        line.operations.on_sent(1)
    for status in (PENDING, PENDING, 0xFE00):
        assert line.operations.on_response(CFindRSP(message_id_being_responded_to=1, status=status), None) is None
    final_again = CFindRSP(message_id_being_responded_to=1, status=0)
    assert "not in use" in (line.operations.on_response(final_again, None) or "")


async def test_the_end_of_the_association_reads_as_what_was_told_to_the_operation() -> None:
    """Whoever sends meets the abort first; what the caller wants to know is why there was one."""
    line = Line()

    async def send() -> None:
        async with line.sent():
            line.clock.advance(31)
            raise AssociationAborted("aborted on this side", source=0, reason=0, by_peer=False)

    with pytest.raises(OperationTimeout, match="C-ECHO: nothing moved for 30 s"):
        await send()


# Time


async def test_a_request_is_late_when_nothing_moved_for_its_timeout() -> None:
    line = Line()
    async with line.sent(timeout=30) as operation:
        line.clock.advance(29.9)
        assert operation.error is None
        line.clock.advance(0.2)
        assert isinstance(operation.error, OperationTimeout)
        assert line.ends == ["C-ECHO: nothing moved for 30 s; the association was aborted"]


async def test_without_a_timeout_it_is_never_late() -> None:
    line = Line()
    async with line.sent(timeout=None) as operation:
        line.clock.advance(1e6)
        assert operation.error is None
        assert line.clock.handles == []


async def test_the_time_runs_from_when_the_request_is_sent() -> None:
    """It may have to wait for a large object that is sent before it."""
    line = Line()
    async with line.echo(timeout=30) as operation:
        line.clock.advance(1000)
        line.operations.on_sent(operation.request.message_id)
        line.clock.advance(29)
        assert operation.error is None
        line.clock.advance(2)
        assert operation.error is not None


async def test_every_piece_that_is_sent_begins_the_time_anew() -> None:
    line = Line()
    async with line.sent(timeout=30) as operation:
        for _ in range(10):
            line.clock.advance(29)
            line.operations.on_progress(operation)
        assert operation.error is None
        line.clock.advance(31)
        assert operation.error is not None


async def test_while_the_peer_takes_bytes_nothing_is_late() -> None:
    """A megabyte is one write to us and may be minutes for a slow line."""
    line = Line()
    async with line.sent(timeout=30) as operation:
        for line.unsent in range(1_000_000, 0, -100_000):
            line.clock.advance(30)
        assert operation.error is None
        line.clock.advance(61)  # it stopped: seen after one timeout, or two
        assert operation.error is not None


async def test_a_peer_that_stopped_reading_is_seen_after_the_timeout() -> None:
    line = Line()
    async with line.sent(timeout=30) as operation:
        line.unsent = 5000
        line.operations.on_progress(operation)
        line.clock.advance(30)
        assert isinstance(operation.error, OperationTimeout)


async def test_a_peer_that_serves_one_after_the_other_makes_nobody_late() -> None:
    line = Line(window=5)
    held = [line.echo(timeout=30) for _ in range(5)]
    for each in held:
        await each.__aenter__()
        line.operations.on_sent(each.request.message_id)
    for each in held:
        line.clock.advance(20)
        assert line.answer(each) is None
    assert [each.error for each in held] == [None] * 5
    for each in held:
        await each.__aexit__(None, None, None)


async def test_answers_to_later_requests_do_not_excuse_a_lost_one() -> None:
    line = Line(window=2)
    async with line.sent(timeout=30) as lost:
        for _ in range(3):
            async with line.sent(timeout=30) as other:
                line.clock.advance(9)
                line.answer(other)
        assert lost.error is None
        async with line.sent(timeout=30):
            line.clock.advance(4)
            assert lost.error is not None


async def test_responses_that_wait_for_a_slow_caller_are_not_the_peers_delay() -> None:
    line = Line()
    async with line.operations.new(CFindRQ(message_id=1, affected_sop_class_uid="1.2"), "C-FIND", 10.0) as operation:
        line.operations.on_sent(1)
        line.operations.on_response(CFindRSP(message_id_being_responded_to=1, status=PENDING), None)
        line.clock.advance(1000)
        assert operation.error is None


async def test_an_abandoned_request_is_still_late_so_that_nobody_waits_for_its_place_for_ever() -> None:
    line = Line()
    async with line.sent(timeout=30):
        pass
    line.clock.advance(31)
    assert len(line.ends) == 1


async def test_when_all_is_answered_no_timer_is_left() -> None:
    line = Line()
    for _ in range(3):
        async with line.sent(timeout=30) as operation:
            line.answer(operation)
    assert len(line.clock.handles) == 1, "one timer for all"
    line.clock.advance(31)
    assert line.clock.pending == []
    assert line.ends == []


async def test_the_end_of_the_association_stops_the_time() -> None:
    line = Line()
    async with line.sent(timeout=30) as operation:
        line.operations.fail(AssociationLost("gone"))
        line.operations.fail(AssociationLost("and again"))
        assert line.clock.pending == []
        assert str(operation.error) == "gone"
