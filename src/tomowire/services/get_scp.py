"""The SCP of C-GET (PS3.4 C.4.3): the objects go back on the association that asked for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tomowire.errors import AssociationError, OperationTimeout, TomowireError
from tomowire.services.adapting import UNLIMITED_WINDOW
from tomowire.services.crowd import Crowd
from tomowire.services.feed import Feed, stopped_by_cancel
from tomowire.services.fitting import fitted
from tomowire.services.models import Model, checked_models
from tomowire.services.read_ahead import ReadAhead
from tomowire.services.retrieval_scp import RetrievalScp
from tomowire.services.storage import DEFAULT_STORE_TIMEOUT, CStoreScu
from tomowire.services.storage_scp import may_be_storage
from tomowire.services.suboperations import (
    Objects,
    Retrieval,
    RetrieveRequest,
    SubOperations,
    answer_retrieval,
    selected,
)
from tomowire.wire.messages import CGetRQ

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tomowire.aio.serving import IncomingRequest
    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.read_ahead import Read

__all__ = ["Get", "Retrieval", "RetrieveRequest"]

_AHEAD: Final = 1000
"""Objects that are asked for before they are needed."""
_MOST_OF_ONE: Final = 16
"""Retrievals that are served at the same time on one association.

Where many more requests are being served than this, an association is not read until half of them are done; and these wait for what
stands there to be read, the responses to their sub-operations.
"""


class Get(RetrievalScp):
    """The SCP of C-GET: `objects` is called for every request, and says how many objects it selects and where they lie.

    It raises `RetrieveFailed` or `QueryFailed` to end with that status; the comment goes to the log as well as to the peer, and
    names no patient. `DataSetError`, which `decode` raises, ends with C000H, any other exception with 0110H. When the peer cancels,
    it is cancelled where it waits, and so is the iterator that it returned.

    The requestor has to take the SCP role for what it wants to receive (PS3.7 D.3.3.4); an object for which it did not, or which it
    takes in no transfer syntax that can be made from the stored one, is a failed sub-operation. `timeout` is the time in seconds
    in which something of a sub-operation must move. Of one association 16 requests are served at once; one more is refused (A702H).

    It serves the `models`; with `relational`, relational retrieval is agreed to when a requestor asks for it (PS3.4 C.5.3.1).
    """

    def __init__(
        self,
        objects: Objects,
        *,
        models: Iterable[Model] = tuple(Model),
        timeout: float = DEFAULT_STORE_TIMEOUT,
        relational: bool = False,
    ) -> None:
        super().__init__(
            CGetRQ, (model.get for model in checked_models(models)), objects, timeout, relational=relational
        )
        self._served = Crowd(_MOST_OF_ONE)

    def may_be_scp(self, abstract_syntax: str) -> bool:
        """Of all that may be storage: this side sends it."""
        return may_be_storage(abstract_syntax)

    async def _answer(self, request: IncomingRequest) -> None:
        await self._served.serve(request, self._get)

    async def _get(self, request: IncomingRequest) -> None:
        async def work(asked: RetrieveRequest, operations: SubOperations) -> None:
            retrieval = await selected(request, self._objects(asked))
            if retrieval is not None:
                operations.begin(retrieval)
                async with Feed(retrieval.files, _AHEAD) as feed, stopped_by_cancel(request, feed):
                    await _Sending(request, operations, feed, self._timeout).run()

        await answer_retrieval(request, work)


class _Sending:
    """The sub-operations of one C-GET: as many outstanding as the window allows."""

    def __init__(
        self, request: IncomingRequest, operations: SubOperations, feed: Feed[DicomFile], timeout: float
    ) -> None:
        self._request = request
        self._association = request.association
        self._operations = operations
        self._feed = feed
        self._timeout = timeout
        self._ahead = ReadAhead(feed.files)
        self._turn = asyncio.Lock()  # one at a time looks for more
        self._lost: Exception | None = None

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._association.window or UNLIMITED_WINDOW):
                    group.create_task(self._work())
        finally:
            await self._ahead.close()
        if self._request.cancelled:
            return
        self._operations.rest_not_done(self._lost or self._feed.error)

    @property
    def _goes_on(self) -> bool:
        return self._lost is None and not self._request.cancelled

    async def _work(self) -> None:
        scu = CStoreScu(self._association)
        while self._goes_on and (read := await self._next()) is not None:
            if self._goes_on:
                await self._send(scu, read)
                if self._association.is_established:  # otherwise something of it may still be on its way out
                    self._ahead.done(read)

    async def _next(self) -> Read[DicomFile] | None:
        async with self._turn:
            while True:
                self._feed.refill()
                read = await self._ahead.next()
                if read is not None or not await self._feed.more():
                    return read

    async def _send(self, scu: CStoreScu, read: Read[DicomFile]) -> None:
        file, content = read
        try:
            if isinstance(content, OSError):
                raise content
            async with fitted(self._association, file, content) as (sent, data):
                response = await scu.send(sent, content=data, timeout=self._timeout, retries=0)
        except (AssociationError, OperationTimeout) as error:
            self._lost = self._lost or error
            self._operations.not_done(file.sop_instance_uid, error)
        except (OSError, TomowireError) as error:
            self._operations.not_done(file.sop_instance_uid, error)
        else:
            self._operations.answered(response)
