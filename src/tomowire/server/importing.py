"""`tomowire import`: objects that lie about as files become objects of the archive.

They go the way of all objects, through `ingest`, so that each is durable and indexed when it is reported; an object that the
archive has already is found to be identical, and a run that was interrupted can be begun again at any time. What is not DICOM is
passed over, and a bad file does not stop the others.

The archive must not be running: objects for one that is go to its DICOM port (`tomowire send`). A second process that writes to the
same index and the same folders would have to ask for what one process knows by itself.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing, suppress
from enum import Enum
from functools import partial
from pathlib import Path
from typing import IO, Final

from tomowire.aio.threads import finished
from tomowire.errors import FileFormatError, StoreFailed
from tomowire.protocol.status import OUT_OF_RESOURCES
from tomowire.server import orthanc
from tomowire.server.archive import ArchiveStorage
from tomowire.server.files import FILE_MODE
from tomowire.server.import_files import again, announced, candidates, chunks_of, has_no_pixels
from tomowire.server.import_state import Taken
from tomowire.server.incoming import Incoming, Outcome, Stored
from tomowire.server.orthanc import Attachment
from tomowire.server.trees import Passed
from tomowire.services.dicom_file import DicomFile, inspect, is_marked
from tomowire.uids import MEDIA_STORAGE_DIRECTORY
from tomowire.wire.value import value

AT_ONCE: Final = 16
_AHEAD: Final = 256


class How(Enum):
    """What becomes of the files that are imported."""

    COPY = "copy"
    MOVE = "move"
    """They are removed when the archive has them; without being copied, where both are on one file system."""

    LINK = "link"
    """A hard link, where both are on one file system, takes no space; who changes the file changes the archive's as well."""


class Result(Enum):
    """What became of one file."""

    STORED = "stored"
    KNOWN = "known"
    """The archive had the object already, or an earlier run has imported this file."""

    CONFLICT = "conflict"
    """The archive has another object with this UID, and keeps it."""

    SKIPPED = "skipped"
    """No DICOM object, nor meant to be one."""

    FAILED = "failed"


@value()
class Imported:
    """A file, and what became of it."""

    path: Path
    result: Result
    sop_instance_uid: str = ""
    reason: str = ""
    bytes: int = 0


class Importer:
    """Takes files into an open archive; `at_once` of them at a time. `account` is told study and SOP class of what was stored."""

    def __init__(
        self,
        storage: ArchiveStorage,
        *,
        how: How = How.COPY,
        at_once: int = AT_ONCE,
        taken: Taken | None = None,
        account: Callable[[str, str], object] | None = None,
    ) -> None:
        self._account = account
        self._storage = storage
        self._how = how
        self._at_once = at_once
        self._taken = taken
        self._numbers = itertools.count(1)

    async def run(self, paths: Iterable[Path], report: Callable[[Imported], None]) -> None:
        """Import all files below `paths`; `report` gets each. Raises `UsageError`, and `StoreFailed` when the archive's disk
        or index cannot take more.

        The folder of an Orthanc is known by what is in it. Memory does not grow with the number of files.
        """
        with tempfile.TemporaryFile("w+b") as put_off:
            await self._work(candidates(paths, moves=self._how is How.MOVE), report, put_off)
            put_off.seek(0)
            await self._work(again(put_off), report, None)

    async def _work(
        self, files: Iterator[Attachment | Passed], report: Callable[[Imported], None], put_off: IO[bytes] | None
    ) -> None:
        queue: asyncio.Queue[Attachment | Passed | None] = asyncio.Queue(_AHEAD)

        async def fill() -> None:
            loop = asyncio.get_running_loop()
            while batch := await finished(loop.run_in_executor(None, lambda: list(itertools.islice(files, _AHEAD)))):
                for each in batch:
                    await queue.put(each)
            for _ in range(self._at_once):
                await queue.put(None)

        async def work() -> None:
            while (each := await queue.get()) is not None:
                if (imported := await self._one(each, put_off)) is not None:
                    report(imported)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fill())
                for _ in range(self._at_once):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _one(self, each: Attachment | Passed, put_off: IO[bytes] | None) -> Imported | None:
        """None for what is put off."""
        if isinstance(each, Passed):
            return Imported(each.path, Result.FAILED if each.is_error else Result.SKIPPED, reason=each.reason)
        try:
            return await self._file(each, put_off)
        except StoreFailed as error:
            if error.status == OUT_OF_RESOURCES:  # of the archive's disk or index: the next file would fare no better
                raise
            return Imported(each.path, Result.FAILED, reason=str(error))
        except FileFormatError as error:
            return await asyncio.to_thread(_of_no_object, each, error)
        except OSError as error:
            return Imported(each.path, Result.FAILED, reason=error.strerror or str(error))

    async def _file(self, each: Attachment, put_off: IO[bytes] | None) -> Imported | None:
        """Raises `StoreFailed`, `FileFormatError`, `OSError`."""
        if self._taken is not None and await asyncio.to_thread(self._taken.has, each.path):
            return Imported(each.path, Result.KNOWN, reason="imported by an earlier run")
        opened = await asyncio.to_thread(self._open, each)
        try:
            if put_off is not None and not each.is_certain and orthanc.is_attachment(each.path):
                if await asyncio.to_thread(has_no_pixels, opened.path):
                    put_off.write(os.fsencode(each.path) + b"\0")
                    return None
            elif put_off is None and await self._is_a_header(opened):
                return Imported(each.path, Result.SKIPPED, reason="the header of an object that has been imported")
            imported = await self._take(each, opened)
        finally:
            if opened.path != each.path:
                await asyncio.to_thread(partial(opened.path.unlink, missing_ok=True))
        if imported.result in (Result.STORED, Result.KNOWN):
            await asyncio.to_thread(self._conclude, each.path)
        return imported

    def _open(self, each: Attachment) -> DicomFile:
        """The object in a file; of one that is compressed, in a file of ours. Raises `FileFormatError`, `OSError`."""
        if not (each.is_certain or orthanc.is_attachment(each.path)) or not orthanc.is_compressed(each):
            orthanc.check_plain(each)
            return inspect(each.path)
        part = self._new_part()
        try:
            orthanc.inflate(each, part)
            return inspect(part)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    async def _take(self, each: Attachment, file: DicomFile) -> Imported:
        if file.sop_class_uid == MEDIA_STORAGE_DIRECTORY:
            return Imported(each.path, Result.SKIPPED, reason="a DICOMDIR: its files are looked for by themselves")
        incoming = await asyncio.to_thread(announced, file)
        stored = None
        if self._how is not How.COPY and file.path == each.path:
            stored = await self._link(incoming, file)
        if stored is None:
            async with aclosing(chunks_of(file)) as chunks:
                stored = await self._storage.ingest.receive(incoming, chunks)
        if stored.is_new and self._account is not None:
            self._account(stored.path.split("/", 3)[2], file.sop_class_uid)  # objects/ab/<study>/...
        result = {Outcome.IDENTICAL: Result.KNOWN, Outcome.KEPT_FIRST: Result.CONFLICT}.get(
            stored.outcome, Result.STORED
        )
        reason = "the archive has another object with this UID, and keeps it" if result is Result.CONFLICT else ""
        return Imported(each.path, result, file.sop_instance_uid, reason, file.size if stored.is_new else 0)

    async def _link(self, incoming: Incoming, file: DicomFile) -> Stored | None:
        """Take the file itself in; None where that cannot be done."""
        part = self._new_part()
        try:
            os.link(file.path.resolve(), part)
        except OSError:
            return None
        if self._how is How.MOVE:
            with suppress(OSError):
                part.chmod(FILE_MODE)
        return await self._storage.ingest.adopt(incoming, part)

    async def _is_a_header(self, file: DicomFile) -> bool:
        """Whether the archive has the object whose header this is: of what has no pixels the whole is no larger."""
        known = await self._storage.index.instance(file.sop_instance_uid)
        return known is not None and known.data_set_size != file.size

    def _new_part(self) -> Path:
        while True:
            part = self._storage.root / "incoming" / f"import-{next(self._numbers)}.part"
            if not part.exists():
                return part

    def _conclude(self, path: Path) -> None:
        """The archive has the object for good."""
        if self._how is How.MOVE:
            path.unlink()
        elif self._taken is not None:
            self._taken.add(path)


def _of_no_object(each: Attachment, error: FileFormatError) -> Imported:
    """A damaged DICOM file was meant to be imported; any other file just lies among them."""
    try:
        is_meant = each.is_certain or is_marked(each.path)
    except OSError:
        is_meant = True
    return Imported(each.path, Result.FAILED if is_meant else Result.SKIPPED, reason=str(error))
