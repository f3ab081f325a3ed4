"""C-MOVE and C-GET in the archive (PS3.4 C.4.2, C.4.3): which objects are meant, where their files lie, who may be sent them."""

from __future__ import annotations

import asyncio
import logging
import zlib
from contextlib import aclosing
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final

from tomowire.aio.tls import TlsClient
from tomowire.errors import IndexUnavailable, QueryFailed, RetrieveFailed
from tomowire.protocol.status import NOT_AUTHORIZED
from tomowire.server.index.keys import parse_unique_keys
from tomowire.server.index.reader import Row
from tomowire.server.index.retrieval import select_uids
from tomowire.server.rights import Right
from tomowire.services.crowd import Crowd
from tomowire.services.dicom_file import DicomFile
from tomowire.services.get_scp import Get
from tomowire.services.move_scp import Destination, Move
from tomowire.services.suboperations import Retrieval
from tomowire.wire.messages import CMoveRQ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tomowire.aio.serving import IncomingRequest
    from tomowire.server.index.reader import Dialect, IndexReader, Statement
    from tomowire.server.index.readers import IndexReaders
    from tomowire.server.index.rows import IndexedObject
    from tomowire.server.nodes import Node
    from tomowire.services.planning import Kind
    from tomowire.services.suboperations import RetrieveRequest

logger: Final = logging.getLogger(__name__)

UNABLE_TO_COUNT: Final = 0xA701
"""PS3.4 Tables C.4-2 and C.4-3: out of resources, unable to calculate number of matches."""

_BATCH: Final = 1000
_FIRST_BATCH: Final = 64
"""Objects that are located before the first is sent."""

_MOST_AT_ONCE: Final = 64
_MOST_OF_ONE: Final = 8
"""C-GETs, and C-MOVEs, that are served at the same time, on one association. Each may have some MB of objects in memory."""
_MOST_TO_ONE: Final = 16
"""C-MOVEs to one destination. They share its associations, so that one which answers nothing keeps all of them."""


class ArchiveRetrieve:
    """What `ArchiveGet` and `ArchiveMove` ask. `root` is the data directory of the objects, `nodes` are the possible
    destinations of a move by their AE titles, and `ae_title` is what the archive calls itself there. Those with TLS are called by
    `tls`. Both may change: a move that comes then goes by what is said then.
    """

    def __init__(
        self, index: IndexReaders, root: Path, nodes: Mapping[str, Node], ae_title: str, tls: TlsClient | None = None
    ) -> None:
        self._index = index
        self._root = root
        self._nodes = nodes
        self._ae_title = ae_title
        self.tls = tls or TlsClient()
        self._turns: dict[Node, asyncio.Semaphore] = {}
        self.watch: Callable[[RetrieveRequest, Retrieval], Retrieval] | None = None
        """Gets each retrieval before its first object is sent, and gives what is done instead."""

    async def objects(self, request: RetrieveRequest) -> Retrieval:
        """The objects below what the request names, as they are at this moment. Raises `RetrieveFailed`, `DataSetError`.

        What of them is not there any more when its turn comes, or not as it was stored, is a file that nobody can send.
        """
        try:
            uids, kinds = await self._selected(request)
        except QueryFailed as refused:
            raise RetrieveFailed(refused.status, refused.error_comment, refused.offending_elements) from refused
        except (IndexUnavailable, TimeoutError) as error:
            logger.error("a retrieval was not begun: the index cannot be used: %s", error)
            raise RetrieveFailed(UNABLE_TO_COUNT, "the index cannot be used now") from error
        retrieval = Retrieval(len(uids), self._files(uids), kinds)
        return retrieval if self.watch is None else self.watch(request, retrieval)

    async def _selected(self, request: RetrieveRequest) -> tuple[_Uids, frozenset[Kind]]:
        """The UIDs of the objects, and for a C-MOVE, which plans its associations with that, what kinds there are of them."""
        statement = await asyncio.to_thread(_statement, request, self._index.dialect)
        uids, kinds = _Uids(), set[tuple[str, str]]()
        async with aclosing(self._index.stream(statement, list[Row], batch=_BATCH)) as batches:
            async for batch in batches:
                uids.add([row[0] for row in batch])
                kinds.update((row[1], row[2]) for row in batch if len(row) > 1)
        return uids, frozenset(kinds)

    async def destination(self, request: RetrieveRequest, title: str) -> Destination | None:
        """Where the node named `title` is; None if there is none. Raises `RetrieveFailed` for one that may not be sent objects."""
        node = self._nodes.get(title.strip(" "))
        if node is None:
            return None
        if Right.MOVE_DESTINATION not in node.may:
            raise RetrieveFailed(NOT_AUTHORIZED, f"objects may not be sent to {node.ae_title}")
        return self.destination_of(node)

    def destination_of(self, node: Node) -> Destination:
        """Where a node is, and how it is called. All who send to it share its associations."""
        turns = self._turns.setdefault(node, asyncio.Semaphore(node.associations))
        tls = node.way(self.tls)
        options = {"ssl": tls} if tls is not None else None
        return Destination(node.address, node.associations, self._ae_title, options, turns)

    async def locate(self, uids: Sequence[str]) -> Sequence[DicomFile]:
        """The files of these objects, in that order; one without SOP class for what cannot be sent. Raises `IndexUnavailable`."""
        return await self._index.ask(partial(self._located, uids))

    async def _files(self, uids: _Uids) -> AsyncIterator[Sequence[DicomFile]]:
        for batch in uids:
            try:
                files = await self.locate(batch)
            except IndexUnavailable as error:
                logger.error("%d objects cannot be sent: the index cannot be used: %s", len(batch), error)
                files = [_unsendable(self._root, uid) for uid in batch]
            yield files

    def _located(self, uids: Sequence[str], reader: IndexReader) -> Sequence[DicomFile]:
        found = reader.find_objects(uids)
        return [self._file(uid, found.get(uid)) for uid in uids]

    def _file(self, uid: str, known: IndexedObject | None) -> DicomFile:
        if known is None:
            logger.warning("%s cannot be sent: it has been removed meanwhile", uid)
            return _unsendable(self._root, uid)
        path = self._root / known.name.path
        offset, size = known.header_size, known.data_set_size
        try:
            is_as_stored = path.stat().st_size == offset + size
        except OSError:
            is_as_stored = True  # who opens it learns why it cannot be read
        if not is_as_stored:
            logger.error("%s cannot be sent: its file has not the size that it was stored with", uid)
            return _unsendable(path, uid)
        return DicomFile(path, known.sop_class_uid, uid, known.transfer_syntax_uid, offset, size)


class ArchiveGet(Get):
    """The SCP of C-GET. Where there are too many retrievals already, one more is refused."""

    def __init__(self, retrieve: ArchiveRetrieve) -> None:
        super().__init__(retrieve.objects, relational=True)
        self._crowd = Crowd(_MOST_OF_ONE, _MOST_AT_ONCE)

    async def handle(self, request: IncomingRequest) -> None:
        await self._crowd.serve(request, super().handle)


class ArchiveMove(Move):
    """The SCP of C-MOVE. Where there are too many already, of all or to the same destination, one more is refused."""

    def __init__(self, retrieve: ArchiveRetrieve) -> None:
        super().__init__(retrieve.objects, retrieve.destination, relational=True)
        self._crowd = Crowd(_MOST_OF_ONE, _MOST_AT_ONCE, most_to_one=_MOST_TO_ONE)

    async def handle(self, request: IncomingRequest) -> None:
        await self._crowd.serve(request, super().handle)


def _statement(request: RetrieveRequest, dialect: Dialect) -> Statement:
    """Raises `QueryFailed`, `DataSetError`."""
    keys = parse_unique_keys(
        request.identifier, request.transfer_syntax_uid, request.model, relational=request.relational
    )
    return select_uids(keys, dialect, with_kinds=isinstance(request.message, CMoveRQ))


def _unsendable(path: Path, sop_instance_uid: str) -> DicomFile:
    """An object of which only the UID is known: no presentation context fits it."""
    return DicomFile(path, "", sop_instance_uid, "", 0, 0)


class _Uids:
    """Many UIDs in little memory, some bytes each: a retrieval may name a million objects, and take hours.

    The rows of the index are not held meanwhile: its log could not be shortened, and what is replaced is found under its UID only.
    """

    def __init__(self) -> None:
        self._batches: list[bytes] = []
        self._gathered: list[str] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, uids: Sequence[str]) -> None:
        self._count += len(uids)
        self._gathered += uids
        while len(self._gathered) >= _BATCH:
            self._batches.append(zlib.compress("\\".join(self._gathered[:_BATCH]).encode("utf-8"), 1))
            del self._gathered[:_BATCH]

    def __iter__(self) -> Iterator[Sequence[str]]:
        """Few at first."""
        sizes = chain((_FIRST_BATCH, _BATCH - _FIRST_BATCH), repeat(_BATCH))
        for packed in chain(self._batches, (None,)):
            batch = self._gathered if packed is None else zlib.decompress(packed).decode("utf-8").split("\\")
            while batch:
                size = next(sizes)
                yield batch[:size]
                batch = batch[size:]
