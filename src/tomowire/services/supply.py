"""Where the files come from that are sent over one set of presentation contexts: a list, or a feed that is still running."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import InvalidUid
from tomowire.services.given import Given, is_open
from tomowire.services.planning import first_group
from tomowire.services.sent import Sent
from tomowire.uids import is_tolerable_uid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tomowire.protocol.negotiation import ProposedContext
    from tomowire.services.feed import Feed
    from tomowire.services.planning import Kind
    from tomowire.services.sent import Sendable

_AHEAD: Final = 1000
"""Files that are taken from a feed before they are needed."""
_MOST_PARKED: Final = 10_000
"""Files that wait for other contexts: when there are more, those have their turn before the feed has ended."""
_PARKED_FOR_EACH: Final = 4


class Supply:
    """A list of files, all of which can be sent over the same presentation contexts."""

    def __init__(self, files: Iterable[Sendable] = ()) -> None:
        self.files = deque(files)
        """To be taken from."""
        self.most_unread: int | None = None
        """Results that may wait to be read before no more is sent; None where they are no burden."""

    @property
    def is_open(self) -> bool:
        """Whether there may be more than those in `files`."""
        return False

    def refill(self) -> None:
        """Some may have been taken: get more in time."""

    async def more(self) -> bool:
        """Wait until there is a file, or none will come any more; whether there is one."""
        return bool(self.files)


class FeedSupply(Supply):
    """Files from a feed. Those for which the contexts in use have no room are parked until it is the turn of others.

    `kinds` are the pairs of SOP class and transfer syntax that are known to come: contexts are chosen for them from the start.
    `tell` is told of each file that cannot be proposed at all. `ahead` is how many are taken before they are needed, if fewer than
    usual.
    """

    def __init__(
        self,
        feed: Feed[Any],
        kinds: Iterable[Kind],
        tell: Callable[[Sent], None],
        *,
        ahead: int | None = None,
    ) -> None:
        super().__init__()
        self._ahead = ahead or _AHEAD
        # A result holds what was given: it may be large, and in memory.
        self.most_unread = _PARKED_FOR_EACH * ahead if ahead is not None else None
        self._most_parked = _PARKED_FOR_EACH * ahead if ahead is not None else _MOST_PARKED
        self.tell = tell
        self.parked: deque[Sendable] = deque()
        self._feed = feed
        self._turn = asyncio.Lock()
        self._known = {kind: None for kind in kinds if _why_not_proposed(*kind) is None}
        self._served: frozenset[Kind] = frozenset()

    @property
    def is_open(self) -> bool:
        return not (self._feed.is_over and not self._feed.files) and len(self.parked) < self._most_parked

    def choose(self, *, transcode: bool) -> list[ProposedContext]:
        """Contexts for what is parked, first come, first served, and for as much of what is known to come as there is room for."""
        parked = dict.fromkeys(kind_of(file) for file in self.parked)
        contexts, kinds = first_group(
            [*parked, *(each for each in self._known if each not in parked)],
            transcode=transcode,
            open_classes={file.sop_class_uid for file in self.parked if is_open(file)},
        )
        self._served = frozenset(kinds)
        waiting = list(self.parked)
        self.parked.clear()
        for file in waiting:
            self._sort(file)
        return contexts

    def refill(self) -> None:
        if len(self.files) < self._ahead / 2 and self.is_open:
            for file in self._feed.take(self._ahead - len(self.files)):
                problem = why_unusable(file)
                if problem is None:
                    self._sort(file)
                else:
                    self.tell(Sent(file, None, problem))
        self._feed.refill()

    async def more(self) -> bool:
        async with self._turn:  # who is second finds what the first has brought
            while not self.files and self.is_open:
                await self._feed.more()
                self.refill()
        return bool(self.files)

    def rest(self) -> list[Sendable]:
        """All that is here and will not be sent any more."""
        rest = [*self.files, *self.parked]
        self.files.clear()
        self.parked.clear()
        return rest + self._feed.take(len(self._feed.files))

    def _sort(self, file: Sendable) -> None:
        kind = kind_of(file)
        self._known[kind] = None
        (self.files if kind in self._served else self.parked).append(file)


def kind_of(file: Sendable) -> Kind:
    """What decides which presentation context a file is sent in."""
    return file.sop_class_uid, file.transfer_syntax_uid


def why_unusable(file: Sendable) -> Exception | None:
    """What is known to be wrong with it, or that its kind cannot be proposed."""
    problem = file.problem if isinstance(file, Given) else None
    return problem or _why_not_proposed(*kind_of(file))


def _why_not_proposed(sop_class_uid: str, transfer_syntax_uid: str) -> Exception | None:
    """What is no UID has no place in a proposal: a peer may well refuse the whole association because of it."""
    for what, uid in (("SOP class", sop_class_uid), ("transfer syntax", transfer_syntax_uid)):
        if not is_tolerable_uid(uid):
            return InvalidUid(f"the {what} {uid[:80]!r} is not a UID")
    return None
