"""An archive's storage: the data directory, the index and the way in, opened in the order that makes them safe to use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tomowire.aio.threads import finished
from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.batch import BatchWriter
from tomowire.server.belonging import require_own_objects
from tomowire.server.commit import GroupCommit
from tomowire.server.deletion import Deletion
from tomowire.server.files import DataDirectory
from tomowire.server.incoming import DuplicatePolicy
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.index.connect import BUSY_TIMEOUT
from tomowire.server.index.location import OR_NAMED, note_location
from tomowire.server.index.readers import IndexReaders
from tomowire.server.index.rows import IndexWriter
from tomowire.server.index.versions import OnUpgrade
from tomowire.server.ingest import Ingest
from tomowire.server.keeping import Keeping
from tomowire.server.moving import require_not_elsewhere
from tomowire.server.records import Records
from tomowire.server.recovery import recover

_INGEST_WORKERS: Final = 4


class ArchiveStorage:
    """`async with ArchiveStorage(path) as storage`: `storage.ingest` stores, `storage.index` answers questions about them, and
    `storage.records` is the rest of the database, and `storage.deletion` deletes. `storage.keeping` knows whether it can store now.

    `policy` says what becomes of an object that is stored already with other content. `fsync=False` gives up the promise that what
    got Success survives a power cut. `busy_timeout` (seconds) is how long to wait for another process that holds the index.
    `index_url` is where the index is, `postgresql://user@host/database`; None is a file in the directory. `on_upgrade` is told if
    it gets another schema.
    """

    backend: IndexBackend
    ingest: Ingest
    index: IndexReaders
    records: Records
    deletion: Deletion
    commit: GroupCommit
    keeping: Keeping
    writer: BatchWriter

    def __init__(
        self,
        root: Path | str,
        *,
        policy: DuplicatePolicy = DuplicatePolicy.KEEP,
        fsync: bool = True,
        busy_timeout: float = BUSY_TIMEOUT,
        index_url: str | None = None,
        on_upgrade: OnUpgrade | None = None,
    ) -> None:
        self.root = Path(root).absolute()
        self.backend = backend_for(index_url, self.root, fsync=fsync, busy_timeout=busy_timeout, on_upgrade=on_upgrade)
        self._policy = policy
        self._fsync = fsync
        self._cleanup = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Lock, bring up to date and tidy the directory, and begin to take objects.

        Raises `InUse` if another process uses the directory, `UsageError` if its index is missing, none of tomowire's or too new;
        `IndexUnavailable`; `OSError`.
        """
        async with AsyncExitStack() as stack:
            opened = ExitStack()
            stack.push_async_callback(asyncio.to_thread, opened.close)
            opening = asyncio.get_running_loop().run_in_executor(None, self._open, opened)
            directory, index, writer = await finished(opening)
            workers = ThreadPoolExecutor(_INGEST_WORKERS, thread_name_prefix="tomowire-ingest")
            stack.push_async_callback(asyncio.to_thread, workers.shutdown)
            self.writer = writer
            self.commit = commit = GroupCommit(writer)
            stack.push_async_callback(commit.close)
            self.keeping = await stack.enter_async_context(Keeping(commit, index))
            self.index = IndexReaders(self.backend)
            stack.push_async_callback(self.index.close)
            self.records = await stack.enter_async_context(Records(self.backend.engine))
            self.deletion = await stack.enter_async_context(Deletion(commit))
            writer.removing.on_deferred = self.deletion.look
            self.ingest = Ingest(directory, commit, workers)
            self._cleanup = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Store what is waiting, end the threads, close the index, and let go of the directory."""
        await self._cleanup.aclose()

    def _open(self, opened: ExitStack) -> tuple[DataDirectory, IndexWriter, BatchWriter]:
        directory = opened.enter_context(DataDirectory.open(self.root, fsync=self._fsync))
        try:
            index = self._open_index(directory, opened)
        except BaseException:
            directory.unmake()
            raise
        writer = BatchWriter(directory, index, policy=self._policy)
        opened.callback(writer.close)
        return directory, index, writer

    def _open_index(self, directory: DataDirectory, opened: ExitStack) -> IndexWriter:
        backend = self.backend
        directory.require_restored()  # before an index that waits is put in its place
        with _told_of(backend):
            backend.settle(directory)
            require_not_elsewhere(directory, backend)
            has_index = not backend.is_empty()
        if not has_index and next(directory.object_files(), None) is not None:
            raise UsageError(f"{directory.root} holds objects but no index: run 'tomowire db reindex'{OR_NAMED}")
        with _told_of(backend):
            index = backend.open_writer()
            opened.callback(index.close)
            require_own_objects(directory, index.archive_id, backend.open_reader)
            note_location(directory, backend.place)
            recover(directory, index)
        return index


@contextmanager
def _told_of(backend: IndexBackend) -> Iterator[None]:
    """Errors name the index, and say what to do."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{backend.name}: {error}") from error
    except IndexUnavailable as error:
        advice = "; 'tomowire db reindex' makes it again from the files" if error.is_damage else ""
        raise error.said(f"{backend.name}: {error}{advice}") from error
