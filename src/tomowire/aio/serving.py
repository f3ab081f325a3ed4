"""What serves the requests of a peer: the protocol of a provider, and a request as it sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from tomowire.errors import UsageError
from tomowire.protocol.responses import refusal
from tomowire.protocol.status import Status

if TYPE_CHECKING:
    from collections.abc import Container

    from tomowire.aio.association import Association
    from tomowire.aio.streams import DataStream
    from tomowire.protocol.negotiation import AcceptedContext
    from tomowire.wire.messages import Request, Response
    from tomowire.wire.user_information import CommonExtendedNegotiation


class ServiceProvider(Protocol):
    """What serves requests of a peer: which it supports, and what it does with one. One object may serve many associations."""

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        """The transfer syntaxes accepted for an abstract syntax, or None if this provider does not serve it."""

    def may_be_scp(self, abstract_syntax: str) -> bool:
        """Whether a requestor may be SCP for it, with this side as SCU (PS3.7 D.3.3.4). A C-GET SCP says yes for storage."""

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        """The answer to a SOP class extended negotiation item (PS3.7 D.3.3.5); None for no answer."""

    async def handle(self, request: IncomingRequest) -> None:
        """Serve one request: read `request.data` if there is one, and `respond`. An exception becomes status 0110H."""


@runtime_checkable
class AcceptsRelated(Protocol):
    """A provider that also takes SOP classes it does not know, when the requestor says what they are (PS3.7 D.3.3.6)."""

    def related_transfer_syntaxes(self, said: CommonExtendedNegotiation) -> Container[str] | None:
        """The transfer syntaxes accepted for `said.sop_class_uid`, or None if this provider does not serve it."""


@runtime_checkable
class Refuses(Protocol):
    """A provider that may keep from a requestor what it serves for others.

    Where it does, its `transfer_syntaxes` says None. The presentation context is refused as "user rejection" (PS3.8 Table 9-18),
    and a request that comes all the same goes to its `handle`, which can refuse it with the status that is right (0124H).
    """

    def refuses(self, abstract_syntax: str) -> bool:
        """Whether it would serve an abstract syntax for another requestor, and does not for this one."""


class IncomingRequest:
    """A request of the peer: its command set, its presentation context, and its data set as a stream (None if it has none)."""

    __slots__ = ("_cancelling", "association", "cancelled", "context", "data", "final", "message", "responded")

    def __init__(
        self, association: Association, context: AcceptedContext, message: Request, data: DataStream | None
    ) -> None:
        self.association: Final = association
        self.context: Final = context
        self.message: Final = message
        self.data: Final = data
        self.cancelled = False
        """Whether the peer has sent C-CANCEL for this request."""
        self.responded = False
        """Whether a final response has been sent."""
        self.final: Response | None = None
        """That response."""
        self._cancelling: asyncio.Event | None = None

    @property
    def message_id(self) -> int:
        """The Message ID, by which a C-CANCEL names the request. The peer may use one twice at a time, though it must not."""
        return self.message.message_id

    async def respond(self, response: Response, data: bytes | None = None) -> None:
        """Send a response. When the association is over it goes nowhere: the `AssociationError` that ended it is raised.

        Raises `UsageError` for a response that cannot be encoded.
        """
        is_final = not Status(response.status).is_pending
        # Before it is sent: when this is cancelled while the peer is slow to take it, it must not be answered a second time.
        self.responded = self.responded or is_final
        if is_final:
            self.final = response
        try:
            await self.association.send(self.context.context_id, response, data)
        except UsageError:
            self.responded = self.responded and not is_final
            raise

    async def wait_cancelled(self) -> None:
        """Wait until the peer sends C-CANCEL for this request; for ever, if it does not."""
        if not self.cancelled:
            if self._cancelling is None:
                self._cancelling = asyncio.Event()
            await self._cancelling.wait()

    def cancel(self) -> None:
        """The peer has sent C-CANCEL for this request. It is for the handler to end it with a final response."""
        self.cancelled = True
        if self._cancelling is not None:
            self._cancelling.set()

    async def refuse(self, status: int, comment: str | None = None) -> None:
        """Send the response to this kind of request with a failure status, and a comment of which 64 characters are sent."""
        await self.respond(refusal(self.message, status, comment))
