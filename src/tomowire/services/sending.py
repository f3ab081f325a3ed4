"""Sending many files: contexts planned from the files themselves, several associations, the negotiated window, and read-ahead.

One bad file never stops the others. When an association ends in the middle, what was not answered is sent again on a new one, one
object at a time, so that only the object that made the peer go away is counted as failed. A peer that was there and is gone is
waited for, and so is one that is out of resources: see `retrying`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.connect import associate
from tomowire.errors import AssociationError, InvalidUid, OperationTimeout, TomowireError
from tomowire.protocol.negotiation import MAXIMUM_CONTEXTS, ProposedContext
from tomowire.services.read_ahead import ReadAhead
from tomowire.services.retrying import Retries, retry_waits
from tomowire.services.storage import DEFAULT_STORE_TIMEOUT, CStoreScu
from tomowire.uids import is_tolerable_uid, name_of
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
    from pathlib import Path

    from tomowire.aio.address import PeerAddress
    from tomowire.aio.association import Association
    from tomowire.protocol.status import Status
    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.storage import StoreResponse

logger = logging.getLogger("tomowire.sending")

_ATTEMPTS: Final = 2
# How many are outstanding where the peer sets no limit.
_UNLIMITED_WINDOW: Final = 16


@value()
class Sent:
    """What became of one file: the peer's `response`, or the `error` because of which there is none."""

    file: DicomFile
    response: StoreResponse | None
    error: Exception | None = None

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.file.path

    @property
    def status(self) -> Status | None:
        """What the peer answered; None if it did not."""
        return self.response.status if self.response is not None else None

    @property
    def outcome(self) -> Status | Exception | None:
        """What the peer answered, or why it did not: the one to print."""
        return self.response.status if self.response is not None else self.error

    @property
    def is_failure(self) -> bool:
        return self.response is None or self.response.is_failure


def plan(files: Iterable[DicomFile]) -> list[tuple[list[ProposedContext], list[DicomFile]]]:
    """Presentation contexts for `files`, and who uses them: one context for each pair of SOP class and transfer syntax.

    More pairs than an association has room for (128, PS3.8 9.3.2.2) make further groups, each for an association of its own.
    """
    by_pair: dict[tuple[str, str], list[DicomFile]] = {}
    for file in files:
        by_pair.setdefault((file.sop_class_uid, file.transfer_syntax_uid), []).append(file)
    pairs = list(by_pair)
    groups = [pairs[start : start + MAXIMUM_CONTEXTS] for start in range(0, len(pairs), MAXIMUM_CONTEXTS)]
    return [
        (
            [ProposedContext(sop_class, (transfer_syntax,)) for sop_class, transfer_syntax in group],
            [file for pair in group for file in by_pair[pair]],
        )
        for group in groups
    ]


async def send_files(
    peer: PeerAddress,
    files: Sequence[DicomFile],
    *,
    associations: int = 1,
    timeout: float = DEFAULT_STORE_TIMEOUT,
    progress: Callable[[int], None] | None = None,
    retry_waits: Sequence[float] = retry_waits(),
    **options: Any,
) -> AsyncGenerator[Sent, None]:
    """Send `files`; yield what became of each as soon as it is known, in no fixed order.

    `associations` is how many are used at once, `timeout` the seconds without progress after which an object is given up;
    `progress` is called with a number of bytes when they have been sent; `options` go to `associate`.

    `retry_waits` are the seconds, give or take a quarter, before each retry: of an object that was refused with A7xx (out of
    resources), and of an association that is rejected for the moment or was there before and cannot be opened any more.

    Nothing is raised for a single file. When no association can be opened (any more), each file that is left is yielded with that
    error. Who leaves the iteration early and wants all to be over then, wraps this in `contextlib.aclosing`.
    """
    usable: list[DicomFile] = []
    for file in files:
        problem = _unusable(file)
        if problem is None:
            usable.append(file)
        else:
            yield Sent(file, None, problem)
    retries = Retries(retry_waits)
    for contexts, group in plan(usable):
        work = _Group(peer, contexts, group, timeout, progress, retries, options)
        async with aclosing(work.run(min(associations, len(group)))) as results:
            async for sent in results:
                yield sent


def log_agreement(log: logging.Logger, association: Association) -> None:
    """Log what was agreed on an association of ours: at INFO the whole and what was refused, at DEBUG each context."""
    if not log.isEnabledFor(logging.INFO):
        return
    agreement = association.agreement
    proposed = agreement.request.presentation_contexts
    log.info(
        "%s: established, %d of %d presentation contexts accepted; data sent in pieces of up to %d bytes, %s requests at once",
        association.title,
        len(agreement.contexts),
        len(proposed),
        association.payload_maximum,
        association.window or "any number of",
    )
    for context in proposed:
        what = f"context {context.context_id}: {name_of(context.abstract_syntax)}"
        accepted = agreement.contexts.get(context.context_id)
        if accepted is None:
            log.info("%s in %s: refused", what, ", ".join(map(name_of, context.transfer_syntaxes)))
        else:
            log.debug("%s in %s: accepted", what, name_of(accepted.transfer_syntax))


def _unusable(file: DicomFile) -> Exception | None:
    """What is no UID has no place in a proposal: a peer may well refuse the whole association because of it."""
    for what, uid in (("SOP class", file.sop_class_uid), ("transfer syntax", file.transfer_syntax_uid)):
        if not is_tolerable_uid(uid):
            return InvalidUid(f"the {what} {uid[:80]!r} is not a UID")
    return None


class _Group:
    """The files that one set of presentation contexts serves, sent in one or more lanes: one association after another each."""

    def __init__(
        self,
        peer: PeerAddress,
        contexts: list[ProposedContext],
        files: list[DicomFile],
        timeout: float,
        progress: Callable[[int], None] | None,
        retries: Retries,
        options: dict[str, Any],
    ) -> None:
        self._peer = peer
        self._contexts = contexts
        self._timeout = timeout
        self._progress = progress
        self._retries = retries
        self._options = options
        self._left = deque(files)
        self._again: deque[DicomFile] = deque()  # those during which an association ended
        self._attempts: dict[DicomFile, int] = {}
        self._refused: list[DicomFile] = []  # those to be sent again, after `_refused_wait` seconds
        self._refused_wait = 0.0
        self._refusals: dict[DicomFile, int] = {}
        self._lanes = 0
        self._open = 0  # lanes that have an association
        self._nothing_left = asyncio.Event()
        self._results: asyncio.Queue[Sent | None] = asyncio.Queue()

    async def run(self, associations: int) -> AsyncGenerator[Sent, None]:
        self._lanes = associations
        lanes = [asyncio.create_task(self._lane()) for _ in range(associations)]
        for lane in lanes:
            lane.add_done_callback(self._on_lane_done)
        try:
            while (sent := await self._results.get()) is not None:
                yield sent
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        for lane in lanes:
            lane.result()

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
        while self._left or self._again:
            error = await self._use_association()
            if error is None:
                failures = 0
                await self._wait_for_resources()
                continue
            failures += 1
            # While another lane sends, the peer merely allows fewer associations.
            wait = None if self._open else self._retries.before_opening(error, failures)
            if wait is None:
                self._on_no_association(error)
                return
            logger.info("trying again in %.1f s: %s", wait, error)
            await self._wait_for_peer(wait)
        self._nothing_left.set()

    async def _use_association(self) -> Exception | None:
        """Send what is left over one association; gives the error if it could not be opened."""
        careful = not self._left
        is_open = False
        try:
            async with associate(self._peer, self._contexts, **self._options) as association:
                is_open = True
                log_agreement(logger, association)
                self._open += 1
                self._retries.on_open()
                window = 1 if careful else association.window or _UNLIMITED_WINDOW
                await self._send_over(association, self._again if careful else self._left, window)
        except (AssociationError, OperationTimeout) as error:
            if not is_open:
                return error
            # In its release: all objects are accounted for.
            logger.info("the association with %s did not end well: %s", self._peer, error)
        finally:
            self._open -= is_open
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
        if self._left or self._again or not self._refused:
            return
        refused, self._refused = self._refused, []
        wait, self._refused_wait = self._refused_wait, 0.0
        logger.info("sending %d objects again in %.1f s: the peer is out of resources", len(refused), wait)
        await asyncio.sleep(wait)
        self._left.extend(refused)

    async def _send_over(self, association: Association, files: deque[DicomFile], window: int) -> None:
        ahead = ReadAhead(files, sharers=self._lanes)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(window, len(files))):
                    group.create_task(self._worker(association, ahead))
        finally:
            await ahead.close()

    async def _worker(self, association: Association, ahead: ReadAhead) -> None:
        scu = CStoreScu(association)
        while (item := await ahead.next()) is not None:
            file, content = item
            if isinstance(content, OSError):
                self._results.put_nowait(Sent(file, None, content))
                continue
            try:
                response = await scu.send(file, content=content, timeout=self._timeout, progress=self._progress)
            except (AssociationError, OperationTimeout) as error:
                self._interrupted(file, error)
                return
            except (OSError, TomowireError) as error:
                self._results.put_nowait(Sent(file, None, error))
            else:
                if association.is_established:  # otherwise something of it may still be on its way out
                    ahead.done(item)
                logger.info("%s: %s", file.sop_instance_uid, response.status)
                self._answered(file, response)

    def _answered(self, file: DicomFile, response: StoreResponse) -> None:
        refusals = self._refusals.get(file, 0) + 1
        wait = self._retries.before_sending(response, refusals)
        if wait is None:
            self._results.put_nowait(Sent(file, response))
        else:
            self._refusals[file] = refusals
            self._refused.append(file)
            self._refused_wait = max(self._refused_wait, wait)

    def _interrupted(self, file: DicomFile, error: Exception) -> None:
        """The association ended before the peer answered."""
        attempts = self._attempts[file] = self._attempts.get(file, 0) + 1
        if attempts < _ATTEMPTS:
            self._again.append(file)
        else:
            self._results.put_nowait(Sent(file, None, error))

    def _on_no_association(self, error: Exception) -> None:
        """A lane cannot go on. The peer may allow fewer associations than there are lanes: the others send what is left."""
        if self._lanes > 1:
            logger.info("sending over fewer associations: %s", error)
            return
        for files in (self._left, self._again, self._refused):
            for file in files:
                self._results.put_nowait(Sent(file, None, error))
            files.clear()
