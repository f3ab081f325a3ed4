"""Retrieving all that a query matches, with as many requests and associations as that takes."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from tomowire.aio.listen import DEFAULT_WINDOW
from tomowire.errors import (
    AssociationError,
    AssociationRejected,
    ConnectFailed,
    NoAcceptedContext,
    OperationTimeout,
    PeerMisbehaved,
)
from tomowire.protocol.status import SUCCESS, Status
from tomowire.services.find import DEFAULT_FIND_TIMEOUT, CFindScu
from tomowire.services.folder import Folder
from tomowire.services.get import CGetScu, Receiver
from tomowire.services.handler import status_and_comment, status_of_failure
from tomowire.services.models import Model, querying
from tomowire.services.news import News
from tomowire.services.planning import log_agreement
from tomowire.services.pool import pool_for
from tomowire.services.requests import Requests
from tomowire.services.retrieve_contexts import contexts_for
from tomowire.services.retrieve_plan import Planner, grouped
from tomowire.services.retrieving import Progress
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from pydicom import Dataset

    from tomowire.aio.address import PeerAddress
    from tomowire.aio.association import Association
    from tomowire.services.handler import Outcome
    from tomowire.services.pool import Pool
    from tomowire.services.query import Query
    from tomowire.services.retrieve_plan import Part
    from tomowire.services.storage_scp import StoreRequest

logger = logging.getLogger("tomowire.retrieving")


@value()
class Retrieved:
    """What became here of one object that a C-GET brought."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size: int
    """Bytes of its data set."""
    status: Status
    """What the peer is answered."""
    path: str | None = None
    """Of the file, when it was kept in a folder."""
    error_comment: str | None = None

    @property
    def is_failure(self) -> bool:
        return self.status.is_failure


async def plan_retrieval(
    pool: Pool,
    query: Query | Dataset,
    model: Model,
    *,
    with_classes: bool,
    confirm: bool,
    options: dict[str, Any],
    special: dict[str, Any],
    timeout: float | None = DEFAULT_FIND_TIMEOUT,
) -> tuple[list[Part], list[Exception]]:
    """Ask the peer what `query` matches, `with_classes` down to the SOP classes; and `Planner.failures`.

    `timeout` is that of each query; `options` and `special` are as for `Pool.lease`. Raises as `CFindScu.find` does.
    """
    contexts = [querying(each) for each in dict.fromkeys((model, Model.STUDY_ROOT))]

    async def ask(association: Association) -> tuple[list[Part], list[Exception]]:
        planner = Planner(CFindScu(association), model, confirm=confirm, timeout=timeout)
        parts = await (planner.parts(query) if with_classes else planner.entities(query))
        return parts, planner.failures

    return await pool.use(contexts, ask, options=options, **special)


class Objects:
    """Keeps the objects that come, in a folder or by a handler, and tells what became of each, when there is room for news."""

    def __init__(
        self, into: Folder | Callable[[StoreRequest], Awaitable[Outcome]], news: News[Retrieved, Progress]
    ) -> None:
        self._into = into
        self._news = news
        self.kept = 0
        """How many the peer is told to be here."""

    async def keep(self, request: StoreRequest) -> Outcome:
        await self._news.room()
        tell = partial(self._told, request)
        try:
            status, comment, path = await self._kept(request)
            await request.data.pass_over()
        except Exception as error:
            if (
                not isinstance(error, AssociationError) or request.association.can_answer
            ):  # otherwise nobody is answered
                answered, said, _ = status_of_failure(error, self._into)
                tell(answered, comment=said)
            raise
        tell(status, path=path, comment=comment)
        return status, comment

    async def _kept(self, request: StoreRequest) -> tuple[int, str | None, str | None]:
        """Status, error comment, and the path of the file."""
        if isinstance(self._into, Folder):
            return SUCCESS, None, (await self._into.store(request)).path
        return *status_and_comment(await self._into(request), self._into), None

    def _told(self, request: StoreRequest, status: int, *, path: str | None = None, comment: str | None = None) -> None:
        self.kept += not Status(status).is_failure
        self._news.of_object(
            Retrieved(
                request.sop_class_uid,
                request.sop_instance_uid,
                request.transfer_syntax_uid,
                request.data.received,
                Status(status),
                path,
                comment,
            )
        )


async def get_parts(
    peer: PeerAddress | Pool,
    parts: list[Part],
    into: Folder | Callable[[StoreRequest], Awaitable[Outcome]],
    model: Model,
    *,
    options: dict[str, Any],
    failures: Iterable[Exception] = (),
    **limits: Any,
) -> AsyncGenerator[Retrieved | Progress, None]:
    """Get what the parts name, over one association after the other; yield what became of each object, and how far it is.

    `failures` are those of the planning; one more is that the peer counts more objects than it has sent. When a thousand objects
    have not been taken, the peer has to wait. A `Pool` in place of an address lends the associations. `limits` go to
    `CGetScu.get`, `options` to `associate`. Who leaves early and wants all to be over then uses `aclosing`.
    """
    news = News[Retrieved, Progress]()
    objects = Objects(into, news)
    requests = Requests(parts, failures)
    work = _Work(pool_for(peer), model, requests, objects, options, limits)
    news.of_progress(requests.progress)
    task = asyncio.create_task(work.run(parts, news.of_progress))
    task.add_done_callback(lambda _: news.end())
    try:
        while (each := await news.next()) is not None:
            yield each
    except GeneratorExit:
        work.is_left = True
        raise
    finally:
        news.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    task.result()
    never_came = requests.progress.completed + requests.progress.warning - objects.kept
    if never_came > 0:  # and nobody would have noticed
        requests.lost(PeerMisbehaved(f"the peer says that it has sent {never_came} more objects than have come"), ())
    requests.finish()


class _Work:
    """The requests of one `get_parts`, in their associations."""

    def __init__(
        self,
        pool: Pool,
        model: Model,
        requests: Requests,
        objects: Objects,
        options: dict[str, Any],
        limits: dict[str, Any],
    ) -> None:
        self._pool = pool
        self._model = model
        self._requests = requests
        self._objects = objects
        self._options = {"performed": DEFAULT_WINDOW} | pool.options | options
        self._limits = limits
        self.is_left = False
        """Whether nobody wants any more. Then what has been called off is released in an orderly way."""

    async def run(self, parts: list[Part], tell: Callable[[Progress], None]) -> None:
        groups = grouped(parts)
        for classes, group in groups:
            try:
                await self._use_association(classes, group, tell)
            except (AssociationError, NoAcceptedContext, OperationTimeout) as error:
                if len(groups) == 1 and not self._requests.failures:
                    raise
                self._requests.lost(error, group)
                if isinstance(error, ConnectFailed | AssociationRejected):
                    return  # the others would fare no better
            if self.is_left:
                return

    async def _use_association(
        self, classes: frozenset[str], group: list[Part], tell: Callable[[Progress], None]
    ) -> None:
        contexts = contexts_for(classes, self._model)
        receiver = Receiver(self._objects.keep, sop_classes={each.abstract_syntax for each in contexts if each.scp})
        async with self._pool.lease(contexts, options=self._options, services=[receiver]) as lease:
            association = lease.association
            log_agreement(logger, association)
            _check_roles(association)
            await self._get(association, receiver, group, tell)

    async def _get(
        self, association: Association, receiver: Receiver, group: list[Part], tell: Callable[[Progress], None]
    ) -> None:
        scu = CGetScu(association, receiver)
        get = partial(scu.get, model=self._model, **self._limits)
        try:
            async with aclosing(self._requests.run(get, group)) as progress:
                async for each in progress:
                    tell(each)
        except asyncio.CancelledError:
            if not self.is_left or not association.is_established:
                raise


def _check_roles(association: Association) -> None:
    """Without the SCP role (PS3.7 D.3.3.4) for a single SOP class every object would fail: say so at once, and why."""
    if not any(context.requestor_is_scp for context in association.agreement.contexts.values()):
        raise NoAcceptedContext(
            f"{association.called_ae_title} accepted no presentation context in which it could send objects to this side (as SCU,"
            " with this side as SCP): it cannot do C-GET with these; C-MOVE may work"
        )
