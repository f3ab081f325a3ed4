"""Where bytes come from when it is not a file of our own opening: memory, streams that block, streams that do not, iterators."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from inspect import iscoroutinefunction
from io import IOBase
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from tomowire.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    Bytes = bytes | bytearray | memoryview

T = TypeVar("T")

_GRACE: Final = 1.0
"""Seconds in which a read that nobody waits for any more may end, so that the stream is its owner's again."""


class ByteReader(Protocol):
    """Bytes in the order in which they come."""

    async def read(self, limit: int) -> Bytes:
        """At least one byte and at most `limit`; none at the end."""

    async def close(self) -> None:
        """No more is wanted. What was lent by a caller stays open, and is not being read any more if that can be had soon."""


def reader_of(stream: Any) -> ByteReader:
    """A reader for bytes, a stream with `read` (blocking or asynchronous), or an asynchronous iterator of bytes.

    Raises `UsageError` for anything else.
    """
    if isinstance(stream, bytes | bytearray | memoryview):
        return MemoryReader(stream)
    check_open(stream)
    read = getattr(stream, "read", None)
    if callable(read):
        return AsyncReader(stream) if iscoroutinefunction(read) else BlockingReader(stream)
    if hasattr(stream, "__aiter__"):
        return IteratorReader(stream)
    raise UsageError(f"{type(stream).__name__} is no binary stream, nor an asynchronous iterator of bytes")


def check_open(stream: Any) -> None:
    """Raise `UsageError` for a stream that is closed, or can only be written to."""
    if getattr(stream, "closed", False) is True:
        raise UsageError("the stream is closed: it must stay open until it has been sent")
    readable = getattr(stream, "readable", None)
    if isinstance(stream, IOBase) and readable is not None and not readable():
        raise UsageError("the stream can only be written to: open it for reading")


def view_of(data: Bytes) -> memoryview:
    """The bytes in memory. Raises `UsageError` if they are not side by side."""
    if isinstance(data, memoryview) and not data.c_contiguous:
        raise UsageError("the memoryview has gaps: send its `tobytes()`")
    return memoryview(data).cast("B")


class MemoryReader:
    """Of bytes that are there. Raises `UsageError` if they are not side by side."""

    def __init__(self, data: Bytes) -> None:
        self._left = view_of(data)

    async def read(self, limit: int) -> Bytes:
        given, self._left = self._left[:limit], self._left[limit:]
        return given

    async def close(self) -> None:
        self._left = memoryview(b"")


class BlockingReader:
    """Of a stream whose `read` blocks: it does that in a thread of its own.

    Not in one of the event loop's, which would run out of them, and wait at its end for a pipe in which nothing comes any more.
    """

    def __init__(self, stream: Any) -> None:
        # `read` of a buffered stream waits until it has all that it was asked for.
        self._read = getattr(stream, "read1", None) or stream.read
        self._reading: asyncio.Future[Any] | None = None

    async def read(self, limit: int) -> Bytes:
        self._reading = in_own_thread(partial(self._read, limit))
        return _checked(await asyncio.shield(self._reading), limit)

    async def close(self) -> None:
        if self._reading is None:
            return
        self._reading.add_done_callback(_passed_over)
        if not self._reading.done():
            await asyncio.wait([self._reading], timeout=_GRACE)


def _passed_over(reading: asyncio.Future[Any]) -> None:
    """What a read raises for which nobody waits any more is nobody's error."""
    if not reading.cancelled():
        reading.exception()


class AsyncReader:
    """Of a stream whose `read` is a coroutine, such as `asyncio.StreamReader`."""

    def __init__(self, stream: Any) -> None:
        self._read = stream.read

    async def read(self, limit: int) -> Bytes:
        return _checked(await self._read(limit), limit)

    async def close(self) -> None:
        pass


class IteratorReader:
    """Of an asynchronous iterator that gives bytes in any portions. A generator is closed at the end."""

    def __init__(self, portions: Any) -> None:
        self._portions: AsyncIterator[Bytes] = aiter(portions)
        self._left = memoryview(b"")

    async def read(self, limit: int) -> Bytes:
        while not self._left:
            try:
                portion = await anext(self._portions)
            except StopAsyncIteration:
                return b""
            self._left = memoryview(_checked(portion)).cast("B")
        given, self._left = self._left[:limit], self._left[limit:]
        return given

    async def close(self) -> None:
        aclose = getattr(self._portions, "aclose", None)
        if aclose is not None:
            await aclose()


class LimitedReader:
    """The first `size` bytes of another; `OSError` if it has fewer. `name` is what the text calls it."""

    def __init__(self, reader: ByteReader, size: int, name: str) -> None:
        self._reader = reader
        self._left = size
        self._name = name

    async def read(self, limit: int) -> Bytes:
        if not self._left:
            return b""
        data = await self._reader.read(min(limit, self._left))
        if not len(data):
            raise OSError(f"{self._name} ended {self._left} bytes early")
        self._left -= len(data)
        return data

    async def close(self) -> None:
        await self._reader.close()


class ChainedReader:
    """Of several, one after the other."""

    def __init__(self, readers: Iterable[ByteReader]) -> None:
        self._readers = list(readers)
        self._number = 0

    async def read(self, limit: int) -> Bytes:
        while self._number < len(self._readers):
            data = await self._readers[self._number].read(limit)
            if len(data):
                return data
            self._number += 1
        return b""

    async def close(self) -> None:
        for each in self._readers:
            await each.close()


async def read_up_to(reader: ByteReader, size: int, head: bytes = b"") -> bytes:
    """`head` and what follows, so that it is `size` bytes; fewer at the end."""
    while len(head) < size:
        data = await reader.read(size - len(head))
        if not len(data):
            break
        head += data
    return head


def in_own_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Call `work` in a new thread, which nobody waits for when the program ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = work()
        except StopIteration as stop:
            error = RuntimeError(f"{stop!r} in a thread")  # no future takes the thing itself
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(settle, result, error)

    Thread(target=run, name="tomowire-reading", daemon=True).start()
    return future


def _checked(data: Any, limit: int | None = None) -> Bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        if limit is not None and len(data) > limit:
            raise UsageError(f"the stream gave {len(data)} bytes when {limit} were asked for")
        return data
    if data is None:
        raise UsageError(
            "the stream is in non-blocking mode: it gave nothing, and will not say when there is something"
        )
    raise UsageError(f"the stream gave {type(data).__name__}, not bytes: was it opened in text mode?")
