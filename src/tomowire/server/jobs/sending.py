"""Send-to: objects of the archive to a node. They go the way of a C-MOVE: located in the index, streamed, transcoded if needed."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from tomowire.server.jobs.blame import is_of_association, may_pass, unknown_node, without_association
from tomowire.server.jobs.claim import Settled
from tomowire.server.jobs.model import ItemState
from tomowire.server.jobs.work import Stopped
from tomowire.services.feed import Feed
from tomowire.services.retrying import is_out_of_resources, retry_waits
from tomowire.services.sending import send_feed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from tomowire.server.jobs.parts import Parts
    from tomowire.server.jobs.work import Work
    from tomowire.server.nodes import Node
    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.sent import Sent

logger: Final = logging.getLogger(__name__)

_AHEAD: Final = 1000
"""Objects that are located before they are needed."""
_WAITS: Final = retry_waits(1)
"""Within an attempt an object is sent once more after a second; after that the job as a whole waits."""
_GONE: Final = "the archive does not have it any more, or its file is damaged: 'tomowire db check' tells"


class Sending:
    """`await Sending(parts).run(work)`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self, work: Work) -> None:
        node = self._parts.node(work.job.node)
        if node is None:
            raise unknown_node(work.job.node)
        await _OneJob(self._parts, work, node).run()


class _OneJob:
    def __init__(self, parts: Parts, work: Work, node: Node) -> None:
        self._parts = parts
        self._work = work
        self._node = node
        self._retrieve = parts.retrieve()
        self._account = parts.account_of(work.job, node)
        self._positions: dict[str, int] = {}  # of the objects that are on their way
        self._stop = asyncio.Event()
        self._last_error: Exception | None = None
        self._broken: Exception | None = None

    async def run(self) -> None:
        stopping = asyncio.create_task(self._stop_with_job())
        try:
            async with Feed(self._files(), _AHEAD) as feed:
                await self._send(feed)
        finally:
            self._account.end(f"see job {self._work.job.job_id}" if self._broken is None else str(self._broken))
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
        if self._work.stop.is_set():
            raise Stopped
        if self._broken is not None:
            raise without_association(self._node, self._broken)
        if feed.error is not None:
            raise feed.error

    async def _send(self, feed: Feed[DicomFile]) -> None:
        destination = self._retrieve.destination_of(self._node)
        sending = send_feed(
            destination.address,
            feed,
            kinds=[(each[0], each[1]) for each in self._work.job.parameters.get("kinds", ())],
            associations=max(min(destination.associations, self._work.job.progress.remaining), 1),
            turns=destination.turns,
            transcode=True,
            retry_waits=_WAITS,
            stop=self._stop,
            aet=destination.aet,
            **(destination.options or {}),
        )
        async with aclosing(sending) as results:
            async for sent in results:
                await self._settle(sent)

    async def _settle(self, sent: Sent) -> None:
        """Write down what has become of an object. What no association could be opened for has not been tried."""
        position = self._positions.pop(sent.sop_instance_uid)
        error, last = sent.error, self._last_error
        if error is not None:
            self._last_error = error
            # What ends the attempt for all that is left is one and the same error for all of it.
            if is_of_association(error) or (error is last and may_pass(error)):
                self._broken = error
                self._stop.set()
                return
        self._account.settle(sent.sop_instance_uid, not sent.is_failure)
        await self._work.settling.add(_settled(position, sent))

    async def _stop_with_job(self) -> None:
        await self._work.stop.wait()
        self._stop.set()

    async def _files(self) -> AsyncGenerator[Sequence[DicomFile], None]:
        """What is not acknowledged yet, page by page. What the archive cannot send any more has failed."""
        async with aclosing(self._work.pages()) as pages:
            async for page in pages:
                yield await self._located({item.uid: item.position for item in page})

    async def _located(self, positions: dict[str, int]) -> Sequence[DicomFile]:
        found: list[DicomFile] = []
        for file in await self._retrieve.locate(list(positions)):
            uid = file.sop_instance_uid
            if file.sop_class_uid:
                self._positions[uid] = positions[uid]
                self._account.expect(uid, file.path.parts[-3], file.sop_class_uid)
                found.append(file)
            else:
                await self._work.settling.add(Settled(positions[uid], ItemState.FAILED, comment=_GONE))
        return found


def _settled(position: int, sent: Sent) -> Settled:
    response = sent.response
    if response is None:
        error = sent.error or Exception("not sent")
        state = ItemState.WAITING if may_pass(error) else ItemState.FAILED
        return Settled(position, state, comment=str(error))
    status, comment = response.status, response.error_comment or ""
    if is_out_of_resources(response):
        return Settled(position, ItemState.WAITING, status, comment)
    if response.is_failure:
        return Settled(position, ItemState.FAILED, status, comment)
    state = ItemState.WARNING if status.is_warning else ItemState.DONE
    return Settled(position, state, status, comment, sent.file.size or 0)
