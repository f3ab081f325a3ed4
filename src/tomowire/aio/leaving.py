"""How this side ends an association: by a release, by an abort, and so that nothing is left of it."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from tomowire.aio.messages import AssociationMessages
from tomowire.errors import AssociationAborted, OperationTimeout, PduError, PeerMisbehaved
from tomowire.protocol.states import State
from tomowire.wire.abort_reasons import UNEXPECTED_PDU_PARAMETER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tomowire.aio.blocks import Block
    from tomowire.aio.dispatcher import Dispatcher
    from tomowire.errors import AssociationError
    from tomowire.protocol.events import ProtocolEvent
    from tomowire.protocol.upper_layer import UpperLayer

logger = logging.getLogger("tomowire.association")

DEFAULT_RELEASE_TIMEOUT: Final = 30.0
DEFAULT_HANDLER_GRACE: Final = 10.0
"""Seconds that cancelled handlers have to clean up before they are left to themselves."""


class AssociationLeaving(AssociationMessages):
    """The part of `Association` that this side ends it with."""

    def __init__(
        self, upper: UpperLayer, called_ae_title: str, calling_ae_title: str, dispatcher: Dispatcher | None
    ) -> None:
        super().__init__(upper, called_ae_title, calling_ae_title)
        self._loop = asyncio.get_running_loop()
        self._dispatcher = dispatcher
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._abort_was_asked_for = False
        self._timed_out = False

    @abstractmethod
    def on_events(self, events: Iterable[ProtocolEvent], block: Block | None) -> None:
        """The automaton has news."""

    @abstractmethod
    def _end(self, error: AssociationError) -> None:
        """The association is over."""

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
            self._timed_out = True
            await self.close(grace=0)
            raise OperationTimeout(f"the peer did not answer the release request within {timeout:g} s") from None

    def abort(self, error: PduError | None = None, *, because: str | None = None) -> None:
        """Send A-ABORT; all that waits on this association is told. The connection closes when the peer closes it, or by ARTIM.

        `error` is what the peer did wrong, `because` what it did not do in time; without either someone has asked for it.
        """
        if self._upper.is_over:
            return
        self._abort_was_asked_for = error is None and because is None
        if because is not None:
            self._timed_out = True
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
