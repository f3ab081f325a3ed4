"""From events to rows: the patients of their studies are looked up, and the messages made. Imports SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from tomowire.server.audit.events import AuditEvent, Patient, Study
from tomowire.server.audit.messages import clean, encode
from tomowire.server.audit.specific import actor_of, kind_of, message_of
from tomowire.server.audit.teller import Teller
from tomowire.server.audit.trail import Draft
from tomowire.server.index.schema import patients, studies

if TYPE_CHECKING:
    from sqlalchemy import Connection

_MOST_UIDS: Final = 500
_LONGEST: Final = 256
"""Characters of an actor or a source that are kept beside the message."""


def drafts_of(connection: Connection, batch: Sequence[tuple[int, AuditEvent]], teller: Teller) -> list[Draft]:
    """The rows for events and the moments at which they were recorded."""
    known = _patients(
        connection, {study.uid for _, event in batch for study in _studies(event) if study.patient is None}
    )
    return [_draft(moment, _completed(event, known), teller) for moment, event in batch]


def _draft(moment: int, event: AuditEvent, teller: Teller) -> Draft:
    actor = actor_of(event)
    return Draft(
        recorded_at=moment,
        event=kind_of(event),
        outcome=int(event.outcome),
        actor=clean(actor.name if actor is not None else "tomowire")[:_LONGEST],
        source=clean(actor.address if actor is not None else teller.address)[:_LONGEST],
        message=encode(message_of(event, teller), recorded_at=moment, source_id=teller.source_id),
    )


def _studies(event: AuditEvent) -> Iterator[Study]:
    if (study := getattr(event, "study", None)) is not None:
        yield study
    yield from getattr(event, "studies", ())


def _completed(event: AuditEvent, known: Mapping[str, Patient]) -> AuditEvent:
    """The event with the patients of its studies."""
    changes: dict[str, object] = {}
    if (study := getattr(event, "study", None)) is not None:
        changes["study"] = _with_patient(study, known)
    if several := getattr(event, "studies", ()):
        changes["studies"] = tuple(_with_patient(each, known) for each in several)
    return replace(event, **changes) if changes else event  # type: ignore[arg-type]


def _with_patient(study: Study, known: Mapping[str, Patient]) -> Study:
    found = known.get(study.uid)
    return study if study.patient is not None or found is None else replace(study, patient=found)


def _patients(connection: Connection, uids: Iterable[str]) -> dict[str, Patient]:
    wanted, found = sorted(uids), {}
    joined = studies.join(patients, studies.c.patient_key == patients.c.patient_key)
    columns = studies.c.study_instance_uid, patients.c.patient_id, patients.c.patient_name
    for start in range(0, len(wanted), _MOST_UIDS):
        some = wanted[start : start + _MOST_UIDS]
        rows = connection.execute(select(*columns).select_from(joined).where(columns[0].in_(some)))
        found.update({uid: Patient(patient_id, name) for uid, patient_id, name in rows})
    return found
