"""The SCP of C-MOVE (PS3.4 C.4.2): the objects go to a third party, on associations of their own."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, cast

from tomowire.aio.connect import DEFAULT_AE_TITLE
from tomowire.errors import RetrieveFailed
from tomowire.protocol.status import MOVE_DESTINATION_UNKNOWN
from tomowire.services.calling import checked_handler
from tomowire.services.feed import Feed, stopped_by_cancel
from tomowire.services.models import Model, checked_models
from tomowire.services.retrieval_scp import RetrievalScp
from tomowire.services.sending import send_feed
from tomowire.services.storage import DEFAULT_STORE_TIMEOUT, MoveOriginator
from tomowire.services.suboperations import (
    Objects,
    Retrieval,
    RetrieveRequest,
    SubOperations,
    answer_retrieval,
    selected,
    unless_cancelled,
)
from tomowire.wire.messages import CMoveRQ
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from tomowire.aio.address import PeerAddress
    from tomowire.aio.serving import IncomingRequest
    from tomowire.services.dicom_file import DicomFile

__all__ = ["Destination", "Move", "Retrieval", "RetrieveRequest"]

_AHEAD: Final = 1000
"""Objects that are asked for before they are needed."""


@value()
class Destination:
    """Where the objects of a C-MOVE go."""

    address: PeerAddress
    associations: int = 1
    """How many are used at once."""
    aet: str | None = None
    """The AE title that calls; that which the C-MOVE called, if None."""
    options: Mapping[str, Any] | None = None
    """What `send_files` and `associate` take besides."""
    turns: asyncio.Semaphore | None = None
    """Shared by all moves to this destination, each of their associations takes one: so many are open at once, the others wait."""


class Move(RetrievalScp):
    """The SCP of C-MOVE: `objects` says which objects a request selects, `destination` what the AE title stands for.

    `objects` is as for `Get`. `destination` is asked first; None means that nobody of that title is known (A801H).

    The sub-operations name who asked for them (PS3.7 9.1.1.1). They share the associations to the destination, which are opened
    when the first object is there and closed after the last. An object that the destination does not take as it is stored is sent
    in an uncompressed transfer syntax, if that can be made. When no association can be opened (any more), those that are left
    have failed. `timeout` is the time in seconds in which something of a sub-operation must move.

    It serves the `models`; with `relational`, relational retrieval is agreed to when a requestor asks for it (PS3.4 C.5.2.1).
    """

    def __init__(
        self,
        objects: Objects,
        destination: Callable[[RetrieveRequest, str], Awaitable[Destination | None]],
        *,
        models: Iterable[Model] = tuple(Model),
        timeout: float = DEFAULT_STORE_TIMEOUT,
        relational: bool = False,
    ) -> None:
        super().__init__(
            CMoveRQ, (model.move for model in checked_models(models)), objects, timeout, relational=relational
        )
        self._destination = checked_handler(destination, "a handler of destinations")

    async def _answer(self, request: IncomingRequest) -> None:
        message = cast("CMoveRQ", request.message)

        async def work(asked: RetrieveRequest, operations: SubOperations) -> None:
            title = message.move_destination
            destination: Destination | None = await unless_cancelled(request, self._destination(asked, title))
            if request.cancelled:
                return
            if destination is None:
                raise RetrieveFailed(MOVE_DESTINATION_UNKNOWN, f"the move destination {title} is not known here")
            retrieval = await selected(request, self._objects(asked))
            if retrieval is not None:
                operations.begin(retrieval)
                await _Moving(request, message, operations, destination, self._timeout).run(retrieval)

        await answer_retrieval(request, work)


class _Moving:
    """The sub-operations of one C-MOVE."""

    def __init__(
        self,
        request: IncomingRequest,
        message: CMoveRQ,
        operations: SubOperations,
        destination: Destination,
        timeout: float,
    ) -> None:
        self._request = request
        self._operations = operations
        self._destination = destination
        self._originator = MoveOriginator(request.association.calling_ae_title, message.message_id)
        own_title = destination.aet or request.association.called_ae_title or DEFAULT_AE_TITLE
        self._options = {"timeout": timeout, "aet": own_title, **(destination.options or {})}
        self._stop = asyncio.Event()

    async def run(self, retrieval: Retrieval) -> None:
        async with Feed(retrieval.files, _AHEAD) as feed, stopped_by_cancel(self._request, feed, self._stop):
            await self._send(retrieval, feed)
        if not self._request.cancelled:
            self._operations.rest_not_done(feed.error)

    async def _send(self, retrieval: Retrieval, feed: Feed[DicomFile]) -> None:
        operations, destination = self._operations, self._destination
        sending = send_feed(
            destination.address,
            feed,
            kinds=retrieval.kinds,
            associations=max(min(destination.associations, retrieval.total), 1),
            turns=destination.turns,
            originator=self._originator,
            transcode=True,
            stop=self._stop,
            **self._options,
        )
        async with aclosing(sending) as results:
            async for sent in results:
                if sent.response is not None:
                    operations.answered(sent.response)
                else:
                    operations.not_done(sent.file.sop_instance_uid, sent.error or "not sent")
