"""The DICOM specific audit messages (PS3.15 A.5.3), one function for each event, each as its table has it.

Two things that the standard leaves open. An association that begins, or is refused, is a Security Alert with the type Node
Authentication (A.5.3.11); for one that ends there is no message, and it has a code of our own. What is sent on a retrieval is
announced by Begin Transferring (A.5.3.3), which names a third party that asked for it, and reported by Export (A.5.3.4): which
nodes are within an archive's own security domain it cannot know, and what has left it is found under one code.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tomowire.server.audit import codes, events
from tomowire.server.audit.events import AuditEvent, Party, Patient, Study
from tomowire.server.audit.messages import AuditMessage, Participant, ParticipantObject
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.server.settings import Settings

_PERSON: Final = "1"
_SYSTEM: Final = "2"
_PATIENT: Final = "1"
_REPORT: Final = "3"
_MASTER_FILE: Final = "5"
_SECURITY_RESOURCE: Final = "13"
_QUERY: Final = "24"

_UNKNOWN_PATIENT: Final = Patient("unknown")
_WORDS: Final = re.compile("(?<!^)(?=[A-Z])")


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


def kind_of(event: AuditEvent) -> str:
    """What the trail calls the event: `association-begun`, `instances-transferred`, ..."""
    return _WORDS.sub("-", type(event).__name__).lower()


def message_of(event: AuditEvent, teller: Teller) -> AuditMessage:
    """The message that tells of `event`."""
    make = _MAKERS[type(event)]
    made: AuditMessage = make(event, teller)
    return made


def actor_of(event: AuditEvent) -> Party | None:
    """Who has made it happen; None is the archive itself."""
    for name in ("requested_by", "by", "caller", "user", "source", "destination"):
        party = getattr(event, name, None)
        if party is not None:
            assert isinstance(party, Party)
            return party
    return None


def _application(event: events.ApplicationStarted | events.ApplicationStopped, teller: Teller) -> AuditMessage:
    """A.5.3.1"""
    started = isinstance(event, events.ApplicationStarted)
    kind = codes.APPLICATION_START if started else codes.APPLICATION_STOP
    return _message(event, codes.APPLICATION_ACTIVITY, "E", kind, participants=(_own(teller, codes.APPLICATION),))


def _audit_log_used(event: events.AuditLogUsed, teller: Teller) -> AuditMessage:
    """A.5.3.2"""
    log = ParticipantObject(
        teller.trail_uri or "tomowire:audit", codes.URI, _SYSTEM, _SECURITY_RESOURCE, "Security Audit Log"
    )
    return _message(
        event,
        codes.AUDIT_LOG_USED,
        "R",
        participants=(_party(event.by, is_requestor=True), _own(teller)),
        objects=(log,),
    )


def _transfer_begun(event: events.TransferBegun, teller: Teller) -> AuditMessage:
    """A.5.3.3"""
    return _message(
        event,
        codes.BEGIN_TRANSFERRING,
        "E",
        participants=(
            _own(teller, codes.SOURCE),
            _party(event.destination, codes.DESTINATION, is_requestor=event.requested_by is None),
            *([_party(event.requested_by, is_requestor=True)] if event.requested_by is not None else []),
        ),
        objects=_studies([event.study]),
    )


def _export(event: events.Export, teller: Teller) -> AuditMessage:
    """A.5.3.4"""
    destination = event.destination
    uri = f"dicom://{destination.ae_title or destination.name}@{destination.address or 'unknown'}"
    exporting = [_party(event.requested_by, codes.SOURCE, is_requestor=True)] if event.requested_by is not None else []
    return _message(
        event,
        codes.EXPORT,
        "R",
        participants=(
            _party(destination, codes.DESTINATION, is_requestor=event.requested_by is None),
            _own(teller, codes.SOURCE),
            *exporting,
            Participant(uri, role=codes.DESTINATION_MEDIA, address=_host(destination.address), media=codes.URI_MEDIA),
        ),
        objects=_studies(event.studies),
    )


def _import(event: events.Import, teller: Teller) -> AuditMessage:
    """A.5.3.5"""
    return _message(
        event,
        codes.IMPORT,
        "C",
        participants=(
            _party(event.by, codes.DESTINATION, is_requestor=True),
            _own(teller, codes.DESTINATION),
            Participant(event.uri, role=codes.SOURCE_MEDIA, media=codes.URI_MEDIA),
        ),
        objects=_studies(event.studies),
    )


def _instances_accessed(event: events.InstancesAccessed, teller: Teller) -> AuditMessage:
    """A.5.3.6"""
    return _message(
        event,
        codes.INSTANCES_ACCESSED,
        event.action,
        participants=_by(event.by, teller),
        objects=_studies([event.study]),
    )


def _instances_transferred(event: events.InstancesTransferred, teller: Teller) -> AuditMessage:
    """A.5.3.7"""
    return _message(
        event,
        codes.INSTANCES_TRANSFERRED,
        event.held,
        participants=(_party(event.source, codes.SOURCE, is_requestor=True), _own(teller, codes.DESTINATION)),
        objects=_studies([event.study]),
    )


def _study_deleted(event: events.StudyDeleted, teller: Teller) -> AuditMessage:
    """A.5.3.8"""
    return _message(
        event, codes.STUDY_DELETED, "D", participants=_by(event.by, teller), objects=_studies([event.study])
    )


def _query(event: events.Query, teller: Teller) -> AuditMessage:
    """A.5.3.10"""
    asked = ParticipantObject(
        event.sop_class_uid,
        codes.SOP_CLASS_UID,
        _SYSTEM,
        _QUERY,
        query=event.identifier,
        details=(("TransferSyntax", event.transfer_syntax_uid.encode("utf-8", "replace")),),
    )
    return _message(
        event,
        codes.QUERY,
        "E",
        participants=(_party(event.by, codes.SOURCE, is_requestor=True), _own(teller, codes.DESTINATION)),
        objects=(asked,),
    )


def _association_begun(event: events.AssociationBegun, teller: Teller) -> AuditMessage:
    """A.5.3.11: success implies an informative alert."""
    how = f"authenticated by {event.authenticated}" if event.authenticated else "not authenticated"
    return _node_authentication(event, teller, f"association begun, {how}")


def _association_refused(event: events.AssociationRefused, teller: Teller) -> AuditMessage:
    """A.5.3.11: a minor failure says that the mitigation was effective."""
    return _node_authentication(event, teller, f"no association: {event.reason}")


def _node_authentication(
    event: events.AssociationBegun | events.AssociationRefused, teller: Teller, text: str
) -> AuditMessage:
    return _message(
        event,
        codes.SECURITY_ALERT,
        "E",
        codes.NODE_AUTHENTICATION,
        participants=(_own(teller), _party(event.caller)),
        objects=(_alert(_host(event.caller.address) or event.caller.name, codes.NODE_ID, text),),
    )


def _association_ended(event: events.AssociationEnded, teller: Teller) -> AuditMessage:
    text = f"{event.how}; {event.stored} objects stored, {event.refused} refused"
    return _message(
        event,
        codes.ASSOCIATION_ENDED,
        "E",
        participants=(_own(teller), _party(event.caller, is_requestor=True)),
        objects=(_alert(_host(event.caller.address) or event.caller.name, codes.NODE_ID, text),),
    )


_CHANGES: Final = {
    events.Change.NETWORK: codes.NETWORK_CONFIGURATION,
    events.Change.SECURITY: codes.SECURITY_CONFIGURATION,
    events.Change.SOFTWARE: codes.SOFTWARE_CONFIGURATION,
    events.Change.OBJECT: codes.OBJECT_SECURITY_CHANGED,
    events.Change.ROLES: codes.SECURITY_ROLES_CHANGED,
    events.Change.USER: codes.USER_SECURITY_CHANGED,
}


def _configuration_changed(event: events.ConfigurationChanged, teller: Teller) -> AuditMessage:
    """A.5.3.11"""
    return _security_alert(event, teller, _CHANGES[event.change], event.by, event.what)


def _access_refused(event: events.AccessRefused, teller: Teller) -> AuditMessage:
    """A.5.3.11"""
    return _security_alert(event, teller, codes.RESTRICTED_FUNCTION, event.by, event.what)


def _events_lost(event: events.EventsLost, teller: Teller) -> AuditMessage:
    """A.5.3.11"""
    text = f"{event.count} audit events were not recorded: {event.reason}" if event.count else event.reason
    return _security_alert(event, teller, codes.RECORDING_STOPPED, None, text)


def _security_alert(event: AuditEvent, teller: Teller, kind: codes.Code, by: Party | None, text: str) -> AuditMessage:
    reporting = [_party(by, is_requestor=True)] if by is not None else []
    subject = _alert(teller.trail_uri or "tomowire:archive", codes.URI, text)
    return _message(event, codes.SECURITY_ALERT, "E", kind, participants=(*reporting, _own(teller)), objects=(subject,))


def _login(event: events.Login | events.Logout, teller: Teller) -> AuditMessage:
    """A.5.3.12: where the person is must be told."""
    kind = codes.LOGIN if isinstance(event, events.Login) else codes.LOGOUT
    person = Participant(event.user.name, is_requestor=True, address=_host(event.user.address) or "unknown")
    return _message(event, codes.USER_AUTHENTICATION, "E", kind, participants=(person, _own(teller)))


_MAKERS: Final[dict[type, Callable[[Any, Teller], AuditMessage]]] = {
    events.ApplicationStarted: _application,
    events.ApplicationStopped: _application,
    events.AuditLogUsed: _audit_log_used,
    events.AssociationBegun: _association_begun,
    events.AssociationRefused: _association_refused,
    events.AssociationEnded: _association_ended,
    events.TransferBegun: _transfer_begun,
    events.InstancesTransferred: _instances_transferred,
    events.InstancesAccessed: _instances_accessed,
    events.StudyDeleted: _study_deleted,
    events.Query: _query,
    events.Export: _export,
    events.Import: _import,
    events.Login: _login,
    events.Logout: _login,
    events.ConfigurationChanged: _configuration_changed,
    events.AccessRefused: _access_refused,
    events.EventsLost: _events_lost,
}


def _message(
    event: AuditEvent,
    code: codes.Code,
    action: str,
    *types: codes.Code,
    participants: tuple[Participant, ...],
    objects: tuple[ParticipantObject, ...] = (),
) -> AuditMessage:
    return AuditMessage(code, action, event.outcome, types, event.reason, participants, objects)


def _own(teller: Teller, role: codes.Code | None = None) -> Participant:
    """This process, by the number under which the system's logs have it (A.5.2.1)."""
    return Participant(
        str(os.getpid()), role=role, ae_titles=teller.ae_titles, user_name="tomowire", address=teller.address
    )


def _party(party: Party, role: codes.Code | None = None, *, is_requestor: bool = False) -> Participant:
    titles = (party.ae_title,) if party.ae_title else ()
    return Participant(party.name, is_requestor, role, titles, address=_host(party.address))


def _by(party: Party | None, teller: Teller) -> tuple[Participant, ...]:
    """The person or node, and the process that did it; or the process by itself."""
    return (_own(teller),) if party is None else (_party(party, is_requestor=True), _own(teller))


def _studies(studies: tuple[Study, ...] | list[Study]) -> tuple[ParticipantObject, ...]:
    """The studies, and the patients whose they are."""
    found = [
        ParticipantObject(each.uid, codes.STUDY_INSTANCE_UID, _SYSTEM, _REPORT, each.uid, sop_classes=each.sop_classes)
        for each in studies
    ]
    patients = dict.fromkeys(each.patient or _UNKNOWN_PATIENT for each in studies)
    found += [
        ParticipantObject(each.patient_id or "unknown", codes.PATIENT_NUMBER, _PERSON, _PATIENT, each.name)
        for each in patients
    ]
    return tuple(found)


def _alert(subject: str, kind: codes.Code, text: str) -> ParticipantObject:
    """A.5.3.11: the subject of an alert, and what the matter is."""
    role = _SECURITY_RESOURCE if kind == codes.NODE_ID else _MASTER_FILE
    detail = ("Alert Description", text.encode("utf-8", "replace"))
    return ParticipantObject(subject, kind, _SYSTEM, role, subject, details=(detail,))


def _host(address: str) -> str:
    """`address` without its port."""
    if "://" in address:
        return address
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.startswith("[")):
        return address.strip("[]")
    return host.strip("[]")
