"""The one way in: an object is received, checked against what was announced, and stored, or nothing of it is.

Small objects arrive in one chunk and wait for the commit thread in the memory they were received into. Larger ones are written to
a part file in worker threads, chunk by chunk, and are durable there before the commit thread gives them their name: it has to be
quick for everybody, and syncing a gigabyte is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from tomowire.aio.streams import Chunk
from tomowire.aio.threads import each_in_worker, finished
from tomowire.errors import DataSetError, FileFormatError
from tomowire.protocol.status import CANNOT_UNDERSTAND, DATA_SET_MISMATCH, INVALID_SOP_INSTANCE
from tomowire.server.commit import GroupCommit
from tomowire.server.failures import failure_of, store_failed
from tomowire.server.files import DataDirectory
from tomowire.server.incoming import Incoming, NewObject, Stored
from tomowire.server.index.attributes import InstanceRecord
from tomowire.server.index.extraction import instance_record
from tomowire.server.index.layout import is_deflated
from tomowire.server.index.scanner import ScannedHeader, scan
from tomowire.server.part import PartFile
from tomowire.server.posix import sync_file
from tomowire.server.stored_file import read_stored_file
from tomowire.uids import is_tolerable_uid
from tomowire.wire.part10 import FileMeta, encode_file_meta

logger: Final = logging.getLogger(__name__)

SMALL: Final = 64 * 1024
"""Bytes up to which an object is left to the commit thread: writing and hashing it there takes less than handing it over twice."""


class Ingest:
    """Takes objects from any number of associations at once, in one event loop."""

    def __init__(self, directory: DataDirectory, commit: GroupCommit, workers: ThreadPoolExecutor) -> None:
        self._directory = directory
        self._commit = commit
        self._workers = workers

    async def receive(self, incoming: Incoming, chunks: AsyncIterator[Chunk]) -> Stored:
        """Store the object whose data set `chunks` gives; durable and indexed on return.

        Raises `StoreFailed`, possibly before all chunks were asked for; and whatever `chunks` raises. Then, and when it is
        cancelled, nothing of the object is left. The last chunk's memory is used until this returns.
        """
        if not is_tolerable_uid(incoming.sop_instance_uid):
            raise store_failed(
                INVALID_SOP_INSTANCE, f"{'' if incoming.is_file else 'Affected '}SOP Instance UID is not a UID"
            )
        if not is_tolerable_uid(incoming.sop_class_uid):
            raise store_failed(
                DATA_SET_MISMATCH, f"{'' if incoming.is_file else 'Affected '}SOP Class UID is not a UID"
            )
        header = _file_header(incoming)
        first = await anext(chunks, None)
        if first is None:
            raise store_failed(CANNOT_UNDERSTAND, "no data set")
        # What is deflated may be a thousand times as large, and is not inflated in the event loop.
        if first.last and first.nbytes <= SMALL and not is_deflated(incoming.transfer_syntax_uid):
            stored = await self._store_small(incoming, header, first)
        else:
            stored = await self._store_large(incoming, header, first, chunks)
        logger.debug(
            "%s (%s): %s %s",
            incoming.calling_ae_title,
            incoming.peer_address,
            stored.outcome.value,
            incoming.sop_instance_uid,
        )
        return stored

    async def adopt(self, incoming: Incoming, part: Path) -> Stored | None:
        """Store a file as it is, which lies in `incoming/` and is given up to the archive; None if its header is not that of the
        object, or none that the archive would keep: then the data set is to be received.

        Raises `StoreFailed`. In any case `part` is gone in the end.
        """
        loop = asyncio.get_running_loop()
        stored: Stored | None = None
        try:
            new = await finished(loop.run_in_executor(self._workers, self._whole_file, incoming, part))
            if new is not None:
                stored = await self._commit.store(new)
        finally:
            if stored is None or not stored.is_new:
                await finished(loop.run_in_executor(self._workers, partial(part.unlink, missing_ok=True)))
        return stored

    def _whole_file(self, incoming: Incoming, part: Path) -> NewObject | None:
        try:
            file = read_stored_file(part, scan=True)
            meta = file.meta
            announced = (incoming.sop_class_uid, incoming.sop_instance_uid, incoming.transfer_syntax_uid)
            if (
                meta.media_storage_sop_class_uid,
                meta.media_storage_sop_instance_uid,
                meta.transfer_syntax_uid,
            ) != announced or not is_tolerable_uid(incoming.sop_instance_uid):
                return None
            assert file.scanned is not None  # it was asked for
            record = _checked_record(incoming, file.scanned)
            if self._directory.fsync:
                with part.open("rb") as opened:
                    sync_file(opened.fileno())
        except FileFormatError:
            return None
        except (OSError, DataSetError) as error:
            raise failure_of(error, self._directory.root) from error
        sender, size = incoming.calling_ae_title, file.data_set_size
        return NewObject(record, sender, file.header_size, size, part=part, checksum=file.checksum)

    async def _store_small(self, incoming: Incoming, header: bytes, chunk: Chunk) -> Stored:
        try:
            record = _checked_record(incoming, scan(incoming.transfer_syntax_uid, chunk.buffers))
        except DataSetError as error:
            raise failure_of(error) from error
        new = NewObject(
            record, incoming.calling_ae_title, len(header), chunk.nbytes, header=header, data_set=chunk.buffers
        )
        return await self._commit.store(new)

    async def _store_large(
        self, incoming: Incoming, header: bytes, first: Chunk, chunks: AsyncIterator[Chunk]
    ) -> Stored:
        part = PartFile(self._directory, header, incoming.transfer_syntax_uid)
        stored: Stored | None = None
        try:
            record = _checked_record(incoming, await self._write_part(part, first, chunks))
            sender = incoming.calling_ae_title
            new = NewObject(record, sender, len(header), part.size, part=part.path, checksum=part.checksum)
            stored = await self._commit.store(new)
        finally:
            if stored is None or not stored.is_new:
                await self._discard(part)
        return stored

    async def _write_part(self, part: PartFile, first: Chunk, chunks: AsyncIterator[Chunk]) -> ScannedHeader:
        def write(chunk: Chunk) -> ScannedHeader | None:
            try:
                return part.write(chunk.buffers, last=chunk.last)
            except (OSError, DataSetError) as error:
                raise failure_of(error, self._directory.root) from error

        try:
            scanned = await each_in_worker(write, first, chunks, self._workers)
        except StopAsyncIteration:
            scanned = None
        if scanned is None:
            raise store_failed(CANNOT_UNDERSTAND, "the data set ends early")
        return scanned

    async def _discard(self, part: PartFile) -> None:
        try:
            await finished(asyncio.get_running_loop().run_in_executor(self._workers, part.discard))
        except OSError as error:
            logger.warning("%s is left until the next start: %s", part.path, error)


def _file_header(incoming: Incoming) -> bytes:
    return encode_file_meta(
        FileMeta(
            incoming.sop_class_uid,
            incoming.sop_instance_uid,
            incoming.transfer_syntax_uid,
            source_application_entity_title=incoming.calling_ae_title,
            receiving_application_entity_title=incoming.called_ae_title,
        )
    )


def _checked_record(incoming: Incoming, scanned: ScannedHeader) -> InstanceRecord:
    """What the index keeps of the object. Raises `StoreFailed` if it is not the one that was announced, or has no place."""
    record = instance_record(scanned)
    comment = None
    if record.instance.sop_class_uid != incoming.sop_class_uid:
        comment = _differs("SOP Class UID", record.instance.sop_class_uid, incoming)
    elif record.instance.sop_instance_uid != incoming.sop_instance_uid:
        comment = _differs("SOP Instance UID", record.instance.sop_instance_uid, incoming)
    elif not is_tolerable_uid(record.study.study_instance_uid):
        comment = "Study Instance UID missing or not a UID"
    elif not is_tolerable_uid(record.series.series_instance_uid):
        comment = "Series Instance UID missing or not a UID"
    if comment is not None:
        raise store_failed(DATA_SET_MISMATCH, comment)
    return record


def _differs(name: str, found: str | None, incoming: Incoming) -> str:
    """A file announces its object in its file meta information, and nobody has sent it."""
    if not incoming.is_file:
        return f"{name} of data set and command differ"
    return f"{name} of data set and file meta information differ" if found else f"the data set has no {name}"
