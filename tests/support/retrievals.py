"""A handler of C-GET and C-MOVE with files to give, and a requestor of which every byte is the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydicom import Dataset

from support.network import LOOPBACK
from support.raw_peer import CT, RawMessage, RawPeer, associate_rq, message_pdus
from tomowire import Server, Storage, Verification, listen
from tomowire.aio.serving import ServiceProvider
from tomowire.services.dicom_file import DicomFile
from tomowire.services.get_scp import Get
from tomowire.services.identifiers import decode, encode
from tomowire.services.models import Model
from tomowire.services.move_scp import Destination, Move
from tomowire.services.suboperations import Retrieval, RetrieveRequest
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CCancelRQ, CGetRQ, CGetRSP, CMoveRQ, CMoveRSP, CStoreRQ, CStoreRSP
from tomowire.wire.user_information import ExtendedNegotiation, RoleSelection

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
GET, MOVE = Model.STUDY_ROOT.get, Model.STUDY_ROOT.move


class Stock:
    """A handler that gives `files` for whatever is asked, in batches, and remembers what became of it."""

    def __init__(self, files: Sequence[DicomFile] = (), *, batch: int = 100, total: int | None = None) -> None:
        self.files = files
        self.batch = batch
        self.total = len(files) if total is None else total
        self.asked: list[RetrieveRequest] = []
        self.fails: BaseException | None = None
        """What is raised after the last of the files, if anything."""
        self.refuses: BaseException | None = None
        self.waits_before, self.waits_after = False, False
        """Whether it waits for ever before it answers, or after the last of the files."""
        self.kinds: frozenset[tuple[str, str]] = frozenset()
        self.last_after: asyncio.Event | None = None
        """What the last batch waits for."""
        self.given = 0
        self.was_asked = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.closed = asyncio.Event()

    async def objects(self, request: RetrieveRequest) -> Retrieval:
        self.asked.append(request)
        self.was_asked.set()
        if self.refuses is not None:
            raise self.refuses
        if self.waits_before:
            await self._wait()
        return Retrieval(self.total, self._batches(), self.kinds)

    async def _batches(self) -> AsyncGenerator[Sequence[DicomFile], None]:
        try:
            for first in range(0, len(self.files), self.batch):
                await asyncio.sleep(0)
                if self.last_after is not None and first + self.batch >= len(self.files):
                    await self.last_after.wait()
                self.given += len(self.files[first : first + self.batch])
                yield self.files[first : first + self.batch]
            if self.fails is not None:
                raise self.fails
            if self.waits_after:
                await self._wait()
        finally:
            self.closed.set()

    async def _wait(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.set()


@dataclass
class Counts:
    """The counts of a response; None for one that is not there."""

    status: int
    remaining: int | None
    completed: int | None
    failed: int | None
    warning: int | None

    @classmethod
    def of(cls, response: CGetRSP | CMoveRSP) -> Counts:
        return cls(
            response.status,
            response.number_of_remaining_suboperations,
            response.number_of_completed_suboperations,
            response.number_of_failed_suboperations,
            response.number_of_warning_suboperations,
        )


class Unmoved:
    """A peer that takes a request and the C-CANCEL for it, and answers neither; `script` plays its connection."""

    def __init__(self) -> None:
        self.asked, self.cancelled = asyncio.Event(), asyncio.Event()

    async def script(self, peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_message()
        self.asked.set()
        assert isinstance((await peer.read_message()).command, CCancelRQ)
        self.cancelled.set()
        await peer.read_until_closed()


def roles(*sop_classes: str) -> tuple[RoleSelection, ...]:
    return tuple(RoleSelection(uid, False, True) for uid in sop_classes)


class Requestor:
    """Asks for objects on a connection of its own, and takes them as it is told."""

    def __init__(self, peer: RawPeer, syntax: str) -> None:
        self.peer = peer
        self.syntax = syntax
        self.pending: list[Counts] = []
        self.stored: dict[str, RawMessage] = {}

    async def get(self, message_id: int = 1) -> None:
        await self._ask(CGetRQ(message_id=message_id, affected_sop_class_uid=GET))

    async def move(self, destination: str = "DEST", message_id: int = 1) -> None:
        await self._ask(CMoveRQ(message_id=message_id, affected_sop_class_uid=MOVE, move_destination=destination))

    async def _ask(self, message: CGetRQ | CMoveRQ) -> None:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "STUDY"
        identifier.StudyInstanceUID = "1.2.3"
        await self.peer.send(message_pdus(1, message, encode(identifier, self.syntax)))

    async def cancel(self, message_id: int = 1) -> None:
        await self.peer.send(message_pdus(1, CCancelRQ(message_id_being_responded_to=message_id)))

    async def next_store(self) -> tuple[int, CStoreRQ]:
        """The next C-STORE request, on which context; pending responses before it are remembered."""
        async with asyncio.timeout(60):
            while True:
                message = await self.peer.read_message()
                if isinstance(message.command, CStoreRQ):
                    self.stored[message.command.affected_sop_instance_uid] = message
                    return message.context_id, message.command
                assert isinstance(message.command, CGetRSP), message
                assert message.command.status == 0xFF00, message
                self.pending.append(Counts.of(message.command))

    async def answer(self, context_id: int, request: CStoreRQ, status: int = 0) -> None:
        response = CStoreRSP(
            message_id_being_responded_to=request.message_id,
            affected_sop_class_uid=request.affected_sop_class_uid,
            affected_sop_instance_uid=request.affected_sop_instance_uid,
            status=status,
        )
        await self.peer.send(message_pdus(context_id, response))

    async def take_all(
        self,
        statuses: dict[str, int] | None = None,
        *,
        answer: Callable[[RawPeer, int, CStoreRQ], Awaitable[None]] | None = None,
    ) -> tuple[Counts, list[str], str | None]:
        """Answer every C-STORE, with the status by its UID or by `answer`; give what the final response says, and its list.

        A retrieval that never ends goes on saying so: that alone would keep each single read within its time.
        """
        async with asyncio.timeout(60):
            while True:
                message = await self.peer.read_message()
                command = message.command
                if isinstance(command, CStoreRQ):
                    uid = command.affected_sop_instance_uid
                    assert uid not in self.stored, "an object was sent twice"
                    self.stored[uid] = message
                    if answer is not None:
                        await answer(self.peer, message.context_id, command)
                    else:
                        await self.answer(message.context_id, command, (statuses or {}).get(uid, 0))
                else:
                    assert isinstance(command, CGetRSP | CMoveRSP), command
                    assert message.context_id == 1
                    if command.status != 0xFF00:
                        return Counts.of(command), self._failed(message), command.error_comment
                    assert message.data is None
                    self.pending.append(Counts.of(command))

    def _failed(self, message: RawMessage) -> list[str]:
        if message.data is None:
            return []
        (listed,) = decode(message.data, self.syntax)
        assert listed.keyword == "FailedSOPInstanceUIDList"
        return [str(uid) for uid in (listed.value if listed.VM > 1 else [listed.value])]


@asynccontextmanager
async def asking(
    port: int,
    *contexts: PresentationContextRQ,
    syntax: str = IMPLICIT,
    service: str = GET,
    scp_of: Sequence[str] = (CT,),
    window: tuple[int, int] | None = None,
    relational: bool = False,
    called: str = "ARCHIVE",
) -> AsyncIterator[Requestor]:
    """An association that may ask for `service` in context 1. `contexts` are for objects, CT in Explicit VR if none are given."""
    wanted = contexts or (PresentationContextRQ(3, CT, (EXPLICIT,)),)
    request = associate_rq(
        PresentationContextRQ(1, service, (syntax,)), *wanted, window=window, called=called, calling="WORKSTATION"
    )
    information = replace(
        request.user_information,
        role_selections=roles(*scp_of),
        extended_negotiations=(ExtendedNegotiation(service, b"\x01"),) if relational else (),
    )
    async with await RawPeer.connect(port) as peer:
        await peer.associate(replace(request, user_information=information))
        yield Requestor(peer, syntax)


@asynccontextmanager
async def getting(stock: Stock, *contexts: PresentationContextRQ, **options: Any) -> AsyncIterator[Requestor]:
    """A requestor of C-GET, and the acceptor that has `stock`."""
    own = {name: options.pop(name) for name in ("timeout", "models") if name in options}
    async with serving(Get(stock.objects, **own)) as server, asking(server.port, *contexts, **options) as requestor:
        yield requestor


@asynccontextmanager
async def moving(
    stock: Stock, destination: Destination | None, *, syntax: str = IMPLICIT, **own: Any
) -> AsyncIterator[Requestor]:
    """A requestor of C-MOVE, and the acceptor that has `stock` and knows one destination, or none."""

    async def known(request: RetrieveRequest, title: str) -> Destination | None:
        return destination if title == "DEST" else None

    async with (
        serving(Move(stock.objects, known, **own)) as server,
        asking(server.port, service=MOVE, syntax=syntax) as requestor,
    ):
        yield requestor


def serving(*services: ServiceProvider, **options: Any) -> Server:
    return listen(LOOPBACK, 0, services=[Verification(), *services], aet="ARCHIVE", shutdown_grace=2.0, **options)


def destination(*handlers: Storage, **options: Any) -> Server:
    """Where objects are moved to."""
    return listen(LOOPBACK, 0, services=handlers, aet="DEST", shutdown_grace=2.0, **options)


def write_data_set(folder: Path, number: int, *, sop_class: str = CT) -> DicomFile:
    """An object `1.2.<number>` that can be parsed, in Explicit VR Little Endian."""
    from pydicom.dataset import FileMetaDataset

    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = sop_class, f"1.2.{number}"
    made.PatientID = f"P{number}"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = EXPLICIT
    path = folder / f"{number}.dcm"
    made.save_as(path, enforce_file_format=True)
    from tomowire.services.dicom_file import inspect

    return inspect(path)
