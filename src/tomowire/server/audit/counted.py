"""Objects that one party reads or brings, one by one: counted by study, and told some at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tomowire.server.audit.events import AuditEvent, Export, Import, InstancesAccessed, Party, Study
from tomowire.server.audit.exports import MOST_STUDIES

if TYPE_CHECKING:
    from tomowire.server.audit.audit import Audit

LONGEST: Final = 30.0
"""Seconds after which it is told what has been counted."""
MOST_OBJECTS: Final = 1000
_MOST_STUDIES_KEPT: Final = 200


class Counted:
    """Counts by study and SOP class. `tell` gets the studies, when they are many, and with the first object that comes late.

    Who is killed has not told of so much: what it has copied, say, the next run finds copied, and nobody would ever tell.
    """

    def __init__(self, tell: Callable[[list[Study]], object], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._began = 0.0
        self._counts: dict[str, dict[str, int]] = {}
        self._total = 0

    def add(self, study_uid: str, sop_class_uid: str) -> None:
        now = self._clock()
        if not self._counts:
            self._began = now
        counts = self._counts.setdefault(study_uid, {})
        counts[sop_class_uid] = counts.get(sop_class_uid, 0) + 1
        self._total += 1
        is_much = self._total >= MOST_OBJECTS or len(self._counts) >= _MOST_STUDIES_KEPT
        if is_much or now - self._began >= LONGEST:
            self.tell()

    def tell(self) -> None:
        """Tell of what was counted, and begin anew."""
        studies = [Study(uid, tuple(counts.items())) for uid, counts in self._counts.items()]
        self._counts.clear()
        self._total = 0
        if studies:
            self._tell(studies)


class Readings:
    """What parties read over HTTP. For the event loop's thread."""

    def __init__(self, audit: Audit, *, longest: float = LONGEST) -> None:
        self._audit = audit
        self._longest = longest
        self._loop = asyncio.get_running_loop()
        self._counted: dict[Party, tuple[Counted, asyncio.TimerHandle]] = {}

    def read(self, by: Party, study_uid: str, sop_class_uid: str) -> None:
        """`by` has got an object, or what is in it."""
        found = self._counted.get(by)
        if found is None:
            counted = Counted(lambda studies: self._record(by, studies))
            found = self._counted[by] = counted, self._loop.call_later(self._longest, self._tell, by)
        found[0].add(study_uid, sop_class_uid)

    def tell_all(self) -> None:
        """Tell of what was not told yet."""
        for by in list(self._counted):
            self._tell(by)

    def _tell(self, by: Party) -> None:
        counted, timer = self._counted.pop(by)
        timer.cancel()
        counted.tell()

    def _record(self, by: Party, studies: list[Study]) -> None:
        for study in studies:
            self._audit.record(InstancesAccessed(by=by, study=study))


class Carried:
    """Objects that come from a medium, or go to one: `make` gives the event for some studies, and `record` gets it."""

    def __init__(self, record: Callable[[AuditEvent], object], make: Callable[[tuple[Study, ...]], AuditEvent]) -> None:
        self._tell = record
        self._make = make
        self._counted = Counted(self._record)
        self.total = 0
        """Objects so far."""

    def add(self, study_uid: str, sop_class_uid: str) -> None:
        """An object was taken in, or given out."""
        self.total += 1
        self._counted.add(study_uid, sop_class_uid)

    def end(self) -> None:
        """It is over."""
        self._counted.tell()

    def _record(self, studies: list[Study]) -> None:
        for start in range(0, len(studies), MOST_STUDIES):
            some = tuple(studies[start : start + MOST_STUDIES])
            self._tell(self._make(some))


class Imports(Carried):
    """What one run of an import brings, from `uri`."""

    def __init__(self, record: Callable[[AuditEvent], object], by: Party, uri: str, reason: str = "") -> None:
        super().__init__(record, lambda some: Import(by=by, uri=uri, studies=some, reason=reason))


class Exported(Carried):
    """What one run of a backup writes to `uri`."""

    def __init__(self, record: Callable[[AuditEvent], object], by: Party, uri: str, reason: str = "") -> None:
        super().__init__(record, lambda some: Export(requested_by=by, uri=uri, studies=some, reason=reason))
