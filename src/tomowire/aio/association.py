"""One association, both ends: requests of ours with their responses, and requests of the peer for its services.

The automaton decides; this class gives responses to `Operations`, requests to the `Dispatcher` and data to streams, what is to be
sent to the `Outbox`, and makes sure that whatever was waiting is told when the association ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.connection import Connection
from tomowire.aio.facts import AssociationFacts
from tomowire.aio.idle import IdleWatch
from tomowire.aio.operations import Operations
from tomowire.aio.outbox import MessageSender, Outbox
from tomowire.aio.streams import DataStream
from tomowire.errors import (
    AssociationAborted,
    AssociationError,
    AssociationLost,
    AssociationRejected,
    AssociationReleased,
    OperationTimeout,
    PduError,
    PeerMisbehaved,
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
from tomowire.protocol.reasons import describe_rejection
from tomowire.protocol.states import State
from tomowire.wire.abort_reasons import UNEXPECTED_PDU_PARAMETER
from tomowire.wire.command_set import is_response
from tomowire.wire.messages import CCancelRQ, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from tomowire.aio.blocks import Block
    from tomowire.aio.operation import Operation
    from tomowire.aio.serving import Dispatcher
    from tomowire.protocol.events import ProtocolEvent
    from tomowire.protocol.upper_layer import UpperLayer
    from tomowire.wire.command_set import Message
    from tomowire.wire.pdu import AAssociateRQ

logger = logging.getLogger("tomowire.association")

DEFAULT_RELEASE_TIMEOUT: Final = 30.0
DEFAULT_HANDLER_GRACE: Final = 10.0
"""Seconds that cancelled handlers have to clean up before they are left to themselves."""


class Association(AssociationFacts):
    """An association that a requestor opened (`associate`) or an acceptor answered (`listen`).

    `dispatcher` serves the peer's requests, on either side; without one a request of the peer is a breach of the protocol. Times
    are in seconds; `idle_timeout` ends an association on which nothing comes and nothing is being served. `on_open` is called when
    there is a connection, `on_gone` when it is closed and no request is being served any more.
    """

    def __init__(
        self,
        upper: UpperLayer,
        *,
        called_ae_title: str = "",
        calling_ae_title: str = "",
        dispatcher: Dispatcher | None = None,
        idle_timeout: float | None = None,
        on_open: Callable[[Association], None] | None = None,
        on_gone: Callable[[Association], None] | None = None,
    ) -> None:
        super().__init__(upper, called_ae_title, calling_ae_title)
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._dispatcher = dispatcher
        self._idle = IdleWatch(loop, self, idle_timeout) if idle_timeout is not None else None
        self._on_open = on_open
        self._on_gone = on_gone
        self._incoming: DataStream | None = None  # the data set that is arriving
        self.messages_received = 0
        """How many messages have come, each with the whole of its data set."""
        self._established: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._abort_was_asked_for = False
        self._breach_log_level = logging.WARNING
        self.connection = Connection(upper, self)
        self._operations = Operations(
            loop, unsent=lambda: self.connection.unsent, on_late=lambda why: self.abort(because=why)
        )
        self._outbox = Outbox(upper, self.connection, self._operations, self.abort)

    @property
    def is_peers_turn(self) -> bool:
        """Whether the next thing to happen is that something comes from the peer: no request of its is being served."""
        return self._dispatcher is None or self._dispatcher.is_idle or self._incoming is not None

    # Messages of ours

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

    # The end

    async def release(self, *, timeout: float = DEFAULT_RELEASE_TIMEOUT) -> None:
        """Release the association in an orderly way (PS3.8 7.2) and wait until the connection is closed.

        A message that is being sent is waited for, and requests of the peer that are being served; responses that have not come are
        not. Does nothing if the association is over.
        Raises `OperationTimeout`, after an abort, when all that takes more than `timeout` seconds.
        """
        if self._over is not None:
            return
        try:
            async with asyncio.timeout(timeout):
                if self._dispatcher is not None:
                    await self._dispatcher.wait_served()
                await self._outbox.release(self._loop.time)
                await self.wait_closed()
        except TimeoutError:
            await self.close(grace=0)
            raise OperationTimeout(f"the peer did not answer the release request within {timeout:g} s") from None

    def abort(self, error: PduError | None = None, *, because: str | None = None) -> None:
        """Send A-ABORT; all that waits on this association is told. The connection closes when the peer closes it, or by ARTIM.

        `error` is what the peer did wrong, `because` any other reason than that someone asked for it.
        """
        if self._upper.is_over:
            return
        self._abort_was_asked_for = error is None and because is None
        if because is not None:
            self._end(AssociationAborted(because, source=0, reason=0, by_peer=False))
        self._upper.abort(self._loop.time(), error)
        self.on_events(self._upper.take_events(), None)
        self.connection.flush()

    def break_off(self, what: str) -> None:
        """Abort because the peer broke PS3.7: nothing it says on this association can be trusted any more.

        Who waits for a response gets `PeerMisbehaved` with the text `what`.
        """
        self._operations.fail(PeerMisbehaved(what))
        self.abort(PduError(what, reason=UNEXPECTED_PDU_PARAMETER))

    async def close(self, *, grace: float = 1.0, handler_grace: float = DEFAULT_HANDLER_GRACE) -> None:
        """Leave no trace: abort if there still is an association, wait up to `grace` seconds for the peer to close, then close.

        Handlers that are running are cancelled, and waited for up to `handler_grace` seconds.
        """
        self.abort()
        try:
            if grace > 0 and self._upper.state is State.STA13_AWAITING_TRANSPORT_CLOSE:
                async with asyncio.timeout(grace):
                    await self.wait_closed()
        except TimeoutError:
            logger.debug("%s: the peer did not close the connection", self.title)
        finally:
            self.connection.kill()
        await self.wait_closed()
        if self._dispatcher is not None:
            await self._dispatcher.wait_idle(handler_grace)

    async def wait_closed(self) -> None:
        """Wait until the connection is closed."""
        if not self.connection.is_closed:
            await asyncio.shield(self._closed)

    async def wait_established(self) -> None:
        """Wait for the answer to our A-ASSOCIATE-RQ. Raises `AssociationRejected`, or what else ended it."""
        await asyncio.shield(self._established)

    def on_all_served(self) -> None:
        """From the dispatcher: no request of the peer is being served. A release that waited for this is answered."""
        if self._idle is not None:
            self._idle.on_peers_turn(self._loop.time())
        self._respond_to_release()
        self._go_if_over()

    # From the connection

    def on_connected(self) -> None:
        if self._on_open is not None:
            self._on_open(self)

    def on_events(self, events: Iterable[ProtocolEvent], block: Block | None) -> None:
        for event in events:
            if isinstance(event, DataReceived):
                self._on_data(event, block)
            elif isinstance(event, MessageReceived):
                # What came together with the end: there is nobody to answer, and its data set would never be whole.
                if self._over is None:
                    self._on_message(event)
            else:
                self._on_control(event)

    def on_no_room(self) -> None:
        if self._incoming is not None:
            self._incoming.hurry()

    def on_closed(self) -> None:
        if self.connection.artim_expired and self._upper.agreement is None:
            self._end(AssociationLost("the peer asked for no association in time, and was dropped (ARTIM)"))
        self._end(AssociationLost("the connection was closed"))
        if not self._closed.done():
            self._closed.set_result(None)
        self._go_if_over()

    # Events

    def _on_data(self, event: DataReceived, block: Block | None) -> None:
        stream = self._incoming
        if stream is not None and block is not None:
            stream.push(event.data, block, last=event.last)
        if event.last:
            self._incoming = None
            self.messages_received += 1

    def _on_message(self, event: MessageReceived) -> None:
        message = event.message
        self._incoming = stream = DataStream() if message.has_data_set else None
        self.messages_received += stream is None
        if isinstance(message, Response):
            problem = self._operations.on_response(message, stream)
            if problem is not None:
                self._on_breach(problem)
        elif isinstance(message, CCancelRQ):
            if stream is not None:
                stream.close()
            if self._dispatcher is not None:
                self._dispatcher.on_cancel(message.message_id_being_responded_to)
        elif self._dispatcher is not None and isinstance(message, Request):
            self._dispatcher.on_request(self, self.agreement.contexts[event.context_id], message, stream)
        else:
            self.break_off(f"the peer sent {type(message).__name__}, but there is no service for it here")

    def _on_breach(self, problem: str) -> None:
        """A response that breaks PS3.7: the end of the association, or in lenient mode a word in the log."""
        if not self._upper.lenient:
            self.break_off(problem)
            return
        logger.log(self._breach_log_level, "%s: passed over: %s", self.title, problem)
        self._breach_log_level = logging.DEBUG  # once: a peer must not be able to fill the log

    def _on_malformed(self, event: MalformedMessage) -> None:
        error = event.error
        if is_response(error.command_field):
            self._on_breach(self._operations.on_unreadable(error))
        elif self._dispatcher is None or error.message_id is None or error.command_field is None:
            self.break_off(f"a command set that cannot be answered: {error}")
        else:
            self._dispatcher.on_malformed(self, event.context_id, error)

    def _on_control(self, event: ProtocolEvent) -> None:
        match event:
            case AssociateRequested():
                self._on_associate_requested(event.request)
            case AssociateAccepted():
                self._on_established()
            case AssociateRejected():
                rj = event.response
                titles = {"called": self.called_ae_title, "calling": self.calling_ae_title}
                text = describe_rejection(rj.result, rj.source, rj.reason, **titles)
                self._end(AssociationRejected(text, result=rj.result, source=rj.source, reason=rj.reason))
            case MalformedMessage():
                if self._over is None:
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
        # Events are told after all that was received together has been read: the peer may have aborted already.
        if self._dispatcher is not None and self._upper.state is State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE:
            self._dispatcher.on_associate(self, request, self._upper)
            if self.is_established:
                self._on_established()
            else:
                self._end(AssociationReleased("the association was rejected"))

    def _on_established(self) -> None:
        self.connection.use_large_blocks()
        self._operations.window = self.window
        if self._idle is not None:
            self._idle.start(self._loop.time())
        if not self._established.done():
            self._established.set_result(None)

    def _on_release_requested(self, *, collision: bool) -> None:
        if collision:
            if self._upper.awaits_release_response:  # Sta9; in Sta10 the peer's own answer comes first
                self._upper.respond_to_release(self._loop.time())
            return
        self._operations.fail(AssociationReleased("the peer released the association before it had answered"))
        if self._dispatcher is None or self._dispatcher.is_idle:
            self._respond_to_release()

    def _respond_to_release(self) -> None:
        if not self._upper.awaits_release_response:
            return  # an abort came with the request
        self._upper.respond_to_release(self._loop.time())
        self.connection.flush_soon()
        self._end(AssociationReleased("the peer has released the association"))

    def _end(self, error: AssociationError) -> None:
        """Tell everyone who waits, once."""
        if self._over is not None:
            return
        self._over = error
        error.proposed, error.agreement = self._upper.pending_request, self._upper.agreement
        self._log_end(error)
        if self._idle is not None:
            self._idle.stop()
        if not self._established.done():
            self._established.set_exception(error)
            self._established.exception()  # it stays in `_over`: nobody has to wait for it
        self._operations.fail(error)
        if self._incoming is not None:
            self._incoming.fail(error)
            self._incoming = None
        self._outbox.close(error)
        if self._dispatcher is not None:
            self._dispatcher.on_association_over(error)

    def _log_end(self, error: AssociationError) -> None:
        """A warning where a peer's association broke; what this side did itself, and who never asked for one, is less than that."""
        if isinstance(error, AssociationReleased):
            logger.info("%s: released", self.title)
        elif self._upper.agreement is None:
            # Port scanners and health checks connect and go; and a requestor hears it by an exception.
            logger.info("%s: %s", self.title, error)
        elif self._abort_was_asked_for:
            logger.info("%s: %s", self.title, error)
        else:
            logger.warning("%s: %s", self.title, error)

    def _go_if_over(self) -> None:
        on_gone = self._on_gone
        if on_gone is not None and self._closed.done() and (self._dispatcher is None or self._dispatcher.is_idle):
            self._on_gone = None
            on_gone(self)
