"""Ending the archive."""

from __future__ import annotations

import logging
from typing import Final

from pydantic import Field

from tomowire.server.users import Role
from tomowire.web.api.models import Model
from tomowire.web.api.operation import Here, operation, topic
from tomowire.web.problems import Problem

logger: Final = logging.getLogger("tomowire.http")

router = topic("shutdown")


class Ending(Model):
    """That the archive ends."""

    associations: int = Field(description="Those that may finish before it does.")
    grace_seconds: float = Field(description="How long they may take.")


@router.post("/shutdown", status_code=202, **operation("shutDown", Role.ADMINISTRATOR, 409))
async def shut_down(here: Here) -> Ending:
    """End the archive as an interrupt would: no new associations, those in progress may finish, then the process ends."""
    if here.gate.process.shut_down is None:
        raise Problem(409, "this archive is part of another program, which has to end it")
    logger.warning("shutting down, as %s wants it", here.principal.name)
    here.archive.witness.stopping(here.party)
    here.gate.process.shut_down()
    return Ending(
        associations=len(here.archive.server.associations), grace_seconds=here.archive.settings.shutdown_grace
    )
