"""The first quiet moment of an archive that was started: the time for what takes long and nobody waits for.

Importing pydicom and SQLAlchemy takes a processor for a third of a second, and 25 MB. Who calls an archive that has just been
started has objects to store, more often than not, and storing takes none of it.
"""

from __future__ import annotations

import asyncio
from typing import Final

SOONEST: Final = 2.0
LONGEST: Final = 10.0
"""Seconds after the start; a modality may leave its association open for the whole day."""


class Lull:
    """`await lull.come()` returns once no association is open; `began` and `ended` are to be called with each.

    It comes `soonest` seconds after it is waited for at the earliest, and after `longest` seconds in any case.
    """

    def __init__(self, *, soonest: float = SOONEST, longest: float = LONGEST) -> None:
        self._soonest = soonest
        self._longest = longest
        self._open = 0
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()

    def began(self) -> None:
        """An association was established."""
        self._open += 1
        self._is_quiet.clear()

    def ended(self) -> None:
        """One of them is over."""
        self._open -= 1
        if not self._open:
            self._is_quiet.set()

    async def come(self) -> None:
        """Wait for it."""
        try:
            async with asyncio.timeout(self._longest):
                await asyncio.sleep(self._soonest)
                await self._is_quiet.wait()
        except TimeoutError:
            pass
