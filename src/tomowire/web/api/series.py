"""Series: list, look at, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import Field

from tomowire.server.index.listing import Listing, SeriesEntry
from tomowire.server.users import Role
from tomowire.web.api.deletion import Deleted, deleted
from tomowire.web.api.models import Model, Next, Paging, after_page_of, filters_of, link_next, moment, tell_query
from tomowire.web.api.operation import Here, operation, topic
from tomowire.web.forms import Filter, NumberFilter, Uid, UidFilter, UidPath
from tomowire.web.problems import Problem

router = topic("series")


class Series(Model):
    """A series."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str = Field(examples=["CT"])
    series_number: int | None
    series_description: str
    series_date: str
    series_time: str
    body_part_examined: str
    laterality: str
    protocol_name: str
    station_name: str
    manufacturer: str
    instances: int = Field(description="How many.")
    data_set_bytes: int
    received_at: datetime = Field(description="When the last of its objects came.")


class SeriesList(Model):
    """A page of series."""

    series: list[Series]
    next: Next


class SeriesQuery(Paging):
    """Which series."""

    of = "series"
    after: str | None = after_page_of("series")

    StudyInstanceUID: UidFilter = Field(None, description="The series of this study.")
    SeriesInstanceUID: UidFilter = None
    PatientID: Filter = None
    PatientName: Filter = None
    AccessionNumber: Filter = None
    Modality: Filter = Field(None, examples=["CT"])
    SeriesNumber: NumberFilter = None
    SeriesDescription: Filter = None
    BodyPartExamined: Filter = None
    StationName: Filter = None


class StudyUidQuery(Model):
    """Senders that use one Series Instance UID in several studies exist."""

    study_instance_uid: Uid | None = Field(None, description="The study, where the same UID is in several.")


@router.get("/series", **operation("listSeries", Role.READER, 400, link=True))
async def list_series(here: Here, response: Response, query: Annotated[SeriesQuery, Query()]) -> SeriesList:
    """Series that match all filters, in the order in which they came."""
    page = await Listing(here.archive.storage.index).series(filters_of(query), after=query.after_key, limit=query.limit)
    tell_query(here)
    following = query.next_after(page.after)
    link_next(here, response, following)
    return SeriesList(series=[_shown(each) for each in page.entries], next=following)


@router.get("/series/{series_instance_uid}", **operation("getSeries", Role.READER, 404))
async def get_series(here: Here, series_instance_uid: UidPath, query: Annotated[StudyUidQuery, Query()]) -> Series:
    """One series."""
    listing = Listing(here.archive.storage.index)
    found = await listing.one_series(series_instance_uid, query.study_instance_uid)
    if found is None:
        raise Problem(404, f"there is no series {series_instance_uid}")
    tell_query(here)
    return _shown(found)


@router.delete("/series/{series_instance_uid}", **operation("deleteSeries", Role.OPERATOR, 404, 409))
async def delete_series(here: Here, series_instance_uid: UidPath, query: Annotated[StudyUidQuery, Query()]) -> Deleted:
    """Delete a series, all of it or nothing, and its study if nothing else is in it."""
    deleting = here.archive.deletion.series(
        series_instance_uid,
        study=query.study_instance_uid or "",
        by=here.principal.name,
        address=here.party.address,
    )
    return await deleted(deleting, f"series {series_instance_uid}")


def _shown(entry: SeriesEntry) -> Series:
    values: dict[str, Any] = {name: getattr(entry, name) for name in Series.model_fields if name != "received_at"}
    return Series(**values, received_at=moment(entry.received_at))
