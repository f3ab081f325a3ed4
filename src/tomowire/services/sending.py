"""Sending many files: contexts planned from the files themselves, several associations, the negotiated window, and read-ahead.

One bad file never stops the others. When an association ends in the middle, what was not answered is sent again on a new one, one
object at a time, so that only the object that made the peer go away is counted as failed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.connect import associate
from tomowire.errors import AssociationError, ConnectFailed, NoAcceptedContext, OperationTimeout, TomowireError
from tomowire.protocol.negotiation import MAXIMUM_CONTEXTS, ProposedContext
from tomowire.services.storage import DEFAULT_STORE_TIMEOUT, CStoreScu

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from tomowire.aio.address import PeerAddress
    from tomowire.aio.association import Association
    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.storage import StoreResponse

# What is read ahead is held in memory: a few objects, and only small ones. Larger ones are streamed.
_SMALL: Final = 1 << 20
_BATCH_BYTES: Final = 4 << 20
_BATCH_FILES: Final = 64
_ATTEMPTS: Final = 2


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one file: the peer's `response`, or the `error` because of which there is none."""

    file: DicomFile
    response: StoreResponse | None
    error: Exception | None = None

    @property
    def is_failure(self) -> bool:
        return self.response is None or self.response.is_failure


def plan(files: Iterable[DicomFile]) -> list[tuple[list[ProposedContext], list[DicomFile]]]:
    """Presentation contexts for `files`, and who uses them: one context for each pair of SOP class and transfer syntax.

    More pairs than an association has room for (128, PS3.8 9.3.2.2) make further groups, each for an association of its own.
    """
    by_pair: dict[tuple[str, str], list[DicomFile]] = {}
    for file in files:
        by_pair.setdefault((file.sop_class_uid, file.transfer_syntax_uid), []).append(file)
    pairs = list(by_pair)
    groups = [pairs[start : start + MAXIMUM_CONTEXTS] for start in range(0, len(pairs), MAXIMUM_CONTEXTS)]
    return [
        (
            [ProposedContext(sop_class, (transfer_syntax,)) for sop_class, transfer_syntax in group],
            [file for pair in group for file in by_pair[pair]],
        )
        for group in groups
    ]


async def send_files(
    peer: PeerAddress,
    files: Sequence[DicomFile],
    *,
    associations: int = 1,
    timeout: float = DEFAULT_STORE_TIMEOUT,
    **options: Any,
) -> AsyncIterator[Sent]:
    """Send `files`; yield what became of each as soon as it is known, in no fixed order.

    `associations` is how many are used at once, `timeout` the seconds without progress after which an object is given up; `options`
    go to `associate`. Nothing is raised for a single file. When no association can be opened (any more), each file that is left is
    yielded with that error.
    """
    for contexts, group in plan(files):
        work = _Group(peer, contexts, group, timeout, options)
        async for sent in work.run(min(associations, len(group))):
            yield sent


class _Group:
    """The files that one set of presentation contexts serves."""

    def __init__(
        self,
        peer: PeerAddress,
        contexts: list[ProposedContext],
        files: list[DicomFile],
        timeout: float,
        options: dict[str, Any],
    ) -> None:
        self._peer = peer
        self._contexts = contexts
        self._timeout = timeout
        self._options = options
        self._left = deque(files)
        self._again: deque[DicomFile] = deque()  # those during which an association ended
        self._attempts: dict[DicomFile, int] = {}
        self._results: asyncio.Queue[Sent | None] = asyncio.Queue()

    async def run(self, associations: int) -> AsyncIterator[Sent]:
        lanes = [asyncio.ensure_future(self._lane()) for _ in range(associations)]
        everything = asyncio.gather(*lanes)
        everything.add_done_callback(lambda _: self._results.put_nowait(None))
        try:
            while (sent := await self._results.get()) is not None:
                yield sent
            await everything
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def _lane(self) -> None:
        """Use one association after the other until nothing is left."""
        while self._left or self._again:
            careful = not self._left
            try:
                async with associate(self._peer, self._contexts, **self._options) as association:
                    window = 1 if careful else association.window or 16
                    await self._send_over(association, self._again if careful else self._left, window)
            except (ConnectFailed, OperationTimeout) as error:
                self._give_up(error)
            except AssociationError as error:
                if not self._attempts:
                    self._give_up(error)  # rejected, or aborted before a single object was tried

    async def _send_over(self, association: Association, files: deque[DicomFile], window: int) -> None:
        ahead = ReadAhead(files)
        scu = CStoreScu(association)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(window, len(files))):
                    group.create_task(self._worker(scu, ahead))
        finally:
            files.extendleft(reversed(await ahead.close()))

    async def _worker(self, scu: CStoreScu, ahead: ReadAhead) -> None:
        while (item := await ahead.next()) is not None:
            file, content = item
            if isinstance(content, OSError):
                self._results.put_nowait(Sent(file, None, content))
                continue
            try:
                response = await scu.send(file, content=content, timeout=self._timeout)
            except (NoAcceptedContext, OSError, TomowireError) as error:
                if isinstance(error, (AssociationError, OperationTimeout)):
                    self._interrupted(file, error)
                    return
                self._results.put_nowait(Sent(file, None, error))
            else:
                self._results.put_nowait(Sent(file, response))

    def _interrupted(self, file: DicomFile, error: Exception) -> None:
        """The association ended before the peer answered."""
        attempts = self._attempts[file] = self._attempts.get(file, 0) + 1
        if attempts < _ATTEMPTS:
            self._again.append(file)
        else:
            self._results.put_nowait(Sent(file, None, error))

    def _give_up(self, error: Exception) -> None:
        """There is no association to be had."""
        for files in (self._left, self._again):
            while files:
                self._results.put_nowait(Sent(files.popleft(), None, error))


class ReadAhead:
    """Reads small files in a worker thread, a batch ahead of those who send them."""

    def __init__(self, files: deque[DicomFile]) -> None:
        self._files = files
        self._ready: deque[tuple[DicomFile, bytes | OSError | None]] = deque()
        self._reading: asyncio.Future[list[tuple[DicomFile, bytes | OSError | None]]] | None = None

    async def next(self) -> tuple[DicomFile, bytes | OSError | None] | None:
        """The next file with its data set; None in place of the data set of a large file, an error of one that cannot be read."""
        while not self._ready:
            if self._reading is None:
                self._read_more()
            if self._reading is None:
                return None
            reading = self._reading
            batch = await asyncio.shield(reading)
            if self._reading is reading:
                self._reading = None
                self._ready.extend(batch)
                self._read_more()
        return self._ready.popleft()

    async def close(self) -> list[DicomFile]:
        """Stop; return the files that were read but not taken."""
        if self._reading is not None:
            self._ready.extend(await self._reading)
            self._reading = None
        return [file for file, _ in self._ready]

    def _read_more(self) -> None:
        batch: list[DicomFile] = []
        total = 0
        while self._files and len(batch) < _BATCH_FILES and total < _BATCH_BYTES:
            file = self._files.popleft()
            batch.append(file)
            total += min(file.size, _SMALL)
        if batch:
            self._reading = asyncio.get_running_loop().run_in_executor(None, _read_batch, batch)


def _read_batch(files: list[DicomFile]) -> list[tuple[DicomFile, bytes | OSError | None]]:
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
