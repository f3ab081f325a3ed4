"""What is sent on an association: one message after the other, whole, and no faster than the peer takes it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tomowire.errors import AssociationReleased, UsageError
from tomowire.protocol.states import State
from tomowire.wire.messages import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.aio.connection import Connection
    from tomowire.aio.operation import Operation
    from tomowire.aio.operations import Operations
    from tomowire.errors import AssociationError
    from tomowire.protocol.upper_layer import UpperLayer
    from tomowire.wire.command_set import Message

LARGE: Final = 64 * 1024
"""Bytes from which on a data set does not wait for company."""


class Outbox:
    """Lets one message after the other be sent (PS3.8 E.1: they must not be interleaved).

    A message whose data set comes in pieces has its turn until it is whole; the others wait. `abort` is called when one is given
    up in the middle: nothing else can follow half a message.
    """

    def __init__(
        self, upper: UpperLayer, connection: Connection, operations: Operations, abort: Callable[[], None]
    ) -> None:
        self._upper = upper
        self._connection = connection
        self._operations = operations
        self._abort = abort
        self._turn = asyncio.Lock()
        self._over: AssociationError | None = None
        self.messages_sent = 0
        """How many messages have been begun."""
        self._cut_short = False  # the end came while the peer still had to take what was written

    async def send(self, context_id: int, message: Message, data: bytes | memoryview | None) -> None:
        """Send a message, with its data set if it has one. Waits while the peer is slow.

        A data set of `LARGE` bytes or more is not used any more when this returns, unless the association is over.
        """
        if self._turn.locked() or self._connection.is_writing_paused:
            async with self._turn:
                await self._drain()
                self._send_now(context_id, message, data)
        else:
            self._send_now(context_id, message, data)
        if self._connection.is_writing_paused:
            await self._drain()
            if self._over is not None and self._cut_short:
                raise self._over.with_traceback(None)

    async def send_command_set(self, context_id: int, encoded: bytes) -> None:
        """Send a command set that is encoded already and has no data set, as `send` does."""
        async with self._turn:
            await self._drain()
            self.check_open()
            self._upper.send_command_set(context_id, encoded)
            self.messages_sent += 1
            self._connection.flush_soon()
        await self._drain()

    async def release(self, now: Callable[[], float]) -> None:
        """Ask for release, after the message that is being sent. Does nothing if that cannot be asked for (any more)."""
        async with self._turn:
            if self._upper.state is State.STA6_DATA_TRANSFER:
                self._upper.release(now())
                self._connection.flush()
                self._operations.on_release()

    # For `MessageSender`

    async def begin(self, context_id: int, message: Message) -> None:
        """Wait for the turn of this message, and begin it."""
        await self._turn.acquire()
        try:
            await self._drain()
            self._start(context_id, message, None)
        except BaseException:
            self._turn.release()
            raise

    async def send_piece(self, data: memoryview, operation: Operation | None, *, last: bool) -> None:
        """Send a piece of the data set, and wait until the buffer can be used again."""
        self.check_open()
        self._upper.send_data(data, last=last)
        self._connection.flush()
        self._operations.on_progress(operation)
        if self._connection.is_writing_paused:
            await self._drain()
            self._operations.on_progress(operation)

    def end(self) -> None:
        """Let the next message go; when this one is not whole, nothing can follow it but an abort."""
        try:
            if self._upper.is_sending_data:
                self._abort()
        finally:
            self._turn.release()

    # The association

    def check_open(self) -> None:
        """Raise why nothing can be sent."""
        if self._over is not None:
            raise self._over.with_traceback(None)
        if not self._upper.is_established:
            if self._upper.agreement is not None:  # Sta7 and Sta9 to Sta12
                raise AssociationReleased("the association is being released")
            raise UsageError(f"the association is not established: {self._upper.state.name}")

    def close(self, error: AssociationError) -> None:
        """The association is over: let go whoever waits."""
        self._over = error
        self._cut_short = self._connection.is_writing_paused
        self._connection.stop_draining()

    def _send_now(self, context_id: int, message: Message, data: bytes | memoryview | None) -> None:
        if data is None and message.has_data_set:  # everything after it would wait for that
            raise UsageError(f"{type(message).__name__} says that it has a data set, but none was given")
        self._start(context_id, message, memoryview(data) if data is not None else None)
        if data is not None and len(data) >= LARGE:
            self._connection.flush()
        else:
            self._connection.flush_soon()

    def _start(self, context_id: int, message: Message, data: memoryview | None) -> None:
        self.check_open()
        self._upper.send_message(context_id, message, data)
        self.messages_sent += 1
        if isinstance(message, Request):
            self._operations.on_sent(message.message_id)

    async def _drain(self) -> None:
        """Wait until the kernel has taken what was written, or the association is over: then nobody cares."""
        if self._over is None:
            await self._connection.drain()


class MessageSender:
    """Sends the data set of one message piece by piece; other messages of the association wait until it is done.

    Left by an exception (cancellation too) in the middle of the data set, it aborts the association. `operation` is kept from
    timing out while bytes move.
    """

    def __init__(self, outbox: Outbox, context_id: int, message: Message, operation: Operation | None) -> None:
        self._outbox = outbox
        self._context_id = context_id
        self._message = message
        self._operation = operation

    async def __aenter__(self) -> MessageSender:
        await self._outbox.begin(self._context_id, self._message)
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        self._outbox.end()

    async def write(self, data: memoryview, *, last: bool) -> None:
        """Send a piece. When this returns the buffer may be used again. Raises what ended the association."""
        await self._outbox.send_piece(data, self._operation, last=last)
