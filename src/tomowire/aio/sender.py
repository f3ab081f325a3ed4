"""Sending one message with a data set that does not lie in memory as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tomowire.aio.association import Association
    from tomowire.aio.operation import Operation
    from tomowire.wire.command_set import Message


class MessageSender:
    """Sends the data set of one message piece by piece; other messages of the association wait until it is done.

    Left by an exception (cancellation too) in the middle of the data set, it aborts the association: nothing else can follow half
    a message. `operation` is kept from timing out while bytes move.
    """

    def __init__(
        self, association: Association, context_id: int, message: Message, operation: Operation | None = None
    ) -> None:
        self._association = association
        self._context_id = context_id
        self._message = message
        self._operation = operation

    async def __aenter__(self) -> MessageSender:
        await self._association.begin_message(self._context_id, self._message)
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        self._association.end_message()

    async def write(self, data: memoryview, *, last: bool) -> None:
        """Send a piece. When this returns the buffer may be used again. Raises what ended the association."""
        await self._association.send_piece(data, last=last)
        if self._operation is not None:
            self._association.touch(self._operation)
