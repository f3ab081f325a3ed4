"""What was deleted, as an event: of a whole study (PS3.15 A.5.3.8), or of a part of one (A.5.3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.server.audit.events import InstancesAccessed, Party, Patient, Study, StudyDeleted
from tomowire.server.counting import counted

if TYPE_CHECKING:
    from tomowire.server.index.deleting import Deleted


def event_of(deleted: Deleted, by: Party | None, why: str = "") -> StudyDeleted | InstancesAccessed:
    """The event; `why` in words, without patients."""
    patient = Patient(deleted.patient_id, deleted.patient_name)
    study = Study(deleted.study_instance_uid, deleted.sop_classes, patient)
    reason = f"{counted(deleted.instances, 'object')} in {deleted.series} series" + (f", {why}" if why else "")
    if deleted.is_whole_study:
        return StudyDeleted(by=by, study=study, reason=reason)
    return InstancesAccessed(by=by, study=study, action="D", reason=reason)
