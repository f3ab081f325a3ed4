"""What messages are put together from: who takes part, and what it is about (PS3.15 A.5.2)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from tomowire.server.audit import codes
from tomowire.server.audit.events import AuditEvent, Party, Patient, Study
from tomowire.server.audit.messages import AuditMessage, Participant, ParticipantObject

if TYPE_CHECKING:
    from tomowire.server.audit.teller import Teller

_PERSON: Final = "1"
SYSTEM: Final = "2"
_PATIENT: Final = "1"
_REPORT: Final = "3"
_MASTER_FILE: Final = "5"
SECURITY_RESOURCE: Final = "13"
QUERY: Final = "24"

_UNKNOWN_PATIENT: Final = Patient("unknown")


def message(
    event: AuditEvent,
    code: codes.Code,
    action: str,
    *types: codes.Code,
    participants: tuple[Participant, ...],
    objects: tuple[ParticipantObject, ...] = (),
) -> AuditMessage:
    return AuditMessage(code, action, event.outcome, types, event.reason, participants, objects)


def own(teller: Teller, role: codes.Code | None = None) -> Participant:
    """This process, by the number under which the system's logs have it (A.5.2.1)."""
    return Participant(
        str(os.getpid()), role=role, ae_titles=teller.ae_titles, user_name="tomowire", address=teller.address
    )


def participant(party: Party, role: codes.Code | None = None, *, is_requestor: bool = False) -> Participant:
    titles = (party.ae_title,) if party.ae_title else ()
    return Participant(party.name, is_requestor, role, titles, address=host_of(party.address))


def by(party: Party | None, teller: Teller) -> tuple[Participant, ...]:
    """The person or node, and the process that did it; or the process by itself."""
    return (own(teller),) if party is None else (participant(party, is_requestor=True), own(teller))


def studies_and_patients(studies: tuple[Study, ...] | list[Study]) -> tuple[ParticipantObject, ...]:
    """The studies, and the patients whose they are."""
    patients = dict.fromkeys(each.patient or _UNKNOWN_PATIENT for each in studies)
    return *map(study_object, studies), *map(patient_object, patients)


def study_object(study: Study) -> ParticipantObject:
    """A study that an event is about."""
    return ParticipantObject(
        study.uid, codes.STUDY_INSTANCE_UID, SYSTEM, _REPORT, study.uid, sop_classes=study.sop_classes
    )


def patient_object(patient: Patient) -> ParticipantObject:
    """The patient whose objects an event is about."""
    return ParticipantObject(
        patient.patient_id or _UNKNOWN_PATIENT.patient_id, codes.PATIENT_NUMBER, _PERSON, _PATIENT, patient.name
    )


def alert(subject: str, kind: codes.Code, text: str) -> ParticipantObject:
    """A.5.3.11: the subject of an alert, and what the matter is."""
    role = SECURITY_RESOURCE if kind == codes.NODE_ID else _MASTER_FILE
    detail = ("Alert Description", text.encode("utf-8", "replace"))
    return ParticipantObject(subject, kind, SYSTEM, role, subject, details=(detail,))


def host_of(address: str) -> str:
    """`address` without its port."""
    if "://" in address:
        return address
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.startswith("[")):
        return address.strip("[]")
    return host.strip("[]")
