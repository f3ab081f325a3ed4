"""Those who send over one association: as many at once as are wanted, until there is nothing left for them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from tomowire.errors import AssociationError, AssociationReleased, OperationTimeout, PeerMisbehaved, TomowireError
from tomowire.services.dicom_file import DicomFile
from tomowire.services.sent import Sent

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Collection

    from tomowire.services.accounts import Accounts
    from tomowire.services.fitting import Way
    from tomowire.services.lease import Lease
    from tomowire.services.read_ahead import Read
    from tomowire.services.sent import Sendable
    from tomowire.services.storage import StoreResponse
    from tomowire.services.taking import Taker

logger = logging.getLogger("tomowire.sending")


class Crew:
    """The senders of one association: no more than `most`, and no more than `wanted` says.

    They take from `taker`, which takes from `files`. `on_answer` is told of each response. When `leave` has been called each ends
    what it is sending, and nothing more is begun.
    """

    def __init__(
        self,
        lease: Lease,
        files: deque[Sendable],
        taker: Taker,
        accounts: Accounts,
        way: Way,
        *,
        most: int,
        wanted: Callable[[], int],
        on_answer: Callable[[Sendable, StoreResponse], None] | None,
    ) -> None:
        self._lease = lease
        self._files = files
        self._taker = taker
        self._accounts = accounts
        self._way = way
        self._most = most
        self._wanted = wanted
        self._on_answer = on_answer
        self._group = asyncio.TaskGroup()
        self._count = 0
        self._is_leaving = False
        self._has_begun = False
        self._task: asyncio.Task[object] | None = None
        self.has_answers = False
        """Whether the peer has answered anything."""
        self.has_company = False
        """Whether there were other associations at the same time."""
        self.was_interrupted = False
        """Whether the association ended while something was under way."""
        self.late: OperationTimeout | None = None
        """Why the association ended, if the peer was too late for something."""
        self.in_vain: AssociationError | None = None
        """Why the association, opened for this, ended before anything was begun."""

    async def run(self) -> None:
        """Send until there is nothing left, or the association has ended."""
        self._task = asyncio.current_task()
        async with self._group:
            self._add(min(self._most, self._wanted()))
        association = self._lease.association
        if not (self._has_begun or self._lease.is_reused or association.is_established):
            self.in_vain = association.error or AssociationReleased("the peer has released the association")

    def fill(self) -> None:
        """More may be wanted than before."""
        # When the last one has gone the group is over; when it is cancelled it takes nobody either.
        if self._count and not self._is_leaving and self._task is not None and not self._task.cancelling():
            self._add(min(self._most, self._wanted()) - self._count)

    def leave(self) -> None:
        """Begin nothing more."""
        self._is_leaving = True

    def _add(self, count: int) -> None:
        for _ in range(count):
            self._count += 1
            self._group.create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._goes_on and (item := await self._next()) is not None:
                file, content = item
                if not self._lease.association.is_established:  # nothing of it was sent
                    self._files.appendleft(file)
                elif isinstance(content, OSError):
                    self._accounts.tell(Sent(file, None, content))
                elif await self._send_one(file, content):
                    self._taker.done(item)
                if not self._lease.association.is_established:
                    return
        except BaseException:
            self._is_leaving = True
            raise
        finally:
            self._count -= 1

    async def _next(self) -> Read[Sendable] | None:
        """The next to be sent, as soon as there is room for what becomes of it."""
        if not self._accounts.room.is_set():
            await self._accounts.room.wait()
        return await self._taker.next() if self._goes_on else None

    @property
    def _goes_on(self) -> bool:
        return not self._is_leaving and self._count <= self._wanted()

    async def _send_one(self, file: Sendable, content: bytes | memoryview | None) -> bool:
        """Send one object; whether the peer has answered."""
        accounts = self._accounts
        self._has_begun = True
        accounts.begin(file)
        try:
            response = await self._way.send(self._lease.association, file, content)
        except (AssociationError, OperationTimeout) as error:
            self._interrupted(file, error)
        except (OSError, TomowireError) as error:
            if isinstance(error, PeerMisbehaved) and not self._lease.association.is_established:
                self._interrupted(file, error)  # the whole association was broken off, maybe because of another object
            else:
                accounts.ended(Sent(file, None, error))
        except Exception as error:
            if isinstance(file, DicomFile):
                raise
            accounts.ended(Sent(file, None, error))  # whatever a foreign stream raises
        else:
            self.has_answers = True
            logger.info("%s: %s", file.sop_instance_uid, response.status)
            accounts.answered(file, response, beside=self.has_company)
            if self._on_answer is not None:
                self._on_answer(file, response)
            return True
        return False

    def _interrupted(self, file: Sendable, error: AssociationError | OperationTimeout | PeerMisbehaved) -> None:
        if isinstance(error, OperationTimeout):
            self.late = error
        elif self._lease.was_stale and file.repeatable:  # no object's fault
            self._accounts.call_off(file)
            self._files.appendleft(file)
            return
        self.was_interrupted = True
        self._accounts.interrupted(file, error, beside=self.has_company)


def meet(crews: Collection[Crew]) -> None:
    """These are there at the same time."""
    if len(crews) > 1:
        for crew in crews:
            crew.has_company = True
