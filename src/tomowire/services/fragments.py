"""Frames as they come, made into the items of encapsulated pixel data (PS3.5 A.4)."""

from __future__ import annotations

from asyncio import to_thread
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import DataSetError, UsageError
from tomowire.services.byte_readers import read_up_to, reader_of
from tomowire.services.pixel_element import item_head
from tomowire.services.reencoding import UNDEFINED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

_FRAGMENT: Final = 1 << 20
"""Bytes of a frame that come from a stream and are made one fragment."""


async def fragments(frames: Any, expected: int) -> AsyncGenerator[bytes | memoryview, None]:
    """The items of `frames`: bytes or a stream for a single one, or an iterable of them, asynchronous or not.

    A frame is bytes, and becomes one fragment, or a stream, and becomes several. Raises `DataSetError` if there are not `expected`
    frames, or one is empty; `UsageError` for what is no frame.
    """
    count = 0
    async with aclosing(_each(frames)) as each:
        async for frame in each:
            count += 1
            if count > expected:
                break
            is_empty = True
            async with aclosing(_items_of(frame)) as parts:
                async for part in parts:
                    is_empty = False
                    yield part
            if is_empty:
                raise DataSetError(f"frame {count} is empty")
    if count != expected:
        shown = "more" if count > expected else str(count)
        raise DataSetError(f"there are {shown} frames of pixel data, and there should be {expected}")


async def one_fragment(
    portions: AsyncIterator[bytes | memoryview], size: int, expected: int
) -> AsyncGenerator[bytes | memoryview, None]:
    """The item of a single frame of `size` bytes. Raises `DataSetError` as `fragments` does."""
    if expected != 1:
        raise DataSetError(f"there are 1 frames of pixel data, and there should be {expected}")
    if not size:
        raise DataSetError("frame 1 is empty")
    if size >= UNDEFINED:
        raise DataSetError(f"the frame has {size} bytes, more than a fragment can have")
    yield item_head(size + size % 2)
    async for portion in portions:
        yield portion
    yield bytes(size % 2)


async def _each(frames: Any) -> AsyncGenerator[Any, None]:
    if isinstance(frames, bytes | bytearray | memoryview) or hasattr(frames, "read"):
        yield frames
    elif hasattr(frames, "__aiter__"):
        try:
            async for frame in frames:
                yield frame
        finally:
            if hasattr(frames, "aclose"):
                await frames.aclose()
    elif isinstance(frames, list | tuple):
        for frame in frames:
            yield frame
    else:  # a generator may compress a frame each time it is asked
        iterator, end = iter(frames), object()
        while (frame := await to_thread(next, iterator, end)) is not end:
            yield frame


async def _items_of(frame: Any) -> AsyncGenerator[bytes | memoryview, None]:
    if isinstance(frame, bytes | bytearray | memoryview):
        size = memoryview(frame).nbytes
        if size:
            yield item_head(size + size % 2)
            yield memoryview(frame).cast("B")
            yield bytes(size % 2)
        return
    if not (hasattr(frame, "read") or hasattr(frame, "__aiter__")):
        raise UsageError(
            f"{type(frame).__name__} is no frame of pixel data: give each as the bytes that a codec made of it"
        )
    reader = reader_of(frame)
    try:
        while part := await read_up_to(reader, _FRAGMENT):
            yield item_head(len(part) + len(part) % 2)
            yield part
            yield bytes(len(part) % 2)
    finally:
        await reader.close()
