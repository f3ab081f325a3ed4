"""What several topics have in their requests and answers."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from starlette.responses import Response

from tomowire.server.audit.events import Query as QueryEvent
from tomowire.services import models
from tomowire.web.api.operation import Asked
from tomowire.web.forms import PAGES

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:")


class Model(BaseModel):
    """An answer, or the body of a request: a field that is not known is an error, and not passed over."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, from_attributes=True, field_title_generator=lambda name, _: name
    )


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


def after_page_of(of: str) -> Any:
    """The field of a list for `next` of the page before."""
    return Field(None, pattern=PAGES[of], description="`next` of the page before.")


class Paging(Model):
    """Which page of a list. What a page of one list ends with means something else in another."""

    of: ClassVar[str]
    """The list."""

    limit: int = Field(100, ge=1, le=1000, description="How many entries are wanted.")
    after: str | None = None

    @property
    def after_key(self) -> str | None:
        """The key that the page before ended with."""
        return self.after.partition("-")[2] if self.after is not None else None

    def next_after(self, key: str | None) -> str | None:
        """What to give as `after` for the page after the one that ends with `key`."""
        return f"{self.of}-{key}" if key is not None else None


Next = Annotated[
    str | None,
    Field(description="What to give as `after` for the next page; null on the last one.", examples=["studies-4711"]),
]


def link_next(here: Asked, response: Response, after: str | None) -> None:
    """The next page as a link too (RFC 8288)."""
    if after is not None:
        url = here.request.url.include_query_params(after=after)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'


def tell_query(here: Asked) -> None:
    """What was found has been shown: the audit trail hears of it as of a C-FIND, once in a while for the same question."""
    url = here.request.url
    asked = (f"{url.path}?{url.query}" if url.query else url.path).encode("utf-8", "replace")
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
