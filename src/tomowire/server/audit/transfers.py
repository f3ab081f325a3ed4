"""What has come on each association, by study: counted as it comes, and told to the audit when it is over, or much, or long ago.

An object costs a look into two dictionaries.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tomowire.server.audit.events import Held, InstancesTransferred, Party, Study
from tomowire.server.incoming import Outcome

if TYPE_CHECKING:
    from tomowire.aio.association import Association
    from tomowire.server.audit.audit import Audit
    from tomowire.server.incoming import Stored

MOST: Final = 1000
"""Objects of one association after which it is told what they were."""
LONGEST: Final = 30.0
"""Seconds after which it is told of the first of them."""

_HELD: Final[dict[Outcome, Held]] = {
    Outcome.STORED: "C",
    Outcome.REPLACED: "U",
    Outcome.IDENTICAL: "R",
    Outcome.KEPT_FIRST: "R",
}


@dataclass(slots=True)
class _Open:
    """What has come and was not told yet."""

    timer: asyncio.TimerHandle
    counts: dict[tuple[str, Held, str], int] = field(default_factory=dict)
    """By study, by what became of the objects, and by SOP class."""
    total: int = 0


class Transfers:
    """Counts objects until they are told. For the event loop's thread."""

    def __init__(self, audit: Audit, *, most: int = MOST, longest: float = LONGEST) -> None:
        self._audit = audit
        self._most = most
        self._longest = longest
        self._loop = asyncio.get_running_loop()
        self._open: dict[Association, _Open] = {}

    def stored(self, association: Association, sop_class_uid: str, stored: Stored) -> None:
        """One object got Success."""
        found = self._open.get(association)
        if found is None:
            timer = self._loop.call_later(self._longest, self.tell, association)
            found = self._open[association] = _Open(timer)
        key = (stored.path.split("/", 3)[2], _HELD[stored.outcome], sop_class_uid)  # objects/ab/<study>/...
        found.counts[key] = found.counts.get(key, 0) + 1
        found.total += 1
        if found.total >= self._most:
            self.tell(association)

    def tell(self, association: Association) -> None:
        """Tell of what has come on `association` so far: one event for each study, and each thing that became of its objects."""
        found = self._open.pop(association, None)
        if found is None:
            return
        found.timer.cancel()
        by_study: dict[tuple[str, Held], list[tuple[str, int]]] = {}
        for (study, held, sop_class), count in found.counts.items():
            by_study.setdefault((study, held), []).append((sop_class, count))
        source = party_of(association)
        for (study, held), sop_classes in by_study.items():
            self._audit.record(InstancesTransferred(source=source, study=Study(study, tuple(sop_classes)), held=held))

    def tell_all(self) -> None:
        """The same for all associations."""
        for association in list(self._open):
            self.tell(association)


def party_of(association: Association) -> Party:
    """The other end of an association, as far as it said who it is."""
    title = association.called_ae_title if association.is_requestor else association.calling_ae_title
    return Party.node(title, association.peer_address)
