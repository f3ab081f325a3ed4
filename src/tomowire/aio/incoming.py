"""What arrives on an association: responses go to the operations they answer, requests to the dispatcher, data to streams."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tomowire.aio.streams import DataStream
from tomowire.wire.command_set import is_response
from tomowire.wire.messages import CCancelRQ, Request, Response

if TYPE_CHECKING:
    from tomowire.aio.association import Association
    from tomowire.aio.blocks import Block
    from tomowire.aio.dispatcher import Dispatcher
    from tomowire.aio.operations import Operations
    from tomowire.errors import AssociationError
    from tomowire.protocol.events import DataReceived, MalformedMessage, MessageReceived

logger = logging.getLogger("tomowire.association")


class Incoming:
    """Sorts the messages that the peer sends. Without a dispatcher a request of the peer is a breach of the protocol.

    A response that breaks PS3.7 is the end of the association, or if this is `lenient` a word in the log.
    """

    def __init__(
        self, association: Association, operations: Operations, dispatcher: Dispatcher | None, *, lenient: bool
    ) -> None:
        self._association = association
        self._operations = operations
        self._dispatcher = dispatcher
        self._lenient = lenient
        self._breach_log_level = logging.WARNING
        self._stream: DataStream | None = None  # the data set that is arriving
        self.messages = 0
        """How many messages have come, each with the whole of its data set."""

    @property
    def is_amid_data(self) -> bool:
        """Whether a data set has begun to arrive, and is not whole."""
        return self._stream is not None

    def on_data(self, event: DataReceived, block: Block | None) -> None:
        stream = self._stream
        if stream is not None and block is not None:
            stream.push(event.data, block, last=event.last)
        if event.last:
            self._stream = None
            self.messages += 1

    def on_message(self, event: MessageReceived) -> None:
        message = event.message
        association = self._association
        self._stream = stream = DataStream() if message.has_data_set else None
        self.messages += stream is None
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
            context = association.agreement.contexts[event.context_id]
            self._dispatcher.on_request(association, context, message, stream)
        else:
            association.break_off(f"the peer sent {type(message).__name__}, but there is no service for it here")

    def on_malformed(self, event: MalformedMessage) -> None:
        error = event.error
        if is_response(error.command_field):
            self._on_breach(self._operations.on_unreadable(error))
        elif self._dispatcher is None or error.message_id is None or error.command_field is None:
            self._association.break_off(f"a command set that cannot be answered: {error}")
        else:
            self._dispatcher.on_malformed(self._association, event.context_id, error)

    def _on_breach(self, problem: str) -> None:
        if not self._lenient:
            self._association.break_off(problem)
            return
        logger.log(self._breach_log_level, "%s: passed over: %s", self._association.title, problem)
        self._breach_log_level = logging.DEBUG  # once: a peer must not be able to fill the log

    def hurry(self) -> None:
        """There is no room for more: whoever gathers should let go."""
        if self._stream is not None:
            self._stream.hurry()

    def fail(self, error: AssociationError) -> None:
        """The association is over: what is arriving will not be whole."""
        if self._stream is not None:
            self._stream.fail(error)
            self._stream = None
