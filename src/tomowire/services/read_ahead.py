"""Reading many small files ahead of those who send them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from tomowire.services.dicom_file import DicomFile
from tomowire.services.reading import even, fill

if TYPE_CHECKING:
    from tomowire.services.sent import Sendable

# What is read ahead is held in memory: a few objects, and only small ones. Larger ones are streamed.
_SMALL: Final = 1 << 20
_BATCH_BYTES: Final = 4 << 20
_BATCH_FILES: Final = 64

# Up to this size a data set is read into memory of its own. More would be asked of the system, which clears it page by page:
# larger buffers, whole multiples of this, are used again.
_TINY: Final = 1 << 16
_SPARE_BYTES: Final = 8 << 20

F = TypeVar("F", bound="Sendable")
Read: TypeAlias = tuple[F, bytes | memoryview | OSError | None]


class ReadAhead(Generic[F]):
    """Takes files from the left of `files` and reads the small ones in a worker thread, a batch ahead.

    `sharers` is how many take from `files`: none of them takes so many at once that there are too few for the others.
    """

    def __init__(self, files: deque[F], *, sharers: int = 1) -> None:
        self._files = files
        self._sharers = sharers
        self._ready: deque[Read[F]] = deque()
        self._reading: asyncio.Future[list[Read[F]]] | None = None
        self._spare: list[memoryview] = []

    async def next(self) -> Read[F] | None:
        """The next file with its data set; None in place of the data set of a large file and of what is none, an error of one that
        cannot be read.

        None when there are no more files. The data set is of even length, with a null byte more if it is not in the file (see
        `even`); it is lent until `done`.
        """
        while not self._ready:
            if self._reading is None:
                self._read_more()
            if self._reading is None:
                return None
            reading = self._reading
            batch = await asyncio.shield(reading)
            if self._reading is reading:  # several wait for it; the first to run takes it
                self._reading = None
                self._ready.extend(batch)
                self._read_more()
        return self._ready.popleft()

    def done(self, read: Read[F]) -> None:
        """Nobody uses the data set of `read` any more."""
        if isinstance(read[1], memoryview):
            buffer = memoryview(read[1].obj)
            if len(self._spare) * len(buffer) < _SPARE_BYTES:  # most have about the same size
                self._spare.append(buffer)

    async def close(self) -> None:
        """Stop, and put back the files that were read but not taken."""
        if self._reading is not None:
            self._ready.extend(await asyncio.shield(self._reading))
            self._reading = None
        self._files.extendleft(file for file, _ in reversed(self._ready))
        self._ready.clear()

    def _read_more(self) -> None:
        most = _BATCH_FILES if self._sharers == 1 else min(_BATCH_FILES, len(self._files) // (2 * self._sharers) + 1)
        batch: list[F] = []
        total = 0
        while self._files and len(batch) < most and total < _BATCH_BYTES:
            file = self._files.popleft()
            batch.append(file)
            total += min(file.size, _SMALL) if isinstance(file, DicomFile) else 0
        if batch:
            self._reading = asyncio.get_running_loop().run_in_executor(None, self._read_batch, batch)

    def _read_batch(self, files: list[F]) -> list[Read[F]]:
        return [(file, self._read_small(file)) for file in files]

    def _read_small(self, file: F) -> bytes | memoryview | OSError | None:
        if not isinstance(file, DicomFile) or file.size > _SMALL:
            return None
        try:
            with open(file.path, "rb", buffering=0) as source:
                source.seek(file.offset)
                # One byte more is asked for: a file that has it is being written to.
                if file.size <= _TINY:
                    data = source.read(file.size + 1)
                    got = len(data)
                    if got == file.size:
                        return even(data)
                else:
                    buffer = self._buffer(file.size + 1)
                    got = fill(source, buffer[: file.size + 1])
                    if got == file.size:
                        buffer[file.size] = 0
                        return buffer[: file.size + file.size % 2]
        except OSError as error:
            return error
        return OSError(f"{file.path} has become {'shorter' if got < file.size else 'longer'} while it was sent")

    def _buffer(self, size: int) -> memoryview:
        """Memory for `size` bytes or more."""
        spare = self._spare.pop() if self._spare else None  # one thread at a time takes from it
        return spare if spare is not None and len(spare) >= size else memoryview(bytearray(-(-size // _TINY) * _TINY))
