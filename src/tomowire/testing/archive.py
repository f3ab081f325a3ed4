"""`Archive`: a well-behaved peer for tests, which keeps in memory what it gets, and can be asked for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from copy import copy, deepcopy
from functools import cached_property
from io import BytesIO
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.aio.listen import listen
from tomowire.errors import QueryFailed, UsageError
from tomowire.protocol.status import DATA_SET_MISMATCH, SUCCESS
from tomowire.services.dicom_file import DicomFile, inspect
from tomowire.services.find_scp import Find, FindAnswers
from tomowire.services.get_scp import Get
from tomowire.services.identifiers import decode, encode
from tomowire.services.models import Level
from tomowire.services.move_scp import Destination, Move
from tomowire.services.storage_scp import Storage
from tomowire.services.suboperations import Retrieval
from tomowire.services.verification import Verification
from tomowire.testing.hosting import LOOPBACK, Hosted
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.part10 import FileMeta, decode_file_meta, encode_file_meta

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from pydicom import Dataset

    from tomowire.aio.listen import Server
    from tomowire.aio.serving import ServiceProvider
    from tomowire.services.find_scp import FindRequest
    from tomowire.services.storage_scp import StoreRequest
    from tomowire.services.suboperations import RetrieveRequest

_BATCH: Final = 100


class KeptObject:
    """An object as it came: the bytes of its data set, and what says how to read them."""

    def __init__(self, meta: FileMeta, data: bytes) -> None:
        self.sop_class_uid = meta.media_storage_sop_class_uid
        self.sop_instance_uid = meta.media_storage_sop_instance_uid
        self.transfer_syntax_uid = meta.transfer_syntax_uid
        self.data = data
        """The data set, byte for byte as it was sent."""
        self._header = encode_file_meta(meta)

    @property
    def file(self) -> bytes:
        """What stands in a DICOM file of it."""
        return self._header + self.data

    @cached_property
    def dataset(self) -> Dataset:
        """The object as pydicom reads it."""
        import pydicom

        return pydicom.dcmread(BytesIO(self.file))


class Archive(Hosted):
    """A storage, query and retrieve SCP on 127.0.0.1 and a free port: `async with Archive() as archive:`.

    `objects` are there from the start: data sets, or paths of DICOM files. `destinations` are the AE titles that a C-MOVE may name,
    with their addresses (`AET@host:port`). `options` go to `listen`. In a test that is not asynchronous `with` does the same, in
    a thread.

    It answers queries in all models at all levels, with single values, lists of UIDs, ranges, and wildcards (names without
    regard to case). It is made for the few objects of a test: all are looked at for each query.
    """

    def __init__(
        self,
        objects: Iterable[Dataset | str | PathLike[str]] = (),
        *,
        aet: str = "ARCHIVE",
        destinations: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.aet = check_ae_title(aet)
        self.objects: dict[str, KeptObject] = {}
        """What is there, by SOP Instance UID, in the order in which it came. Also after the block."""
        self.destinations = dict(destinations or {})
        self._options = options
        self._server: Server | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._port = 0
        self._waiting: list[tuple[int, Future[None]]] = []
        self._lock = Lock()  # the test may live in another thread
        for address in self.destinations.values():
            PeerAddress.parse(address)
        if isinstance(objects, str | PathLike):
            raise UsageError(f"objects are several: [{objects!r}]")
        for each in objects:
            self.add(each)

    @property
    def port(self) -> int:
        """The TCP port. Raises `UsageError` before it is known."""
        if not self._port:
            raise UsageError("the archive is not listening yet")
        return self._port

    @property
    def address(self) -> str:
        """`AET@host:port`, as `Peer` and `associate` take it."""
        return f"{self.aet}@{LOOPBACK}:{self.port}"

    @property
    def datasets(self) -> list[Dataset]:
        """What is there, as pydicom reads it, in the order in which it came."""
        return [each.dataset for each in list(self.objects.values())]

    def add(self, source: Dataset | str | PathLike[str]) -> None:
        """Put an object into it: a data set, or the path of a DICOM file."""
        if isinstance(source, str | PathLike):
            path = Path(source)
            found = inspect(path)
            meta = FileMeta(found.sop_class_uid, found.sop_instance_uid, found.transfer_syntax_uid)
            self._keep(KeptObject(meta, path.read_bytes()[found.offset :]))
        else:
            self._keep(_kept_of(source))

    def arrived(self, count: int) -> Future[None]:
        """Done when there are `count` objects: for `result(timeout)` in a test that is not asynchronous."""
        future: Future[None] = Future()
        with self._lock:
            is_there = len(self.objects) >= count
            if not is_there:
                self._waiting.append((count, future))
        if is_there:
            future.set_result(None)
        return future

    async def wait_for(self, count: int, *, timeout: float = 10.0) -> None:
        """Wait until there are `count` objects. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout):
            await asyncio.wrap_future(self.arrived(count))

    async def start(self) -> None:
        services: list[ServiceProvider] = [
            Verification(),
            Storage(self._store, any_sop_class=True),
            Find(self._answer, relational=True),
            Get(self._retrieve, relational=True),
            Move(self._retrieve, self._destination, relational=True),
        ]
        folder = TemporaryDirectory(prefix="tomowire-testing-")
        server = listen(LOOPBACK, 0, services=services, **{"shutdown_grace": 1.0, **self._options})
        try:
            await server.start()
        except BaseException:
            folder.cleanup()
            raise
        self._server, self._folder, self._port = server, folder, server.port

    async def stop(self) -> None:
        assert self._server is not None
        assert self._folder is not None
        try:
            await self._server.close()
        finally:
            self._folder.cleanup()

    def _keep(self, kept: KeptObject) -> None:
        with self._lock:
            self.objects[kept.sop_instance_uid] = kept
            reached = [each for each in self._waiting if each[0] <= len(self.objects)]
            self._waiting = [each for each in self._waiting if each not in reached]
        for _, future in reached:
            if not future.done():
                future.set_result(None)

    # Handlers

    async def _store(self, request: StoreRequest) -> int:
        meta = FileMeta(request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid)
        self._keep(KeptObject(meta, await request.data.read()))
        return SUCCESS

    async def _answer(self, request: FindRequest) -> AsyncIterator[FindAnswers]:
        from tomowire.testing.matching import answers_to

        asked = decode(request.identifier, request.transfer_syntax_uid)
        level = _level_of(asked)
        found = answers_to(asked, level, self.datasets)
        for each in found:
            each.RetrieveAETitle = self.aet
            yield FindAnswers([encode(each, request.transfer_syntax_uid)])

    async def _retrieve(self, request: RetrieveRequest) -> Retrieval:
        from tomowire.testing.matching import selected_by

        asked = decode(request.identifier, request.transfer_syntax_uid)
        _level_of(asked)
        chosen = [each for each in list(self.objects.values()) if selected_by(asked, each.dataset)]
        return Retrieval(len(chosen), self._files(chosen))

    async def _files(self, chosen: Sequence[KeptObject]) -> AsyncIterator[Sequence[DicomFile]]:
        assert self._folder is not None
        # A folder for each request: another one may be sending the same objects.
        folder = Path(await asyncio.to_thread(mkdtemp, dir=self._folder.name))
        for start in range(0, len(chosen), _BATCH):
            yield await asyncio.to_thread(_written, folder, chosen[start : start + _BATCH], start)

    async def _destination(self, request: RetrieveRequest, ae_title: str) -> Destination | None:
        address = self.destinations.get(ae_title)
        return Destination(PeerAddress.parse(address)) if address is not None else None


def _written(folder: Path, chosen: Sequence[KeptObject], first: int) -> list[DicomFile]:
    """The objects as files: the SCPs of C-GET and C-MOVE send from there."""
    files = []
    for number, each in enumerate(chosen, first):
        path = folder / f"{number:06}.dcm"
        path.write_bytes(each.file)
        files.append(inspect(path))
    return files


def _kept_of(dataset: Dataset) -> KeptObject:
    """A data set as pydicom writes it: in the transfer syntax that it names, or in Explicit VR Little Endian."""
    import pydicom
    from pydicom.dataset import FileMetaDataset

    if not isinstance(dataset, pydicom.Dataset):
        raise UsageError(f"an object is a data set or the path of a DICOM file, not {dataset!r}")
    if not dataset.get("SOPClassUID") or not dataset.get("SOPInstanceUID"):
        raise UsageError("an object has a SOP Class UID and a SOP Instance UID; this data set has not")
    written = copy(dataset)  # writing adds to the file meta information, which is the caller's
    written.file_meta = deepcopy(getattr(dataset, "file_meta", None)) or FileMetaDataset()
    if "TransferSyntaxUID" not in written.file_meta:
        written.file_meta.TransferSyntaxUID = EXPLICIT_VR_LITTLE_ENDIAN
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, written, enforce_file_format=True)
    return _kept_in(buffer.getvalue())


def _kept_in(content: bytes) -> KeptObject:
    """The object in a DICOM file."""
    meta, offset = decode_file_meta(content)
    return KeptObject(meta, content[offset:])


def _level_of(asked: Dataset) -> Level:
    """The level of a request. Raises `QueryFailed`, A900H, for one that is none (PS3.4 C.4.1.2)."""
    try:
        return Level(asked.get("QueryRetrieveLevel") or "")
    except ValueError:
        raise QueryFailed(DATA_SET_MISMATCH, "no such query/retrieve level", (0x00080052,)) from None
