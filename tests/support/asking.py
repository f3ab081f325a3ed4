"""An association on which everything is asked for that an archive can do, one thing after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydicom import Dataset

from support.network import LOOPBACK
from support.objects import SECONDARY_CAPTURE, Sample
from tomowire import Level, Model, Storage, StoreRequest, associate
from tomowire.aio.association import Association
from tomowire.aio.responses import responses
from tomowire.aio.tls import TlsClient
from tomowire.protocol.negotiation import ProposedContext
from tomowire.server.access import Right
from tomowire.services.identifiers import encode
from tomowire.services.verification import CEchoScu
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tomowire.wire.messages import CFindRQ, CGetRQ, CMoveRQ, CStoreRQ, Request

SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
MODEL = Model.STUDY_ROOT
STORED = Sample(1)
"""What is in the archive."""

SERVICES = {
    "C-ECHO": (Right.ECHO, VERIFICATION),
    "C-STORE": (Right.STORE, SECONDARY_CAPTURE),
    "C-FIND": (Right.QUERY, MODEL.find),
    "C-GET": (Right.RETRIEVE, MODEL.get),
    "C-MOVE": (Right.RETRIEVE, MODEL.move),
}
"""What each takes: a right, and a presentation context."""


@asynccontextmanager
async def everything(
    port: int, *, aet: str = "CALLER", called: str = "TOMOWIRE", tls: TlsClient | None = None, as_scp: bool = False
) -> AsyncIterator[Association]:
    """An association with an archive for which every service is proposed; `as_scp` also to be sent objects by C-GET."""

    async def keep(request: StoreRequest) -> int:
        await request.data.read()
        return 0

    contexts = [ProposedContext(uid, SYNTAXES) for _, uid in SERVICES.values() if uid != SECONDARY_CAPTURE]
    contexts.append(ProposedContext(SECONDARY_CAPTURE, SYNTAXES, scp=as_scp))
    options: dict[str, Any] = {"ssl": tls} if tls is not None else {}
    if as_scp:
        options["services"] = [Storage(keep)]
    async with associate(f"{called}@{LOOPBACK}:{port}", contexts, aet=aet, **options) as association:
        yield association


def offered(association: Association) -> set[str]:
    """The services for which there is a presentation context."""
    return {name for name, (_, uid) in SERVICES.items() if association.contexts(uid)}


async def ask(association: Association, service: str, *, number: int = 2, destination: str = "VIEWER") -> int:
    """The final status of one request."""
    uid = SERVICES[service][1]
    if service == "C-ECHO":
        return int(await CEchoScu(association).echo(timeout=20))
    context = association.context(uid)
    message, data = _request(association.next_message_id(), service, number, destination)
    data = data if isinstance(data, bytes) else encode(data, context.transfer_syntax)
    received = responses(association, context, message, data, name=service, timeout=20, grace=5)
    return [response.status async for response, _ in received][-1]


def _request(message_id: int, service: str, number: int, destination: str) -> tuple[Request, bytes | Dataset]:
    uid = SERVICES[service][1]
    query = Dataset()
    query.QueryRetrieveLevel = str(Level.STUDY)
    query.StudyInstanceUID = STORED.study_uid
    if service == "C-STORE":
        sample = Sample(number)
        message = CStoreRQ(
            message_id=message_id, affected_sop_class_uid=SECONDARY_CAPTURE, affected_sop_instance_uid=sample.uid
        )
        return message, sample.data_set
    if service == "C-FIND":
        return CFindRQ(message_id=message_id, affected_sop_class_uid=uid), query
    if service == "C-GET":
        return CGetRQ(message_id=message_id, affected_sop_class_uid=uid), query
    return CMoveRQ(message_id=message_id, affected_sop_class_uid=uid, move_destination=destination), query
