"""What deleting answers with, whatever was deleted."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from pydantic import Field

from tomowire.errors import StudyProtected
from tomowire.web.api.models import Model
from tomowire.web.problems import Problem


class DeletedPart(Model):
    """What went of one study."""

    study_instance_uid: str
    instances: int
    is_whole_study: bool = Field(description="False if there is something left of it.")


class Deleted(Model):
    """What was deleted."""

    instances: int
    studies: list[DeletedPart] = Field(description="The studies of which something went.")


async def deleted(deleting: Awaitable[Any], what: str) -> Deleted:
    """The answer. Raises `Problem` when there was nothing, and for a study that is protected."""
    try:
        parts = await deleting
    except StudyProtected as error:
        raise Problem(409, str(error)) from None
    if not parts:
        raise Problem(404, f"there is no {what}")
    return Deleted(
        instances=sum(each.instances for each in parts), studies=[DeletedPart.model_validate(each) for each in parts]
    )
