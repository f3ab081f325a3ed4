"""Objects that come from a stream: a DICOM file in it, or a data set alone."""

from __future__ import annotations

from contextlib import asynccontextmanager
from inspect import iscoroutinefunction
from io import UnsupportedOperation
from os import SEEK_END
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import DataSetError, FileFormatError, IncompleteFileMeta, UsageError
from tomowire.services.arguments import checked_size, checked_uid
from tomowire.services.byte_readers import (
    ChainedReader,
    MemoryReader,
    check_open,
    in_own_thread,
    read_up_to,
    reader_of,
    view_of,
)
from tomowire.services.dicom_file import FIRST_READ, MOST_READ, NO_DATA_SET, identify
from tomowire.services.stream_pieces import StreamPieces
from tomowire.wire.part10 import PREAMBLE_LENGTH, PREFIX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tomowire.services.byte_readers import ByteReader
    from tomowire.services.dicom_file import Identity

_MARKED: Final = PREAMBLE_LENGTH + len(PREFIX)


def is_stream(thing: Any) -> bool:
    """Whether bytes can be read from it, or it is bytes. A class is none: what is made of it may be one."""
    if isinstance(thing, type):
        return False
    return isinstance(thing, bytes | bytearray | memoryview) or hasattr(thing, "read") or hasattr(thing, "__aiter__")


class StreamSource:
    """A DICOM file in a stream, of which the beginning has been read. `part10_stream` makes it.

    It can be sent again if the stream can be wound back. The stream belongs to the caller, and is not to be touched meanwhile.
    """

    def __init__(self, found: Identity, origin: _Rewindable | _Once) -> None:
        self.sop_class_uid = found.sop_class_uid
        self.sop_instance_uid = found.sop_instance_uid
        self.transfer_syntax_uid = found.transfer_syntax_uid
        self.name = f"the stream of {found.sop_instance_uid}"
        self.repeatable = isinstance(origin, _Rewindable)
        self.size = origin.size - found.offset if origin.size is not None else None
        self._offset = found.offset
        self._origin = origin

    @asynccontextmanager
    async def pieces(self, payload: int) -> AsyncIterator[StreamPieces]:
        """The data set; see `Source`."""
        reader = await self._origin.begin(self._offset)
        async with StreamPieces(reader, self.size, payload, self.name) as pieces:
            yield pieces


class BareDataSet:
    """A data set without file meta information, in a stream: what it is has to be said.

    `stream` is bytes, a binary stream (`read` blocking or asynchronous), or an asynchronous iterator of bytes. It is read from
    where it stands; `size` is how many bytes belong to the data set, None for all that come. Raises `UsageError`.
    """

    def __init__(
        self,
        stream: Any,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        size: int | None = None,
    ) -> None:
        if not is_stream(stream):
            raise UsageError(f"{type(stream).__name__} is no binary stream, nor an asynchronous iterator of bytes")
        self.sop_class_uid = checked_uid(sop_class_uid, "sop_class_uid")
        self.sop_instance_uid = checked_uid(sop_instance_uid, "sop_instance_uid")
        self.transfer_syntax_uid = checked_uid(transfer_syntax_uid, "transfer_syntax_uid")
        self.name = f"the stream of {sop_instance_uid}"
        self.repeatable = isinstance(stream, bytes | bytearray | memoryview)
        self.size = checked_size(size, "size")
        if self.repeatable:
            available = memoryview(stream).nbytes
            self.size = available if size is None else size
            if self.size > available:
                raise UsageError(f"{self.name} has {available} bytes, and `size` is {size}")
        self._stream = stream
        self._is_used = False

    @asynccontextmanager
    async def pieces(self, payload: int) -> AsyncIterator[StreamPieces]:
        """The data set; see `Source`."""
        if self._is_used and not self.repeatable:
            raise UsageError(f"{self.name} has been read already")
        self._is_used = True
        reader = reader_of(self._stream)
        async with _closed_on_failure(reader):
            head = await read_up_to(reader, _MARKED if self.size is None else min(_MARKED, self.size))
            if not head:
                raise DataSetError(f"{self.name} is empty")
            if head[PREAMBLE_LENGTH:_MARKED] == PREFIX:
                raise FileFormatError(f"{self.name} is a DICOM file with file meta information, and no bare data set")
        async with StreamPieces(ChainedReader([MemoryReader(head), reader]), self.size, payload, self.name) as pieces:
            yield pieces


async def part10_stream(stream: Any) -> StreamSource:
    """The object in a stream that holds a DICOM file, from where it stands to its end. Only the beginning is read.

    Raises `FileFormatError`, what reading raises, and `UsageError` for what is no stream of bytes.
    """
    origin = await _Rewindable.of(stream) or _Once(stream)
    reader = await origin.begin(0)
    async with _closed_on_failure(reader):
        head, found = await _beginning(reader)
    origin.unread(head)
    return StreamSource(found, origin)


async def _beginning(reader: ByteReader) -> tuple[bytes, Identity]:
    """As much as it takes to know which object it is, and which it is."""
    head = await read_up_to(reader, FIRST_READ)
    while True:
        try:
            found = identify(head)
            if found.offset == len(head) == len(head := await read_up_to(reader, len(head) + 1, head)):
                raise FileFormatError(NO_DATA_SET)
            return head, found
        except IncompleteFileMeta as error:
            longer = await read_up_to(reader, max(error.needed, len(head) + FIRST_READ), head)
            if len(longer) == len(head) or len(head) > MOST_READ:
                raise FileFormatError("the stream ends inside its file meta information") from None
            head = longer


@asynccontextmanager
async def _closed_on_failure(reader: ByteReader) -> AsyncIterator[None]:
    """What cannot be used is not read any more, and a generator not kept waiting."""
    try:
        yield
    except BaseException:
        await reader.close()
        raise


class _Rewindable:
    """Bytes in memory, or a blocking stream that can be wound back to where it stood."""

    def __init__(self, stream: Any, start: int, size: int) -> None:
        self.size: int | None = size
        self._stream = stream
        self._start = start

    @classmethod
    async def of(cls, stream: Any) -> _Rewindable | None:
        """None if it cannot be wound back."""
        if isinstance(stream, bytes | bytearray | memoryview):
            return cls(stream, 0, memoryview(stream).nbytes)
        check_open(stream)
        read, seekable = getattr(stream, "read", None), getattr(stream, "seekable", None)
        if read is None or seekable is None or iscoroutinefunction(read) or seekable() is not True:
            return None  # of an asynchronous one `seekable` may be a coroutine too

        def measure() -> tuple[int, int]:
            start = stream.tell()
            end = stream.seek(0, SEEK_END)
            stream.seek(start)
            return start, end - start

        try:
            return cls(stream, *await in_own_thread(measure))
        except UnsupportedOperation:  # it can be wound back, but not forward
            return None

    async def begin(self, offset: int) -> ByteReader:
        if isinstance(self._stream, bytes | bytearray | memoryview):
            return MemoryReader(view_of(self._stream)[offset:])
        check_open(self._stream)
        await in_own_thread(lambda: self._stream.seek(self._start + offset))
        return reader_of(self._stream)

    def unread(self, head: bytes) -> None:
        """What has been read can be read again."""


class _Once:
    """A stream that gives its bytes once."""

    size: int | None = None

    def __init__(self, stream: Any) -> None:
        self._reader: ByteReader | None = reader_of(stream)
        self._head = b""

    async def begin(self, offset: int) -> ByteReader:
        if self._reader is None:
            raise UsageError("the stream has been read already, and cannot be wound back")
        if not self._head:
            return self._reader
        reader = ChainedReader([MemoryReader(self._head[offset:]), self._reader])
        self._reader = None
        return reader

    def unread(self, head: bytes) -> None:
        self._head = head
