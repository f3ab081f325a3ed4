"""The DICOM specific audit messages (PS3.15 A.5.3), one function for each event, each as its table has it.

Two things that the standard leaves open. An association that begins, or is refused, is a Security Alert with the type Node
Authentication (A.5.3.11); for one that ends there is no message, and it has a code of our own. What is sent on a retrieval is
announced by Begin Transferring (A.5.3.3), which names a third party that asked for it, and reported by Export (A.5.3.4): which
nodes are within an archive's own security domain it cannot know, and what has left it is found under one code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, get_args

from tomowire.server.audit import codes, events
from tomowire.server.audit.events import AuditEvent, Party
from tomowire.server.audit.messages import AuditMessage, Participant, ParticipantObject
from tomowire.server.audit.teller import Teller
from tomowire.server.audit.telling import (
    QUERY,
    SECURITY_RESOURCE,
    SYSTEM,
    alert,
    by,
    host_of,
    message,
    own,
    participant,
    studies_and_patients,
)
from tomowire.server.counting import counted

_WORDS: Final = re.compile("(?<!^)(?=[A-Z])")


def kind_of(event: AuditEvent) -> str:
    """What the trail calls the event: `association-begun`, `instances-transferred`, ..."""
    return _name_of(type(event))


def _name_of(kind: type) -> str:
    return _WORDS.sub("-", kind.__name__).lower()


KINDS: Final = tuple(map(_name_of, get_args(AuditEvent)))
"""All that `kind_of` may answer."""


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
    """A.5.3.1: who starts an application, or ends it, is its launcher."""
    application = own(teller, codes.APPLICATION)
    if isinstance(event, events.ApplicationStarted):
        return message(event, codes.APPLICATION_ACTIVITY, "E", codes.APPLICATION_START, participants=(application,))
    launcher = [participant(event.by, codes.APPLICATION_LAUNCHER, is_requestor=True)] if event.by is not None else []
    return message(
        event, codes.APPLICATION_ACTIVITY, "E", codes.APPLICATION_STOP, participants=(application, *launcher)
    )


def _audit_log_used(event: events.AuditLogUsed, teller: Teller) -> AuditMessage:
    """A.5.3.2"""
    log = ParticipantObject(
        teller.trail_uri or "tomowire:audit", codes.URI, SYSTEM, SECURITY_RESOURCE, "Security Audit Log"
    )
    return message(
        event,
        codes.AUDIT_LOG_USED,
        "R",
        participants=(participant(event.by, is_requestor=True), own(teller)),
        objects=(log,),
    )


def _transfer_begun(event: events.TransferBegun, teller: Teller) -> AuditMessage:
    """A.5.3.3"""
    return message(
        event,
        codes.BEGIN_TRANSFERRING,
        "E",
        participants=(
            own(teller, codes.SOURCE),
            participant(event.destination, codes.DESTINATION, is_requestor=event.requested_by is None),
            *([participant(event.requested_by, is_requestor=True)] if event.requested_by is not None else []),
        ),
        objects=studies_and_patients([event.study]),
    )


def _export(event: events.Export, teller: Teller) -> AuditMessage:
    """A.5.3.4"""
    destination, uri, address = event.destination, event.uri, ""
    receiving, exporting = [], []
    if destination is not None:
        receiving = [participant(destination, codes.DESTINATION, is_requestor=event.requested_by is None)]
        uri = f"dicom://{destination.ae_title or destination.name}@{destination.address or 'unknown'}"
        address = host_of(destination.address)
    if event.requested_by is not None:
        exporting = [participant(event.requested_by, codes.SOURCE, is_requestor=True)]
    return message(
        event,
        codes.EXPORT,
        "R",
        participants=(
            *receiving,
            own(teller, codes.SOURCE),
            *exporting,
            Participant(uri, role=codes.DESTINATION_MEDIA, address=address, media=codes.URI_MEDIA),
        ),
        objects=studies_and_patients(event.studies),
    )


def _import(event: events.Import, teller: Teller) -> AuditMessage:
    """A.5.3.5"""
    return message(
        event,
        codes.IMPORT,
        "C",
        participants=(
            participant(event.by, codes.DESTINATION, is_requestor=True),
            own(teller, codes.DESTINATION),
            Participant(event.uri, role=codes.SOURCE_MEDIA, media=codes.URI_MEDIA),
        ),
        objects=studies_and_patients(event.studies),
    )


def _instances_accessed(event: events.InstancesAccessed, teller: Teller) -> AuditMessage:
    """A.5.3.6"""
    return message(
        event,
        codes.INSTANCES_ACCESSED,
        event.action,
        participants=by(event.by, teller),
        objects=studies_and_patients([event.study]),
    )


def _instances_transferred(event: events.InstancesTransferred, teller: Teller) -> AuditMessage:
    """A.5.3.7"""
    return message(
        event,
        codes.INSTANCES_TRANSFERRED,
        event.held,
        participants=(participant(event.source, codes.SOURCE, is_requestor=True), own(teller, codes.DESTINATION)),
        objects=studies_and_patients([event.study]),
    )


def _study_deleted(event: events.StudyDeleted, teller: Teller) -> AuditMessage:
    """A.5.3.8"""
    return message(
        event, codes.STUDY_DELETED, "D", participants=by(event.by, teller), objects=studies_and_patients([event.study])
    )


def _query(event: events.Query, teller: Teller) -> AuditMessage:
    """A.5.3.10"""
    syntax = event.transfer_syntax_uid.encode("utf-8", "replace")
    asked = ParticipantObject(
        event.sop_class_uid,
        codes.SOP_CLASS_UID,
        SYSTEM,
        QUERY,
        query=event.identifier,
        details=(("TransferSyntax", syntax),) if syntax else (),
    )
    return message(event, codes.QUERY, "E", participants=_parties_of_query(event, teller), objects=(asked,))


def _parties_of_query(event: events.Query, teller: Teller) -> tuple[Participant, ...]:
    """The process that asks, the one that answers, and a third party that wanted it."""
    if event.of is None:
        assert event.by is not None
        return participant(event.by, codes.SOURCE, is_requestor=True), own(teller, codes.DESTINATION)
    wanted = (participant(event.by, is_requestor=True),) if event.by is not None else ()
    return own(teller, codes.SOURCE), participant(event.of, codes.DESTINATION), *wanted


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
    return message(
        event,
        codes.SECURITY_ALERT,
        "E",
        codes.NODE_AUTHENTICATION,
        participants=(own(teller), participant(event.caller)),
        objects=(alert(host_of(event.caller.address) or event.caller.name, codes.NODE_ID, text),),
    )


def _association_ended(event: events.AssociationEnded, teller: Teller) -> AuditMessage:
    text = f"{event.how}; {counted(event.stored, 'object')} stored, {event.refused} refused"
    wanted = [participant(event.by, is_requestor=True)] if event.by is not None else []
    return message(
        event,
        codes.ASSOCIATION_ENDED,
        "E",
        participants=(own(teller), participant(event.caller, is_requestor=not wanted), *wanted),
        objects=(alert(host_of(event.caller.address) or event.caller.name, codes.NODE_ID, text),),
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
    """The archive reports; who performed it is none of the message's requestors, as the table has it."""
    performing = [participant(by)] if by is not None else []
    subject = alert(teller.trail_uri or "tomowire:archive", codes.URI, text)
    return message(event, codes.SECURITY_ALERT, "E", kind, participants=(own(teller), *performing), objects=(subject,))


def _login(event: events.Login | events.Logout, teller: Teller) -> AuditMessage:
    """A.5.3.12: where the person is must be told."""
    kind = codes.LOGIN if isinstance(event, events.Login) else codes.LOGOUT
    person = Participant(event.user.name, is_requestor=True, address=host_of(event.user.address) or "unknown")
    return message(event, codes.USER_AUTHENTICATION, "E", kind, participants=(person, own(teller)))


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
