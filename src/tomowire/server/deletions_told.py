"""What was deleted, in the audit trail: a study (PS3.15 A.5.3.8), or instances of one that is still there (A.5.3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.server.audit.events import InstancesAccessed, Party, Patient, Study, StudyDeleted
from tomowire.server.quotas import BY

if TYPE_CHECKING:
    from tomowire.server.audit.audit import Audit
    from tomowire.server.deletion import Deleted, Listener


def told_to(audit: Audit) -> Listener:
    """A listener of `Deletion` that records it."""

    def tell(deleted: Deleted, by: str) -> None:
        who = None if by == BY else Party(by or "unknown")
        patient = Patient(deleted.patient_id, deleted.patient_name)
        study = Study(deleted.study_instance_uid, deleted.sop_classes, patient)
        if deleted.is_whole_study:
            audit.record(StudyDeleted(by=who, study=study))
        else:
            audit.record(InstancesAccessed(by=who, action="D", study=study))

    return tell
