"""What one sends on an association: requests, and responses to those of the peer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tomowire.aio.facts import AssociationFacts
from tomowire.aio.outbox import MessageSender
from tomowire.wire.messages import CCancelRQ

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tomowire.aio.operation import Operation
    from tomowire.aio.operations import Operations
    from tomowire.aio.outbox import Outbox
    from tomowire.wire.command_set import Message
    from tomowire.wire.messages import Request


class AssociationMessages(AssociationFacts):
    """The part of `Association` that messages of this side go through."""

    _operations: Operations
    _outbox: Outbox

    def next_message_id(self) -> int:
        """A Message ID that is not in use on this association (1 to 65535)."""
        return self._operations.next_message_id()

    def operation(self, request: Request, *, name: str, timeout: float | None) -> Operation:
        """To be entered with `async with` before `request` is sent, and left when its responses have been taken.

        `timeout` is the time in which something must move, None for ever; then the association is aborted and `OperationTimeout`
        raised. `name` stands in its text.
        """
        self._outbox.check_open()
        return self._operations.new(request, name, timeout)

    def send(
        self, context_id: int, message: Message, data: bytes | memoryview | None = None
    ) -> Coroutine[Any, Any, None]:
        """Send one message, with its data set if that lies in memory, after those that are being sent.

        Waits while the peer is slow to take it. Raises what ended the association, and `UsageError` for what cannot be encoded.
        """
        return self._outbox.send(context_id, message, data)

    def send_command_set(self, context_id: int, encoded: bytes) -> Coroutine[Any, Any, None]:
        """Send a command set that is encoded already and has no data set, as `send` does."""
        return self._outbox.send_command_set(context_id, encoded)

    def sending(self, context_id: int, message: Message, operation: Operation | None = None) -> MessageSender:
        """Send a message whose data set comes in pieces: `async with association.sending(...) as sender`."""
        return MessageSender(self._outbox, context_id, message, operation)

    async def cancel(self, context_id: int, operation: Operation) -> None:
        """Send C-CANCEL for a request of ours (PS3.7 9.3.2.3); the peer ends it with a final response, which is still to be taken.

        Sends nothing when the request has not been sent, or has been answered. Waits and raises as `send` does.
        """
        if operation.is_outstanding:
            request = CCancelRQ(message_id_being_responded_to=operation.request.message_id)
            await self._outbox.send(context_id, request, None)
