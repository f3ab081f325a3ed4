"""One association, both ends: requests of ours with their responses, and requests of the peer for its services.

The automaton decides; this class gives responses to `Operations`, requests to the `Dispatcher` and data to streams, what is to be
sent to the `Outbox`, and makes sure that whatever was waiting is told when the association ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tomowire.aio.connection import Connection
from tomowire.aio.ending import end_of, log_end
from tomowire.aio.idle import IdleWatch
from tomowire.aio.incoming import Incoming
from tomowire.aio.leaving import AssociationLeaving
from tomowire.aio.operations import Operations
from tomowire.aio.outbox import Outbox
from tomowire.errors import AssociationError, AssociationLost, AssociationRejected, AssociationReleased
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

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tomowire.aio.blocks import Block
    from tomowire.aio.budget import MemoryBudget
    from tomowire.aio.dispatcher import Dispatcher
    from tomowire.aio.host import Host
    from tomowire.aio.providers import Providers
    from tomowire.protocol.events import ProtocolEvent
    from tomowire.protocol.upper_layer import UpperLayer
    from tomowire.wire.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ

logger = logging.getLogger("tomowire.association")


class Association(AssociationLeaving):
    """An association that a requestor opened (`associate`) or an acceptor answered (`listen`).

    `dispatcher` serves the peer's requests, on either side; without one a request of the peer is a breach of the protocol. Times
    are in seconds; `idle_timeout` ends an association on which nothing comes and nothing is being served. An acceptor has a `host`.
    """

    def __init__(
        self,
        upper: UpperLayer,
        *,
        called_ae_title: str = "",
        calling_ae_title: str = "",
        dispatcher: Dispatcher | None = None,
        idle_timeout: float | None = None,
        host: Host | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        super().__init__(upper, called_ae_title, calling_ae_title, dispatcher)
        loop = self._loop
        self._idle = IdleWatch(loop, self, idle_timeout) if idle_timeout is not None else None
        self._host = host
        self._established_at = 0.0
        self._established: asyncio.Future[None] = loop.create_future()
        self._end_was_told = False
        self._is_gone = False
        self.connection = Connection(upper, self, budget)
        self.budget: Final = budget
        """The memory that it shares with the others of its server; None if there is no server."""
        self._operations = Operations(
            loop,
            unsent=lambda: self.connection.unsent,
            on_late=lambda why: self.abort(because=why),
            on_crowded=self._on_crowded,
        )
        self._outbox = Outbox(upper, self.connection, self._operations, self.abort)
        self._incoming = Incoming(self, self._operations, dispatcher, lenient=upper.lenient)

    @property
    def is_peers_turn(self) -> bool:
        """Whether the next thing to happen is that something comes from the peer: no request of its is being served."""
        return self._is_serving_nothing or self._incoming.is_amid_data

    @property
    def messages_received(self) -> int:
        """How many messages have come, each with the whole of its data set."""
        return self._incoming.messages

    @property
    def messages_sent(self) -> int:
        """How many messages have been begun."""
        return self._outbox.messages_sent

    @property
    def serving(self) -> list[str]:
        """The peer's requests that are being served or wait for that, by their names, such as `CStoreRQ`."""
        return self._dispatcher.serving if self._dispatcher is not None else []

    @property
    def seconds(self) -> float:
        """Since it was established; 0 before."""
        return self._loop.time() - self._established_at if self.has_begun else 0.0

    @property
    def seconds_quiet(self) -> float:
        """Since something last came from the peer."""
        return self._loop.time() - self.connection.last_received

    @property
    def _is_serving_nothing(self) -> bool:
        return self._dispatcher is None or self._dispatcher.is_idle

    async def wait_established(self) -> None:
        """Wait for the answer to our A-ASSOCIATE-RQ. Raises `AssociationRejected`, or what else ended it."""
        await asyncio.shield(self._established)

    # The acceptor's answer

    def accept(self, request: AAssociateRQ, response: AAssociateAC, providers: Providers) -> None:
        """A-ASSOCIATE response (accept); `providers` serve what was accepted. Raises `UsageError` for what cannot be encoded."""
        self._upper.accept(request, response, self._loop.time())
        if self._dispatcher is not None:
            self._dispatcher.providers = providers
        logger.info("%s: association accepted%s", self.title, f" for {self.identity}" if self.user is not None else "")
        self.connection.flush()
        self._on_established()

    def reject(self, response: AAssociateRJ) -> None:
        """A-ASSOCIATE response (reject)."""
        self._upper.reject(response, self._loop.time())
        self.connection.flush()
        self._end(AssociationReleased("the association was rejected"))

    # From the dispatcher

    def on_all_served(self) -> None:
        """No request of the peer is being served. A release that waited for this is answered."""
        if self._idle is not None:
            self._idle.on_peers_turn(self._loop.time())
        self._respond_to_release()
        self._tell_end()

    # From the connection

    def on_connected(self) -> None:
        if self._host is not None:
            self._host.on_open(self)

    def on_events(self, events: Iterable[ProtocolEvent], block: Block | None) -> None:
        incoming = self._incoming
        for event in events:
            if isinstance(event, DataReceived):
                incoming.on_data(event, block)
            elif isinstance(event, MessageReceived):
                # What came together with the end: there is nobody to answer, and its data set would never be whole.
                if self._over is None:
                    incoming.on_message(event)
            else:
                self._on_control(event)

    def on_no_room(self) -> None:
        self._incoming.hurry()

    def on_closed(self) -> None:
        if self.connection.artim_expired and self._upper.agreement is None:
            self._end(AssociationLost("the peer asked for no association in time, and was dropped (ARTIM)"))
        self._end(AssociationLost("the connection was closed"))
        if not self._closed.done():
            self._closed.set_result(None)
        self._tell_end()

    # Events

    def _on_control(self, event: ProtocolEvent) -> None:
        match event:
            case AssociateRequested():
                self._on_associate_requested(event.request)
            case AssociateAccepted():
                self._on_established()
            case AssociateRejected():
                rj = event.response
                titles = {"called": self.called_ae_title, "calling": self.calling_ae_title}
                text = describe_rejection(rj.result, rj.source, rj.reason, identity=self.identity, **titles)
                self._end(AssociationRejected(text, result=rj.result, source=rj.source, reason=rj.reason))
            case MalformedMessage():
                if self._over is None:
                    self._incoming.on_malformed(event)
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
        self.identity = request.user_information.user_identity
        # Events are told after all that was received together has been read: the peer may have aborted already.
        if self._host is not None and self.awaits_answer:
            self._host.on_request(self, request)

    def _on_established(self) -> None:
        self.connection.use_large_blocks()
        self._operations.window = self.window
        if self._idle is not None:
            self._idle.start(self._loop.time())
        if not self._established.done():
            self._established.set_result(None)
        self._established_at = self._loop.time()
        if self._host is not None:
            self._host.on_established(self)

    def _on_release_requested(self, *, collision: bool) -> None:
        if collision:
            if self._upper.awaits_release_response:  # Sta9; in Sta10 the peer's own answer comes first
                self._upper.respond_to_release(self._loop.time())
            return
        self._operations.fail(AssociationReleased("the peer released the association before it had answered"))
        if self._is_serving_nothing:
            self._respond_to_release()

    def _respond_to_release(self) -> None:
        if not self._upper.awaits_release_response:
            return  # an abort came with the request
        self._upper.respond_to_release(self._loop.time())
        self.connection.flush_soon()
        self._end(AssociationReleased("the peer has released the association"), released_by_peer=True)

    def _end(self, error: AssociationError, *, released_by_peer: bool = False) -> None:
        """Tell everyone who waits, once."""
        if self._over is not None:
            return
        self._over = error
        error.proposed, error.agreement = self._upper.pending_request, self._upper.agreement
        was_established = self._upper.agreement is not None
        log_end(self.title, error, was_established=was_established, was_asked_for=self._abort_was_asked_for)
        if was_established:
            self.end = end_of(
                error,
                released_by_peer=released_by_peer,
                timed_out=self._timed_out,
                seconds=self._loop.time() - self._established_at,
                messages_received=self.messages_received,
                messages_sent=self._outbox.messages_sent,
                bytes_received=self.connection.bytes_received,
            )
        if self._idle is not None:
            self._idle.stop()
        if not self._established.done():
            self._established.set_exception(error)
            self._established.exception()  # it stays in `_over`: nobody has to wait for it
        self._operations.fail(error)
        self._incoming.fail(error)
        self._outbox.close(error)
        if self._dispatcher is not None:
            self._dispatcher.on_association_over(error)
        self._tell_end()

    def _on_crowded(self, is_crowded: bool) -> None:
        if is_crowded:
            self.connection.hold_reading("responses")
        else:
            self.connection.allow_reading("responses")

    def _tell_end(self) -> None:
        """Tell the host, once each, that the association is over and that the connection is closed, when nothing runs any more."""
        if self._host is None or self._over is None or not self._is_serving_nothing:
            return
        if not self._end_was_told:
            self._end_was_told = True
            self._host.on_ended(self)
        if self._closed.done() and not self._is_gone:
            self._is_gone = True
            self._host.on_gone(self)
