"""How the archive is."""

from __future__ import annotations

import platform
from datetime import datetime

from pydantic import Field

from tomowire._version import __version__
from tomowire.server.app import Archive
from tomowire.server.users import Role
from tomowire.web.api.models import Model
from tomowire.web.api.operation import Here, operation, topic

router = topic("status")


class DicomStatus(Model):
    """The DICOM port."""

    ae_title: str
    addresses: list[str] = Field(examples=[["127.0.0.1:11112"]], description="Host and port of each listening socket.")
    tls: bool
    associations: int = Field(description="Those that are established now.")
    maximum_associations: int


class QuotaStatus(Model):
    """The limit of bytes."""

    bytes: int = Field(description="How much objects may take.")
    used: int | None = Field(description="How much they take, as of the last look; null before it.")
    trouble: str = Field(description="Why they take more, and nothing is deleted; empty if all is well.")


class Status(Model):
    """How the archive is."""

    version: str = Field(examples=["0.3.0"])
    python: str = Field(examples=["3.11.2"])
    started_at: datetime
    seconds: float = Field(description="Since it was started.")
    dicom: DicomStatus
    quota: QuotaStatus | None = Field(description="Null without a limit.")
    role: str = Field(description="The role of who asks.", examples=["reader"])


@router.get("/status", **operation("getStatus", Role.READER))
async def get_status(here: Here) -> Status:
    """How the archive is: version, since when it runs, where it listens, and whether it keeps within its quota."""
    archive = here.archive
    server = archive.server
    return Status(
        version=__version__,
        python=platform.python_version(),
        started_at=here.gate.started_at,
        seconds=here.gate.seconds,
        dicom=DicomStatus(
            ae_title=archive.settings.ae_title,
            addresses=[f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in server.addresses],
            tls=archive.settings.tls is not None,
            associations=len(server.associations),
            maximum_associations=archive.settings.maximum_associations,
        ),
        quota=_quota(archive),
        role=here.principal.role.value,
    )


def _quota(archive: Archive) -> QuotaStatus | None:
    quotas = archive.quotas
    if quotas.limit is None:
        return None
    return QuotaStatus(bytes=quotas.limit, used=quotas.bytes, trouble=quotas.trouble)
