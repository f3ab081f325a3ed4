"""Reading many small files ahead of those who send them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from tomowire.services.dicom_file import DicomFile

# What is read ahead is held in memory: a few objects, and only small ones. Larger ones are streamed.
_SMALL: Final = 1 << 20
_BATCH_BYTES: Final = 4 << 20
_BATCH_FILES: Final = 64

Read: TypeAlias = "tuple[DicomFile, bytes | OSError | None]"


class ReadAhead:
    """Takes files from the left of `files` and reads the small ones in a worker thread, a batch ahead.

    `sharers` is how many take from `files`: none of them takes so many at once that there are too few for the others.
    """

    def __init__(self, files: deque[DicomFile], *, sharers: int = 1) -> None:
        self._files = files
        self._sharers = sharers
        self._ready: deque[Read] = deque()
        self._reading: asyncio.Future[list[Read]] | None = None

    async def next(self) -> Read | None:
        """The next file with its data set; None in place of the data set of a large file, an error of one that cannot be read.

        None when there are no more files.
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

    async def close(self) -> None:
        """Stop, and put back the files that were read but not taken."""
        if self._reading is not None:
            self._ready.extend(await asyncio.shield(self._reading))
            self._reading = None
        self._files.extendleft(file for file, _ in reversed(self._ready))
        self._ready.clear()

    def _read_more(self) -> None:
        most = _BATCH_FILES if self._sharers == 1 else min(_BATCH_FILES, len(self._files) // (2 * self._sharers) + 1)
        batch: list[DicomFile] = []
        total = 0
        while self._files and len(batch) < most and total < _BATCH_BYTES:
            file = self._files.popleft()
            batch.append(file)
            total += min(file.size, _SMALL)
        if batch:
            self._reading = asyncio.get_running_loop().run_in_executor(None, _read_batch, batch)


def _read_batch(files: list[DicomFile]) -> list[Read]:
    return [(file, _read_small(file)) for file in files]


def _read_small(file: DicomFile) -> bytes | OSError | None:
    if file.size > _SMALL:
        return None
    try:
        with open(file.path, "rb", buffering=0) as source:
            source.seek(file.offset)
            data = source.read(file.size)
    except OSError as error:
        return error
    if len(data) != file.size:
        return OSError(f"{file.path} has become shorter while it was sent")
    return data
