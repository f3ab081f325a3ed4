"""A job that is being worked on, and what has become of its items, as values."""

from __future__ import annotations

from tomowire.server.jobs.model import ItemState, Job
from tomowire.wire.value import value


@value()
class Claim:
    """A job that is ours, as long as the lease is renewed."""

    job_key: int
    token: str
    job: Job


@value()
class Settled:
    """What has become of one item. `state` WAITING: nothing yet, and `comment` says why."""

    position: int
    state: ItemState
    status: int | None = None
    comment: str = ""
    size: int = 0
    """Bytes that were acknowledged."""
