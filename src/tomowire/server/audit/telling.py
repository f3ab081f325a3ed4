"""What messages are put together from: who takes part, and what it is about (PS3.15 A.5.2)."""

from __future__ import annotations

import getpass
import os
import socket
from typing import TYPE_CHECKING, Final

from tomowire.server.audit import codes
from tomowire.server.audit.events import AuditEvent, Party, Patient, Study
from tomowire.server.audit.messages import AuditMessage, Participant, ParticipantObject
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.server.settings import Settings

_PERSON: Final = "1"
SYSTEM: Final = "2"
_PATIENT: Final = "1"
_REPORT: Final = "3"
_MASTER_FILE: Final = "5"
SECURITY_RESOURCE: Final = "13"
QUERY: Final = "24"

_UNKNOWN_PATIENT: Final = Patient("unknown")


@value()
class Teller:
    """Who tells the events: this process, and which system it is of."""

    source_id: str
    ae_titles: tuple[str, ...] = ()
    address: str = ""
    trail_uri: str = ""


def teller_of(settings: Settings) -> Teller:
    """The teller for an archive."""
    host = socket.gethostname()
    address = host if settings.bind in ("", "0.0.0.0", "::") else settings.bind
    titles = (settings.ae_title, *getattr(settings, "aliases", ()))
    return Teller(f"{settings.ae_title}@{host}", titles, address, settings.data_dir.absolute().as_uri())


def person() -> Party:
    """Who runs this command: the login name (A.5.2.1)."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user that nobody has named
        name = str(os.getuid())
    return Party(f"{name}@{socket.gethostname()}")


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
    found = [
        ParticipantObject(each.uid, codes.STUDY_INSTANCE_UID, SYSTEM, _REPORT, each.uid, sop_classes=each.sop_classes)
        for each in studies
    ]
    patients = dict.fromkeys(each.patient or _UNKNOWN_PATIENT for each in studies)
    found += [
        ParticipantObject(each.patient_id or "unknown", codes.PATIENT_NUMBER, _PERSON, _PATIENT, each.name)
        for each in patients
    ]
    return tuple(found)


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
