"""Timers that need not be moved: most of what asyncio times here makes progress long before it is late."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable


class Alarm:
    """Calls `check(now)` at the time asked for; that says when to look again, or None for not at all.

    What `check` says does not count when it has led to `stop`. Progress only notes the time. Moving a timer instead would cost more
    than the progress itself: it may happen for each block.
    """

    __slots__ = ("_at", "_check", "_handle", "_loop", "_stopped")

    def __init__(self, loop: AbstractEventLoop, check: Callable[[float], float | None]) -> None:
        self._loop = loop
        self._check = check
        self._handle: TimerHandle | None = None
        self._at = 0.0
        self._stopped = False

    def look_at(self, when: float) -> None:
        """Look at the loop's time `when`, or before."""
        self._stopped = False
        if self._handle is not None:
            if self._at <= when:
                return
            self._handle.cancel()
        self._at = when
        self._handle = self._loop.call_at(when, self._ring)

    def stop(self) -> None:
        """Do not look any more."""
        self._stopped = True
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self) -> None:
        self._handle = None
        # The loop's clock may call a hair early; the time asked for is the one that has come.
        when = self._check(max(self._loop.time(), self._at))
        if when is not None and not self._stopped:
            self.look_at(when)
