"""One C-STORE request and its response: how the data set gets out, and what may happen meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from tomowire.errors import AssociationError, OperationTimeout
from tomowire.protocol.status import Status
from tomowire.services.dicom_file import DicomFile
from tomowire.services.reading import even

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.aio.association import Association
    from tomowire.aio.operation import Operation
    from tomowire.services.sources import Source
    from tomowire.services.transfer_progress import ProgressMeter
    from tomowire.wire.messages import CStoreRQ, Response


class Exchange:
    """One attempt to send an object. `on_bytes` is told of each piece that has gone out, `meter` in its place if there is one.

    What goes wrong before the first byte leaves the association as it is; in the middle of the data set nothing but an abort can
    follow (PS3.8 E.1: messages are not mixed, and none can be called off); after the last byte it can be used further.
    """

    def __init__(
        self,
        association: Association,
        context_id: int,
        request: CStoreRQ,
        timeout: float,
        on_bytes: Callable[[int], object] | None = None,
        meter: ProgressMeter | None = None,
    ) -> None:
        self._association = association
        self._context_id = context_id
        self._request = request
        self._timeout = timeout
        self._on_bytes = on_bytes if meter is None else meter.add
        self._meter = meter

    async def send(self, source: Source, content: bytes | memoryview | None = None) -> Response:
        """Send the data set, which is `content` if that is given, and wait for the response. Raises as `CStoreScu.send` does."""
        name = f"C-STORE of {self._request.affected_sop_instance_uid}"
        lost: AssociationError | None = None
        async with self._association.operation(self._request, name=name, timeout=self._timeout) as operation:
            try:
                if content is not None:
                    await self._association.send(self._context_id, self._request, even(content))
                    if self._on_bytes is not None:
                        self._on_bytes(len(content))
                elif isinstance(source, DicomFile):
                    await self._send_file(source, operation)
                else:
                    await self._send_watched(source, operation)
            except AssociationError as error:
                if not operation.answered:
                    raise
                lost = error
            if self._meter is not None and lost is None:
                self._meter.finish()
            response = await operation.only_response()
            # An SCP that is out of resources may say so and go away without taking the rest. Success it cannot mean.
            if lost is not None and not Status(response.status).is_failure:
                raise lost
        return response

    async def _send_file(self, file: DicomFile, operation: Operation) -> None:
        async with (
            file.pieces(self._association.payload_maximum) as pieces,
            self._association.sending(self._context_id, self._request, operation) as sender,
        ):
            async for piece, last in pieces:
                await sender.write(piece, last=last)
                if self._on_bytes is not None:
                    self._on_bytes(len(piece))

    async def _send_watched(self, source: Source, operation: Operation) -> None:
        """Send what may come slowly, or not at all: an end of the association is seen while it is waited for."""
        is_waiting = True
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit, AsyncExitStack() as stack:
                operation.on_failed = partial(_expire, limit)
                pieces = await stack.enter_async_context(source.pieces(self._association.payload_maximum))
                limit.reschedule(None)  # from here on the operation is timed
                if self._meter is not None:
                    self._meter.total = getattr(pieces, "size", source.size)
                sending = self._association.sending(self._context_id, self._request, operation)
                sender = await stack.enter_async_context(sending)
                # When the source raises, that is told, and not how the association ends because of it.
                stack.callback(setattr, operation, "on_failed", None)
                async for piece, last in pieces:
                    is_waiting = False
                    await sender.write(piece, last=last)
                    if self._on_bytes is not None:
                        self._on_bytes(len(piece))
                    is_waiting = True
        except TimeoutError:
            if not limit.expired():
                raise  # the source's own
            if operation.error is not None and not (is_waiting and isinstance(operation.error, OperationTimeout)):
                raise operation.error.with_traceback(None) from None
            then = "nothing was sent" if operation.error is None else "the association was aborted"
            raise OperationTimeout(
                f"{operation.name}: {source.name} gave nothing for {self._timeout:g} s; {then}"
            ) from None
        finally:
            operation.on_failed = None


def _expire(limit: asyncio.Timeout) -> None:
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())
