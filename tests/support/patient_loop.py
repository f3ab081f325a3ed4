"""An event loop in whose time a machine that stands still loses nothing.

A virtual machine can be stopped for seconds, and a busy one leaves a process waiting. For a test that runs both sides of a
connection in one event loop that is as if no time had passed, but the clock says otherwise: time-outs of a fraction of a second,
which only make tests short, end what would have been in time. Here the loop's clock goes on by at most `LONGEST_STEP` between
two looks at it, and the loop looks at it at least that often.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import Final

LONGEST_STEP: Final = 0.1
"""In seconds. What takes longer than this without giving back control takes this long."""


class _ShortSleeps(selectors.DefaultSelector):
    """Wakes often: only a wait that was meant to be short and was not is the machine's doing."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        longest = LONGEST_STEP / 2
        return super().select(longest if timeout is None else min(timeout, longest))


class PatientLoop(asyncio.SelectorEventLoop):
    """See above. For tests alone."""

    def __init__(self) -> None:
        self._looked = self._now = time.monotonic()
        super().__init__(_ShortSleeps())

    def time(self) -> float:
        looked = time.monotonic()
        self._now += min(looked - self._looked, LONGEST_STEP)
        self._looked = looked
        return self._now
