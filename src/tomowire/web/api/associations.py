"""The associations that are open now."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import Path
from pydantic import Field

from tomowire.aio.association import Association
from tomowire.server.users import Role
from tomowire.uids import name_of
from tomowire.web.api.models import Model
from tomowire.web.api.operation import Here, operation, topic
from tomowire.web.problems import Problem

logger: Final = logging.getLogger("tomowire.http")

router = topic("associations")


class Context(Model):
    """An accepted presentation context."""

    id: int
    abstract_syntax: str = Field(examples=["1.2.840.10008.1.1"])
    abstract_syntax_name: str = Field(examples=["Verification SOP Class"])
    transfer_syntax: str = Field(examples=["1.2.840.10008.1.2"])
    transfer_syntax_name: str = Field(examples=["Implicit VR Little Endian"])


class OpenAssociation(Model):
    """An association."""

    id: int = Field(description="The one that the log has too; another one after a restart.")
    calling_ae_title: str
    called_ae_title: str
    peer: str = Field(description="`host:port` of the other end.", examples=["192.0.2.7:40210"])
    tls: str | None = Field(description="The version of TLS.", examples=["TLSv1.3"])
    certificate: str | None = Field(description="Whose certificate the peer has shown.")
    began_at: datetime
    seconds: float
    seconds_quiet: float = Field(description="Since something last came from the peer.")
    bytes_received: int
    bytes_sent: int
    messages_received: int
    messages_sent: int
    maximum_length: int = Field(description="Of a P-DATA-TF that the peer takes; 0 is no limit.")
    implementation: str = Field(description="The peer's implementation version name, or its class UID.")
    requests: list[str] = Field(description="What is being served.", examples=[["C-STORE"]])
    contexts: list[Context]


class Associations(Model):
    """The associations that are open now, the oldest first."""

    associations: list[OpenAssociation]


AssociationId = Annotated[int, Path(ge=1, le=2**63 - 1, description="`id` of an association.")]


@router.get("/associations", **operation("listAssociations", Role.READER))
async def list_associations(here: Here) -> Associations:
    """The associations that are open now, the oldest first."""
    return Associations(associations=[_shown(each) for each in here.archive.server.associations])


@router.get("/associations/{association_id}", **operation("getAssociation", Role.READER, 404))
async def get_association(here: Here, association_id: AssociationId) -> OpenAssociation:
    """One association."""
    return _shown(_find(here, association_id))


@router.delete("/associations/{association_id}", status_code=204, **operation("abortAssociation", Role.OPERATOR, 404))
async def abort_association(here: Here, association_id: AssociationId) -> None:
    """Abort an association: what it is in the middle of is not done, and its peer is told (A-ABORT)."""
    association = _find(here, association_id)
    logger.warning("%s: aborted by %s", association.title, here.principal.name)
    here.archive.witness.aborting(association, here.party)
    association.abort()


def _find(here: Here, number: int) -> Association:
    for each in here.archive.server.associations:
        if each.number == number:
            return each
    raise Problem(404, f"there is no association {number}, or not any more")


def _shown(association: Association) -> OpenAssociation:
    agreement = association.agreement
    information = agreement.request.user_information
    certificate = association.peer_certificate
    return OpenAssociation(
        id=association.number,
        calling_ae_title=association.calling_ae_title,
        called_ae_title=association.called_ae_title,
        peer=association.peer_address,
        tls=association.tls_version,
        certificate=certificate.subject or certificate.fingerprint if certificate is not None else None,
        began_at=datetime.now(UTC) - timedelta(seconds=association.seconds),
        seconds=association.seconds,
        seconds_quiet=association.seconds_quiet,
        bytes_received=association.connection.bytes_received,
        bytes_sent=association.connection.bytes_sent,
        messages_received=association.messages_received,
        messages_sent=association.messages_sent,
        maximum_length=information.maximum_length,
        implementation=information.implementation_version_name or information.implementation_class_uid or "",
        requests=[_NAMES.get(name, name) for name in association.serving],
        contexts=[
            Context(
                id=each.context_id,
                abstract_syntax=each.abstract_syntax,
                abstract_syntax_name=name_of(each.abstract_syntax),
                transfer_syntax=each.transfer_syntax,
                transfer_syntax_name=name_of(each.transfer_syntax),
            )
            for each in agreement.contexts.values()
        ],
    )


_NAMES: Final = {
    f"{kind}{operation.title()}RQ": f"{kind}-{operation}"
    for kind, operations in {
        "C": ("STORE", "FIND", "GET", "MOVE", "ECHO"),
        "N": ("ACTION", "CREATE", "GET", "SET", "DELETE"),
    }.items()
    for operation in operations
}
