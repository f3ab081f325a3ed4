"""What a job that reindexes studies does, for the audit trail.

What the index says of objects is what everybody is told of them: they are changed (PS3.15 A.5.3.6, action U), study by study. And
the whole is a Security Alert, Software Configuration (A.5.3.11), as `tomowire db reindex` is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.server.audit.counted import Counted
from tomowire.server.audit.events import Change, ConfigurationChanged, InstancesAccessed, Outcome, Party, Study
from tomowire.server.counting import counted

if TYPE_CHECKING:
    from tomowire.server.audit.audit import Audit


class Reindexed:
    """What one attempt at the job has come to, on behalf of `by`; to be ended, however it ends."""

    def __init__(self, audit: Audit, by: Party | None, job_id: str) -> None:
        self._audit = audit
        self._by = by
        self._reason = f"put right in the index, from their files: job {job_id}"
        self._job_id = job_id
        self._changed = Counted(self._record)
        self._files = 0
        self._rows = 0
        self._unreadable = 0

    def looked_at(self, study_uid: str, sop_class_uid: str, rows: int | None) -> None:
        """So many rows of the index were put right from an object's file; None: the file cannot be read, or is another."""
        self._files += 1
        if rows is None:
            self._unreadable += 1
        elif rows:
            self._rows += rows
            self._changed.add(study_uid, sop_class_uid)

    def end(self) -> None:
        """The attempt is over."""
        self._changed.tell()
        if self._files:
            what = f"the index was compared with {counted(self._files, 'file')}: {counted(self._rows, 'row')} put right"
            lost = f"{counted(self._unreadable, 'file')} missing or not what was stored" if self._unreadable else ""
            self._audit.record(
                ConfigurationChanged(
                    by=self._by,
                    change=Change.SOFTWARE,
                    what=f"{what}; {lost}; job {self._job_id}" if lost else f"{what}; job {self._job_id}",
                    outcome=Outcome.MINOR_FAILURE if lost else Outcome.SUCCESS,
                    reason=lost,
                )
            )

    def _record(self, studies: list[Study]) -> None:
        for study in studies:
            self._audit.record(InstancesAccessed(by=self._by, study=study, action="U", reason=self._reason))
