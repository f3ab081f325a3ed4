"""A request that has many responses: C-FIND, C-GET, C-MOVE. They are yielded as they come; who leaves early calls it off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tomowire.errors import AssociationError, PeerMisbehaved
from tomowire.protocol.status import Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tomowire.aio.association import Association
    from tomowire.aio.copied import Copied
    from tomowire.aio.operation import Operation
    from tomowire.aio.streams import DataStream
    from tomowire.protocol.negotiation import AcceptedContext
    from tomowire.wire.messages import Request, Response

LARGEST_DATA_SET: Final = 8 << 20
"""The most bytes of a response's data set that are read into memory.

An identifier has some hundred, but that with the list of what a C-MOVE failed to send has up to 65 for each object.
"""


async def responses(
    association: Association,
    context: AcceptedContext,
    request: Request,
    identifier: bytes,
    *,
    name: str,
    timeout: float | None,
    grace: float,
) -> AsyncGenerator[tuple[Response, bytes | None], None]:
    """Send `request` with its identifier; yield every response with its data set (None if it has none), the final one included.

    Of a final response a data set of more than `LARGEST_DATA_SET` bytes is passed over: None too, though the response has one.
    A pending response with such a data set breaks the association off.

    `name` is what errors call it, such as "C-FIND"; `timeout` the seconds in which something must move, None for ever.

    Left before the final response has come (by `aclose`, a cancellation, an exception thrown in) it sends C-CANCEL (PS3.7 9.3.2.3)
    and waits up to `grace` seconds for the final response, passing over all others. When that does not come, or on a second
    cancellation, the association is aborted. What was cancelled before the request was sent sends nothing at all. Leave it with
    `contextlib.aclosing`: a generator that is only dropped is closed some time later.

    Raises `OperationTimeout`, `PeerMisbehaved`, and what ended the association (`AssociationError`).
    """
    async with association.operation(request, name=name, timeout=timeout) as operation:
        try:
            await association.send(context.context_id, request, identifier)
            is_final = False
            while not is_final:
                response, stream = await operation.next_response()
                is_final = not Status(response.status).is_pending
                yield response, await _whole(association, name, stream, is_final=is_final)
        except BaseException:
            if operation.is_outstanding:
                await _call_off(association, context, operation, grace)
            raise


async def _whole(
    association: Association, name: str, stream: DataStream | Copied | None, *, is_final: bool
) -> bytes | None:
    """The data set of a response, copied: its memory is given back at once, so that no slow reader holds up the peer."""
    if stream is None:
        return None
    data = bytearray()
    async for chunk in stream:
        if len(data) + chunk.nbytes > LARGEST_DATA_SET:
            if is_final:  # what it is about counts more, and stands in the command set
                stream.close()
                return None
            problem = f"{name}: the peer sent a response with a data set of more than {LARGEST_DATA_SET} bytes"
            association.break_off(problem)
            raise PeerMisbehaved(problem)
        for buffer in chunk.buffers:
            data += buffer
    return bytes(data)


async def _call_off(association: Association, context: AcceptedContext, operation: Operation, grace: float) -> None:
    """Send C-CANCEL and wait for the final response; without one nobody knows what the peer still does: abort."""
    try:
        async with asyncio.timeout(grace):
            await association.cancel(context.context_id, operation)
            while operation.is_outstanding:
                await operation.next_response()
    except (AssociationError, PeerMisbehaved):
        return  # the association is over, or is being released: why this was left counts more
    except TimeoutError:
        association.abort(because=f"{operation.name}: the peer did not end it within {grace:g} s of C-CANCEL")
    except BaseException:
        association.abort()
        raise
