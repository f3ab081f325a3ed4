"""The audit trail: look through it, export it, verify it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from fastapi import Query, Response
from pydantic import Field
from starlette.responses import StreamingResponse

from tomowire.server.app import Archive
from tomowire.server.audit.events import AuditLogUsed, Outcome
from tomowire.server.audit.specific import KINDS
from tomowire.server.audit.trail import Entry, Filter
from tomowire.server.users import Role
from tomowire.web.api.audit_formats import FEET, HEADS, MEDIA_TYPES, messages_of, rows_of
from tomowire.web.api.models import Model, Moment, Next, Paging, after_page_of, link_next, moment
from tomowire.web.api.operation import Here, operation, topic
from tomowire.web.forms import Text

router = topic("audit")

if TYPE_CHECKING:
    EventName: TypeAlias = str
else:
    EventName = Literal[KINDS]

_PAGE: Final = 500
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class AuditEntry(Model):
    """An event."""

    number: int = Field(description="1, 2, 3, ...: a gap is a loss.")
    recorded_at: datetime
    event: str = Field(examples=["login"])
    outcome: int = Field(description="0 is success, 4, 8 and 12 are failures (PS3.15 Table A.5.2-1).", examples=[0])
    actor: str
    source: str = Field(description="Where it came from.")
    message: str = Field(description="DICOM's audit message (PS3.15 A.5), XML.")
    hash: str = Field(description="Of this event and all before it, in hexadecimal digits.")


class AuditEntries(Model):
    """A page of events."""

    entries: list[AuditEntry]
    next: Next


class AuditVerification(Model):
    """What is wrong with the trail."""

    is_whole: bool
    problems: list[str] = Field(description="The first hundred of what is wrong.")


class AuditFilter(Model):
    """Which events; what is not given does not matter."""

    event: EventName | None = Field(None, description="What kind of event.", examples=["instances-transferred"])
    outcome: Outcome | None = Field(None, description="0 is success, 4, 8 and 12 are failures (PS3.15 Table A.5.2-1).")
    actor: Text | None = Field(None, description="Who did it: a user, or an AE title.")
    source: Text | None = Field(None, description="Where it came from.")
    patient: Text | None = Field(None, description="Patient ID of somebody whose objects the event is about.")
    study: Text | None = Field(None, description="Study Instance UID of a study that the event is about.")
    since: Moment | None = Field(None, description="Included.")
    until: Moment | None = Field(None, description="Excluded.")


class AuditQuery(AuditFilter, Paging):
    """Which events, in which order."""

    of = "audit"
    after: str | None = after_page_of("audit")

    newest_first: bool = Field(
        True, description="The one that happened last first; false: in the order in which they happened."
    )


class AuditExport(AuditFilter):
    """Which events, in which form."""

    format: Literal["jsonl", "csv", "xml"] = Field(
        "jsonl",
        description="`jsonl`: the events as the list has them, one in a line. `xml`: DICOM's messages. `csv`: a table (RFC 4180)"
        " for a spreadsheet, with patients and studies; what one would take for a formula begins with an apostrophe.",
    )


@router.get("/audit", **operation("listAudit", Role.ADMINISTRATOR, link=True))
async def list_audit(here: Here, response: Response, query: Annotated[AuditQuery, Query()]) -> AuditEntries:
    """Events of the audit trail. That somebody looked is an event itself."""
    here.archive.audit.record(AuditLogUsed(by=here.party))
    token = int(query.after_key) if query.after_key is not None else None
    found = await here.archive.audit.list(
        _wanted(query),
        after=token or 0 if not query.newest_first else 0,
        before=token if query.newest_first else None,
        limit=query.limit + 1,
        newest_first=query.newest_first,
    )
    shown = found[: query.limit]
    following = query.next_after(str(shown[-1].number) if len(found) > len(shown) else None)
    link_next(here, response, following)
    return AuditEntries(entries=[_shown(each) for each in shown], next=following)


@router.get(
    "/audit/export",
    response_class=Response,
    **operation("exportAudit", Role.ADMINISTRATOR, media=tuple(MEDIA_TYPES.values())),
)
async def export_audit(here: Here, query: Annotated[AuditExport, Query()]) -> Response:
    """All events that match, the oldest first, up to the last one there was when it was asked for.

    They come as a JSON object on each line, as a table, or as DICOM's messages in one XML document.
    """
    here.archive.audit.record(AuditLogUsed(by=here.party))
    newest = await here.archive.audit.list(limit=1, newest_first=True)
    return StreamingResponse(
        _exported(here.archive, query, before=newest[0].number + 1 if newest else 1),
        media_type=MEDIA_TYPES[query.format],
        headers={"Content-Disposition": f'attachment; filename="audit.{query.format}"'},
    )


@router.get("/audit/verification", **operation("verifyAudit", Role.ADMINISTRATOR))
async def verify_audit(here: Here) -> AuditVerification:
    """Verify the chain of hashes over all events. That somebody did is an event itself."""
    here.archive.audit.record(AuditLogUsed(by=here.party))
    problems = list(await here.archive.audit.verify())
    return AuditVerification(is_whole=not problems, problems=problems)


async def _exported(archive: Archive, query: AuditExport, before: int) -> AsyncGenerator[str, None]:
    if query.format in HEADS:
        yield HEADS[query.format]
    after = 0
    while page := await archive.audit.list(_wanted(query), after=after, before=before, limit=_PAGE):
        after = page[-1].number
        if query.format == "jsonl":
            yield "".join(json.dumps(_shown(each).model_dump(mode="json")) + "\n" for each in page)
        else:
            yield await asyncio.to_thread(rows_of if query.format == "csv" else messages_of, page)
    if query.format in FEET:
        yield FEET[query.format]


def _wanted(query: AuditFilter) -> Filter:
    return Filter(
        event=query.event,
        outcome=None if query.outcome is None else int(query.outcome),
        actor=query.actor,
        source=query.source,
        patient=query.patient,
        study=query.study,
        since=_microseconds(query.since),
        until=_microseconds(query.until),
    )


def _microseconds(time: datetime | None) -> int | None:
    return None if time is None else (time - _EPOCH) // timedelta(microseconds=1)


def _shown(entry: Entry) -> AuditEntry:
    return AuditEntry(
        number=entry.number,
        recorded_at=moment(entry.recorded_at),
        event=entry.event,
        outcome=entry.outcome,
        actor=entry.actor,
        source=entry.source,
        message=entry.message,
        hash=entry.hash.hex(),
    )
