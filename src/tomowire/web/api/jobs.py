"""Jobs: list, look at, retry, cancel."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Path, Query, Response
from pydantic import Field

from tomowire.server.jobs.jobs import ItemState, Job, JobKind, JobState
from tomowire.server.users import Role
from tomowire.services.models import Level
from tomowire.web.api.models import Model, link_next, moment, moment_or_none, tell_query
from tomowire.web.api.operation import Here, operation, topic
from tomowire.web.forms import JOB_ID
from tomowire.web.problems import Problem

router = topic("jobs")

_EXAMPLE = "0b9f3c1e-5a43-4c5e-9d6b-8a3f4f1f2f60"
JobIdPath = Annotated[str, Path(pattern=JOB_ID, description="`id` of a job.", examples=[_EXAMPLE])]


class JobProgress(Model):
    """How far a job has come."""

    total: int
    done: int = Field(description="Acknowledged, those with a warning included.")
    warnings: int = Field(description="Acknowledged with a warning.")
    failed: int = Field(description="For good, unless somebody retries the job.")
    bytes_done: int
    bytes_total: int | None = Field(description="Null where it is not known before.")
    bytes_per_second: float | None = Field(description="Of the present attempt.")
    seconds_left: float | None


class JobSummary(Model):
    """A job."""

    id: str = Field(examples=[_EXAMPLE])
    kind: JobKind
    state: JobState
    node: str = Field(description="AE title of the node; empty for a job without.")
    parameters: dict[str, Any] = Field(
        description="What was asked for, as in the request that made it; of many `uids` the first ones. `listJobItems` has each of"
        " what it is about.",
        examples=[{"level": "study", "uids": ["1.2.826.0.1.3680043.10.1234.1.1"]}],
    )
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    not_before: datetime = Field(description="When it is tried (again), while it waits.")
    attempts: int = Field(description="How often it was begun since it last got on.")
    cancel_requested: bool
    error: str = Field(description="What went wrong last, whose fault it is and what to do; empty if nothing did.")
    progress: JobProgress


class JobDetails(JobSummary):
    """A job with its result."""

    result: Any = Field(description="What a query has found: data sets in the DICOM JSON model (PS3.18 F.2).")


class JobList(Model):
    """A page of jobs."""

    jobs: list[JobSummary]
    next: str | None = Field(description="What to give as `after` for the next page; null on the last one.")


class JobItem(Model):
    """One thing that a job is about."""

    position: int
    uid: str
    state: ItemState
    status: str | None = Field(description="Of the response that settled it, in hexadecimal digits.", examples=["0000"])
    comment: str


class JobItems(Model):
    """A page of what a job is about."""

    items: list[JobItem]
    next: str | None = Field(description="What to give as `after` for the next page; null on the last one.")


class JobQuery(Model):
    """Which jobs."""

    limit: int = Field(100, ge=1, le=1000, description="How many entries are wanted.")
    after: str | None = Field(None, pattern=JOB_ID, description="`next` of the page before.")
    state: list[JobState] = Field([], max_length=10, description="Those in one of these states.")
    kind: list[JobKind] = Field([], max_length=10, description="Those of one of these kinds.")


class ItemQuery(Model):
    """Which items."""

    limit: int = Field(100, ge=1, le=1000, description="How many entries are wanted.")
    after: int | None = Field(None, ge=0, le=2**31 - 1, description="`next` of the page before.")
    state: list[ItemState] = Field([], max_length=10, description="Those in one of these states.")


@router.get("/jobs", **operation("listJobs", Role.READER, link=True))
async def list_jobs(here: Here, response: Response, query: Annotated[JobQuery, Query()]) -> JobList:
    """Jobs, the one made last first."""
    found = await here.archive.jobs.list(state=query.state, kind=query.kind, after=query.after, limit=query.limit + 1)
    shown = found[: query.limit]
    following = shown[-1].job_id if len(found) > len(shown) else None
    link_next(here, response, following)
    return JobList(jobs=[JobSummary(**job_fields(each)) for each in shown], next=following)


@router.get("/jobs/{job_id}", **operation("getJob", Role.READER, 404))
async def get_job(here: Here, job_id: JobIdPath) -> JobDetails:
    """One job, with its result."""
    job = _found(await here.archive.jobs.get(job_id), job_id)
    if job.result:  # what a node has answered about its patients
        tell_query(here)
    return JobDetails(**job_fields(job), result=job.result)


@router.get("/jobs/{job_id}/items", **operation("listJobItems", Role.READER, 404, link=True))
async def list_job_items(
    here: Here, response: Response, job_id: JobIdPath, query: Annotated[ItemQuery, Query()]
) -> JobItems:
    """What a job is about, in its order, and what has become of it."""
    _found(await here.archive.jobs.get(job_id), job_id)
    after = -1 if query.after is None else query.after
    found = await here.archive.jobs.items(job_id, state=query.state, after=after, limit=query.limit + 1)
    shown = found[: query.limit]
    following = str(shown[-1].position) if len(found) > len(shown) else None
    link_next(here, response, following)
    items = [
        JobItem(
            position=each.position,
            uid=each.uid,
            state=each.state,
            status=f"{each.status:04X}" if each.status is not None else None,
            comment=each.comment,
        )
        for each in shown
    ]
    return JobItems(items=items, next=following)


@router.post("/jobs/{job_id}/retry", **operation("retryJob", Role.OPERATOR, 404))
async def retry_job(here: Here, job_id: JobIdPath) -> JobSummary:
    """Try again what has failed or was cancelled, and at once what waits. What is done stays done."""
    return JobSummary(**job_fields(_found(await here.archive.jobs.retry(job_id), job_id)))


@router.post("/jobs/{job_id}/cancel", **operation("cancelJob", Role.OPERATOR, 404))
async def cancel_job(here: Here, job_id: JobIdPath) -> JobSummary:
    """Cancel a job. What is done stays done; one that is over stays as it is."""
    return JobSummary(**job_fields(_found(await here.archive.jobs.cancel(job_id), job_id)))


def _found(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise Problem(404, f"there is no job {job_id}")
    return job


def job_fields(job: Job) -> dict[str, Any]:
    """The values for a `JobSummary`."""
    return {
        "id": job.job_id,
        "kind": job.kind,
        "state": job.state,
        "node": job.node,
        "parameters": _asked(job),
        "created_at": moment(job.created_at),
        "created_by": job.created_by,
        "started_at": moment_or_none(job.started_at),
        "finished_at": moment_or_none(job.finished_at),
        "not_before": moment(job.not_before),
        "attempts": job.attempts,
        "cancel_requested": job.cancel_requested,
        "error": job.error,
        "progress": JobProgress.model_validate(job.progress),
    }


_NAMES: Final = {"study_uid": "study_instance_uid", "series_uid": "series_instance_uid"}


def _asked(job: Job) -> dict[str, Any]:
    """In the words of the requests of this API."""
    names = {**_NAMES, "uids": "study_instance_uids"} if job.kind is JobKind.REINDEX else _NAMES
    asked = {names.get(name, name): each for name, each in job.asked.items()}
    if (level := asked.get("level")) is not None:
        asked["level"] = "instance" if level == Level.IMAGE else str(level).lower()
    return asked
