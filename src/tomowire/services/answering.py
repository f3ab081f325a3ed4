"""What the SCPs of C-FIND, C-GET and C-MOVE share: the identifier of a request, relational keys, and being called off."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import QueryFailed
from tomowire.protocol.status import CANNOT_UNDERSTAND, OUT_OF_RESOURCES
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tomowire.aio.association import Association
    from tomowire.aio.serving import IncomingRequest

LARGEST_IDENTIFIER: Final = 4 << 20
"""Bytes of a query that are taken: room for 60,000 UIDs."""
RETRIEVE_NEGOTIATION_BYTES: Final = 2
"""PS3.4 C.5.2.1.2, C.5.3.1.2: relational retrieval, conversion of multi-frame images."""
IDENTIFIER_SYNTAXES: Final = frozenset({EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN})


@asynccontextmanager
async def closing(answers: AsyncIterator[Any]) -> AsyncIterator[None]:
    """Close an iterator that can be closed: generators can, others need not."""
    try:
        yield
    finally:
        close = getattr(answers, "aclose", None)
        if close is not None:
            await close()


@asynccontextmanager
async def told_of_cancel(request: IncomingRequest, limit: asyncio.Timeout) -> AsyncIterator[None]:
    """Let `limit` run out when the peer sends C-CANCEL: what waits inside it is cancelled then, in its own task."""

    async def watch() -> None:
        await request.wait_cancelled()
        limit.reschedule(asyncio.get_running_loop().time())

    watching = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


async def read_identifier(request: IncomingRequest) -> bytes:
    """The identifier of a query, which is not to fill the memory. Raises `QueryFailed` if there is none, or too much of it."""
    if request.data is None:
        raise QueryFailed(CANNOT_UNDERSTAND, "the request has no identifier")
    identifier = bytearray()
    async for chunk in request.data:
        if len(identifier) + chunk.nbytes > LARGEST_IDENTIFIER:
            raise QueryFailed(OUT_OF_RESOURCES, f"an identifier of more than {LARGEST_IDENTIFIER} bytes")
        for buffer in chunk.buffers:
            identifier += buffer
    return bytes(identifier)


def agree_relational(proposed: bytes, most: int, *, relational: bool) -> bytes:
    """The answer to a SOP class extended negotiation: as many bytes as were proposed, up to `most`.

    Of what they stand for (PS3.4 C.5.1.1.2, C.5.2.1.2, C.5.3.1.2) nothing is agreed to but the first: relational keys.
    """
    answered = bytearray(min(max(len(proposed), 1), most))
    answered[0] = relational and proposed[:1] == b"\x01"
    return bytes(answered)


def is_relational(association: Association, sop_class_uid: str) -> bool:
    """Whether relational keys were agreed on for a SOP class."""
    agreed = association.agreement.response.user_information.extended_negotiations
    return any(each.sop_class_uid == sop_class_uid and each.application_information[:1] == b"\x01" for each in agreed)
