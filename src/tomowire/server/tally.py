"""How many objects each association brings to the archive, for its log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tomowire.errors import UsageError
from tomowire.server.counting import counted

if TYPE_CHECKING:
    from tomowire.aio.association import Association

logger: Final = logging.getLogger("tomowire.archive")


@dataclass(slots=True)
class Counts:
    """The objects of one association."""

    stored: int = 0
    there_before: int = 0
    refused: int = 0

    def __str__(self) -> str:
        parts = [f"{counted(self.stored, 'object')} stored"]
        parts += [f"{self.there_before} there before"] if self.there_before else []
        parts += [f"{self.refused} refused"] if self.refused else []
        return ", ".join(parts)


class Tally:
    """Counts objects while their association lasts."""

    def __init__(self) -> None:
        self._counts: dict[Association, Counts] = {}

    def stored(self, association: Association, *, is_new: bool) -> None:
        """One that got Success. Without `is_new` the archive had it."""
        counts = self._of(association)
        if is_new:
            counts.stored += 1
        else:
            counts.there_before += 1

    def refused(self, association: Association) -> None:
        """One that got a failure."""
        self._of(association).refused += 1

    def end(self, association: Association) -> Counts:
        """The association is over: say what it has brought. A connection on which none was agreed brings nothing."""
        counts = self._counts.pop(association, None) or Counts()
        try:
            association.agreement  # noqa: B018 - raises where there is none
        except UsageError:
            return counts
        logger.info("%s: ended, %s", association.title, counts)
        return counts

    def _of(self, association: Association) -> Counts:
        return self._counts.setdefault(association, Counts())
