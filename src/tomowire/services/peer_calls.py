"""What the queries and retrievals of a `Peer` do, with associations from its pool."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final, cast

from tomowire.errors import AssociationError, OperationTimeout
from tomowire.services.feed import Feed
from tomowire.services.find import CFindScu
from tomowire.services.folder import Folder
from tomowire.services.gathering import gathered, is_all_there
from tomowire.services.models import querying
from tomowire.services.move import CMoveScu, moving
from tomowire.services.query import Query
from tomowire.services.requests import Requests
from tomowire.services.retrieval import get_parts, plan_retrieval
from tomowire.services.retrieving import names_entities
from tomowire.services.sending import send_feed, send_files

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from os import PathLike

    from pydicom import Dataset

    from tomowire.services.adapting import AdaptivePace
    from tomowire.services.models import Model
    from tomowire.services.pool import Pool
    from tomowire.services.retrieval import Retrieved
    from tomowire.services.retrieving import Progress
    from tomowire.services.sent import Sent
    from tomowire.services.storage_scp import StoreRequest

_AHEAD: Final = 16
"""Objects that an iterator is asked for before they are needed: they may be large, and in memory."""


async def send(
    pool: Pool,
    things: Sequence[Any],
    *,
    associations: int | AdaptivePace,
    learn: Callable[[int | AdaptivePace], None],
    timeout: float,
    **options: Any,
) -> AsyncGenerator[Sent, None]:
    """What became of each of `things`; `options` go to `send_files`. At the end `learn` is told how many `associations` paid."""
    options |= {"associations": associations, "timeout": timeout}
    gathering = gathered(things, timeout)
    try:
        if is_all_there(things):
            async with aclosing(gathering):
                found = [each async for some in gathering for each in some]
            async with aclosing(send_files(pool, found, **options)) as results:
                async for sent in results:
                    yield sent
            return
        async with (
            Feed(gathering, _AHEAD) as feed,
            aclosing(send_feed(pool, feed, ahead=_AHEAD, **options)) as results,
        ):
            async for sent in results:
                yield sent
        if feed.error is not None:
            raise feed.error
    finally:
        learn(associations)


async def find(
    pool: Pool,
    query: Query | Dataset,
    model: Model,
    *,
    options: dict[str, Any],
    special: dict[str, Any],
    **limits: Any,
) -> AsyncGenerator[Dataset, None]:
    """The answers to `query`; `limits` go to `CFindScu.find`, `options` and `special` to the `Pool`."""
    fresh = False
    while True:
        async with pool.lease([querying(model)], fresh=fresh, options=options, **special) as lease:
            answers = CFindScu(lease.association).find(query, model=model, **limits)
            # Left early, the query is cancelled; then there is nothing that would forbid using the association further.
            with suppress(GeneratorExit):
                try:
                    async with aclosing(answers):
                        async for answer in answers:
                            yield answer
                    return
                except AssociationError:
                    if not lease.was_stale:
                        raise
                    fresh = True  # nothing was answered: it is asked once more, on a new association
                    continue
            return


async def get(
    pool: Pool,
    query: Query | Dataset,
    into: Folder | str | PathLike[str] | Callable[[StoreRequest], Awaitable[int]],
    model: Model,
    *,
    confirm: bool,
    find_timeout: float | None,
    options: dict[str, Any],
    special: dict[str, Any],
    **limits: Any,
) -> AsyncGenerator[Retrieved | Progress, None]:
    """What `query` matches, `into` a place; `limits` go to `CGetScu.get`, `options` and `special` to the `Pool`."""
    parts, limits["failures"] = await plan_retrieval(
        pool, query, model, with_classes=True, confirm=confirm, timeout=find_timeout, options=options, special=special
    )
    own = None if isinstance(into, Folder) or callable(into) else await _folder_at(into)
    place = own or cast("Folder | Callable[[StoreRequest], Awaitable[int]]", into)
    try:
        news = get_parts(pool, parts, place, model, options=options | special, **limits)
        async with aclosing(news):
            async for each in news:
                yield each
    finally:
        if own is not None:
            own.close()


async def move(
    pool: Pool,
    query: Query | Dataset,
    destination: str,
    model: Model,
    *,
    confirm: bool,
    find_timeout: float | None,
    options: dict[str, Any],
    special: dict[str, Any],
    **limits: Any,
) -> AsyncGenerator[Progress, None]:
    """What `query` matches, to `destination`; `limits` go to `CMoveScu.move`, `options` and `special` to the `Pool`."""
    requests: Requests | None = None
    if isinstance(query, Query) and not await asyncio.to_thread(names_entities, query, model):
        parts, failures = await plan_retrieval(
            pool,
            query,
            model,
            with_classes=False,
            confirm=confirm,
            timeout=find_timeout,
            options=options,
            special=special,
        )
        requests = Requests(parts, failures)
        yield requests.progress
        if not parts:
            requests.finish()
            return
    try:
        async with pool.lease([moving(model)], options=options, **special) as lease:
            scu = CMoveScu(lease.association)

            def move(what: Query | Dataset) -> AsyncGenerator[Progress, None]:
                return scu.move(what, destination, model=model, **limits)

            progress = move(query) if requests is None else requests.run(move)
            with suppress(GeneratorExit):
                async with aclosing(progress):
                    async for each in progress:
                        yield each
    except (AssociationError, OperationTimeout) as error:
        if requests is None or not requests.failures:
            raise
        requests.lost(error, ())
    if requests is not None:
        requests.finish()


async def _folder_at(path: str | PathLike[str]) -> Folder:
    """A `Folder`, made in a thread; when this is cancelled meanwhile, nobody would close it but this."""
    making = asyncio.ensure_future(asyncio.to_thread(Folder, path))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_close_made)
        await asyncio.wait({making})
        raise


def _close_made(making: asyncio.Future[Folder]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()
