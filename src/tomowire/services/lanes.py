"""The lanes in which files are sent: one association after another each, until nothing is left."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import AssociationError, OperationTimeout
from tomowire.services.accounts import Accounts
from tomowire.services.adapting import UNLIMITED_WINDOW, FixedPace
from tomowire.services.crew import Crew, meet
from tomowire.services.given import goes_once
from tomowire.services.planning import log_agreement
from tomowire.services.retrying import is_out_of_resources
from tomowire.services.sent import Sent
from tomowire.services.taking import Taker
from tomowire.services.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tomowire.protocol.negotiation import ProposedContext
    from tomowire.services.adapting import Pace
    from tomowire.services.fitting import Way
    from tomowire.services.lease import Lease
    from tomowire.services.pool import Pool
    from tomowire.services.retrying import Retries
    from tomowire.services.sent import Sendable
    from tomowire.services.storage import StoreResponse
    from tomowire.services.supply import Supply

logger = logging.getLogger("tomowire.sending")

STOP_GRACE: Final = 5.0
"""Seconds in which objects that are being sent have to be answered when no more are wanted."""
_MOST_SILENT: Final = 4
"""Associations in a row on which the peer answered nothing in time: more are not opened. One bad object makes two of them."""


class Lanes:
    """The files that one set of presentation contexts serves, sent in as many lanes as `pace` says: one association after another
    each.

    An association is kept as long as `supply` may have more for it. `turns` is for those who share a peer that takes so many
    associations at once: a lane has one of them for each association.
    """

    def __init__(
        self,
        pool: Pool,
        contexts: list[ProposedContext],
        supply: Supply,
        way: Way,
        retries: Retries,
        options: dict[str, Any],
        pace: Pace,
        turns: asyncio.Semaphore | None = None,
    ) -> None:
        self._pool = pool
        self._contexts = contexts
        self._way = way
        self._retries = retries
        self._options = options
        self._pace = pace
        self._is_adaptive = not isinstance(pace, FixedPace)
        self._turns = Turns(turns)
        self._supply = supply
        self._left = supply.files
        self._accounts = Accounts(retries, pace.company, supply.most_unread)
        self._again = self._accounts.put_off.again
        self._running: set[asyncio.Task[None]] = set()
        self._lanes = 0  # those that are not about to end
        self._connected: dict[asyncio.Task[Any] | None, Crew] = {}  # lanes that have an association
        self._leaving: set[asyncio.Task[Any] | None] = set()  # those that are about to end: there are too many
        self._stopped = False  # nothing more is begun
        self._is_over = False
        self._is_second_round = False  # nothing is left but what was put off: it goes on one association
        self._bug: BaseException | None = None
        self._nothing_left = asyncio.Event()
        self.gone: Exception | None = None
        """Why no association can be opened any more."""
        self.tell = self._accounts.tell
        """To be yielded by `run` with the others."""

    async def run(self, stop: asyncio.Event | None = None) -> AsyncGenerator[Sent, None]:
        """Yield what became of each file; of those only that were begun, when `stop` is set meanwhile."""
        if stop is not None and stop.is_set():
            return
        lanes = self._pace.associations
        for _ in range(lanes if self._supply.is_open else max(min(lanes, len(self._left)), 1)):
            self._start_lane()
        stopping = asyncio.create_task(self._stop_when(stop)) if stop is not None else None
        try:
            while (sent := await self._accounts.next()) is not None:
                yield sent
        finally:
            self._is_over = True
            tasks = self._running if stopping is None else {*self._running, stopping}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._bug is not None:
            raise self._bug
        if self._stopped:
            for sent in self._accounts.cut_off(OperationTimeout(f"stopped, and not answered within {STOP_GRACE:g} s")):
                yield sent

    async def _stop_when(self, stop: asyncio.Event) -> None:
        """Begin nothing more once `stop` is set, and give what was begun a few seconds."""
        await stop.wait()
        self._stopped = True
        for lane in self._running:
            if lane in self._connected:
                self._connected[lane].leave()
            else:  # it waits for the peer, or for its time to try again
                lane.cancel()
        await asyncio.wait(self._running, timeout=STOP_GRACE)
        for lane in self._running:
            lane.cancel()

    def _start_lane(self) -> None:
        self._lanes += 1
        lane = asyncio.create_task(self._lane())
        self._running.add(lane)
        lane.add_done_callback(self._on_lane_done)

    async def _lane(self) -> None:
        lane = asyncio.current_task()
        try:
            await self._use_associations()
        finally:
            if lane in self._leaving:
                self._leaving.discard(lane)
            else:
                self._lanes -= 1

    def _on_lane_done(self, lane: asyncio.Task[None]) -> None:
        self._running.discard(lane)
        if not lane.cancelled() and self._bug is None:
            self._bug = lane.exception()
        if not self._running:
            self._accounts.close()

    def _adjust(self) -> None:
        """As many lanes as are wanted, and as many senders in each."""
        wanted = self._wanted
        for lane, crew in list(self._connected.items()):
            if self._lanes > wanted and lane not in self._leaving:
                self._leaving.add(lane)
                self._lanes -= 1
                crew.leave()
            else:
                crew.fill()
        while self._lanes < wanted and (self._left or self._supply.is_open) and not (self._stopped or self._is_over):
            self._start_lane()

    @property
    def _wanted(self) -> int:
        """How many lanes there should be."""
        return 1 if self._is_second_round else self._pace.associations

    def _goes(self) -> bool:
        """Whether this lane, of which there are too many, ends: not when it is the only one that can send what is left."""
        lane = asyncio.current_task()
        if lane in self._leaving and not self._lanes:
            self._leaving.discard(lane)
            self._lanes += 1
        elif lane not in self._leaving and self._lanes > self._wanted:
            self._leaving.add(lane)
            self._lanes -= 1
        return lane in self._leaving

    def _on_answer(self, file: Sendable, response: StoreResponse) -> None:
        if is_out_of_resources(response):
            self._pace.short_of_resources()
            self._adjust()
        elif self._pace.answered(asyncio.get_running_loop().time(), file.size or 0, self._accounts.under_way):
            self._adjust()

    async def _use_associations(self) -> None:
        """Use one association after the other until nothing is left."""
        failures = 0  # to open one, in a row
        silent = 0
        while await self._has_work():
            if self._goes():
                return
            used = await self._use_association()
            if not isinstance(used, Exception):
                failures = 0
                late = used.late if used is not None and not used.has_answers else None
                silent = 0 if late is None else silent + 1
                if late is not None and silent == _MOST_SILENT:
                    self._on_no_association(late)
                    return
                await self._wait_for_resources()
                continue
            failures += 1
            # While another lane sends, the peer merely allows fewer associations.
            wait = None if self._connected else self._retries.before_opening(used, failures)
            if wait is None:
                self._on_no_association(used)
                return
            logger.info("trying again in %.1f s: %s", wait, used)
            await self._wait_for_peer(wait)
        self._nothing_left.set()
        self._turns.forgo()

    async def _has_work(self) -> bool:
        """Wait until there is something to send; False when nothing will come any more."""
        if not self._accounts.put_off.is_much:
            await self._supply.more()
        return bool(self._left or self._again) and not self._stopped

    async def _use_association(self) -> Crew | Exception | None:
        """Send what is left over one association, when it is its turn; gives who did, or the error if it could not be opened."""
        async with self._turns.one() as has_turn:
            # While this waited, the others may have sent it.
            is_needed = has_turn and bool(self._left or self._again)
            return await self._associate() if is_needed else None

    async def _associate(self) -> Crew | Exception:
        lane = asyncio.current_task()
        crew: Crew | None = None
        try:
            if self._is_second_round and self._pace.company.is_avoided:
                await self._pool.release_unused()
            # A kept one may be dead without anybody's knowing: what can, or may, be sent only once is not tried on it.
            fresh = not self._retries.are_allowed or any(map(goes_once, self._left))
            async with self._pool.lease(self._contexts, fresh=fresh, options=self._options) as lease:
                crew = await self._send_over(lease, lane)
        except (AssociationError, OperationTimeout) as error:
            if crew is None:
                return error
            # In its release: all objects are accounted for.
            logger.info("the association with %s did not end well: %s", self._pool.address, error)
        finally:
            self._connected.pop(lane, None)
        return crew.in_vain or crew  # what ends as soon as it is there is as good as not opened

    async def _send_over(self, lease: Lease, lane: asyncio.Task[Any] | None) -> Crew:
        association = lease.association
        log_agreement(logger, association)
        put_off = self._accounts.put_off
        careful = bool(self._again) and (not self._left or put_off.is_much)
        files = self._again if careful else self._left
        supply = self._supply if not careful and self._supply.is_open else None
        taker = Taker(association, files, self._pace.most, supply, put_off, self._pace.interrupted)
        window = association.window or UNLIMITED_WINDOW
        crew = Crew(
            lease,
            files,
            taker,
            self._accounts,
            self._way,
            most=1 if careful else window if supply is not None else min(window, len(files)),
            wanted=lambda: self._pace.window,
            on_answer=self._on_answer if self._is_adaptive else None,
        )
        self._is_second_round |= careful and not self._supply.is_open
        self._connected[lane] = crew
        meet(self._connected.values())
        self._retries.on_open()
        self._pace.opened(asyncio.get_running_loop().time(), association.window)
        if self._is_adaptive:
            self._adjust()  # something else may be wanted by now
        try:
            await crew.run()
        finally:
            await taker.close()
        if crew.was_interrupted and crew.has_company and self._is_adaptive:
            self._pace.rejected(len(self._connected) - 1)  # the others may be why
            self._adjust()
        lease.is_worth_keeping = lane not in self._leaving
        return crew

    async def _wait_for_peer(self, seconds: float) -> None:
        """Wait, but not when the other lanes have done it all meanwhile."""
        self._nothing_left.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._nothing_left.wait()

    async def _wait_for_resources(self) -> None:
        """When nothing else is left, wait before sending again what was refused for now, or lost its association."""
        if not (self._left or self._again or self._stopped) and self._accounts.put_off.has_waiting:
            self._is_second_round |= not self._supply.is_open
            self._left.extend(await self._accounts.put_off.wait_for_resources())

    def _on_no_association(self, error: Exception) -> None:
        """A lane cannot go on. The peer may allow fewer associations than there are lanes: the others send what is left."""
        if self._lanes + len(self._leaving) > 1:
            logger.info("sending over fewer associations: %s", error)
            self._pace.rejected(len(self._connected))
            return
        self.gone = error
        for file in (*self._left, *self._accounts.put_off.clear()):
            self.tell(Sent(file, None, error))
        self._left.clear()
