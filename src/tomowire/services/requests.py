"""The requests of a retrieval that takes more than one: one after the other, and what they come to together."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from tomowire.errors import RetrieveFailed, SubOperationFailed
from tomowire.services.retrieve_plan import total
from tomowire.services.retrieving import Progress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from tomowire.services.query import Query
    from tomowire.services.retrieve_plan import Part

_MOST_SAID: Final = 3


class _Rest:
    """The parts whose turn has not come, and how many objects that are."""

    def __init__(self) -> None:
        self._parts: dict[int, Part] = {}  # by identity: two may be equal
        self._known = 0
        self._unknown = 0

    def add(self, part: Part) -> None:
        self._parts[id(part)] = part
        self._count(part, 1)

    def discard(self, part: Part) -> None:
        if self._parts.pop(id(part), None) is not None:
            self._count(part, -1)

    def _count(self, part: Part, sign: int) -> None:
        if part.count is None:
            self._unknown += sign
        else:
            self._known += sign * part.count

    @property
    def objects(self) -> int | None:
        """None when that is not known of one of them."""
        return None if self._unknown else self._known


class Requests:
    """One request after the other for the parts of a retrieval; keeps the sum of what they tell, and what went wrong: `failures`
    before, and what comes to it."""

    def __init__(self, parts: Iterable[Part], failures: Iterable[Exception] = ()) -> None:
        self._parts = list(parts)
        self._rest = _Rest()
        for part in self._parts:
            self._rest.add(part)
        self._done = Progress(total(self._parts), 0, 0, 0)
        self._later: int | None = 0  # objects of the parts whose turn has not come
        self._failures = list(failures)
        self.uncounted = 0
        """Requests that went well, as the peer says, which does not say of how many objects."""
        self._said: dict[str, None] = {}  # what the peer said about them, each once

    @property
    def progress(self) -> Progress:
        """Of all that has ended."""
        return self._done

    async def run(
        self, retrieve: Callable[[Query], AsyncGenerator[Progress, None]], parts: Iterable[Part] | None = None
    ) -> AsyncGenerator[Progress, None]:
        """Make the requests for `parts`, or for all, and yield how far the whole is. A failure does not stop the others."""
        left = deque(self._parts if parts is None else parts)
        list_refused: RetrieveFailed | None = None  # and now the first instance is tried alone
        list_end = 0  # so many are left when the instances of that list have been tried
        while left:
            part = left.popleft()
            self._rest.discard(part)
            self._later = self._rest.objects
            last = Progress(0, 0, 0, 0)
            alone: list[Part] = []
            try:
                async with aclosing(retrieve(part.query)) as progress:
                    async for last in progress:
                        yield self._with(last)
            except RetrieveFailed as failure:
                alone = [] if failure.completed else part.one_by_one()
                left.extendleft(reversed(alone))
                for each in alone:
                    self._rest.add(each)
                if alone:
                    list_refused = failure
                    list_end = len(left) - len(alone)
                    continue
                self._failures.append(failure)
                if list_refused is not None and failure.status == list_refused.status:
                    # Not because it was a list: the others would fare no better.
                    while len(left) > list_end:
                        dropped = left.popleft()
                        self._rest.discard(dropped)
                        self._failures += map(SubOperationFailed, dropped.uids)
            except ExceptionGroup as group:
                self._failures += group.exceptions
                self._said[group.message] = None
            else:
                self.uncounted += last.remaining is None
            list_refused = None
            self._done = self._with(last)

    def lost(self, error: Exception, parts: Iterable[Part]) -> None:
        """The association on which these were, or would have been, asked for is over."""
        self._failures.append(error)
        for part in parts:
            self._rest.discard(part)

    @property
    def failures(self) -> tuple[Exception, ...]:
        """What went wrong so far."""
        return tuple(self._failures)

    def finish(self) -> None:
        """Raise what went wrong: `RetrieveFailed` if there was but one request, the first failure if there was none, else all in
        one `ExceptionGroup`.
        """
        if not self._failures:
            return
        if not self._parts or (len(self._parts) == 1 and isinstance(self._failures[0], RetrieveFailed)):
            raise self._failures[0]
        said = "; ".join(list(self._said)[:_MOST_SAID])
        raise ExceptionGroup(f"not everything was transferred{': ' if said else ''}{said}", self._failures)

    def _with(self, now: Progress) -> Progress:
        return Progress(
            None if self._later is None or now.remaining is None else self._later + now.remaining,
            self._done.completed + now.completed,
            self._done.failed + now.failed,
            self._done.warning + now.warning,
            now.error_comment or self._done.error_comment,
        )
