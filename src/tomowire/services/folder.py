"""Keeping received objects as DICOM files in a folder: the handler behind `tomowire listen`."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.errors import StoreFailed
from tomowire.protocol.status import OUT_OF_RESOURCES, SUCCESS, Status
from tomowire.services.object_file import Disk, discard, raise_as_failure, write_object
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.aio.streams import Chunk
    from tomowire.services.storage_scp import StoreRequest

    NameOf = Callable[[StoreRequest, Chunk], str]

_INCOMING: Final = ".incoming-"


def by_instance_uid(request: StoreRequest, _: Chunk) -> str:
    """`<SOP Instance UID>.dcm`, all in one folder."""
    return f"{request.sop_instance_uid}.dcm"


@value()
class Kept:
    """Where an object has been stored, and whether a file that was there before is gone."""

    path: str
    replaced: bool


class Folder:
    """`Storage(Folder("received").keep)`: every object becomes a file, whole or not at all.

    `name` gives the path below the folder, from the request and the first chunk of its data set; a file of that name is replaced.
    The file meta information is made from the command (PS3.10 7.1), the data set is written as it came. Files are not synced to
    the disk: a power cut can take what came in the last seconds.

    Threads write what is larger than 64 KiB. While the disk keeps up, the event loop itself writes objects of up to a megabyte; if
    that takes long it has held up others once, and threads write again.

    Until it is whole a file lies in a hidden folder `.incoming-*`. `close` removes that; what a killed process left there is
    removed when the next `Folder` of the same path is made.
    """

    def __init__(self, path: str | os.PathLike[str], *, name: NameOf = by_instance_uid) -> None:
        self.path: Final = Path(path)
        self._name = name
        self._numbers = itertools.count()
        self._disk = Disk()
        self.path.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(self.path)
        # On the same file system as the files, so that a rename is all it takes; hidden, so that nobody picks up half a file.
        self._incoming, self._lock = _make_incoming(self.path)

    async def keep(self, request: StoreRequest) -> Status:
        """Store one object. Raises `StoreFailed` (A700H) when it cannot be written, and leaves nothing behind then."""
        await self.store(request)
        return SUCCESS

    async def store(self, request: StoreRequest) -> Kept:
        """As `keep`, and tell where the object is now."""
        head = request.file_start()
        part = f"{self._incoming}/{next(self._numbers)}"
        try:
            first = await anext(request.data)
            name = self._name(request, first)
            await write_object(part, head, first, request.data, self._disk)
            return self._finish(part, name)
        except BaseException as error:
            discard(part)
            self._raise_if_gone(error)
            raise_as_failure(error)
            raise

    def close(self) -> None:
        """Remove the place for unfinished files."""
        _remove(self._incoming)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _raise_if_gone(self, error: BaseException) -> None:
        """It is not made again: what is there now may be the empty place where a disk was mounted."""
        if isinstance(error, FileNotFoundError) and not os.path.isdir(self._incoming):
            raise StoreFailed(OUT_OF_RESOURCES, "the folder has been removed or replaced: start again") from error

    def _finish(self, part: str, name: str) -> Kept:
        target = f"{self.path}/{name}"
        replaced = os.path.exists(target)
        try:
            os.replace(part, target)
        except FileNotFoundError:
            if not os.path.exists(part):
                raise
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(part, target)
        return Kept(target, replaced)


def _remove(folder: str | Path) -> None:
    import shutil  # here: its imports take 3 ms, and a start of ours takes 80

    shutil.rmtree(folder, ignore_errors=True)


def _make_incoming(folder: Path) -> tuple[str, int | None]:
    """A place for unfinished files that no other process has, and the descriptor that holds it."""
    while True:
        # Neither host name nor process ID tells two processes apart: in containers both may be the same each time.
        path = str(folder / f"{_INCOMING}{os.urandom(8).hex()}")
        os.mkdir(path)
        try:
            descriptor = _hold(path)
        except (BlockingIOError, FileNotFoundError):
            continue  # somebody who tidies up was quicker
        except OSError:
            return path, None  # a file system without locks: nobody can hold it, and so nobody removes it
        return path, descriptor


def _remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of processes that are no more: the kernel has let go of what they held."""
    for entry in folder.glob(f"{_INCOMING}*"):
        try:
            descriptor = _hold(str(entry))
        except OSError:
            continue
        if descriptor is not None:
            _remove(entry)
            os.close(descriptor)


def _hold(path: str) -> int | None:
    """Lock a folder for as long as the descriptor is open; None where there are no such locks. Raises `OSError`."""
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
            raise FileNotFoundError(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
