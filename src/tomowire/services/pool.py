"""Associations with one peer that are kept between calls: taken by who needs one, given back, and released when nobody does.

An association is used by one call at a time. Sharing one within its window would make what is independent depend on each other:
a call that times out has to abort the association, and with it all that the others have asked on it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tomowire.aio.connect import associate
from tomowire.errors import (
    AssociationError,
    AssociationRejected,
    ConnectFailed,
    OperationTimeout,
)
from tomowire.services.lease import Asked, Kept, Lease, asked_by, is_harmless
from tomowire.services.retrying import is_transient, jittered, retry_waits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from tomowire.aio.address import PeerAddress
    from tomowire.aio.association import Association
    from tomowire.protocol.negotiation import ProposedContext

T = TypeVar("T")

logger = logging.getLogger("tomowire.pool")

DEFAULT_KEPT: Final = 4
"""Associations that are kept between calls."""
DEFAULT_IDLE: Final = 20.0
"""Seconds that an unused one is kept: common peers end an association on which nothing comes after 30 s or 60 s."""

_PATIENCE: Final = 1.0
_TRIES_IN_PLACE_OF_ANOTHER: Final = 3
_RELEASE_GRACE: Final = 5.0
"""Seconds that the release of an unused association may take; then it is aborted."""

_ONE_CONNECTION: Final = ("sock", "stream")
"""Options of `associate` that are an open connection."""


class _Patience:
    """`with _Patience(pool)`: the peer has a second to answer; from then on until it has, nothing is kept."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._is_over = False

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._end)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._is_over:
            self._pool.on_kept_waiting(-1)

    def _end(self) -> None:
        self._is_over = True
        self._pool.on_kept_waiting(1)


class Pool:
    """The associations with the peer at `address`; `options` go to `associate`.

    Until `open`, and after `close`, each `lease` opens an association of its own. In between up to `most` are kept for up to
    `idle` seconds after their last use. An association that has ended meanwhile is not used.

    With an open connection among the `options` there is one association.

    A peer may take fewer associations than are wanted. When it rejects another one for the moment, those that are unused are
    released, and it is asked again. When it does not answer within a second, they are released too: it may serve one
    association at a time, and keep the others waiting until that is over.
    """

    def __init__(
        self, address: PeerAddress, options: dict[str, Any], *, most: int = DEFAULT_KEPT, idle: float = DEFAULT_IDLE
    ) -> None:
        self.address = address
        self.options = {name: option for name, option in options.items() if name not in _ONE_CONNECTION}
        self._given = {name: options[name] for name in _ONE_CONNECTION if options.get(name) is not None} or None
        self._most = most
        self._idle = idle
        self._is_open = False
        self._unused: list[Kept] = []  # that which waits longest first
        self._ending: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._kept_waiting = 0  # associations that the peer has not answered for a while
        self._takes_one_at_a_time = False

    def open(self) -> None:
        """From now on associations are kept."""
        self._is_open = True

    async def close(self) -> None:
        """Release all that are unused, within seconds. Those that are in use are released after it."""
        self._is_open = False
        self._end_unused()
        try:
            while self._ending:
                await asyncio.wait(self._ending)
        except asyncio.CancelledError:
            for task in self._ending:
                task.cancel()
            await asyncio.gather(*self._ending, return_exceptions=True)
            raise

    async def release_unused(self) -> None:
        """Release those that no call has, and wait until that is done."""
        self._end_unused()
        if self._ending:
            await asyncio.wait(self._ending)

    @asynccontextmanager
    async def lease(
        self,
        contexts: Iterable[ProposedContext],
        *,
        fresh: bool = False,
        options: dict[str, Any] | None = None,
        **special: Any,
    ) -> AsyncIterator[Lease]:
        """An association on which `contexts` have been proposed, for the time of an `async with`: a kept one unless `fresh`.

        `options` are for this call, `special` for this association: they go to `associate`, and only one that was opened with the
        same `special` is used again. One that has `services` is not kept: they belong to this call.

        Left by an exception it is aborted; but not when that only says that the peer has refused something. Raises as `associate`.
        """
        contexts = list(contexts)
        asked = asked_by(contexts)
        reused = None if fresh or "services" in special else self._take(asked, special)
        kept = reused or await self._opened(contexts, asked, special, options or {})
        lease = Lease(kept.association, is_reused=reused is not None)
        try:
            yield lease
        except BaseException as error:
            if is_harmless(error):
                await self._give_back_quietly(kept)
            else:
                await kept.abort(error)
            raise
        await self._give_back(kept, may_stay=lease.is_worth_keeping)

    async def use(
        self,
        contexts: Iterable[ProposedContext],
        work: Callable[[Association], Awaitable[T]],
        *,
        options: dict[str, Any] | None = None,
        **special: Any,
    ) -> T:
        """Do `work` that may be done twice: once more, on a new association, if a kept one ended before anything was answered."""
        contexts = list(contexts)
        async with self.lease(contexts, options=options, **special) as lease:
            try:
                return await work(lease.association)
            except AssociationError:
                if not lease.was_stale:
                    raise
        async with self.lease(contexts, fresh=True, options=options, **special) as lease:
            return await work(lease.association)

    # Kept ones

    def _take(self, asked: Asked, special: dict[str, Any]) -> Kept | None:
        """The one that was used last of those that fit: the others may grow old and be released."""
        self._end_unused(lambda kept: not kept.association.is_established)
        for kept in reversed(self._unused):
            if asked <= kept.asked and special == kept.special:
                self._unused.remove(kept)
                self._set_timer()
                return kept
        return None

    async def _give_back(self, kept: Kept, *, may_stay: bool = True) -> None:
        may_stay = may_stay and self._is_open and not self._kept_waiting and "services" not in kept.special
        if not (may_stay and kept.association.is_established and self._most > 0):
            await kept.release()
            return
        if len(self._unused) >= self._most:
            self._end(self._unused.pop(0))
        kept.unused_since = asyncio.get_running_loop().time()
        self._unused.append(kept)
        self._set_timer()

    async def _give_back_quietly(self, kept: Kept) -> None:
        """Something else is being raised, and counts more than how the release went."""
        try:
            await self._give_back(kept)
        except (AssociationError, OperationTimeout) as error:
            logger.info("the association with %s did not end well: %s", self.address, error)

    # New ones

    async def _opened(
        self, contexts: list[ProposedContext], asked: Asked, special: dict[str, Any], options: dict[str, Any]
    ) -> Kept:
        if self._takes_one_at_a_time:
            await self.release_unused()
        try:
            return await self._open_one(contexts, asked, special, options)
        except AssociationRejected as error:
            if not is_transient(error) or not self._unused:
                raise
            logger.info("%s; what is unused is released, and the peer asked once more", error)
        # Not every peer counts one less as soon as it has answered the release.
        for wait in retry_waits(_TRIES_IN_PLACE_OF_ANOTHER):
            await self.release_unused()
            try:
                return await self._open_one(contexts, asked, special, options)
            except AssociationRejected as error:
                if not is_transient(error):
                    raise
            await asyncio.sleep(jittered(wait))
        return await self._open_one(contexts, asked, special, options)

    async def _open_one(
        self, contexts: list[ProposedContext], asked: Asked, special: dict[str, Any], options: dict[str, Any]
    ) -> Kept:
        manager = associate(self.address, contexts, **self.options | self._connection() | options | special)
        with _Patience(self):
            return Kept(await manager.__aenter__(), manager, asked, special)

    def _connection(self) -> dict[str, Any]:
        """The connection that was given in place of an address, if that is so: there is one, for one association."""
        if self._given is None:
            return {}
        if not self._given:
            raise ConnectFailed(
                f"the connection to {self.address} that was given has been used: it is good for one association, which serves"
                " what was proposed when it was opened"
            )
        given, self._given = self._given, {}
        return given

    def on_kept_waiting(self, change: int) -> None:
        """So many more associations are waited for longer than is usual."""
        self._kept_waiting += change
        if change > 0 and self._unused:
            logger.info("%s keeps us waiting: unused associations are released", self.address)
            self._takes_one_at_a_time = True
            self._end_unused()

    # The end

    def _end_unused(self, which: Callable[[Kept], bool] = lambda _: True) -> None:
        """Release them, without waiting for it."""
        ending = [kept for kept in self._unused if which(kept)]
        self._unused = [kept for kept in self._unused if kept not in ending]
        for kept in ending:
            self._end(kept)
        self._set_timer()

    def _end(self, kept: Kept) -> None:
        task = asyncio.create_task(self._ended(kept))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _ended(self, kept: Kept) -> None:
        try:
            async with asyncio.timeout(_RELEASE_GRACE):
                await kept.release()
        except (AssociationError, TimeoutError) as error:
            logger.info("the unused association with %s did not end well: %s", self.address, error)

    def _set_timer(self) -> None:
        """One timer, for that which is unused for the longest time, or none."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unused:
            at = self._unused[0].unused_since + self._idle
            self._timer = asyncio.get_running_loop().call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        # The clock of the loop may call a hair early.
        due = max(asyncio.get_running_loop().time(), self._unused[0].unused_since + self._idle) if self._unused else 0.0
        self._end_unused(lambda kept: kept.unused_since + self._idle <= due)


def pool_for(peer: PeerAddress | Pool) -> Pool:
    """The pool itself; or for an address one that keeps nothing."""
    return peer if isinstance(peer, Pool) else Pool(peer, {})
