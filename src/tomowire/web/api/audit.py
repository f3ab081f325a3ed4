"""The audit trail: look through it, export it, verify it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import Query, Response
from pydantic import Field
from starlette.responses import StreamingResponse

from tomowire.server.app import Archive
from tomowire.server.audit.events import AuditLogUsed
from tomowire.server.audit.trail import Entry, Filter
from tomowire.server.users import Role
from tomowire.web.api.models import Model, Moment, Next, Paging, Text, link_next, moment
from tomowire.web.api.operation import Here, operation, topic

router = topic("audit")

_PAGE: Final = 500


class AuditEntry(Model):
    """An event."""

    number: int = Field(description="1, 2, 3, ...: a gap is a loss.")
    recorded_at: datetime
    event: str = Field(examples=["UserAuthentication"])
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

    event: Text | None = None
    outcome: int | None = Field(None, ge=0, le=12)
    actor: Text | None = None
    source: Text | None = None
    since: Moment | None = None
    until: Moment | None = Field(None, description="Excluded.")


class AuditQuery(AuditFilter, Paging):
    """Which events, in which order."""

    newest_first: bool = True


class AuditExport(AuditFilter):
    """Which events, in which form."""

    format: Literal["jsonl", "xml"] = "jsonl"


@router.get("/audit", **operation("listAudit", Role.ADMINISTRATOR, 422, link=True))
async def list_audit(here: Here, response: Response, query: Annotated[AuditQuery, Query()]) -> AuditEntries:
    """Events of the audit trail. That somebody looked is an event itself."""
    here.archive.audit.record(AuditLogUsed(by=here.party))
    token = int(query.after) if query.after is not None else None
    found = await here.archive.audit.list(
        _wanted(query),
        after=token or 0 if not query.newest_first else 0,
        before=token if query.newest_first else None,
        limit=query.limit + 1,
        newest_first=query.newest_first,
    )
    shown = found[: query.limit]
    following = str(shown[-1].number) if len(found) > len(shown) else None
    link_next(here, response, following)
    return AuditEntries(entries=[_shown(each) for each in shown], next=following)


@router.get(
    "/audit/export",
    response_class=Response,
    **operation("exportAudit", Role.ADMINISTRATOR, 422, media=("application/jsonl", "application/xml")),
)
async def export_audit(here: Here, query: Annotated[AuditExport, Query()]) -> Response:
    """All events that match, the oldest first: a JSON object on each line, or DICOM's messages in one XML document."""
    here.archive.audit.record(AuditLogUsed(by=here.party))
    media_type = "application/jsonl" if query.format == "jsonl" else "application/xml"
    name = f'attachment; filename="audit.{query.format}"'
    return StreamingResponse(
        _exported(here.archive, query), media_type=media_type, headers={"Content-Disposition": name}
    )


@router.get("/audit/verification", **operation("verifyAudit", Role.ADMINISTRATOR))
async def verify_audit(here: Here) -> AuditVerification:
    """Verify the chain of hashes over all events."""
    problems = list(await here.archive.audit.verify())
    return AuditVerification(is_whole=not problems, problems=problems)


async def _exported(archive: Archive, query: AuditExport) -> AsyncGenerator[str, None]:
    if query.format == "xml":
        yield '<?xml version="1.0" encoding="UTF-8"?>\n<AuditMessages>\n'
    after = 0
    while page := await archive.audit.list(_wanted(query), after=after, limit=_PAGE):
        after = page[-1].number
        if query.format == "xml":
            yield "".join(f"{_without_declaration(each.message)}\n" for each in page)
        else:
            yield "".join(json.dumps(_shown(each).model_dump(mode="json")) + "\n" for each in page)
    if query.format == "xml":
        yield "</AuditMessages>\n"


def _without_declaration(message: str) -> str:
    return message.partition("?>")[2].lstrip() if message.startswith("<?xml") else message


def _wanted(query: AuditFilter) -> Filter:
    return Filter(
        event=query.event,
        outcome=query.outcome,
        actor=query.actor,
        source=query.source,
        since=_microseconds(query.since),
        until=_microseconds(query.until),
    )


def _microseconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1e6)


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
