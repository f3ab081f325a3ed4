"""What a job is, as values: the same for those who make jobs, work on them and show them.

Times are microseconds since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, Final

from tomowire.wire.value import value


class JobKind(StrEnum):
    """What is to be done."""

    SEND = "send"
    """Objects of the archive to a node, with C-STORE."""
    RETRIEVE = "retrieve"
    """What a node has into this archive, with C-GET, or with C-MOVE to ourselves."""
    QUERY = "query"
    """Ask a node with C-FIND; the answers are kept with the job."""
    DELETE = "delete"
    """Patients, studies, series or instances of the archive."""
    REINDEX = "reindex"
    """Read the files of studies again, and mend what the index says of them."""


class JobState(StrEnum):
    """Where a job is. It is over in the last three."""

    MAKING = "making"
    """What it is about is being written down: nothing of it is done before all of it is."""
    WAITING = "waiting"
    """For its turn, or for the time of its next attempt."""
    RUNNING = "running"
    """A process has it, as long as its lease holds."""
    DONE = "done"
    """All that was asked for, warnings included."""
    FAILED = "failed"
    """Some or all of it: `error` says why, and the items say which."""
    CANCELLED = "cancelled"


_NOT_ASKED: Final = frozenset({"kinds", "address"})

OVER = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class ItemState(StrEnum):
    """What has become of one thing that a job is about."""

    WAITING = "waiting"
    """Not done yet; `comment` may say what the last attempt met."""
    DONE = "done"
    """Acknowledged."""
    WARNING = "warning"
    """Acknowledged, with a warning (such as B000H) in `status`."""
    FAILED = "failed"
    """For good, unless somebody retries the job."""


@value()
class Progress:
    """How far a job has come. `done` are acknowledged, `warnings` those of them with a warning; `failed` have failed for good.

    `bytes_total` is None where it is not known before. `bytes_per_second` and `seconds_left` are of the present attempt: None while
    nothing can be said.
    """

    total: int
    done: int
    warnings: int
    failed: int
    bytes_done: int
    bytes_total: int | None
    bytes_per_second: float | None = None
    seconds_left: float | None = None

    @property
    def remaining(self) -> int:
        return self.total - self.done - self.failed


@value()
class Job:
    """A job as it is in the database."""

    job_id: str
    kind: JobKind
    state: JobState
    node: str
    """The AE title of the node; "" for a job without."""
    parameters: Mapping[str, Any]
    """What was asked for: `level`, `uids`, ... as its kind has them."""
    created_at: int
    created_by: str
    started_at: int | None
    finished_at: int | None
    not_before: int
    """When it is tried (again), while it waits."""
    attempts: int
    """How often it was begun since it last got on."""
    cancel_requested: bool
    error: str
    """What went wrong last, whose fault it is and what to do; "" if nothing did."""
    progress: Progress
    is_left: bool = False
    """It stands as running, and whoever had it has ended without a word: the next archive that runs goes on with it."""
    result: Any = None
    """What a query has found: data sets in the DICOM JSON model. Only `Jobs.get` gives it."""

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def address(self) -> str:
        """From where it was asked for, over HTTP; "" if it was made where the archive is."""
        return str(self.parameters.get("address", ""))

    @property
    def asked(self) -> dict[str, Any]:
        """`parameters` as far as somebody has asked for them: without what those who do the work need to know."""
        return {name: each for name, each in self.parameters.items() if name not in _NOT_ASKED}

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without the result."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("progress", "result")}
        progress = {each.name: getattr(self.progress, each.name) for each in fields(self.progress)}
        return {**own, "parameters": self.asked, "progress": progress}


@value()
class JobItem:
    """One thing that a job is about: an object that is sent; a patient, study, series or object that is retrieved or deleted."""

    position: int
    uid: str
    state: ItemState
    status: int | None
    """Of the response that settled it."""
    comment: str


@value()
class QueueFigures:
    """What is waiting and running, for those who watch: how many jobs, and since when (seconds) the oldest that is due waits."""

    waiting: int
    running: int
    oldest: float
