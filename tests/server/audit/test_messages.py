"""Audit messages against PS3.15: the schema of A.5.1, and the tables of A.5.3, field by field."""

from __future__ import annotations

import base64
from dataclasses import dataclass, fields
from typing import Any, get_args
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.audit_schema import violations
from tomowire.server.audit import events
from tomowire.server.audit.events import (
    AuditEvent,
    Change,
    Export,
    Import,
    Login,
    Outcome,
    Party,
    Patient,
    Query,
    Study,
)
from tomowire.server.audit.messages import encode
from tomowire.server.audit.specific import actor_of, kind_of, message_of
from tomowire.server.audit.teller import Teller, person

TELLER = Teller("TOMOWIRE@archive", ("TOMOWIRE", "OLDNAME"), "192.0.2.1", "file:///var/lib/tomowire")
MODALITY = Party.node("MODALITY", "192.0.2.7:51000")
STATION = Party.node("STATION", "[2001:db8::1]:104")
PERSON = Party("alice", "192.0.2.9:50000")
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
STUDY = Study("1.2.3", ((CT, 2), (MR, 1)), Patient("4711", "Doe^John"))
OTHER = Study("1.2.4", ((CT, 5),), Patient("4712", "Roe^Jane"))
MOMENT = 1_700_000_000_123_456


def xml(event: AuditEvent) -> ElementTree.Element:
    return ElementTree.fromstring(encode(message_of(event, TELLER), recorded_at=MOMENT, source_id=TELLER.source_id))


EVENTS: dict[str, AuditEvent] = {
    "start": events.ApplicationStarted(),
    "stop": events.ApplicationStopped(),
    "stopped by somebody": events.ApplicationStopped(by=PERSON),
    "log used": events.AuditLogUsed(by=PERSON),
    "begun": events.AssociationBegun(caller=MODALITY, called_ae_title="TOMOWIRE", authenticated="TLS certificate"),
    "refused": events.AssociationRefused(caller=MODALITY, called_ae_title="X", reason="calling AE title unknown"),
    "ended": events.AssociationEnded(caller=MODALITY, called_ae_title="TOMOWIRE", stored=3, refused=1),
    "aborted": events.AssociationEnded(caller=MODALITY, by=PERSON, how="aborted", outcome=Outcome.MINOR_FAILURE),
    "sending": events.TransferBegun(destination=STATION, study=STUDY, requested_by=MODALITY),
    "sending back": events.TransferBegun(destination=STATION, study=STUDY),
    "transferred": events.InstancesTransferred(source=MODALITY, study=STUDY),
    "transferred again": events.InstancesTransferred(source=MODALITY, study=STUDY, held="R"),
    "accessed": events.InstancesAccessed(by=PERSON, study=STUDY, action="D"),
    "deleted": events.StudyDeleted(by=PERSON, study=STUDY),
    "deleted by quota": events.StudyDeleted(by=None, study=STUDY),
    "query": Query(
        by=STATION,
        sop_class_uid="1.2.840.10008.5.1.4.1.2.2.1",
        identifier=b"\x08\0\xff",
        transfer_syntax_uid="1.2.840.10008.1.2",
    ),
    "query of ours": Query(
        by=PERSON,
        of=STATION,
        sop_class_uid="1.2.840.10008.5.1.4.1.2.2.1",
        identifier=b"\x08\0\xff",
        transfer_syntax_uid="1.2.840.10008.1.2",
    ),
    "moved": Export(destination=STATION, studies=(STUDY, OTHER), requested_by=MODALITY),
    "got": Export(destination=STATION, studies=(STUDY,)),
    "not sent": Export(destination=STATION, studies=(), outcome=Outcome.SERIOUS_FAILURE, reason="A801H"),
    "backup": Export(requested_by=PERSON, uri="file:///mnt/backup", studies=(STUDY,), reason="backup"),
    "import": Import(by=PERSON, uri="file:///media/cd", studies=(STUDY, OTHER)),
    "login": Login(user=PERSON),
    "login refused": Login(user=PERSON, outcome=Outcome.MINOR_FAILURE, reason="wrong password"),
    "logout": events.Logout(user=PERSON),
    "changed": events.ConfigurationChanged(by=PERSON, change=Change.NETWORK, what="changed: nodes"),
    "changed by the system": events.ConfigurationChanged(by=None, change=Change.SOFTWARE, what="changed: quota"),
    "not allowed": events.AccessRefused(by=PERSON, what="DELETE /api/studies/1.2.3"),
    "lost": events.EventsLost(count=7, reason="the database was away"),
}


def test_there_is_one_of_each_kind_of_event() -> None:
    assert {type(event) for event in EVENTS.values()} == set(get_args(AuditEvent))


@pytest.mark.parametrize("name", EVENTS)
def test_every_message_keeps_the_schema(name: str) -> None:
    assert list(violations(xml(EVENTS[name]))) == []


@dataclass(frozen=True)
class Table:
    """A table of A.5.3: what is mandatory in it."""

    event: tuple[str, str, str]
    action: str
    types: tuple[tuple[str, str], ...]
    roles: tuple[str | None, ...]
    """Of the participants, in their order."""
    requestors: tuple[bool, ...]
    objects: tuple[tuple[str, str, str], ...] = ()
    """Type code, role, and the code of what the ID is."""


STUDY_OBJECT, PATIENT_OBJECT = ("2", "3", "110180"), ("1", "1", "2")
ALERT = ("2", "5", "12")
NODE_ALERT = ("2", "13", "110182")
SOURCE, DESTINATION, MEDIA = "110153", "110152", "110154"
TABLES = {
    "start": Table(
        ("110100", "DCM", "Application Activity"), "E", (("110120", "Application Start"),), ("110150",), (False,)
    ),
    "stop": Table(
        ("110100", "DCM", "Application Activity"), "E", (("110121", "Application Stop"),), ("110150",), (False,)
    ),
    "stopped by somebody": Table(
        ("110100", "DCM", "Application Activity"),
        "E",
        (("110121", "Application Stop"),),
        ("110150", "110151"),
        (False, True),
    ),
    "log used": Table(("110101", "DCM", "Audit Log Used"), "R", (), (None, None), (True, False), (("2", "13", "12"),)),
    "begun": Table(
        ("110113", "DCM", "Security Alert"),
        "E",
        (("110126", "Node Authentication"),),
        (None, None),
        (False, False),
        (NODE_ALERT,),
    ),
    "refused": Table(
        ("110113", "DCM", "Security Alert"),
        "E",
        (("110126", "Node Authentication"),),
        (None, None),
        (False, False),
        (NODE_ALERT,),
    ),
    "ended": Table(
        ("association-ended", "99TOMOWIRE", "Association Ended"), "E", (), (None, None), (False, True), (NODE_ALERT,)
    ),
    "aborted": Table(
        ("association-ended", "99TOMOWIRE", "Association Ended"),
        "E",
        (),
        (None, None, None),
        (False, False, True),
        (NODE_ALERT,),
    ),
    "sending": Table(
        ("110102", "DCM", "Begin Transferring DICOM Instances"),
        "E",
        (),
        (SOURCE, DESTINATION, None),
        (False, False, True),
        (STUDY_OBJECT, PATIENT_OBJECT),
    ),
    "sending back": Table(
        ("110102", "DCM", "Begin Transferring DICOM Instances"),
        "E",
        (),
        (SOURCE, DESTINATION),
        (False, True),
        (STUDY_OBJECT, PATIENT_OBJECT),
    ),
    "transferred": Table(
        ("110104", "DCM", "DICOM Instances Transferred"),
        "C",
        (),
        (SOURCE, DESTINATION),
        (True, False),
        (STUDY_OBJECT, PATIENT_OBJECT),
    ),
    "transferred again": Table(
        ("110104", "DCM", "DICOM Instances Transferred"),
        "R",
        (),
        (SOURCE, DESTINATION),
        (True, False),
        (STUDY_OBJECT, PATIENT_OBJECT),
    ),
    "accessed": Table(
        ("110103", "DCM", "DICOM Instances Accessed"),
        "D",
        (),
        (None, None),
        (True, False),
        (STUDY_OBJECT, PATIENT_OBJECT),
    ),
    "deleted": Table(
        ("110105", "DCM", "DICOM Study Deleted"), "D", (), (None, None), (True, False), (STUDY_OBJECT, PATIENT_OBJECT)
    ),
    "deleted by quota": Table(
        ("110105", "DCM", "DICOM Study Deleted"), "D", (), (None,), (False,), (STUDY_OBJECT, PATIENT_OBJECT)
    ),
    "query": Table(("110112", "DCM", "Query"), "E", (), (SOURCE, DESTINATION), (True, False), (("2", "24", "110181"),)),
    "query of ours": Table(
        ("110112", "DCM", "Query"),
        "E",
        (),
        (SOURCE, DESTINATION, None),
        (False, False, True),
        (("2", "24", "110181"),),
    ),
    "moved": Table(
        ("110106", "DCM", "Export"),
        "R",
        (),
        (DESTINATION, SOURCE, SOURCE, MEDIA),
        (False, False, True, False),
        (STUDY_OBJECT, STUDY_OBJECT, PATIENT_OBJECT, PATIENT_OBJECT),
    ),
    "got": Table(
        ("110106", "DCM", "Export"),
        "R",
        (),
        (DESTINATION, SOURCE, MEDIA),
        (True, False, False),
        (STUDY_OBJECT, PATIENT_OBJECT),
    ),
    "not sent": Table(("110106", "DCM", "Export"), "R", (), (DESTINATION, SOURCE, MEDIA), (True, False, False)),
    "backup": Table(
        ("110106", "DCM", "Export"),
        "R",
        (),
        (SOURCE, SOURCE, MEDIA),
        (False, True, False),
        (STUDY_OBJECT, PATIENT_OBJECT),
    ),
    "import": Table(
        ("110107", "DCM", "Import"),
        "C",
        (),
        (DESTINATION, DESTINATION, "110155"),
        (True, False, False),
        (STUDY_OBJECT, STUDY_OBJECT, PATIENT_OBJECT, PATIENT_OBJECT),
    ),
    "login": Table(("110114", "DCM", "User Authentication"), "E", (("110122", "Login"),), (None, None), (True, False)),
    "login refused": Table(
        ("110114", "DCM", "User Authentication"), "E", (("110122", "Login"),), (None, None), (True, False)
    ),
    "logout": Table(
        ("110114", "DCM", "User Authentication"), "E", (("110123", "Logout"),), (None, None), (True, False)
    ),
    "changed": Table(
        ("110113", "DCM", "Security Alert"),
        "E",
        (("110128", "Network Configuration"),),
        (None, None),
        (False, False),
        (ALERT,),
    ),
    "changed by the system": Table(
        ("110113", "DCM", "Security Alert"), "E", (("110131", "Software Configuration"),), (None,), (False,), (ALERT,)
    ),
    "not allowed": Table(
        ("110113", "DCM", "Security Alert"),
        "E",
        (("110132", "Use of Restricted Function"),),
        (None, None),
        (False, False),
        (ALERT,),
    ),
    "lost": Table(
        ("110113", "DCM", "Security Alert"), "E", (("110133", "Audit Recording Stopped"),), (None,), (False,), (ALERT,)
    ),
}


def coded(element: ElementTree.Element) -> tuple[str, str]:
    return element.attrib["csd-code"], element.attrib["originalText"]


@pytest.mark.parametrize("name", EVENTS)
def test_every_message_is_as_its_table_has_it(name: str) -> None:
    table, message = TABLES[name], xml(EVENTS[name])
    event = message.find("EventIdentification")
    assert event is not None
    event_id = event.find("EventID")
    assert event_id is not None
    assert (event_id.get("csd-code"), event_id.get("codeSystemName"), event_id.get("originalText")) == table.event
    assert event.get("EventActionCode") == table.action
    assert event.get("EventOutcomeIndicator") == str(int(EVENTS[name].outcome))
    assert tuple(map(coded, event.findall("EventTypeCode"))) == table.types
    participants = message.findall("ActiveParticipant")
    roles = [each.find("RoleIDCode") for each in participants]
    assert tuple(None if role is None else role.get("csd-code") for role in roles) == table.roles
    assert tuple(each.get("UserIsRequestor") == "true" for each in participants) == table.requestors
    described = [
        (each.get("ParticipantObjectTypeCode"), each.get("ParticipantObjectTypeCodeRole"), code.get("csd-code"))
        for each in message.findall("ParticipantObjectIdentification")
        if (code := each.find("ParticipantObjectIDTypeCode")) is not None
    ]
    assert tuple(described) == table.objects


def test_the_time_is_utc_and_says_so() -> None:
    event = xml(EVENTS["start"]).find("EventIdentification")
    assert event is not None
    assert event.get("EventDateTime") == "2023-11-14T22:13:20.123456Z"


def test_who_took_part_stands_with_ae_titles_and_network_access_points() -> None:
    """A.5.2.2, and the codes 1 (name), 2 (IP address) and 5 (URI) of the schema."""
    source, destination = xml(EVENTS["query"]).findall("ActiveParticipant")
    assert source.attrib["AlternativeUserID"] == "AETITLES=STATION"
    assert (source.attrib["NetworkAccessPointID"], source.attrib["NetworkAccessPointTypeCode"]) == ("2001:db8::1", "2")
    assert destination.attrib["AlternativeUserID"] == "AETITLES=TOMOWIRE;OLDNAME"
    assert destination.attrib["NetworkAccessPointID"] == "192.0.2.1"


@pytest.mark.parametrize(
    ("address", "shown", "kind"),
    [
        ("192.0.2.7:104", "192.0.2.7", "2"),
        ("192.0.2.7", "192.0.2.7", "2"),
        ("[::1]:104", "::1", "2"),
        ("2001:db8::7", "2001:db8::7", "2"),
        ("ct.example.org:104", "ct.example.org", "1"),
        ("https://hospital.example/api", "https://hospital.example/api", "5"),
    ],
)
def test_network_access_points(address: str, shown: str, kind: str) -> None:
    person = xml(Login(user=Party("alice", address))).findall("ActiveParticipant")[0]
    assert (person.attrib["NetworkAccessPointID"], person.attrib["NetworkAccessPointTypeCode"]) == (shown, kind)


def test_a_login_has_a_network_access_point_even_where_none_is_known() -> None:
    """A.5.3.12: mandatory for the person."""
    person = xml(Login(user=Party("alice"))).findall("ActiveParticipant")[0]
    assert person.attrib["NetworkAccessPointID"]
    assert person.attrib["NetworkAccessPointTypeCode"] == "1"


def test_studies_with_their_sop_classes_and_patients() -> None:
    first, second, *patients = xml(EVENTS["moved"]).findall("ParticipantObjectIdentification")
    assert [each.attrib["ParticipantObjectID"] for each in (first, second)] == ["1.2.3", "1.2.4"]
    classes = first.findall("ParticipantObjectDescription/SOPClass")
    assert [(each.attrib["UID"], each.attrib["NumberOfInstances"]) for each in classes] == [(CT, "2"), (MR, "1")]
    assert [(each.attrib["ParticipantObjectID"], each.findtext("ParticipantObjectName")) for each in patients] == [
        ("4711", "Doe^John"),
        ("4712", "Roe^Jane"),
    ]
    code = patients[0].find("ParticipantObjectIDTypeCode")
    assert code is not None
    assert code.attrib["codeSystemName"] == "RFC-3881"


def test_a_patient_stands_once_and_one_that_is_not_known_is_there() -> None:
    twice = Export(destination=STATION, studies=(STUDY, Study("1.9", ((CT, 1),), STUDY.patient), Study("1.8")))
    patients = xml(twice).findall("ParticipantObjectIdentification[@ParticipantObjectTypeCode='1']")
    assert [each.attrib["ParticipantObjectID"] for each in patients] == ["4711", "unknown"]


def test_the_query_is_the_data_set_as_it_came_in_base64() -> None:
    [asked] = xml(EVENTS["query"]).findall("ParticipantObjectIdentification")
    assert asked.attrib["ParticipantObjectID"] == "1.2.840.10008.5.1.4.1.2.2.1"
    assert base64.b64decode(asked.findtext("ParticipantObjectQuery") or "") == b"\x08\0\xff"
    detail = asked.find("ParticipantObjectDetail")
    assert detail is not None
    assert detail.attrib["type"] == "TransferSyntax"
    assert base64.b64decode(detail.attrib["value"]) == b"1.2.840.10008.1.2"


def test_an_alert_has_its_description() -> None:
    [subject] = xml(EVENTS["lost"]).findall("ParticipantObjectIdentification")
    detail = subject.find("ParticipantObjectDetail")
    assert detail is not None
    assert detail.attrib["type"] == "Alert Description"
    assert base64.b64decode(detail.attrib["value"]).startswith(b"7 audit events were not recorded")


def test_what_went_wrong_is_told() -> None:
    assert xml(EVENTS["login refused"]).findtext("EventIdentification/EventOutcomeDescription") == "wrong password"
    assert xml(EVENTS["login"]).find("EventIdentification/EventOutcomeDescription") is None


@given(hostile=st.text(), address=st.text(), blob=st.binary(max_size=64))
def test_whatever_callers_say_the_message_can_be_read_and_keeps_the_schema(
    hostile: str, address: str, blob: bytes
) -> None:
    party = Party.node(hostile, address)
    study = Study(hostile, ((hostile, 1),), Patient(hostile, hostile))
    for event in (
        events.AssociationRefused(caller=party, called_ae_title=hostile, reason=hostile),
        Query(by=party, sop_class_uid=hostile, identifier=blob, transfer_syntax_uid=hostile),
        Export(destination=party, studies=(study,), requested_by=party, reason=hostile),
        Import(by=party, uri=hostile, studies=(study,)),
        events.ConfigurationChanged(by=party, change=Change.USER, what=hostile),
    ):
        assert list(violations(xml(event))) == []


def test_kinds_have_names_and_actors_are_who_wanted_it() -> None:
    assert kind_of(EVENTS["transferred"]) == "instances-transferred"
    assert kind_of(EVENTS["start"]) == "application-started"
    assert actor_of(EVENTS["moved"]) == MODALITY
    assert actor_of(EVENTS["got"]) == STATION
    assert actor_of(EVENTS["deleted by quota"]) is None
    assert actor_of(EVENTS["aborted"]) == actor_of(EVENTS["stopped by somebody"]) == PERSON


def test_the_fields_of_events_are_documented_values() -> None:
    for kind in get_args(AuditEvent):
        assert kind.__doc__, kind
        names: list[Any] = [each.name for each in fields(kind)]
        assert names[:2] == ["outcome", "reason"]


def test_a_system_without_user_numbers_names_who_runs_a_command_by_what_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows, with an index in PostgreSQL on another machine."""
    monkeypatch.delattr("os.getuid")
    monkeypatch.setenv("LOGNAME", "jane")
    assert person().name.startswith("jane@")
