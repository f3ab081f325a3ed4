"""One association, both ends: requests of ours with their responses, and requests of the peer for its services.

The automaton decides; this class pairs responses with requests by Message ID, hands data to streams, watches the time, and makes
sure that whatever was waiting is told when the association ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tomowire.aio.connection import Connection
from tomowire.aio.operation import Operation
from tomowire.aio.sender import MessageSender
from tomowire.aio.streams import DataStream
from tomowire.errors import (
    AssociationError,
    AssociationLost,
    AssociationRejected,
    AssociationReleased,
    NoAcceptedContext,
    OperationTimeout,
    PduError,
    PeerMisbehaved,
    UnknownCommand,
    UsageError,
)
from tomowire.protocol.events import (
    AssociateAccepted,
    AssociateRejected,
    AssociateRequested,
    AssociationEnded,
    DataReceived,
    MalformedMessage,
    MessageReceived,
    ReleaseConfirmed,
    ReleaseRequested,
)
from tomowire.protocol.explain import explain_refusal
from tomowire.protocol.reasons import UNEXPECTED_PDU_PARAMETER, describe_rejection
from tomowire.protocol.responses import bare_response
from tomowire.protocol.states import State
from tomowire.protocol.status import PROCESSING_FAILURE, UNRECOGNIZED_OPERATION, Status
from tomowire.wire.messages import CCancelRQ, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tomowire.aio.blocks import Block
    from tomowire.aio.serving import Dispatcher
    from tomowire.protocol.events import ProtocolEvent
    from tomowire.protocol.negotiation import AcceptedContext, Agreement
    from tomowire.protocol.upper_layer import UpperLayer
    from tomowire.wire.command_set import Message
    from tomowire.wire.messages import Request
    from tomowire.wire.pdu import AAssociateRQ

logger = logging.getLogger("tomowire.association")

_MESSAGE_IDS: Final = 0xFFFF
DEFAULT_RELEASE_TIMEOUT: Final = 30.0


class Association:
    """An association that a requestor opened (`associate`) or an acceptor answered (`listen`).

    `dispatcher` serves the peer's requests; without one a request of the peer is a breach of the protocol. Times are in seconds;
    `idle_timeout` ends an association on which nothing comes and nothing is being served.
    """

    def __init__(
        self,
        upper: UpperLayer,
        *,
        called_ae_title: str = "",
        calling_ae_title: str = "",
        dispatcher: Dispatcher | None = None,
        idle_timeout: float | None = None,
        on_gone: Callable[[Association], None] | None = None,
    ) -> None:
        self._upper = upper
        self._loop = asyncio.get_running_loop()
        self.called_ae_title = called_ae_title
        self.calling_ae_title = calling_ae_title
        self._dispatcher = dispatcher
        self._idle_timeout = idle_timeout
        self._on_gone = on_gone
        self._operations: dict[int, Operation] = {}
        self._abandoned: set[int] = set()  # Message IDs whose responses nobody waits for any more
        self._last_message_id = 0
        self._incoming: DataStream | None = None  # the data set that is arriving
        self._send_lock = asyncio.Lock()
        self._established: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._over: AssociationError | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self.connection: Final = Connection(upper, self)

    # Facts

    @property
    def is_requestor(self) -> bool:
        """Whether this side opened the association."""
        return self._upper.is_requestor

    @property
    def title(self) -> str:
        """Both AE titles and the peer's address, for the log."""
        arrow = f"{self.calling_ae_title or '?'} -> {self.called_ae_title or '?'}"
        return f"{arrow} ({self.connection.peer_address or 'not connected'})"

    @property
    def peer_address(self) -> str:
        """`host:port` of the other end of the connection."""
        return self.connection.peer_address

    @property
    def agreement(self) -> Agreement:
        """What was negotiated. Raises `UsageError` before the association is established."""
        if self._upper.agreement is None:
            raise UsageError("the association is not established yet")
        return self._upper.agreement

    @property
    def is_established(self) -> bool:
        """Whether requests can be sent."""
        return self._upper.state is State.STA6_DATA_TRANSFER

    @property
    def error(self) -> AssociationError | None:
        """Why the association ended, if it was not released."""
        return None if isinstance(self._over, AssociationReleased) else self._over

    @property
    def payload_maximum(self) -> int:
        """The most bytes of a data set that fit in one PDU to this peer."""
        return self._upper.payload_maximum

    @property
    def window(self) -> int:
        """How many requests of ours may be outstanding at once; 0 is unlimited (PS3.7 D.3.3.3)."""
        return self.agreement.maximum_invoked if self.is_requestor else self.agreement.maximum_performed

    def contexts(self, abstract_syntax: str) -> list[AcceptedContext]:
        """The accepted presentation contexts for an abstract syntax, in the order proposed."""
        return [each for each in self.agreement.contexts.values() if each.abstract_syntax == abstract_syntax]

    def context(self, abstract_syntax: str, transfer_syntax: str | None = None) -> AcceptedContext:
        """An accepted presentation context. Raises `NoAcceptedContext` that says what was refused and why."""
        for each in self.agreement.contexts.values():
            if each.abstract_syntax == abstract_syntax and transfer_syntax in (None, each.transfer_syntax):
                return each
        raise NoAcceptedContext(explain_refusal(self.agreement, abstract_syntax, transfer_syntax))

    # Requests of ours

    def next_message_id(self) -> int:
        """A Message ID that is not in use on this association (1 to 65535)."""
        for _ in range(_MESSAGE_IDS):
            self._last_message_id = self._last_message_id % _MESSAGE_IDS + 1
            if self._last_message_id not in self._operations and self._last_message_id not in self._abandoned:
                return self._last_message_id
        raise UsageError("all 65535 Message IDs of this association are in use")

    def begin(self, request: Request, *, timeout: float | None, name: str) -> Operation:
        """Register a request before it is sent. `timeout` is the time in which something must move, None for ever."""
        self._check_alive()
        now = self._loop.time()
        operation = Operation(name, request.message_id, timeout, now)
        self._operations[request.message_id] = operation
        if timeout is not None:
            self._watch(now + timeout)
        return operation

    def finish(self, operation: Operation, *, complete: bool) -> None:
        """The caller is done with an operation; unless `complete`, a response that still comes is passed over."""
        self._operations.pop(operation.message_id, None)
        operation.close()
        if not complete:
            self._abandoned.add(operation.message_id)

    def touch(self, operation: Operation) -> None:
        """Something moved for this operation."""
        operation.touched = self._loop.time()

    async def send(self, context_id: int, message: Message, data: bytes | None = None) -> None:
        """Send one message, with its data set if that lies in memory, after those that are being sent. Waits while the peer is slow."""
        if self._send_lock.locked() or self.connection.is_writing_paused:
            async with self._send_lock:
                await self.connection.drain()
                self._send_now(context_id, message, data)
        else:
            self._send_now(context_id, message, data)
        await self.connection.drain()

    def sending(self, context_id: int, message: Message, operation: Operation | None = None) -> MessageSender:
        """Send a message whose data set comes in pieces: `async with association.sending(...) as sender`."""
        return MessageSender(self, context_id, message, operation)

    async def begin_message(self, context_id: int, message: Message) -> None:
        """For `MessageSender`: wait for the turn of this message, and begin it."""
        await self._send_lock.acquire()
        try:
            await self.connection.drain()
            self._check_alive()
            self._upper.send_message(context_id, message)
        except BaseException:
            self._send_lock.release()
            raise

    async def send_piece(self, data: memoryview, *, last: bool) -> None:
        """For `MessageSender`: send a piece of the data set, and wait until the buffer can be used again."""
        self._check_alive()
        self._upper.send_data(data, last=last)
        self.connection.flush()
        await self.connection.drain()

    def end_message(self) -> None:
        """For `MessageSender`: let the next message go; when this one is not whole, nothing can follow it but an abort."""
        try:
            if self._upper.is_sending_data:
                self.abort()
        finally:
            self._send_lock.release()

    # The end

    async def release(self, *, timeout: float = DEFAULT_RELEASE_TIMEOUT) -> None:
        """Release the association in an orderly way (PS3.8 7.2) and wait until the connection is closed.

        Does nothing if the association is over. Raises `OperationTimeout`, after an abort, when the peer does not answer in time.
        """
        try:
            async with asyncio.timeout(timeout):
                async with self._send_lock:
                    if self.is_established:
                        self._upper.release(self._loop.time())
                        self.connection.flush()
                await self.wait_closed()
        except TimeoutError:
            await self.close(grace=0)
            raise OperationTimeout(f"the peer did not answer the release request within {timeout:g} s") from None

    def abort(self, error: PduError | None = None) -> None:
        """Send A-ABORT; all that waits on this association is told. The connection closes when the peer closes it, or by ARTIM."""
        if not self._upper.is_over:
            self._upper.abort(self._loop.time(), error)
            self.on_events(self._upper.take_events(), None)
            self.connection.flush()

    async def close(self, *, grace: float = 1.0) -> None:
        """Leave no trace: abort if there still is an association, wait up to `grace` seconds for the peer to close, then close."""
        self.abort()
        try:
            if not self._closed.done() and grace > 0:
                async with asyncio.timeout(grace):
                    await self.wait_closed()
        except TimeoutError:
            logger.debug("%s: the peer did not close the connection", self.title)
        finally:
            self.connection.kill()
        await self.wait_closed()
        if self._dispatcher is not None:
            await self._dispatcher.wait_idle()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed."""
        if not self._closed.done():
            await asyncio.shield(self._closed)

    async def wait_established(self) -> None:
        """Wait for the answer to our A-ASSOCIATE-RQ. Raises `AssociationRejected`, or what else ended it."""
        await asyncio.shield(self._established)

    def on_all_served(self) -> None:
        """From the dispatcher: no request of the peer is being served. A release that waited for this is answered."""
        if self._upper.awaits_release_response:
            self._respond_to_release()

    def answer_malformed(self, context_id: int, message_id: int, command_field: int, status: Status) -> None:
        """From the dispatcher: answer a request whose command set could not be decoded."""
        self._upper.send_command_set(context_id, bare_response(command_field, message_id, status))
        self.connection.flush_soon()

    # From the connection

    def on_connected(self) -> None:
        if self._idle_timeout is not None:
            self._watch(self._loop.time() + self._idle_timeout)

    def on_events(self, events: Iterable[ProtocolEvent], block: Block | None) -> None:
        for event in events:
            if isinstance(event, DataReceived):
                self._on_data(event, block)
            elif isinstance(event, MessageReceived):
                self._on_message(event)
            else:
                self._on_control(event)

    def on_no_room(self) -> None:
        if self._incoming is not None:
            self._incoming.hurry()

    def on_closed(self) -> None:
        self._end(AssociationLost("the connection was closed"))
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        if not self._closed.done():
            self._closed.set_result(None)
        if self._on_gone is not None:
            self._on_gone(self)

    # Events

    def _on_data(self, event: DataReceived, block: Block | None) -> None:
        stream = self._incoming
        if stream is not None and block is not None:
            stream.push(event.data, block, last=event.last)
        if event.last:
            self._incoming = None

    def _on_message(self, event: MessageReceived) -> None:
        message = event.message
        stream = DataStream() if message.has_data_set else None
        self._incoming = stream
        if isinstance(message, Response):
            self._on_response(message, stream)
        elif self._dispatcher is not None:
            if isinstance(message, CCancelRQ):
                self._dispatcher.on_cancel(message.message_id_being_responded_to)
            else:
                self._dispatcher.on_request(self, self.agreement.contexts[event.context_id], message, stream)
        elif not isinstance(message, CCancelRQ):
            self._break_off(f"the peer sent {type(message).__name__}, but there is no service for it here")

    def _on_response(self, response: Response, stream: DataStream | None) -> None:
        message_id = response.message_id_being_responded_to
        operation = self._operations.get(message_id)
        if operation is not None:
            operation.deliver(response, stream, self._loop.time())
            return
        if stream is not None:
            stream.close()
        if message_id in self._abandoned:
            if not Status(response.status).is_pending:
                self._abandoned.discard(message_id)
            return
        self._break_off(f"the peer sent {type(response).__name__} for Message ID {message_id}, which is not in use")

    def _break_off(self, what: str) -> None:
        """The peer broke PS3.7: nothing it says on this association can be trusted any more."""
        for operation in self._operations.values():
            operation.fail(PeerMisbehaved(what))
        self.abort(PduError(what, reason=UNEXPECTED_PDU_PARAMETER))

    def _on_control(self, event: ProtocolEvent) -> None:
        match event:
            case AssociateRequested():
                self._on_associate_requested(event.request)
            case AssociateAccepted():
                self._on_established()
            case AssociateRejected():
                rj = event.response
                text = describe_rejection(rj.result, rj.source, rj.reason)
                self._end(AssociationRejected(text, result=rj.result, source=rj.source, reason=rj.reason))
            case MalformedMessage():
                self._on_malformed(event)
            case ReleaseRequested():
                self._on_release_requested(collision=event.collision)
            case ReleaseConfirmed():
                if self._upper.awaits_release_response:  # a collision, and this is the acceptor (Sta12)
                    self._upper.respond_to_release(self._loop.time())
                self._end(AssociationReleased("the association has been released"))
            case AssociationEnded():
                self._end(event.error)

    def _on_associate_requested(self, request: AAssociateRQ) -> None:
        self.called_ae_title = request.called_ae_title
        self.calling_ae_title = request.calling_ae_title
        if self._dispatcher is not None:
            self._dispatcher.on_associate(self, request, self._upper)
            if self.is_established:
                self._on_established()
            else:
                self._over = AssociationReleased("the association was rejected")

    def _on_established(self) -> None:
        self.connection.use_large_blocks()
        if not self._established.done():
            self._established.set_result(None)

    def _on_malformed(self, event: MalformedMessage) -> None:
        error = event.error
        logger.warning("%s: unreadable command set: %s", self.title, error)
        if error.command_field is None or error.message_id is None or error.command_field & 0x8000:
            self._break_off(f"a command set that cannot be answered: {error}")
            return
        status = UNRECOGNIZED_OPERATION if isinstance(error, UnknownCommand) else PROCESSING_FAILURE
        self.answer_malformed(event.context_id, error.message_id, error.command_field, status)

    def _on_release_requested(self, *, collision: bool) -> None:
        if collision:
            if self._upper.awaits_release_response:  # Sta9; in Sta10 the peer's own answer comes first
                self._upper.respond_to_release(self._loop.time())
            return
        for operation in self._operations.values():
            operation.fail(AssociationReleased("the peer released the association before it had answered"))
        if self._dispatcher is None or self._dispatcher.is_idle:
            self._respond_to_release()

    def _respond_to_release(self) -> None:
        self._upper.respond_to_release(self._loop.time())
        self.connection.flush_soon()
        self._end(AssociationReleased("the peer has released the association"))

    def _end(self, error: AssociationError) -> None:
        """Tell everyone who waits, once."""
        if self._over is not None:
            return
        self._over = error
        if self.error is not None and (self._upper.agreement is not None or not self.is_requestor):
            logger.warning("%s: %s", self.title, error)
        if not self._established.done():
            self._established.set_exception(error)
            self._established.exception()  # it stays in `_over`: nobody has to wait for it
        for operation in self._operations.values():
            operation.fail(error)
        if self._incoming is not None:
            self._incoming.fail(error)
            self._incoming = None
        self.connection.stop_draining()
        if self._dispatcher is not None:
            self._dispatcher.on_association_over(error)

    def _send_now(self, context_id: int, message: Message, data: bytes | None) -> None:
        self._check_alive()
        self._upper.send_message(context_id, message, memoryview(data) if data is not None else None)
        self.connection.flush_soon()

    def _check_alive(self) -> None:
        if self._over is not None:
            raise self._over.with_traceback(None)
        if not self._upper.is_established:
            raise UsageError(f"the association is not established: {self._upper.state.name}")

    # Time

    def _watch(self, when: float) -> None:
        if self._watchdog is not None:
            if self._watchdog.when() <= when:
                return  # it will look at the times again by itself
            self._watchdog.cancel()
        self._watchdog = self._loop.call_at(when, self._on_watchdog)

    def _on_watchdog(self) -> None:
        """One timer for all operations: it sleeps until the first could be late, and progress never has to move it."""
        self._watchdog = None
        now = self._loop.time()
        due = [at for operation in self._operations.values() if (at := self._deadline(operation, now)) is not None]
        if self._idle_timeout is not None and not self._upper.is_over:
            due.append(self._idle_deadline(self._idle_timeout, now))
        if due and self._over is None:
            self._watch(min(due))

    def _deadline(self, operation: Operation, now: float) -> float | None:
        if operation.timeout is None:
            return None
        at = operation.touched + operation.timeout
        if at <= now:
            text = f"{operation.name}: nothing moved for {operation.timeout:g} s; the association was aborted"
            operation.fail(OperationTimeout(text))
            # A late answer could be taken for that of a later request: this association is not used again.
            self._loop.call_soon(self.abort)
        return at

    def _idle_deadline(self, idle_timeout: float, now: float) -> float:
        at = self.connection.last_received + idle_timeout
        if at > now:
            return at
        if self._dispatcher is None or self._dispatcher.is_idle or self._incoming is not None:
            self._loop.call_soon(self.abort, PduError(f"nothing came from the peer for {idle_timeout:g} s", reason=0))
        return now + idle_timeout
