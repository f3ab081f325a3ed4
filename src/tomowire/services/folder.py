"""Keeping received objects as DICOM files in a folder: the handler behind `tomowire listen`."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.aio.threads import finished
from tomowire.errors import StoreFailed, TomowireError
from tomowire.protocol.status import OUT_OF_RESOURCES, SUCCESS, Status
from tomowire.services.file_writing import write_all
from tomowire.wire.part10 import FileMeta, encode_file_meta

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tomowire.aio.streams import Chunk
    from tomowire.services.storage import StoreRequest

    NameOf = Callable[[StoreRequest, Chunk], str]

_INCOMING: Final = ".incoming-"
_AT_ONCE: Final = 64 * 1024


def by_instance_uid(request: StoreRequest, _: Chunk) -> str:
    """`<SOP Instance UID>.dcm`, all in one folder."""
    return f"{request.sop_instance_uid}.dcm"


class Folder:
    """`Storage(Folder("received").keep)`: every object becomes a file, whole or not at all.

    `name` gives the path below the folder, from the request and the first chunk of its data set; a file of that name is replaced.
    The file meta information is made from the command (PS3.10 7.1), the data set is written as it came. Files are not synced to
    the disk: a power cut can take what came in the last seconds. `close` removes what the folder needed for its work.
    """

    def __init__(self, path: str | os.PathLike[str], *, name: NameOf = by_instance_uid) -> None:
        self.path: Final = Path(path)
        self._name = name
        self._numbers = itertools.count()
        self.path.mkdir(parents=True, exist_ok=True)
        host = "".join(letter for letter in socket.gethostname() if letter.isalnum())
        _remove_leftovers(self.path, f"{_INCOMING}{host}-")
        # On the same file system as the files, so that a rename is all it takes; hidden, so that nobody picks up half a file.
        self._incoming = str(self.path / f"{_INCOMING}{host}-{os.getpid()}")
        os.makedirs(self._incoming, exist_ok=True)

    async def keep(self, request: StoreRequest) -> Status:
        """Store one object. Raises `StoreFailed` (A700H) when it cannot be written, and leaves nothing behind then."""
        head = encode_file_meta(
            FileMeta(
                request.sop_class_uid,
                request.sop_instance_uid,
                request.transfer_syntax_uid,
                source_application_entity_title=request.association.calling_ae_title or None,
            )
        )
        part = f"{self._incoming}/{next(self._numbers)}"
        try:
            first = await anext(request.data)
            name = self._name(request, first)
            if first.last and first.nbytes <= _AT_ONCE:
                # One write into the page cache takes less than asking a thread to do it: measured, 25 us against 60.
                _write(part, (head, *first.buffers))
            else:
                await self._write_large(part, head, first, request)
            self._finish(part, name)
        except BaseException as error:
            _discard(part)
            if isinstance(error, OSError) and not isinstance(error, TomowireError):
                raise _failure(error) from error
            raise
        return SUCCESS

    def close(self) -> None:
        """Remove the place for unfinished files."""
        shutil.rmtree(self._incoming, ignore_errors=True)

    async def _write_large(self, part: str, head: bytes, chunk: Chunk, request: StoreRequest) -> None:
        loop = asyncio.get_running_loop()
        with FileIO(part, "x") as file:
            buffers: Sequence[bytes | memoryview] = (head, *chunk.buffers)
            while True:
                await finished(loop.run_in_executor(None, write_all, file.fileno(), buffers))
                if chunk.last:
                    return
                chunk = await anext(request.data)
                buffers = chunk.buffers

    def _finish(self, part: str, name: str) -> None:
        target = f"{self.path}/{name}"
        try:
            os.replace(part, target)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(part, target)


def _write(path: str, buffers: Sequence[bytes | memoryview]) -> None:
    with FileIO(path, "x") as file:
        write_all(file.fileno(), buffers)


def _discard(part: str) -> None:
    try:
        os.unlink(part)
    except OSError:
        return  # renamed, or never made


def _failure(error: OSError) -> StoreFailed:
    """PS3.4 B.2.3: out of resources. The sender may try again: there is nothing wrong with the object."""
    return StoreFailed(OUT_OF_RESOURCES, f"cannot write the file: {error.strerror or error}")


def _remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove the unfinished files of processes of this machine that are no more."""
    if os.name != "posix":
        return  # there is no way to ask for a process that leaves it alone
    for entry in folder.glob(f"{prefix}*"):
        number = entry.name.removeprefix(prefix)
        if number.isdigit() and int(number) != os.getpid() and not _is_running(int(number)):
            shutil.rmtree(entry, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
