"""A data set worked on in a worker thread: in order, ahead of the event loop, and never in memory that was given back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tomowire.aio.blocks import BlockPool
from tomowire.aio.streams import GATHER, Chunk, DataStream
from tomowire.aio.threads import each_in_worker
from tomowire.errors import AssociationLost

pytestmark = pytest.mark.usefixtures("no_leaks")


class Work:
    """Work whose calls wait until they are let go; what it was called with is in `done`."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.done: list[int] = []
        self.begun = threading.Semaphore(0)
        self._go = threading.Semaphore(0)
        self._fails_at = fails_at

    def __call__(self, chunk: Chunk) -> int:
        self.begun.release()
        assert self._go.acquire(timeout=10)
        number = chunk.buffers[0][0]
        if number == self._fails_at:
            raise OSError("the disk is full")
        self.done.append(number)
        return number

    def let_go(self, calls: int = 1) -> None:
        self._go.release(calls)

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=10)


class Source:
    """A stream of chunks, numbered from 0, each in a block of its own."""

    def __init__(self, count: int) -> None:
        self.stream = DataStream()
        self.blocks = [BlockPool(lambda: None).current for _ in range(count)]
        self._pushed = 0

    def push(self, count: int = 1) -> None:
        for _ in range(count):
            data, last = bytes([self._pushed]) * GATHER, self._pushed + 1 == len(self.blocks)
            self.stream.push(memoryview(data), self.blocks[self._pushed], last=last)
            self._pushed += 1

    @property
    def lent(self) -> list[int]:
        return [number for number, block in enumerate(self.blocks) if block.pins]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of blocks nobody is told when they are given back
            await asyncio.sleep(0)


async def pause() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def begin(work: Work, source: Source) -> asyncio.Task[int]:
    async def whole() -> int:
        return await each_in_worker(work, await anext(source.stream), source.stream)

    source.push()
    task = asyncio.create_task(whole())
    await work.has_begun()
    return task


async def chunks(numbers: Iterable[int], last: int) -> AsyncIterator[Chunk]:
    for number in numbers:
        yield Chunk((memoryview(bytes([number])),), number == last, 1)


async def test_every_chunk_once_in_order_and_the_last_result() -> None:
    work = Work()
    work.let_go(100)
    rest = chunks(range(1, 100), last=99)
    assert await each_in_worker(work, await anext(chunks([0], last=99)), rest) == 99
    assert work.done == list(range(100))


async def test_the_next_chunk_is_begun_without_the_event_loop() -> None:
    """It waits where the thread finds it: the loop does nothing between the end of the first and the beginning of the second."""
    work, source = Work(), Source(3)
    task = await begin(work, source)
    source.push()
    await until(lambda: source.stream.received == 2 * GATHER and source.lent == [0, 1])
    await asyncio.sleep(0)
    work.let_go()
    assert work.begun.acquire(timeout=10)  # in the loop's own thread: it stands still meanwhile
    assert work.done == [0]
    work.let_go(2)
    source.push()
    assert await task == 2


async def test_one_waits_and_the_others_stay_with_the_stream() -> None:
    work, source = Work(), Source(4)
    task = await begin(work, source)
    for _ in range(3):
        source.push()
        await pause()
    assert source.lent == [0, 1, 2, 3]
    work.let_go(3)
    assert await task == 2  # and 3: what stayed with the stream came as one chunk
    assert work.done == [0, 1, 2]


async def test_memory_is_given_back_when_it_has_been_worked_on_and_not_before() -> None:
    """At once, and not when the next chunk is there: there may be no memory left to receive it into."""
    work, source = Work(), Source(3)
    task = await begin(work, source)
    source.push()
    await pause()
    assert source.lent == [0, 1]
    work.let_go()
    await until(lambda: source.lent == [1])
    work.let_go()
    await until(lambda: source.lent == [])
    assert not task.done()
    work.let_go()
    source.push()
    assert await task == 2
    assert source.lent == []


async def test_after_an_error_nothing_more_is_worked_on() -> None:
    work, source = Work(fails_at=0), Source(5)
    task = await begin(work, source)
    source.push(4)
    work.let_go(5)
    with pytest.raises(OSError, match="disk is full"):
        await task
    assert work.done == []
    source.stream.close()
    assert source.lent == []


async def test_an_error_is_told_when_the_next_chunk_comes_although_the_last_is_far() -> None:
    work, source = Work(fails_at=0), Source(5)
    task = await begin(work, source)
    work.let_go()
    await until(lambda: source.lent == [])
    source.push()
    with pytest.raises(OSError, match="disk is full"):
        await task


async def test_when_the_stream_breaks_off_what_is_being_worked_on_ends_first() -> None:
    work, source = Work(), Source(3)
    task = await begin(work, source)
    source.stream.fail(AssociationLost("the connection broke"))
    await pause()
    assert not task.done()
    assert source.lent == [0]
    work.let_go()
    with pytest.raises(AssociationLost):
        await task
    assert work.done == [0]
    assert source.lent == []


@pytest.mark.parametrize("times", [1, 2])
async def test_cancelled_it_waits_until_the_memory_is_not_used_any_more(times: int) -> None:
    work, source = Work(), Source(3)
    task = await begin(work, source)
    source.push()
    await pause()
    for _ in range(times):
        task.cancel()
        await pause()
    assert not task.done()
    assert source.lent == [0, 1]
    work.let_go(2)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.lent == []


async def test_a_stream_without_a_last_chunk() -> None:
    work = Work()
    work.let_go(2)
    with pytest.raises(StopAsyncIteration):
        await each_in_worker(work, await anext(chunks([0], last=9)), chunks([1], last=9))
    assert work.done == [0, 1]


async def test_a_pool_that_is_shut_down_keeps_no_memory() -> None:
    source = Source(1)
    pool = ThreadPoolExecutor()
    pool.shutdown()
    source.push()
    with pytest.raises(RuntimeError):
        await each_in_worker(Work(), await anext(source.stream), source.stream, pool)
    source.stream.close()
    assert source.lent == []


async def test_a_kept_chunk_outlives_its_stream() -> None:
    source = Source(2)
    source.push(2)
    first = await anext(source.stream)
    first.keep()
    source.stream.close()
    assert source.lent == [0, 1]
    first.release()
    assert source.lent == []


async def test_when_all_tasks_are_cancelled_it_still_waits_for_the_thread() -> None:
    """As `asyncio.run` does at its end. The file that the thread writes would be closed, and its descriptor another file's."""
    work, source = Work(), Source(3)
    task = await begin(work, source)
    source.stream.fail(AssociationLost("the connection broke"))
    await pause()
    for each in asyncio.all_tasks() - {asyncio.current_task()}:
        each.cancel()
    await pause()
    assert not task.done()
    work.let_go()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.done == [0]


async def test_a_long_data_set_lets_others_use_the_pool() -> None:
    """Where the disk is slower than the network there is always a chunk waiting."""
    done: list[str] = []

    async def whole(name: str) -> None:
        def slow_disk(chunk: Chunk) -> None:
            time.sleep(0.002)
            done.append(name)

        await each_in_worker(slow_disk, await anext(chunks([0], last=39)), chunks(range(1, 40), last=39), pool)

    with ThreadPoolExecutor(1) as pool:
        await asyncio.gather(whole("a"), whole("b"))
    assert done.index("b") < 20
    assert (done.count("a"), done.count("b")) == (40, 40)


async def test_a_stop_iteration_of_the_work_is_an_error_like_others() -> None:
    def work(chunk: Chunk) -> None:
        raise StopIteration

    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await each_in_worker(work, await anext(chunks([0], last=0)), chunks([], last=0))


async def test_the_event_loop_is_woken_once_for_each_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    woken: list[object] = []
    wake = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *call: (woken.append(call), wake(*call))[1])
    with ThreadPoolExecutor(1) as pool:
        rest = chunks([0, 1, 2], 2)
        assert await each_in_worker(lambda chunk: chunk.buffers[0][0], await anext(rest), rest, pool) == 2
    await pause()
    assert len(woken) == 3
