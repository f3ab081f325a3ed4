"""Writing one received object to a file: the Part 10 header, and the data set as it comes."""

from __future__ import annotations

import os
from contextlib import ExitStack
from io import FileIO
from time import monotonic
from typing import TYPE_CHECKING, Final

from tomowire.aio.threads import each_in_worker
from tomowire.errors import StoreFailed, TomowireError
from tomowire.protocol.status import OUT_OF_RESOURCES
from tomowire.services.file_writing import write_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tomowire.aio.streams import Chunk

# Data sets of up to so many bytes are written by the event loop itself, whatever the disk.
_AT_ONCE: Final = 64 * 1024
# A disk keeps up that has taken so many pieces (of a megabyte or so) in a row, each in less than so many seconds, and the last of
# them so many seconds ago at most.
_TRIALS: Final = 8
_QUICK: Final = 0.02
_RECENTLY: Final = 1.0


class Disk:
    """How quickly files have lately been written to one place. While it keeps up, no thread has to be asked.

    A write into the page cache takes a tenth of a millisecond. A thread that does it has to wake up, and then event loop and thread
    wait for each other at every system call of either, since one of them at a time has the interpreter: measured with CT of 526 kB,
    that was a quarter of the receiver's processor time. But a disk that cannot follow must not hold up everyone else: at first,
    after a pause, and after one slow write threads write, until it is seen that it keeps up.
    """

    __slots__ = ("_seen", "_trials")

    def __init__(self) -> None:
        self._trials = 0
        self._seen = 0.0

    @property
    def keeps_up(self) -> bool:
        """Whether the next write may be expected to take no time."""
        return self._trials >= _TRIALS and monotonic() - self._seen < _RECENTLY

    def written(self, began: float) -> None:
        """A piece has been written that was begun at `began`, in seconds of `time.monotonic`. May be called in any thread."""
        self._seen = now = monotonic()
        self._trials = self._trials + 1 if now - began < _QUICK else 0


async def write_object(
    path: str, head: bytes, first: Chunk, rest: AsyncIterator[Chunk], disk: Disk | None = None
) -> None:
    """Make the file `path` of `head` and the chunks of the data set. Raises `OSError`, and what `rest` raises.

    With a `disk` that keeps up, a data set that has come whole is written at once.
    """
    disk = disk or Disk()
    if first.last and first.nbytes <= _AT_ONCE:
        # One write into the page cache takes less than asking a thread to do it: measured, 1.2 s against 1.5 s for
        # 6000 objects of 4 kB sent one at a time.
        _write(path, (head, *first.buffers))
    elif first.last and disk.keeps_up:
        began = monotonic()
        try:
            _write(path, (head, *first.buffers))
        finally:
            disk.written(began)
    else:
        await _write_large(path, head, first, rest, disk)


async def write_whole_object(target: str, head: bytes, chunks: AsyncIterator[Chunk]) -> None:
    """As `write_object`, but `target` is there only when it is whole; a file of that name is replaced.

    Until then the file has a hidden name in the same folder. Raises `StoreFailed` (A700H) when it cannot be written; then, and when
    it is cancelled, nothing is left.
    """
    folder, name = os.path.split(target)
    part = os.path.join(folder, f".{name}.{os.urandom(4).hex()}.part")
    try:
        await write_object(part, head, await anext(chunks), chunks)
        os.replace(part, target)
    except BaseException as error:
        discard(part)
        raise_as_failure(error)
        raise


def discard(part: str) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(part)
    except OSError:
        return  # renamed, or never made


def raise_as_failure(error: BaseException) -> None:
    """For an error of the file system raise `StoreFailed`, with A700H.

    PS3.4 B.2.3: out of resources. The sender may try again: there is nothing wrong with the object.
    """
    if isinstance(error, OSError) and not isinstance(error, TomowireError):
        raise StoreFailed(OUT_OF_RESOURCES, f"cannot write the file: {error.strerror or error}") from error


async def _write_large(path: str, head: bytes, first: Chunk, rest: AsyncIterator[Chunk], disk: Disk) -> None:
    with ExitStack() as opened:
        file: FileIO | None = None

        def write(chunk: Chunk) -> None:
            nonlocal file
            began = monotonic()
            head_due = file is None
            file = file or opened.enter_context(FileIO(path, "x"))
            try:
                write_all(file.fileno(), (head, *chunk.buffers) if head_due else chunk.buffers)
            except BaseException:
                file.close()
                raise
            if chunk.last:
                file.close()
            disk.written(began)

        await each_in_worker(write, first, rest)


def _write(path: str, buffers: Sequence[bytes | memoryview]) -> None:
    with FileIO(path, "x") as file:
        write_all(file.fileno(), buffers)
