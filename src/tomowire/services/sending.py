"""Sending many files: contexts planned from the files themselves, several associations, the negotiated window, and read-ahead.

One bad file never stops the others. When an association ends in the middle, what was not answered is sent again on a new one, one
object at a time, so that only the object that made the peer go away is counted as failed. A peer that was there and is gone is
waited for, and so is one that is out of resources. Without retries none of this is done, and nothing is sent twice: see `retrying`.
"""

from __future__ import annotations

from contextlib import aclosing
from copy import copy
from typing import TYPE_CHECKING, Any

from tomowire.services.adapting import FixedPace
from tomowire.services.fitting import Way
from tomowire.services.lanes import Lanes
from tomowire.services.planning import log_agreement, plan
from tomowire.services.pool import pool_for
from tomowire.services.retrying import Retries, retry_waits
from tomowire.services.sent import Sent
from tomowire.services.storage import DEFAULT_STORE_TIMEOUT
from tomowire.services.supply import FeedSupply, Supply, why_unusable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from tomowire.aio.address import PeerAddress
    from tomowire.services.adapting import Pace
    from tomowire.services.feed import Feed
    from tomowire.services.pacing import Pacer
    from tomowire.services.planning import Kind
    from tomowire.services.pool import Pool
    from tomowire.services.sent import Sendable
    from tomowire.services.storage import MoveOriginator

__all__ = ["Sent", "log_agreement", "plan", "send_feed", "send_files"]


async def send_files(
    peer: PeerAddress | Pool,
    files: Sequence[Sendable],
    *,
    associations: int | Pace = 1,
    timeout: float = DEFAULT_STORE_TIMEOUT,
    progress: Callable[[int], None] | None = None,
    retry_waits: Sequence[float] = retry_waits(),
    originator: MoveOriginator | None = None,
    transcode: bool = False,
    stop: asyncio.Event | None = None,
    pacer: Pacer | None = None,
    **options: Any,
) -> AsyncGenerator[Sent, None]:
    """Send `files`; yield what became of each as soon as it is known, in no fixed order.

    `associations` is how many are used at once, or what finds that out (`AdaptivePace`); `timeout` the seconds without progress
    after which an object is given up; `progress` is called with a number of bytes when they have been sent; `options` go to
    `associate`. A `Pool` in place of an address lends the associations.

    `retry_waits` are the seconds, give or take a quarter, before each retry: of an object that was refused with A7xx (out of
    resources) or lost its connection, and of an association that is rejected for the moment or was there before and cannot be
    opened any more. If there are any, an object that was under way when its association was aborted or timed out is sent once more.

    `originator` is told to the peer, when a C-MOVE is the cause. With `transcode`, an object that the peer does not take as it is
    stored is sent in a transfer syntax that it does take, if that can be made from it without loss.

    `pacer` is waited for before bytes are sent: a cap on the bandwidth, which several may share.

    When `stop` is set no further object is begun; those that are being sent are finished, within some seconds. The objects
    that were not begun are not yielded then.

    Nothing is raised for a single file. When no association can be opened (any more), each file that is left is yielded with that
    error. Who leaves the iteration early and wants all to be over then, wraps this in `contextlib.aclosing`.
    """
    usable: dict[int, Sendable] = {}
    for file in files:
        problem = why_unusable(file)
        if problem is not None:
            yield Sent(file, None, problem)
        else:  # one that is given twice is sent twice: what becomes of each is told
            each = copy(file) if id(file) in usable else file
            usable[id(each)] = each
    pool = pool_for(peer)
    retries = Retries(retry_waits)
    way = Way(timeout, progress, originator, transcode, pacer)
    for contexts, group in plan(usable.values(), transcode=transcode):
        lanes = Lanes(pool, contexts, Supply(group), way, retries, options, pace_for(associations, len(group)))
        async with aclosing(lanes.run(stop)) as results:
            async for sent in results:
                yield sent


async def send_feed(
    peer: PeerAddress | Pool,
    feed: Feed[Any],
    *,
    kinds: Iterable[Kind] = (),
    associations: int | Pace = 1,
    turns: asyncio.Semaphore | None = None,
    timeout: float = DEFAULT_STORE_TIMEOUT,
    retry_waits: Sequence[float] = retry_waits(),
    originator: MoveOriginator | None = None,
    transcode: bool = False,
    stop: asyncio.Event | None = None,
    pacer: Pacer | None = None,
    ahead: int | None = None,
    **options: Any,
) -> AsyncGenerator[Sent, None]:
    """Send what `feed` gives while it gives it, over the same associations; otherwise as `send_files`.

    `kinds` are the pairs of SOP class and transfer syntax that are known to come: they are proposed from the start. For others, and
    for what has no room in one association, a further one is opened, when the first has no more to do or 10,000 files wait for it.

    `ahead` is how many are taken from it before they are needed, where many would fill the memory. `turns` is for several that send
    to one peer at once: each association takes one of them.
    """
    pool = pool_for(peer)
    retries = Retries(retry_waits)
    way = Way(timeout, None, originator, transcode, pacer)
    pace = pace_for(associations)
    early: list[Sent] = []
    supply = FeedSupply(feed, kinds, early.append, ahead=ahead)
    gone: Exception | None = None
    while supply.parked or await feed.more():
        if stop is not None and stop.is_set():
            return
        supply.refill()
        if gone is not None:
            early.extend(Sent(file, None, gone) for file in supply.rest())
        for sent in early:
            yield sent
        early.clear()
        if supply.parked:
            lanes = Lanes(pool, supply.choose(transcode=transcode), supply, way, retries, options, pace, turns)
            supply.tell = lanes.tell
            async with aclosing(lanes.run(stop)) as results:
                async for sent in results:
                    yield sent
            supply.tell = early.append
            gone = lanes.gone


def pace_for(associations: int | Pace, files: int | None = None) -> Pace:
    """So many associations, but no more than there are `files`; or what finds that out."""
    if not isinstance(associations, int):
        return associations
    return FixedPace(associations if files is None else min(associations, files))
