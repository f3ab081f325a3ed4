"""Memory for data sets that are held, shared by all associations of a server, and what happens when there is not enough of it.

Nobody knows how large a data set is until its last byte has come (DIMSE does not announce it), so each of them asks for memory
piece by piece. Then all of it may be taken by data sets of which each wants more and none can be finished. The rules:

1. Half of the memory is for all. The other half is for the data set that came first of those that are still coming, and for those
   that are whole already: so it is finished, and then it is the turn of the next one. Who asks for more than there is waits, and
   its peer is not read from meanwhile; the data set that came first is the first to get some.
2. As long as none is larger than half of the memory, that is all there is to it. Else all may be taken one day, and when every data
   set that holds some waits for more, no waiting will help. The one that came last is given up, until the one that came first can
   go on. The first is never given up: so it is finished at last, and all have been served or given up in the end.
3. Who has waited `wait` seconds, while others do not finish, is given up. So is, before that, a data set of which nothing has come
   for so long: its peer is silent, and it holds what others wait for.
4. What would not fit if it had all the memory for itself is given up at once.

`DataMemory` and `Share` are arithmetic: no event loop, and time comes in as an argument. `held` waits for them.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from tomowire.errors import MemoryShort

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_MEMORY_WAIT: Final = 10.0
"""Seconds. Less than the time in which most senders give up a peer that takes nothing."""

TOO_LARGE: Final = "larger than the memory for data sets"
NONE_LEFT: Final = "out of memory for data sets; try again later"


class Share:
    """What one data set holds of the memory. `on_change` is called when what it waits for was granted, or it was given up."""

    __slots__ = ("held", "is_given_up", "is_whole", "last_heard", "number", "on_change", "progress", "wanted")

    def __init__(self, number: int, now: float, on_change: Callable[[], None], last_heard: Callable[[], float]) -> None:
        self.number: Final = number
        self.on_change: Final = on_change
        self.last_heard: Final = last_heard
        """When something last came from the peer."""
        self.held = 0
        self.wanted = 0
        """Bytes that it waits for."""
        self.is_whole = False
        """Whether all of it has come, and is in use."""
        self.is_given_up = False
        self.progress = now
        """When it last got memory."""


class DataMemory:
    """`limit` bytes for data sets. `used` is how many of them are held now."""

    def __init__(self, limit: int, *, wait: float = DEFAULT_MEMORY_WAIT) -> None:
        self.limit: Final = limit
        self.wait: Final = wait
        self.used = 0
        self._shares: dict[int, Share] = {}  # by number, in the order in which they came
        self._last_number = 0
        self._queue: list[tuple[int, Share]] = []  # those that wait and some that did, the first that came first
        self._waiting = 0
        self._holding = 0
        self._stuck = 0  # those that hold some and wait for more

    @property
    def is_short(self) -> bool:
        """Whether somebody waits."""
        return self._waiting > 0

    def enter(self, now: float, on_change: Callable[[], None], last_heard: Callable[[], float]) -> Share:
        """A share of nothing, for a data set that has just begun to come."""
        self._last_number += 1
        share = self._shares[self._last_number] = Share(self._last_number, now, on_change, last_heard)
        return share

    def ask(self, share: Share, size: int, now: float) -> bool:
        """More memory for `share`: True if it has it, False if it has to wait for `on_change`. Raises `MemoryShort`."""
        if share.is_given_up:
            raise MemoryShort(NONE_LEFT)
        if share.held + size > self.limit:
            raise MemoryShort(TOO_LARGE)
        if not size:
            return True
        share.progress = now
        if not self._waiting and self._may_have(share, size):
            self._hold(share, size)
            return True
        share.wanted = size
        self._waiting += 1
        self._stuck += share.held > 0
        heappush(self._queue, (share.number, share))
        self._settle(now)
        if share.is_given_up:
            raise MemoryShort(NONE_LEFT)
        return not share.wanted

    def withdraw(self, share: Share, now: float) -> None:
        """`share` does not wait any more."""
        if share.wanted:
            self._stop_waiting(share)
            self._settle(now)

    def finish(self, share: Share, now: float) -> None:
        """All of the data set has come; it goes on being held, in use."""
        share.is_whole = True
        self._settle(now)

    def leave(self, share: Share, now: float) -> None:
        """The data set is not held any more, and will not be again."""
        share.is_given_up = True
        if self._shares.pop(share.number, None) is not None:
            if share.wanted:
                self._stop_waiting(share)
            self._free(share)
            self._settle(now)

    def give_up_late(self, now: float) -> float | None:
        """Apply the third rule; gives the time when that is to be done next, None as long as nobody waits."""
        silent = [each for each in self._shares.values() if self._is_coming(each) and not each.wanted]
        waiting = [each for each in reversed(self._shares.values()) if each.wanted]
        for share in (*silent, *waiting):
            # Whoever got what another gave back is not late any more, and may have been given up for a third.
            if self._waiting and not share.is_given_up and self._deadline(share) <= now:
                self._give_up(share)
                self._settle(now)
        if not self._waiting:
            return None
        return min(self._deadline(each) for each in self._shares.values() if each.wanted or self._is_coming(each))

    def _deadline(self, share: Share) -> float:
        return (share.progress if share.wanted else max(share.progress, share.last_heard())) + self.wait

    @staticmethod
    def _is_coming(share: Share) -> bool:
        """Whether it holds memory while its peer sends, or waits for some to go on."""
        return not share.is_whole and (share.held > 0 or share.wanted > 0)

    def _settle(self, now: float) -> None:
        """Give those that wait what there is; give up the last that came as long as nobody can go on."""
        while self._waiting:
            first = self._queue[0][1]
            if not first.wanted:
                heappop(self._queue)
            elif self._may_have(first, first.wanted):
                size = first.wanted
                self._stop_waiting(first)
                self._hold(first, size)
                first.progress = now
                first.on_change()
            elif self._stuck == self._holding:
                self._give_up(next(each for each in reversed(self._shares.values()) if each.held))
            else:
                return
        self._queue.clear()

    def _may_have(self, share: Share, size: int) -> bool:
        used = self.used + size
        return used <= self.limit // 2 or (used <= self.limit and (share.is_whole or self._is_first(share)))

    def _is_first(self, share: Share) -> bool:
        """Whether it came before all others that are coming."""
        return share is next((each for each in self._shares.values() if each is share or self._is_coming(each)), share)

    def _hold(self, share: Share, size: int) -> None:
        self._holding += not share.held and size > 0
        share.held += size
        self.used += size

    def _free(self, share: Share) -> None:
        self._holding -= share.held > 0
        self.used -= share.held
        share.held = 0

    def _stop_waiting(self, share: Share) -> None:
        share.wanted = 0
        self._waiting -= 1
        self._stuck -= share.held > 0

    def _give_up(self, share: Share) -> None:
        """What is coming is dropped at once. What is whole is in somebody's hands: that is only told, and gives it back itself."""
        share.is_given_up = True
        if share.wanted:
            self._stop_waiting(share)
        if not share.is_whole:
            del self._shares[share.number]
            self._free(share)
        share.on_change()
