"""The lanes in which files are sent: one association after another each, until nothing is left."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import AssociationError, OperationTimeout, TomowireError
from tomowire.services.planning import log_agreement
from tomowire.services.put_off import PutOff
from tomowire.services.sent import Sent
from tomowire.services.storage import CStoreScu
from tomowire.services.taking import Taker
from tomowire.services.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from tomowire.protocol.negotiation import ProposedContext
    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.fitting import Way
    from tomowire.services.pool import Lease, Pool
    from tomowire.services.retrying import Retries
    from tomowire.services.storage import StoreResponse
    from tomowire.services.supply import Supply

logger = logging.getLogger("tomowire.sending")

STOP_GRACE: Final = 5.0
"""Seconds in which objects that are being sent have to be answered when no more are wanted."""
UNLIMITED_WINDOW: Final = 16
"""How many are outstanding where the peer sets no limit."""
_MOST_SILENT: Final = 4
"""Associations in a row on which the peer answered nothing in time: more are not opened. One bad object makes two of them."""


class _Heard:
    """What the peer did on one association."""

    def __init__(self) -> None:
        self.answered = False
        self.late: OperationTimeout | None = None

    @property
    def only_silence(self) -> OperationTimeout | None:
        """Why the association ended, if the peer was too late for something and has answered nothing."""
        return None if self.answered else self.late


class Lanes:
    """The files that one set of presentation contexts serves, sent in one or more lanes: one association after another each.

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
        turns: asyncio.Semaphore | None = None,
    ) -> None:
        self._pool = pool
        self._contexts = contexts
        self._way = way
        self._retries = retries
        self._options = options
        self._turns = Turns(turns)
        self._supply = supply
        self._left = supply.files
        self._begun: set[DicomFile] = set()
        self._put_off = PutOff(retries)
        self._lanes = 0
        self._connected: set[asyncio.Task[Any] | None] = set()  # lanes that have an association
        self._stopped = False
        self._nothing_left = asyncio.Event()
        self.gone: Exception | None = None
        """Why no association can be opened any more."""
        self._results: asyncio.Queue[Sent | None] = asyncio.Queue()

    async def run(self, associations: int, stop: asyncio.Event | None = None) -> AsyncGenerator[Sent, None]:
        """Yield what became of each file; of those only that were begun, when `stop` is set meanwhile."""
        if stop is not None and stop.is_set():
            return
        self._lanes = associations
        lanes = [asyncio.create_task(self._lane()) for _ in range(associations)]
        for lane in lanes:
            lane.add_done_callback(self._on_lane_done)
        stopping = asyncio.create_task(self._stop_when(stop, lanes)) if stop is not None else None
        try:
            while (sent := await self._results.get()) is not None:
                yield sent
        finally:
            tasks = lanes if stopping is None else [*lanes, stopping]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for lane in lanes:
            if not (self._stopped and lane.cancelled()):
                lane.result()
        if self._stopped:
            for sent in self._cut_off():
                yield sent

    async def _stop_when(self, stop: asyncio.Event, lanes: list[asyncio.Task[None]]) -> None:
        """Begin nothing more once `stop` is set, and give what was begun a few seconds."""
        await stop.wait()
        self._stopped = True
        for lane in lanes:
            if lane not in self._connected:  # it waits for the peer, or for its time to try again
                lane.cancel()
        await asyncio.wait(lanes, timeout=STOP_GRACE)
        for lane in lanes:
            lane.cancel()

    def _cut_off(self) -> Iterator[Sent]:
        """What was begun and then stopped: it counts as it stood."""
        yield from self._put_off.cut_off()
        for file in self._begun:
            yield Sent(file, None, OperationTimeout(f"stopped, and not answered within {STOP_GRACE:g} s"))

    def _on_lane_done(self, _: asyncio.Task[None]) -> None:
        if not self._lanes:
            self._results.put_nowait(None)

    async def _lane(self) -> None:
        try:
            await self._use_associations()
        finally:
            self._lanes -= 1

    async def _use_associations(self) -> None:
        """Use one association after the other until nothing is left."""
        failures = 0  # to open one, in a row
        silent = 0
        while await self._has_work():
            heard = _Heard()
            error = await self._use_association(heard)
            if error is None:
                failures = 0
                late = heard.only_silence
                silent = 0 if late is None else silent + 1
                if late is not None and silent == _MOST_SILENT:
                    self._on_no_association(late)
                    return
                await self._wait_for_resources()
                continue
            failures += 1
            # While another lane sends, the peer merely allows fewer associations.
            wait = None if self._connected else self._retries.before_opening(error, failures)
            if wait is None:
                self._on_no_association(error)
                return
            logger.info("trying again in %.1f s: %s", wait, error)
            await self._wait_for_peer(wait)
        self._nothing_left.set()
        self._turns.forgo()

    async def _has_work(self) -> bool:
        """Wait until there is something to send; False when nothing will come any more."""
        if not self._put_off.is_much:
            await self._supply.more()
        return bool(self._left or self._put_off.again) and not self._stopped

    async def _use_association(self, heard: _Heard) -> Exception | None:
        """Send what is left over one association, when it is its turn; gives the error if it could not be opened."""
        async with self._turns.one() as has_turn:
            # While this waited, the others may have sent it.
            is_needed = has_turn and bool(self._left or self._put_off.again)
            return await self._associate(heard) if is_needed else None

    async def _associate(self, heard: _Heard) -> Exception | None:
        again = self._put_off.again
        careful = bool(again) and (not self._left or self._put_off.is_much)
        lane = asyncio.current_task()
        try:
            async with self._pool.lease(self._contexts, options=self._options) as lease:
                association = lease.association
                log_agreement(logger, association)
                self._connected.add(lane)
                self._retries.on_open()
                if careful:
                    await self._send_over(lease, again, 1, heard)
                else:
                    await self._send_over(lease, self._left, association.window or UNLIMITED_WINDOW, heard)
        except (AssociationError, OperationTimeout) as error:
            if lane not in self._connected:
                return error
            # In its release: all objects are accounted for.
            logger.info("the association with %s did not end well: %s", self._pool.address, error)
        finally:
            self._connected.discard(lane)
        return None

    async def _wait_for_peer(self, seconds: float) -> None:
        """Wait, but not when the other lanes have done it all meanwhile."""
        self._nothing_left.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._nothing_left.wait()
        except TimeoutError:
            pass

    async def _wait_for_resources(self) -> None:
        """When nothing else is left, wait before sending again what was refused for want of resources."""
        if not (self._left or self._put_off.again or self._stopped) and self._put_off.refused:
            self._left.extend(await self._put_off.wait_for_resources())

    async def _send_over(self, lease: Lease, files: deque[DicomFile], window: int, heard: _Heard) -> None:
        association = lease.association
        supply = self._supply if files is self._left and self._supply.is_open else None
        taker = Taker(association, files, self._lanes, supply, self._put_off)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(window, len(files)) if supply is None else window):
                    group.create_task(self._worker(lease, files, taker, heard))
        finally:
            await taker.close()

    async def _worker(self, lease: Lease, files: deque[DicomFile], taker: Taker, heard: _Heard) -> None:
        association = lease.association
        scu = CStoreScu(association)
        while not self._stopped and (item := await taker.next()) is not None:
            file, content = item
            if isinstance(content, OSError):
                self.tell(Sent(file, None, content))
                continue
            self._begun.add(file)
            try:
                response = await self._way.send(scu, association, file, content)
            except (AssociationError, OperationTimeout) as error:
                if isinstance(error, OperationTimeout):
                    heard.late = error
                elif lease.was_stale:  # no object's fault
                    self._begun.discard(file)
                    files.appendleft(file)
                    return
                self._interrupted(file, error)
                return
            except (OSError, TomowireError) as error:
                self._ended(Sent(file, None, error))
            else:
                heard.answered = True
                taker.done(item)
                logger.info("%s: %s", file.sop_instance_uid, response.status)
                self._answered(file, response)

    def tell(self, sent: Sent) -> None:
        """To be yielded by `run` with the others."""
        self._results.put_nowait(sent)

    def _ended(self, sent: Sent) -> None:
        self._begun.discard(sent.file)
        self._put_off.forget(sent.file)
        self.tell(sent)

    def _answered(self, file: DicomFile, response: StoreResponse) -> None:
        if self._put_off.answered(file, response):
            self._begun.discard(file)
        else:
            self._ended(Sent(file, response))

    def _interrupted(self, file: DicomFile, error: Exception) -> None:
        if self._put_off.interrupted(file, error):
            self._begun.discard(file)
        else:
            self._ended(Sent(file, None, error))

    def _on_no_association(self, error: Exception) -> None:
        """A lane cannot go on. The peer may allow fewer associations than there are lanes: the others send what is left."""
        if self._lanes > 1:
            logger.info("sending over fewer associations: %s", error)
            return
        self.gone = error
        for file in (*self._left, *self._put_off.clear()):
            self.tell(Sent(file, None, error))
        self._left.clear()
