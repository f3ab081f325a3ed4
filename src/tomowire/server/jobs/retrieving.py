"""Remote retrieve: what a node has into this archive, by the one way in: with C-GET, or with a C-MOVE to ourselves.

What an attempt that was cut off has brought is there; it comes again with the next, and the archive knows it for the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from tomowire.errors import AssociationError, OperationTimeout, QueryFailed, RetrieveFailed, TomowireError, UsageError
from tomowire.server.counting import counted
from tomowire.server.jobs.blame import unknown_node, without_association
from tomowire.server.jobs.claim import Settled
from tomowire.server.jobs.model import ItemState
from tomowire.services.identifiers import encode
from tomowire.services.models import Level
from tomowire.services.peer import Peer
from tomowire.services.query import Query
from tomowire.services.retrieval import Retrieved
from tomowire.uids import IMPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from tomowire.server.jobs.model import JobItem
    from tomowire.server.jobs.parts import Parts
    from tomowire.server.jobs.work import Work
    from tomowire.server.nodes import Node


class Retrieving:
    """`await Retrieving(parts).run(work)`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self, work: Work) -> None:
        node = self._parts.node(work.job.node)
        if node is None:
            raise unknown_node(work.job.node)
        async with peer_at(node, self._parts) as peer, aclosing(work.items()) as items:
            async for item in items:
                await work.settling.add(await work.unless_stopped(self._settled(work, node, peer, item)))

    async def _settled(self, work: Work, node: Node, peer: Peer, item: JobItem) -> Settled:
        """Retrieve one entity, and say what has become of it. Raises `TryAgain` or `JobFailed` when there is no association."""
        try:
            return await self._retrieve(work, node, peer, item)
        except (QueryFailed, RetrieveFailed) as error:
            return Settled(item.position, _state_after(error.status), error.status, str(error))
        except (AssociationError, OperationTimeout) as error:
            raise without_association(node, error) from error
        except TomowireError as error:  # such as no context for a retrieval, or answers that do not fit what was asked
            return Settled(item.position, ItemState.FAILED, comment=str(error))
        except ExceptionGroup as failures:
            lost = failures.subgroup((AssociationError, OperationTimeout))
            state = ItemState.FAILED if lost is None else ItemState.WAITING
            return Settled(item.position, state, comment=_said(failures))

    async def _retrieve(self, work: Work, node: Node, peer: Peer, item: JobItem) -> Settled:
        query = await asyncio.to_thread(_query, work, item.uid)
        count, refused, is_uncounted = 0, None, False
        if work.job.parameters["method"] == "move":
            async with (
                asking(self._parts, work, node, query.model.move, query),
                aclosing(peer.move(query, self._parts.ae_title)) as progress,
            ):
                async for each in progress:
                    count, is_uncounted = each.completed + each.warning + each.failed, each.remaining is None
        else:
            async with (
                asking(self._parts, work, node, query.model.get, query),
                aclosing(peer.get(query, self._parts.keep)) as news,
            ):
                async for one in news:
                    if isinstance(one, Retrieved):
                        count += 1
                        work.settling.received(0 if one.is_failure else one.size)
                        refused = one if one.is_failure else refused
        if refused is not None:
            comment = f"{refused.sop_instance_uid} could not be kept here: {refused.error_comment or refused.status}"
            return Settled(item.position, _state_after(refused.status), refused.status, comment)
        if is_uncounted and not count:
            return Settled(
                item.position, ItemState.DONE, 0, "the node says that it is done, and not how many objects it has sent"
            )
        if not count:
            return Settled(item.position, ItemState.FAILED, comment="the node has nothing of it")
        return Settled(item.position, ItemState.DONE, 0, counted(count, "object"))


def _state_after(status: int) -> ItemState:
    """Of what failed with this status: A7xx, out of resources, may pass."""
    return ItemState.WAITING if 0xA700 <= status <= 0xA7FF else ItemState.FAILED


def peer_at(node: Node, parts: Parts) -> Peer:
    """A node as a `Peer` of this archive."""
    from tomowire.aio.tls import TlsClient

    tls = node.way(parts.tls() or TlsClient())
    options: dict[str, Any] = {"ssl": tls} if tls is not None else {}
    return Peer(node.address, aet=parts.ae_title, **options)


@asynccontextmanager
async def asking(parts: Parts, work: Work, node: Node, sop_class_uid: str, query: Query) -> AsyncIterator[None]:
    """While a node is asked: that, who wanted it and how it went is in the audit trail. Raises `UsageError`, `DataSetError`."""
    identifier = await asyncio.to_thread(lambda: encode(query.dataset(), IMPLICIT_VR_LITTLE_ENDIAN))
    with parts.asking(work.job, node, sop_class_uid, identifier):
        yield


def _query(work: Work, uid: str) -> Query:
    parameters = work.job.parameters
    study, series = parameters.get("study_uid"), parameters.get("series_uid")
    match Level(parameters["level"]):
        case Level.PATIENT:
            return Query.patients().patient_id(uid)
        case Level.STUDY:
            return Query.study(uid)
        case Level.SERIES:
            return Query.series(study).series_uid(uid)
        case Level.IMAGE:
            return Query.images(study, series).sop_instance_uid(uid)
    raise UsageError(f"there is no level {parameters['level']}")


def _said(failures: BaseExceptionGroup[BaseException]) -> str:
    """The first of them, and how many there are."""
    first, count = failures.exceptions[0], len(failures.exceptions)
    return str(first) if count == 1 else f"{count} failures: {first}"
