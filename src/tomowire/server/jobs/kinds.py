"""Which code works on which kind of job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tomowire.server.jobs.deleting import Deleting
from tomowire.server.jobs.model import JobKind
from tomowire.server.jobs.querying import Querying
from tomowire.server.jobs.reindexing import Reindexing
from tomowire.server.jobs.retrieving import Retrieving
from tomowire.server.jobs.sending import Sending

if TYPE_CHECKING:
    from tomowire.server.jobs.parts import Parts
    from tomowire.server.jobs.work import Kind


def kinds_of(parts: Parts) -> Mapping[JobKind, Kind]:
    """For an archive with these parts."""
    return {
        JobKind.SEND: Sending(parts).run,
        JobKind.RETRIEVE: Retrieving(parts).run,
        JobKind.QUERY: Querying(parts).run,
        JobKind.DELETE: Deleting(parts).run,
        JobKind.REINDEX: Reindexing(parts).run,
    }
