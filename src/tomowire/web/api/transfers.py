"""What becomes a job: sending to a node, asking it, retrieving from it; deleting much, and reading files again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from fastapi import Response
from pydantic import Field, StringConstraints

from tomowire.errors import UsageError
from tomowire.server.jobs.jobs import Job
from tomowire.server.jobs.querying import query_of
from tomowire.server.users import Role
from tomowire.services.models import Level
from tomowire.web.api.jobs import JobSummary, job_fields
from tomowire.web.api.models import Model, Whole
from tomowire.web.api.operation import Asked, Here, operation, topic
from tomowire.web.forms import KEYWORD, NodeName, Text, Uid
from tomowire.web.problems import Problem

router = topic("transfers")

_MOST_UIDS = 10_000
Uids = Annotated[
    list[Uid],
    Field(min_length=1, max_length=_MOST_UIDS, examples=[["1.2.826.0.1.3680043.10.1234.1.1"]]),
]
Keyword = Annotated[str, StringConstraints(max_length=64, pattern=KEYWORD)]
LevelName = Literal["study", "series", "instance"]

_LEVELS = {"patient": Level.PATIENT, "study": Level.STUDY, "series": Level.SERIES, "instance": Level.IMAGE}


class SendRequest(Model):
    """What is to be sent, and to whom."""

    node: NodeName = Field(
        description="The AE title of a node that the archive knows, or its name in the configuration."
    )
    level: LevelName = Field("study", description="What the UIDs are those of.")
    uids: Uids


class RetrieveRequest(Model):
    """What is to be retrieved, and from whom."""

    node: NodeName = Field(
        description="The AE title of a node that the archive knows, or its name in the configuration."
    )
    level: LevelName = Field("study", description="What the UIDs are those of.")
    uids: Uids
    method: Literal["get", "move"] = Field("get", description="C-GET, or a C-MOVE to this archive.")
    study_instance_uid: Uid | None = Field(None, description="For series and instances: the study that they are in.")
    series_instance_uid: Uid | None = Field(None, description="For instances: the series that they are in.")


class QueryRequest(Model):
    """What is to be asked, and whom."""

    node: NodeName = Field(
        description="The AE title of a node that the archive knows, or its name in the configuration."
    )
    level: Literal["patient", "study", "series", "instance"] = Field("study", description="What is to be found.")
    keys: dict[Keyword, Text] = Field(
        {},
        max_length=100,
        description="Keywords of attributes and what they must match (PS3.4 C.2.2.2); empty: to be told.",
        json_schema_extra={"additionalProperties": False},
        examples=[{"PatientName": "Smith*", "StudyDate": "20260101-", "StudyDescription": ""}],
    )
    most: Whole = Field(1000, ge=1, le=100_000, description="How many answers are kept.")


class DeleteRequest(Model):
    """What is to be deleted."""

    level: LevelName = Field("study", description="What the UIDs are those of.")
    uids: Uids


class ReindexRequest(Model):
    """The studies whose files are to be read again."""

    study_instance_uids: Uids


@router.post("/send", status_code=202, **operation("send", Role.OPERATOR, 409, body=True, location=True))
async def send(here: Here, response: Response, request: SendRequest) -> JobSummary:
    """Send all that the archive has of studies, series or instances to a node (C-STORE). The answer is the job that does it."""
    with _explained():
        job = await here.archive.jobs.send(_LEVELS[request.level], request.uids, request.node, **_by(here))
    return _accepted(response, job)


@router.post("/retrieve", status_code=202, **operation("retrieve", Role.OPERATOR, 409, body=True, location=True))
async def retrieve(here: Here, response: Response, request: RetrieveRequest) -> JobSummary:
    """Retrieve studies, series or instances from a node into this archive. The answer is the job that does it."""
    with _explained():
        job = await here.archive.jobs.retrieve(
            _LEVELS[request.level],
            request.uids,
            request.node,
            **_by(here),
            method=request.method,
            study_uid=request.study_instance_uid,
            series_uid=request.series_instance_uid,
        )
    return _accepted(response, job)


@router.post("/query", status_code=202, **operation("query", Role.OPERATOR, 409, body=True, location=True))
async def query(here: Here, response: Response, request: QueryRequest) -> JobSummary:
    """Ask a node (C-FIND). The answer is the job that does it; `getJob` has what was found as its `result`."""
    try:
        await asyncio.to_thread(query_of, _LEVELS[request.level], request.keys)
    except UsageError as error:
        place = {"in": "body", "name": "keys", "detail": str(error)}
        raise Problem(422, f"the keys cannot be asked for: {error}", errors=[place]) from None
    with _explained():
        job = await here.archive.jobs.query(
            _LEVELS[request.level], request.keys, request.node, **_by(here), most=request.most
        )
    return _accepted(response, job)


@router.post("/delete", status_code=202, **operation("delete", Role.OPERATOR, 409, body=True, location=True))
async def delete(here: Here, response: Response, request: DeleteRequest) -> JobSummary:
    """Delete studies, series or instances, each of them atomically. The answer is the job that does it."""
    with _explained():
        job = await here.archive.jobs.delete(_LEVELS[request.level], request.uids, **_by(here))
    return _accepted(response, job)


@router.post("/reindex", status_code=202, **operation("reindex", Role.ADMINISTRATOR, 409, body=True, location=True))
async def reindex(here: Here, response: Response, request: ReindexRequest) -> JobSummary:
    """Read the files of studies again, and mend what the index says of them. The answer is the job that does it."""
    with _explained():
        job = await here.archive.jobs.reindex(request.study_instance_uids, **_by(here))
    return _accepted(response, job)


def _by(here: Asked) -> dict[str, str]:
    """Who wants the job, and from where: what is done for it is told so."""
    return {"by": here.party.name, "address": here.party.address}


@contextmanager
def _explained() -> Iterator[None]:
    """What the archive does not have, or a node that it does not know, is nothing to make a job of."""
    try:
        yield
    except UsageError as error:
        raise Problem(409, str(error)) from None


def _accepted(response: Response, job: Job) -> JobSummary:
    response.headers["Location"] = f"/api/jobs/{job.job_id}"
    return JobSummary(**job_fields(job))
