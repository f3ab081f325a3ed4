"""How far a transfer is: bytes, bytes per second, seconds left (for those who ask; the others pay nothing)."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final

from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY: Final = 0.1
"""Seconds between two reports at least."""
_LOOKS_BACK: Final = 5.0
"""Seconds over which the rate is taken: what was minutes ago says little about when it will be done."""


@value()
class TransferProgress:
    """How far one object is on its way. `bytes_total` and `seconds_left` are None where nobody knows them.

    `bytes_per_second` is that of the last five seconds; 0 while there is nothing to be told.
    """

    bytes_done: int
    bytes_total: int | None
    bytes_per_second: float
    seconds_left: float | None


class ProgressMeter:
    """Counts bytes, and calls `report` at most ten times a second, and once at the end. `clock` gives seconds."""

    def __init__(
        self, report: Callable[[TransferProgress], object], total: int | None, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._report = report
        self.total = total
        """Bytes there are in all, None if nobody knows."""
        self._clock = clock
        self._done = 0
        self._marks = deque([(clock(), 0)])  # when, and how many bytes by then
        self._due = self._marks[0][0] + _EVERY

    def add(self, count: int) -> None:
        """So many bytes more have been sent."""
        self._done += count
        if self._clock() >= self._due:
            self._tell()

    def finish(self) -> None:
        """All has been sent."""
        self.total = self._done
        self._tell()

    def _tell(self) -> None:
        now = self._clock()
        self._due = now + _EVERY
        self._marks.append((now, self._done))
        while len(self._marks) > 2 and self._marks[1][0] <= now - _LOOKS_BACK:
            self._marks.popleft()
        began, before = self._marks[0]
        rate = (self._done - before) / (now - began) if now > began else 0.0
        self._report(TransferProgress(self._done, self.total, rate, self._left(rate)))

    def _left(self, rate: float) -> float | None:
        if self.total is None:
            return None
        left = max(self.total - self._done, 0)
        return left / rate if rate else (0.0 if not left else None)
