"""DICOM audit messages (PS3.15 A.5.1): what one consists of, and its XML.

Nothing here knows what an event is about: that is `specific`. Values may come from anybody on the network; what XML 1.0 cannot
hold becomes U+FFFD, so that a hostile AE title makes no message unreadable.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, SubElement, tostring

from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.server.audit.codes import Code
    from tomowire.server.audit.events import Outcome

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_IP_ADDRESS: Final = "2"
_MACHINE_NAME: Final = "1"
_URI: Final = "5"
_APPLICATION_SERVER: Final = "4"
_OBJECT: Final = "ParticipantObjectIdentification"


@value()
class Participant:
    """ActiveParticipant: who took part. `address` is an IP address, a name or a URI, without a port."""

    user_id: str
    is_requestor: bool = False
    role: Code | None = None
    ae_titles: tuple[str, ...] = ()
    user_name: str = ""
    address: str = ""
    media: Code | None = None


@value()
class ParticipantObject:
    """ParticipantObjectIdentification: what the event was about. The schema wants either `name` or `query`."""

    id: str
    id_type: Code
    type_code: str
    role: str
    name: str = ""
    query: bytes | None = None
    details: tuple[tuple[str, bytes], ...] = ()
    sop_classes: tuple[tuple[str, int], ...] = ()
    life_cycle: str = ""


@value()
class AuditMessage:
    """One message, but for when it happened and which system tells it."""

    event: Code
    action: str
    outcome: Outcome
    types: tuple[Code, ...] = ()
    reason: str = ""
    participants: tuple[Participant, ...] = ()
    objects: tuple[ParticipantObject, ...] = ()


def encode(message: AuditMessage, *, recorded_at: int, source_id: str) -> str:
    """The XML of `message`, without a declaration. `recorded_at` is in microseconds since 1970, UTC."""
    root = Element("AuditMessage")
    _event(root, message, recorded_at)
    for participant in message.participants:
        _participant(root, participant)
    source = SubElement(root, "AuditSourceIdentification", {"AuditSourceID": _token(source_id)})
    SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    for each in message.objects:
        _object(root, each)
    return tostring(root, encoding="unicode")


def date_time(recorded_at: int) -> str:
    """An xsd:dateTime with its time zone (PS3.15 A.5.2.5), and a time stamp of RFC 5424 as well."""
    seconds, microseconds = divmod(recorded_at, 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def clean(text: str) -> str:
    """`text` with what neither XML nor a database can hold replaced."""
    return _NOT_XML.sub("\ufffd", text)


def _event(root: Element, message: AuditMessage, recorded_at: int) -> None:
    attributes = {
        "EventActionCode": message.action,
        "EventDateTime": date_time(recorded_at),
        "EventOutcomeIndicator": str(int(message.outcome)),
    }
    element = SubElement(root, "EventIdentification", attributes)
    _coded(element, "EventID", message.event)
    for each in message.types:
        _coded(element, "EventTypeCode", each)
    if message.reason:
        SubElement(element, "EventOutcomeDescription").text = clean(message.reason)


def _participant(root: Element, participant: Participant) -> None:
    attributes = {"UserID": clean(participant.user_id)}
    if participant.ae_titles:
        attributes["AlternativeUserID"] = clean(f"AETITLES={';'.join(participant.ae_titles)}")  # A.5.2.2
    if participant.user_name:
        attributes["UserName"] = clean(participant.user_name)
    attributes["UserIsRequestor"] = "true" if participant.is_requestor else "false"
    if participant.address:
        attributes["NetworkAccessPointID"] = _token(participant.address)
        attributes["NetworkAccessPointTypeCode"] = _kind_of(participant.address)
    element = SubElement(root, "ActiveParticipant", attributes)
    if participant.role is not None:
        _coded(element, "RoleIDCode", participant.role)
    if participant.media is not None:
        _coded(SubElement(element, "MediaIdentifier"), "MediaType", participant.media)


def mark_of(described: ParticipantObject) -> str:
    """How the object of an event begins in its message: what to look for in the trail."""
    return tostring(Element(_OBJECT, _identity(described)), encoding="unicode").removesuffix(" />")


def _identity(described: ParticipantObject) -> dict[str, str]:
    return {
        "ParticipantObjectID": _token(described.id),
        "ParticipantObjectTypeCode": described.type_code,
        "ParticipantObjectTypeCodeRole": described.role,
    }


def _object(root: Element, described: ParticipantObject) -> None:
    attributes = _identity(described)
    if described.life_cycle:
        attributes["ParticipantObjectDataLifeCycle"] = described.life_cycle
    element = SubElement(root, _OBJECT, attributes)
    _coded(element, "ParticipantObjectIDTypeCode", described.id_type)
    if described.query is not None:
        SubElement(element, "ParticipantObjectQuery").text = _base64(described.query)
    else:
        SubElement(element, "ParticipantObjectName").text = _token(described.name)
    for kind, content in described.details:
        SubElement(element, "ParticipantObjectDetail", {"type": kind, "value": _base64(content)})
    if described.sop_classes:
        description = SubElement(element, "ParticipantObjectDescription")
        for uid, count in described.sop_classes:
            SubElement(description, "SOPClass", {"UID": _token(uid), "NumberOfInstances": str(count)})


def _coded(parent: Element, name: str, code: Code) -> None:
    attributes = {
        "csd-code": code.value,
        "codeSystemName": code.system,
        "displayName": code.meaning,
        "originalText": code.meaning,
    }
    SubElement(parent, name, attributes)


def _kind_of(address: str) -> str:
    """NetworkAccessPointTypeCode: 1 a machine's name, 2 an IP address, 5 a URI."""
    if "://" in address:
        return _URI
    return _IP_ADDRESS if ":" in address or address.replace(".", "").isdigit() else _MACHINE_NAME


def _token(text: str) -> str:
    """xsd:token: no white space at the ends, and no more than one blank at a time."""
    return " ".join(clean(text).split())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
