"""DataStream: what was pushed comes out, as late as it should and in memory that is not given back too early."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomowire.aio.blocks import BLOCK_SIZE, Block, BlockPool
from tomowire.aio.streams import GATHER, Chunk, DataStream
from tomowire.errors import AssociationLost, UsageError


def new_block() -> Block:
    return BlockPool(lambda: None).current


def push(stream: DataStream, data: bytes, block: Block | None = None, *, last: bool = False) -> Block:
    """Push `data` as if it had been received into `block`."""
    block = block or new_block()
    stream.push(memoryview(data), block, last=last)
    return block


def content(chunk: Chunk) -> bytes:
    joined = b"".join(chunk.buffers)
    assert len(joined) == chunk.nbytes
    return joined


async def soon(stream: DataStream) -> Chunk:
    """The next chunk, which must be there already."""
    async with asyncio.timeout(20):
        return await anext(stream)


async def not_ready(stream: DataStream) -> asyncio.Task[Chunk]:
    """Ask for the next chunk; it must not be there yet."""
    task = asyncio.ensure_future(anext(stream))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_a_small_data_set_comes_whole_however_it_arrived() -> None:
    stream = DataStream()
    push(stream, b"abc")
    waiting = await not_ready(stream)
    push(stream, b"de")
    assert not waiting.done()
    push(stream, b"f", last=True)
    chunk = await waiting
    assert content(chunk) == b"abcdef"
    assert chunk.last
    assert stream.received == 6
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_an_empty_data_set_is_one_last_chunk_without_bytes() -> None:
    stream = DataStream()
    push(stream, b"", last=True)
    chunk = await soon(stream)
    assert (chunk.buffers, chunk.last, chunk.nbytes) == ((), True, 0)


async def test_a_last_fragment_of_no_bytes_ends_the_data_set() -> None:
    stream = DataStream()
    push(stream, b"x" * GATHER)
    assert not (await soon(stream)).last
    waiting = await not_ready(stream)
    push(stream, b"", last=True)
    chunk = await waiting
    assert chunk.last
    assert chunk.nbytes == 0


async def test_a_large_data_set_is_handed_out_when_enough_has_gathered() -> None:
    stream = DataStream()
    push(stream, b"x" * (GATHER - 1))
    waiting = await not_ready(stream)
    push(stream, b"y")
    chunk = await waiting
    assert chunk.nbytes == GATHER
    assert not chunk.last


async def test_a_chunk_is_borrowed_until_the_next_is_asked_for() -> None:
    stream = DataStream()
    first = push(stream, b"x" * GATHER)
    await soon(stream)
    second = push(stream, b"y" * GATHER)
    assert (first.pins, second.pins) == (1, 1)
    await soon(stream)
    assert (first.pins, second.pins) == (0, 1)
    waiting = await not_ready(stream)
    assert second.pins == 0, "asking gives back, even if there is nothing yet"
    push(stream, b"", last=True)
    await waiting


async def test_the_last_chunk_is_borrowed_until_the_handler_has_returned() -> None:
    stream = DataStream()
    block = push(stream, b"x", last=True)
    async for chunk in stream:
        assert chunk.last
    assert block.pins == 1, "the iteration is over, and the bytes are still there"
    stream.close()
    assert block.pins == 0


async def test_a_block_is_pinned_once_for_all_its_slices() -> None:
    stream = DataStream()
    block = new_block()
    for letter in (b"a", b"b", b"c"):
        push(stream, letter, block)
    assert block.pins == 1
    other = push(stream, b"d")
    push(stream, b"e", block, last=True)
    assert (block.pins, other.pins) == (2, 1)
    assert content(await soon(stream)) == b"abcde"
    stream.close()
    assert (block.pins, other.pins) == (0, 0)


async def test_a_data_set_in_tiny_pieces_does_not_cost_a_slice_for_each() -> None:
    """A slice is two hundred times as large as the byte it may stand for. The block stays lent: that is what holds up the peer."""
    stream, block = DataStream(), new_block()
    large = bytes(range(256)) * 10
    for number in range(10_000):
        push(stream, bytes([number % 256]), block)
    push(stream, large, block)
    for number in range(10_000):
        push(stream, bytes([number % 251]), block, last=number == 9_999)
    chunk = await soon(stream)
    assert len(chunk.buffers) == 3
    ones, others = bytes(number % 256 for number in range(10_000)), bytes(number % 251 for number in range(10_000))
    assert content(chunk) == ones + large + others
    assert block.pins == 1
    stream.close()
    assert block.pins == 0


async def test_when_memory_is_short_what_has_gathered_is_handed_out_at_once() -> None:
    stream = DataStream()
    push(stream, b"abc")
    waiting = await not_ready(stream)
    stream.hurry()
    assert content(await waiting) == b"abc"
    push(stream, b"def")
    task = await not_ready(stream)  # it was for once
    task.cancel()


async def test_when_memory_is_short_and_nothing_has_gathered_the_next_bytes_are_handed_out() -> None:
    stream = DataStream()
    stream.hurry()
    waiting = await not_ready(stream)
    push(stream, b"abc")
    chunk = await waiting
    assert content(chunk) == b"abc"
    assert not chunk.last


async def test_failing_in_the_middle_wakes_the_reader_and_gives_the_memory_back() -> None:
    stream = DataStream()
    block = push(stream, b"abc")
    waiting = await not_ready(stream)
    stream.fail(AssociationLost("gone"))
    with pytest.raises(AssociationLost, match="gone"):
        await waiting
    assert block.pins == 0
    with pytest.raises(AssociationLost):
        await anext(stream)


async def test_a_chunk_in_hand_outlives_the_failure() -> None:
    stream = DataStream()
    block = push(stream, b"x" * GATHER)
    chunk = await soon(stream)
    stream.fail(AssociationLost("gone"))
    assert block.pins == 1
    assert content(chunk) == b"x" * GATHER
    with pytest.raises(AssociationLost):
        await anext(stream)
    assert block.pins == 0


async def test_what_is_whole_does_not_fail_any_more() -> None:
    stream = DataStream()
    push(stream, b"abc", last=True)
    stream.fail(AssociationLost("gone"))
    assert content(await soon(stream)) == b"abc"


async def test_closing_early_gives_the_memory_back_and_passes_over_the_rest() -> None:
    stream = DataStream()
    taken = push(stream, b"x" * GATHER)
    await soon(stream)
    waiting = push(stream, b"abc")
    stream.close()
    assert (taken.pins, waiting.pins) == (0, 0)
    later = push(stream, b"def", last=True)
    assert later.pins == 0
    stream.close()


async def test_reading_after_the_end_of_the_handler_is_an_error_and_not_the_end_of_the_data() -> None:
    """A task that the handler left behind must not take a cut data set for a whole one."""
    stream = DataStream()
    push(stream, b"abc")
    waiting = await not_ready(stream)
    stream.close()
    with pytest.raises(UsageError, match="after the request had been answered"):
        await waiting
    with pytest.raises(UsageError):
        await anext(stream)


async def test_two_readers_are_an_error_and_not_a_hang() -> None:
    stream = DataStream()
    waiting = await not_ready(stream)
    with pytest.raises(UsageError, match="two tasks"):
        await anext(stream)
    push(stream, b"abc", last=True)
    assert content(await waiting) == b"abc"


async def test_a_cancelled_reader_can_ask_again() -> None:
    stream = DataStream()
    waiting = await not_ready(stream)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    push(stream, b"abc", last=True)
    assert content(await soon(stream)) == b"abc"


async def test_read_copies_all_that_is_left() -> None:
    stream = DataStream()
    buffer = bytearray(b"abc")
    stream.push(memoryview(buffer), new_block(), last=False)
    reading = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0)
    push(stream, b"def", last=True)
    result = await reading
    buffer[:] = b"xyz"
    assert result == b"abcdef"


class Borrower:
    """Looks again and again whether the bytes in its hands are still those that it was given."""

    def __init__(self, stream: DataStream) -> None:
        self.taken = bytearray()
        self.last_chunks = 0
        self._stream = stream
        self._held: tuple[Chunk, bytes] | None = None

    async def take(self) -> None:
        """Ask for the next chunk, and go without it if it is not there."""
        self.check()
        self._held = None
        asking = asyncio.ensure_future(anext(self._stream))
        await asyncio.sleep(0)
        if not asking.done():
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            return
        chunk = asking.result()
        self._held = (chunk, content(chunk))
        self.taken += self._held[1]
        self.last_chunks += chunk.last

    def check(self) -> None:
        if self._held is not None:
            chunk, expected = self._held
            assert b"".join(chunk.buffers) == expected


class Sender:
    """Receives made-up bytes into a real pool, as a connection does, and pushes the slices."""

    def __init__(self, stream: DataStream) -> None:
        self.pool = BlockPool(lambda: None)
        self.pool.received(100)
        self.pool.grow()
        self.sent = bytearray()
        self._stream = stream

    def receive(self, size: int, *, last: bool = False) -> int | None:
        """Receive `size` bytes; None, or how many there was no room for."""
        while self.pool.has_room():
            room = self.pool.room()[:size]
            room[:] = bytes([len(self.sent) % 251]) * len(room)
            self.sent += room
            size -= len(room)
            self._stream.push(self.pool.received(len(room)), self.pool.current, last=last and not size)
            if not size:
                return None
        self._stream.hurry()
        return size


STEPS = st.lists(st.sampled_from(("take", "hurry")) | st.integers(0, 3 * BLOCK_SIZE), max_size=40)


@given(STEPS, st.integers(0, 1000))
def test_any_order_of_receiving_and_taking_gives_the_bytes_that_were_sent(steps: list[str | int], rest: int) -> None:
    asyncio.run(_play(steps, rest))


async def _play(steps: list[str | int], rest: int) -> None:
    stream = DataStream()
    sender, borrower = Sender(stream), Borrower(stream)
    for step in steps:
        if isinstance(step, int):
            sender.receive(step)
        elif step == "hurry":
            stream.hurry()
        else:
            await borrower.take()
        borrower.check()
    left = sender.receive(rest, last=True)
    while left is not None:  # no room: backpressure holds the sender until something was taken
        await borrower.take()
        left = sender.receive(left, last=True)
    while not borrower.last_chunks:
        await borrower.take()
    assert borrower.taken == sender.sent
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    borrower.check()
    stream.close()
    assert sender.pool.current.pins == 0


# Putting back


async def test_what_is_put_back_comes_again_and_then_what_follows() -> None:
    stream = DataStream()
    push(stream, b"abc" * GATHER)
    await soon(stream)
    stream.put_back(3 * GATHER - 4, memoryview(b"before "))
    assert stream.is_put_back
    again = await soon(stream)
    assert (content(again), again.last) == (b"before cabc", False)
    assert not stream.is_put_back
    push(stream, b"rest", last=True)
    assert content(await soon(stream)) == b"rest"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize("used", [0, 1, 300, 301, 599, 600])
async def test_of_the_last_chunk_what_is_put_back_is_the_last(used: int) -> None:
    """Also if that is nothing at all."""
    stream, data = DataStream(), bytes(range(256)) * 3
    push(stream, data[:300])
    push(stream, data[300:600], last=True)
    assert (await soon(stream)).last
    stream.put_back(used, memoryview(b""))
    again = await soon(stream)
    assert (content(again), again.last) == (data[used:600], True)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_the_memory_is_lent_until_what_was_put_back_has_been_taken() -> None:
    stream = DataStream()
    block = push(stream, b"x" * 1000)
    stream.hurry()
    await soon(stream)
    stream.put_back(10, memoryview(b""))
    assert block.pins == 1
    again = await soon(stream)
    again.keep()
    push(stream, b"", last=True)
    await soon(stream)
    assert block.pins == 1
    again.release()
    assert block.pins == 0


async def test_what_was_put_back_is_passed_over_with_the_rest() -> None:
    stream = DataStream()
    block = push(stream, b"x" * 1000, last=True)
    await soon(stream)
    stream.put_back(10, memoryview(b""))
    await stream.pass_over()
    stream.close()
    assert block.pins == 0


async def test_what_was_put_back_is_gone_when_the_request_has_been_answered() -> None:
    stream = DataStream()
    block = push(stream, b"x" * 1000, last=True)
    await soon(stream)
    stream.put_back(10, memoryview(b""))
    stream.close()
    assert block.pins == 0
    with pytest.raises(UsageError, match="after the request had been answered"):
        await anext(stream)


async def test_what_was_put_back_is_there_when_the_association_has_ended_and_nothing_after_it() -> None:
    stream = DataStream()
    push(stream, b"x" * 1000)
    stream.hurry()
    await soon(stream)
    stream.put_back(10, memoryview(b""))
    stream.fail(AssociationLost("gone"))
    assert content(await soon(stream)) == b"x" * 990
    with pytest.raises(AssociationLost, match="gone"):
        await anext(stream)


async def test_a_stream_is_untouched_until_something_was_handed_out() -> None:
    stream = DataStream()
    assert stream.is_untouched
    push(stream, b"x", last=True)
    assert stream.is_untouched
    await soon(stream)
    assert not stream.is_untouched
    stream.close()
    assert not stream.is_untouched
