"""Instances: list, look at, the file, its tags, delete."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import Field

from tomowire.server.index.listing import InstanceEntry, Listing
from tomowire.server.users import Role
from tomowire.web.api.deletion import Deleted, deleted
from tomowire.web.api.file_response import file_response
from tomowire.web.api.models import Model, Next, Paging, after_page_of, filters_of, link_next, moment, tell_query
from tomowire.web.api.operation import Asked, Here, operation, topic
from tomowire.web.api.tags import tags_of
from tomowire.web.forms import NumberFilter, UidFilter, UidPath
from tomowire.web.problems import Problem

router = topic("instances")


class Instance(Model):
    """An instance."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: int | None
    number_of_frames: int | None
    rows: int | None
    columns: int | None
    data_set_bytes: int
    checksum: str = Field(description="Of the data set as it was received, in hexadecimal digits.")
    received_at: datetime
    received_from: str = Field(description="The AE title of the sender.")


class Instances(Model):
    """A page of instances."""

    instances: list[Instance]
    next: Next


class InstanceQuery(Paging):
    """Which instances."""

    of = "instances"
    after: str | None = after_page_of("instances")

    StudyInstanceUID: UidFilter = Field(None, description="The instances of this study.")
    SeriesInstanceUID: UidFilter = Field(None, description="The instances of this series.")
    SOPInstanceUID: UidFilter = None
    SOPClassUID: UidFilter = None
    InstanceNumber: NumberFilter = None


class Element(Model):
    """One element of the DICOM JSON model (PS3.18 F.2)."""

    vr: str
    Value: list[Any] | None = None


class Tags(Model):
    """A data set in the DICOM JSON model (PS3.18 F.2) but for bulk data: of binary values only the VR is given."""

    sop_instance_uid: str
    tags: dict[str, Element] = Field(examples=[{"00100020": {"vr": "LO", "Value": ["P1"]}, "7FE00010": {"vr": "OW"}}])


@router.get("/instances", **operation("listInstances", Role.READER, 400, link=True))
async def list_instances(here: Here, response: Response, query: Annotated[InstanceQuery, Query()]) -> Instances:
    """Instances that match all filters, in the order in which they came."""
    page = await Listing(here.archive.storage.index).instances(
        filters_of(query), after=query.after_key, limit=query.limit
    )
    tell_query(here)
    following = query.next_after(page.after)
    link_next(here, response, following)
    return Instances(instances=[_shown(each) for each in page.entries], next=following)


@router.get("/instances/{sop_instance_uid}", **operation("getInstance", Role.READER, 404))
async def get_instance(here: Here, sop_instance_uid: UidPath) -> Instance:
    """One instance."""
    found = await _find(here, sop_instance_uid)
    tell_query(here)
    return _shown(found)


@router.get(
    "/instances/{sop_instance_uid}/tags",
    response_model_exclude_unset=True,
    **operation("getInstanceTags", Role.READER, 404, 409),
)
async def get_instance_tags(here: Here, sop_instance_uid: UidPath) -> Tags:
    """What is in an instance, without pixels and other binary values."""
    found = await _find(here, sop_instance_uid)
    path = here.archive.storage.root / found.path
    try:
        tags = await asyncio.to_thread(tags_of, path, found.header_size, found.transfer_syntax_uid)
    except FileNotFoundError:
        raise Problem(404, f"instance {sop_instance_uid} has just been deleted, or its file is lost") from None
    here.archive.witness.read(here.party, found.study_instance_uid, found.sop_class_uid)
    return Tags(sop_instance_uid=sop_instance_uid, tags={tag: Element(**each) for tag, each in tags.items()})


@router.get(
    "/instances/{sop_instance_uid}/file",
    response_class=Response,
    **operation("getInstanceFile", Role.READER, 404, 412, 416, media="application/dicom"),
)
async def get_instance_file(here: Here, sop_instance_uid: UidPath) -> Response:
    """The file (PS3.10) as it is stored. A `Range` of bytes is understood, so what was broken off can be continued.

    So are `If-Match` and `If-None-Match`, with its `ETag`.
    """
    found = await _find(here, sop_instance_uid)
    path = here.archive.storage.root / found.path
    response = await file_response(path, here.request, etag=f'"{found.checksum.hex()}-{found.generation}"')
    if response.status_code != 304 and not here.request.scope.get("is_head"):
        here.archive.witness.read(here.party, found.study_instance_uid, found.sop_class_uid)
    return response


@router.delete("/instances/{sop_instance_uid}", **operation("deleteInstance", Role.OPERATOR, 404, 409))
async def delete_instance(here: Here, sop_instance_uid: UidPath) -> Deleted:
    """Delete an instance, and its series and study if nothing else is in them."""
    deleting = here.archive.deletion.instance(sop_instance_uid, by=here.principal.name, address=here.party.address)
    return await deleted(deleting, f"instance {sop_instance_uid}")


async def _find(here: Asked, sop_instance_uid: str) -> InstanceEntry:
    found = await Listing(here.archive.storage.index).instance(sop_instance_uid)
    if found is None:
        raise Problem(404, f"there is no instance {sop_instance_uid}")
    return found


def _shown(entry: InstanceEntry) -> Instance:
    own = {"received_at", "checksum"}
    values: dict[str, Any] = {name: getattr(entry, name) for name in Instance.model_fields if name not in own}
    return Instance(**values, received_at=moment(entry.received_at), checksum=entry.checksum.hex())
