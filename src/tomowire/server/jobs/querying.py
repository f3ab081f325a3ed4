"""Remote query: a node is asked with C-FIND, and what it answers is kept with the job, in the DICOM JSON model (PS3.18 F)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from tomowire.errors import AssociationError, NoAcceptedContext, OperationTimeout, QueryFailed, UsageError
from tomowire.server.counting import counted
from tomowire.server.jobs.blame import unknown_node, without_association
from tomowire.server.jobs.claim import Settled
from tomowire.server.jobs.model import ItemState
from tomowire.server.jobs.retrieving import asking, peer_at
from tomowire.server.jobs.work import JobFailed
from tomowire.services.models import Level
from tomowire.services.query import Query

if TYPE_CHECKING:
    from pydicom import Dataset

    from tomowire.server.jobs.parts import Parts
    from tomowire.server.jobs.work import Work
    from tomowire.services.peer import Peer


class Querying:
    """`await Querying(parts).run(work)`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self, work: Work) -> None:
        node = self._parts.node(work.job.node)
        if node is None:
            raise unknown_node(work.job.node)
        parameters = work.job.parameters
        try:
            query = await asyncio.to_thread(query_of, Level(parameters["level"]), parameters["keys"])
            async with asking(self._parts, work, node, query.model.find, query), peer_at(node, self._parts) as peer:
                answers, is_all = await work.unless_stopped(_answers(peer, query, parameters["most"]))
        except (UsageError, QueryFailed, NoAcceptedContext) as error:
            raise JobFailed(f"{node.address}: {error}") from error
        except (AssociationError, OperationTimeout) as error:
            raise without_association(node, error) from error
        work.result = await asyncio.to_thread(lambda: [answer.to_json_dict() for answer in answers])
        comment = counted(len(answers), "answer") if is_all else f"the first {len(answers)} answers: there are more"
        await work.settling.add(Settled(0, ItemState.DONE, 0, comment))


def query_of(level: Level, keys: Mapping[str, Any]) -> Query:
    """In a thread: imports pydicom. Raises `UsageError` for keywords that are none, and values that these do not allow."""
    query = Query(level)
    for keyword, wanted in keys.items():
        query = query.where(keyword, wanted)
    return query


async def _answers(peer: Peer, query: Query, most: int) -> tuple[list[Dataset], bool]:
    """Up to `most` of them, and whether those are all."""
    found: list[Dataset] = []
    async with aclosing(peer.find(query)) as answers:
        async for answer in answers:
            if len(found) == most:
                return found, False
            found.append(answer)
    return found, True
