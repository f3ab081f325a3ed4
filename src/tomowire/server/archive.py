"""An archive's storage: the data directory, the index and the way in, opened in the order that makes them safe to use."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tomowire.errors import UsageError
from tomowire.server.batch import BatchWriter
from tomowire.server.commit import GroupCommit
from tomowire.server.files import DataDirectory
from tomowire.server.incoming import DuplicatePolicy
from tomowire.server.index.connect import BUSY_TIMEOUT
from tomowire.server.index.readers import IndexReaders
from tomowire.server.index.sqlite_writer import SqliteWriter
from tomowire.server.ingest import Ingest
from tomowire.server.recovery import recover
from tomowire.server.swap import finish_swap

_INGEST_WORKERS: Final = 4


class ArchiveStorage:
    """`async with ArchiveStorage(path) as storage`: `storage.ingest` stores, `storage.index` answers questions.

    `policy` says what becomes of an object that is stored already with other content. `fsync=False` gives up the promise that what
    got Success survives a power cut. `busy_timeout` (seconds) is how long to wait for another process that holds the index.
    """

    ingest: Ingest
    index: IndexReaders

    def __init__(
        self,
        root: Path | str,
        *,
        policy: DuplicatePolicy = DuplicatePolicy.KEEP,
        fsync: bool = True,
        busy_timeout: float = BUSY_TIMEOUT,
    ) -> None:
        self.root = Path(root)
        self._policy = policy
        self._fsync = fsync
        self._busy_timeout = busy_timeout
        self._cleanup = ExitStack()

    async def __aenter__(self) -> Self:
        """Lock, bring up to date and tidy the directory, and begin to take objects.

        Raises `UsageError` if the directory is in use, or its index is missing, none of tomowire's or too new;
        `IndexUnavailable`; `OSError`.
        """
        with ExitStack() as stack:
            writer = await asyncio.to_thread(self._open, stack)
            self._workers = ThreadPoolExecutor(_INGEST_WORKERS, thread_name_prefix="tomowire-ingest")
            self._commit = GroupCommit(writer)
            self._cleanup = stack.pop_all()
        self.ingest = Ingest(self._directory, self._commit, self._workers)
        self.index = IndexReaders(self._directory.index_path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Store what is waiting, end the threads, close the index, and let go of the directory."""
        await self.index.close()
        await self._commit.close()
        await asyncio.to_thread(self._workers.shutdown)
        await asyncio.to_thread(self._cleanup.close)

    def _open(self, stack: ExitStack) -> BatchWriter:
        directory = DataDirectory.open(self.root, fsync=self._fsync)
        stack.callback(directory.close)
        finish_swap(directory)
        if not directory.index_path.exists() and next(directory.object_files(), None) is not None:
            raise UsageError(f"{directory.root} holds objects but no index: run 'tomowire db reindex'")
        index = SqliteWriter.open(directory.index_path, fsync=self._fsync, busy_timeout=self._busy_timeout)
        stack.callback(index.close)
        recover(directory, index)
        writer = BatchWriter(directory, index, policy=self._policy)
        stack.callback(writer.close)
        self._directory = directory
        return writer
