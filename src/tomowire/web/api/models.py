"""What several topics have in their requests and answers."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import Path
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, Strict, StringConstraints
from starlette.responses import Response

from tomowire.server.audit.events import Query as QueryEvent
from tomowire.services import models
from tomowire.web.api.operation import Asked

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:")
_UID: Final = r"^[0-9]+(\.[0-9]+)*$"


class Model(BaseModel):
    """An answer, or the body of a request: a field that is not known is an error, and not passed over."""

    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)


Uid = Annotated[
    str, StringConstraints(max_length=64, pattern=_UID), Field(examples=["1.2.826.0.1.3680043.10.1234.1.1"])
]
"""A UID (PS3.5 9.1); leading zeros, which many devices write, are taken."""

UidPath = Annotated[str, Path(max_length=64, pattern=_UID, examples=["1.2.826.0.1.3680043.10.1234.1.1"])]

AeTitle = Annotated[
    str,
    StringConstraints(max_length=16, pattern=r"^[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?$"),
    Field(examples=["WORKSTATION"]),
]
"""An AE title (PS3.5 6.2): ASCII without a backslash; outer spaces mean nothing, and are not taken."""

Text = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A line of text."""

Filter = Annotated[str | None, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Matched as C-FIND does (PS3.4 C.2.2.2): `*` and `?`, ranges of dates, several values with backslashes between them."""


def _rfc3339(given: object) -> object:
    """Of numbers pydantic would make times too."""
    if isinstance(given, str) and not _MOMENT.match(given):
        raise ValueError("a time is written like 2026-01-31T12:00:00Z (RFC 3339)")
    if not isinstance(given, str | datetime):
        raise ValueError("a time is text, like 2026-01-31T12:00:00Z (RFC 3339)")
    return given


Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339)]
"""A time with its zone."""


def _number(given: object) -> object:
    """Of true and of text pydantic would make numbers too."""
    if isinstance(given, bool | str):
        raise ValueError("a whole number is not in quotes, and neither true nor false")
    return given


Flag = Annotated[bool, Strict()]
Whole = Annotated[int, BeforeValidator(_number)]
"""What JSON has for it and nothing else, in the body of a request."""


class Paging(Model):
    """Which page of a list."""

    limit: int = Field(100, ge=1, le=1000, description="How many entries are wanted.")
    after: str | None = Field(None, pattern=r"^[0-9]{1,18}$", description="`next` of the page before.")


Next = Annotated[
    str | None, Field(description="What to give as `after` for the next page; null on the last one.", examples=["4711"])
]


def link_next(here: Asked, response: Response, after: str | None) -> None:
    """The next page as a link too (RFC 8288)."""
    if after is not None:
        url = here.request.url.include_query_params(after=after)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'


def tell_query(here: Asked) -> None:
    """What was found has been shown: the audit trail hears of it as of a C-FIND, once in a while for the same question."""
    url = here.request.url
    asked = f"{url.path}?{url.query}".encode("utf-8", "replace")
    here.gate.tell(QueryEvent(by=here.party, sop_class_uid=models.Model.STUDY_ROOT.find, identifier=asked))


def filters_of(query: BaseModel, *own: str) -> dict[str, str]:
    """The filters that were given: all fields but those of paging and `own`."""
    without = {*Paging.model_fields, *own}
    given = query.model_dump(exclude_none=True)
    return {name: str(value) for name, value in given.items() if name not in without}


def moment(microseconds: int) -> datetime:
    """A time of the database, microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


def moment_or_none(microseconds: int | None) -> datetime | None:
    """The same for what may not have come yet."""
    return None if microseconds is None else moment(microseconds)
