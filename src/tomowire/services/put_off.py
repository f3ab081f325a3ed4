"""Files that are to be sent once more: an association ended during them, or the peer refused them, for now perhaps."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from tomowire.services.retrying import is_out_of_resources
from tomowire.services.sent import Sent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tomowire.services.company import Company
    from tomowire.services.retrying import Retries
    from tomowire.services.sent import Sendable
    from tomowire.services.storage import StoreResponse

logger = logging.getLogger("tomowire.sending")

_MOST: Final = 1000


class PutOff:
    """What waits until nothing else is left to be sent, or until there is too much of it."""

    def __init__(self, retries: Retries, company: Company) -> None:
        self.again: deque[Sendable] = deque()
        """Those during which an association ended, to be taken from."""
        self.refused: list[tuple[Sendable, StoreResponse]] = []
        """Those that the peer had no resources for, or that came in company, and what it said."""
        self._lost: list[Sendable] = []  # those that wait after an association ended
        self._retries = retries
        self._company = company
        # By identity: the same file may have been named twice.
        self._attempts: dict[int, list[Exception]] = {}
        self._refusals: dict[int, int] = {}
        self._doubted: dict[int, StoreResponse] = {}  # those that may have been refused because of the company
        self._due = 0.0  # by the clock of the loop

    @property
    def is_much(self) -> bool:
        """Whether this should be sent before anything else: whatever the peer does, no more than so much is put off."""
        return len(self.again) + len(self._lost) + len(self.refused) >= _MOST

    @property
    def has_waiting(self) -> bool:
        """Whether there is something of which the time has not come."""
        return bool(self.refused or self._lost)

    def interrupted(self, file: Sendable, error: Exception, *, beside: bool = False) -> bool:
        """The association ended before the peer had answered. Whether the file is put off; if not, that was its last attempt.

        `beside` says that there were other associations at the same time.
        """
        attempts = self._attempts.setdefault(id(file), [])
        attempts.append(error)
        wait = self._retries.before_repeating(error, len(attempts), in_doubt=beside) if file.repeatable else None
        if wait is None:
            return False
        if wait:
            self._lost.append(file)
            self._wait_until(wait)
        else:
            self.again.append(file)
        return True

    def answered(self, file: Sendable, response: StoreResponse, *, beside: bool = False) -> bool:
        """The peer has answered. Whether the file is put off because of what it said. `beside` is as above."""
        refusals = self._refusals.get(id(file), 0) + 1
        in_doubt = beside and self._company.may_explain(response)
        wait = self._retries.before_sending(response, refusals, in_doubt=in_doubt) if file.repeatable else None
        if wait is None:
            if not beside and (doubted := self._doubted.get(id(file))) is not None:
                self._company.settle(doubted, response)
            return False
        if in_doubt and not is_out_of_resources(response):
            self._doubted[id(file)] = response
            self._company.doubt()
        self._refusals[id(file)] = refusals
        self.refused.append((file, response))
        self._wait_until(wait)
        return True

    def _wait_until(self, seconds: float) -> None:
        self._due = max(self._due, asyncio.get_running_loop().time() + seconds)

    def forget(self, file: Sendable) -> None:
        """It is known what became of this file."""
        self._attempts.pop(id(file), None)
        if self._refusals.pop(id(file), None):
            self._doubted.pop(id(file), None)

    async def wait_for_resources(self) -> list[Sendable]:
        """Give what was refused, when the time has come to send it again; what lost its connections is in `again` then."""
        wait = max(self._due - asyncio.get_running_loop().time(), 0.0)
        why = "refused for now" if self.refused else "the association ended"
        logger.info("sending %d objects again in %.1f s: %s", len(self.refused) + len(self._lost), wait, why)
        await asyncio.sleep(wait)
        lost, self._lost = self._lost, []
        self.again.extend(lost)
        refused, self.refused = self.refused, []  # not before: stopped meanwhile, they count as they stand
        return [file for file, _ in refused]

    def cut_off(self) -> Iterator[Sent]:
        """What has become of all these when nothing is sent any more."""
        for file, response in self.refused:
            yield Sent(file, response)
        for file in (*self.again, *self._lost):
            yield Sent(file, None, self._attempts[id(file)][-1])

    def clear(self) -> list[Sendable]:
        """All of them; they are not sent any more."""
        files = [*self.again, *self._lost, *(file for file, _ in self.refused)]
        self.again.clear()
        self._lost.clear()
        self.refused.clear()
        return files
