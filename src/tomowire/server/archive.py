"""An archive's storage: the data directory, the index and the way in, opened in the order that makes them safe to use."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tomowire.aio.threads import finished
from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.batch import BatchWriter
from tomowire.server.commit import GroupCommit
from tomowire.server.files import DataDirectory
from tomowire.server.incoming import DuplicatePolicy
from tomowire.server.index.connect import BUSY_TIMEOUT
from tomowire.server.index.readers import IndexReaders
from tomowire.server.index.sqlite_errors import is_damage
from tomowire.server.index.sqlite_reader import SqliteSource
from tomowire.server.index.sqlite_writer import SqliteWriter
from tomowire.server.ingest import Ingest
from tomowire.server.records import Records, sqlite_engine
from tomowire.server.recovery import recover
from tomowire.server.swap import finish_swap

_INGEST_WORKERS: Final = 4


class ArchiveStorage:
    """`async with ArchiveStorage(path) as storage`: `storage.ingest` stores, `storage.index` answers questions about them, and
    `storage.records` is the rest of the database.

    `policy` says what becomes of an object that is stored already with other content. `fsync=False` gives up the promise that what
    got Success survives a power cut. `busy_timeout` (seconds) is how long to wait for another process that holds the index.
    """

    ingest: Ingest
    index: IndexReaders
    records: Records
    commit: GroupCommit
    writer: BatchWriter

    def __init__(
        self,
        root: Path | str,
        *,
        policy: DuplicatePolicy = DuplicatePolicy.KEEP,
        fsync: bool = True,
        busy_timeout: float = BUSY_TIMEOUT,
    ) -> None:
        self.root = Path(root).absolute()
        self._policy = policy
        self._fsync = fsync
        self._busy_timeout = busy_timeout
        self._cleanup = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Lock, bring up to date and tidy the directory, and begin to take objects.

        Raises `UsageError` if the directory is in use, or its index is missing, none of tomowire's or too new;
        `IndexUnavailable`; `OSError`.
        """
        async with AsyncExitStack() as stack:
            opened = ExitStack()
            stack.push_async_callback(asyncio.to_thread, opened.close)
            opening = asyncio.get_running_loop().run_in_executor(None, self._open, opened)
            directory, writer = await finished(opening)
            workers = ThreadPoolExecutor(_INGEST_WORKERS, thread_name_prefix="tomowire-ingest")
            stack.push_async_callback(asyncio.to_thread, workers.shutdown)
            self.writer = writer
            self.commit = commit = GroupCommit(writer)
            stack.push_async_callback(commit.close)
            self.index = IndexReaders(SqliteSource(directory.index_path))
            stack.push_async_callback(self.index.close)
            self.records = await stack.enter_async_context(
                Records(
                    partial(sqlite_engine, directory.index_path, fsync=self._fsync, busy_timeout=self._busy_timeout)
                )
            )
            self.ingest = Ingest(directory, commit, workers)
            self._cleanup = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Store what is waiting, end the threads, close the index, and let go of the directory."""
        await self._cleanup.aclose()

    def _open(self, opened: ExitStack) -> tuple[DataDirectory, BatchWriter]:
        directory = opened.enter_context(DataDirectory.open(self.root, fsync=self._fsync))
        finish_swap(directory)
        path = directory.index_path
        if not (path.exists() and path.stat().st_size) and next(directory.object_files(), None) is not None:
            raise UsageError(f"{directory.root} holds objects but no index: run 'tomowire db reindex'")
        try:
            index = SqliteWriter.open(path, fsync=self._fsync, busy_timeout=self._busy_timeout)
            opened.callback(index.close)
            recover(directory, index)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
        except IndexUnavailable as error:
            advice = "; 'tomowire db reindex' makes it again from the files" if is_damage(error) else ""
            raise IndexUnavailable(f"{path}: {error}{advice}") from error
        writer = BatchWriter(directory, index, policy=self._policy)
        opened.callback(writer.close)
        return directory, writer
