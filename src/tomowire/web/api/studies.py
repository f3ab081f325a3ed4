"""Studies: list, look at, delete, protect."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import Field

from tomowire.server.audit.events import Change, ConfigurationChanged
from tomowire.server.index.listing import Listing, StudyEntry
from tomowire.server.protection import ProtectedStudy
from tomowire.server.users import Role
from tomowire.web.api.deletion import Deleted, deleted
from tomowire.web.api.models import (
    Model,
    Next,
    Paging,
    after_page_of,
    filters_of,
    link_next,
    moment,
    tell_query,
)
from tomowire.web.api.operation import Asked, Here, operation, topic
from tomowire.web.forms import DateFilter, Filter, Text, TimeFilter, UidFilter, UidPath
from tomowire.web.problems import Problem

router = topic("studies")


class Study(Model):
    """A study."""

    study_instance_uid: str = Field(examples=["1.2.826.0.1.3680043.10.1234.1.1"])
    study_date: str = Field(description="As in the objects (DA).", examples=["20260131"])
    study_time: str
    accession_number: str
    study_id: str
    study_description: str
    referring_physician_name: str
    patient_id: str
    issuer_of_patient_id: str
    patient_name: str = Field(examples=["Doe^Jane"])
    patient_birth_date: str
    patient_sex: str
    modalities: list[str] = Field(examples=[["CT", "SR"]])
    series: int = Field(description="How many.")
    instances: int = Field(description="How many.")
    data_set_bytes: int
    received_at: datetime = Field(description="When the last of its objects came.")


class Protection(Model):
    """That a study is not to be deleted, by nobody and no quota."""

    study_instance_uid: str
    protected_at: datetime
    protected_by: str
    reason: str


class StudyDetails(Study):
    """A study, and whether it is protected."""

    protection: Protection | None = Field(description="Null: it may be deleted.")


class Studies(Model):
    """A page of studies."""

    studies: list[Study]
    next: Next


class StudyQuery(Paging):
    """Which studies."""

    of = "studies"
    after: str | None = after_page_of("studies")

    newest_first: bool = Field(
        True, description="The one that came last first; false: in the order in which they came."
    )
    PatientID: Filter = None
    PatientName: Filter = Field(None, examples=["Smith*"])
    PatientBirthDate: DateFilter = None
    PatientSex: Filter = None
    StudyInstanceUID: UidFilter = None
    StudyDate: DateFilter = None
    StudyTime: TimeFilter = None
    StudyID: Filter = None
    StudyDescription: Filter = None
    AccessionNumber: Filter = None
    ReferringPhysicianName: Filter = None
    ModalitiesInStudy: Filter = Field(None, examples=["CT"])


class ProtectionRequest(Model):
    """Why a study is to be protected."""

    reason: Text = Field("", examples=["legal hold 2026-17"])


@router.get("/studies", **operation("listStudies", Role.READER, 400, link=True))
async def list_studies(here: Here, response: Response, query: Annotated[StudyQuery, Query()]) -> Studies:
    """Studies that match all filters: the one that came last first, unless `newest_first` is false."""
    page = await Listing(here.archive.storage.index).studies(
        filters_of(query, "newest_first"), after=query.after_key, limit=query.limit, newest_first=query.newest_first
    )
    tell_query(here)
    following = query.next_after(page.after)
    link_next(here, response, following)
    return Studies(studies=[Study(**_fields(each)) for each in page.entries], next=following)


@router.get("/studies/{study_instance_uid}", **operation("getStudy", Role.READER, 404))
async def get_study(here: Here, study_instance_uid: UidPath) -> StudyDetails:
    """One study."""
    found = await Listing(here.archive.storage.index).study(study_instance_uid)
    if found is None:
        raise Problem(404, f"there is no study {study_instance_uid}")
    tell_query(here)
    protected = await here.archive.protection.find(study_instance_uid)
    return StudyDetails(**_fields(found), protection=_protection(protected) if protected is not None else None)


@router.delete("/studies/{study_instance_uid}", **operation("deleteStudy", Role.OPERATOR, 404, 409))
async def delete_study(here: Here, study_instance_uid: UidPath) -> Deleted:
    """Delete a study, all of it or nothing: it is gone when this answers, and its files follow."""
    deleting = here.archive.deletion.study(study_instance_uid, by=here.principal.name, address=here.party.address)
    return await deleted(deleting, f"study {study_instance_uid}")


@router.put("/studies/{study_instance_uid}/protection", **operation("protectStudy", Role.OPERATOR, 404, body=True))
async def protect_study(here: Here, study_instance_uid: UidPath, request: ProtectionRequest) -> Protection:
    """Protect a study: nobody can delete it until that is taken back. What protects it already stays as it is."""
    by, reason = here.principal.name, request.reason
    made = await here.archive.protection.protect_stored(study_instance_uid, by=by, reason=reason)
    if made is None:
        raise Problem(404, f"there is no study {study_instance_uid}")
    _tell_protection(here, f"study {study_instance_uid} is protected")
    return _protection(made)


@router.delete(
    "/studies/{study_instance_uid}/protection",
    status_code=204,
    **operation("unprotectStudy", Role.OPERATOR, 404),
)
async def unprotect_study(here: Here, study_instance_uid: UidPath) -> None:
    """Take the protection of a study back."""
    if not await here.archive.protection.unprotect(study_instance_uid):
        raise Problem(404, f"study {study_instance_uid} is not protected")
    _tell_protection(here, f"study {study_instance_uid} is not protected any more")


def _tell_protection(here: Asked, what: str) -> None:
    here.archive.audit.record(ConfigurationChanged(by=here.party, change=Change.OBJECT, what=what))


def _fields(entry: StudyEntry) -> dict[str, Any]:
    values = {name: getattr(entry, name) for name in Study.model_fields if name != "received_at"}
    return {**values, "received_at": moment(entry.received_at)}


def _protection(study: ProtectedStudy) -> Protection:
    return Protection(
        study_instance_uid=study.study_instance_uid,
        protected_at=moment(study.protected_at),
        protected_by=study.protected_by,
        reason=study.reason,
    )
