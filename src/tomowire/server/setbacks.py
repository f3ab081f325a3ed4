"""What runs for as long as the archive does, and goes on when something happens that nobody has foreseen."""

from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger(__name__)

_FIRST_WAIT: Final = 5.0
_LONGEST_WAIT: Final = 300.0


class Setbacks:
    """Of one such thing: `what` says of which, for the log."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.in_a_row = 0
        """How often it has failed since it last went well."""

    def failed(self, error: Exception) -> float:
        """Tells the log, and gives the seconds to wait before it is tried again."""
        wait = min(_FIRST_WAIT * 2.0 ** min(self.in_a_row, 62), _LONGEST_WAIT)
        self.in_a_row += 1
        logger.error("%s has failed, and is tried again in %.0f seconds", self._what, wait, exc_info=error)
        return wait

    def went_well(self) -> None:
        self.in_a_row = 0
