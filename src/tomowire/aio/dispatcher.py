"""The performing side of DIMSE on one association: which provider serves which request of the peer, and the tasks that do it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from tomowire.aio.failing import describe_failure, log_failure
from tomowire.aio.log_context import serving
from tomowire.aio.providers import Providers
from tomowire.aio.serving import IncomingRequest
from tomowire.errors import AssociationError, AssociationReleased, UnknownCommand
from tomowire.protocol.responses import bare_response
from tomowire.protocol.status import PROCESSING_FAILURE, UNRECOGNIZED_OPERATION
from tomowire.wire.messages import NEventReportRQ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tomowire.aio.association import Association
    from tomowire.aio.serving import ServiceProvider
    from tomowire.aio.streams import DataStream
    from tomowire.errors import CommandSetError
    from tomowire.protocol.negotiation import AcceptedContext
    from tomowire.wire.messages import Request

logger = logging.getLogger("tomowire.serving")

# A peer may send requests faster than they are served, with a negotiated window or without one. Beyond this many on one
# association they wait for each other, and nothing more is read until half of them are done.
_MOST_RUNNING: Final = 64


class _Unreadable:
    """A request of which the command set could not be decoded, and the response command set to it."""

    __slots__ = ("association", "context_id", "response")

    def __init__(self, association: Association, context_id: int, response: bytes) -> None:
        self.association: Final = association
        self.context_id: Final = context_id
        self.response: Final = response


class Dispatcher:
    """Serves the requests of the peer on one association: so many at once, first come, first served."""

    def __init__(self, services: Sequence[ServiceProvider]) -> None:
        self.providers = Providers(services)
        """What is served. An acceptor knows when it is asked for the association; a requestor before."""
        self._running: dict[asyncio.Task[None], IncomingRequest | _Unreadable] = {}
        self._waiting: deque[IncomingRequest | _Unreadable] = deque()
        self._by_message_id: dict[int, IncomingRequest] = {}
        self._association: Association | None = None
        self._over = False
        self._unreadable_log_level = logging.WARNING

    @property
    def is_idle(self) -> bool:
        """Whether no request is being served."""
        return not self._running

    @property
    def serving(self) -> list[str]:
        """What is being served or waits for that, such as `CStoreRQ`; the one that came first before the others."""
        return [_name(request) for request in (*self._running.values(), *self._waiting)]

    def on_request(
        self, association: Association, context: AcceptedContext, message: Request, stream: DataStream | None
    ) -> None:
        """Serve a request, if need be later; its data set may still be arriving."""
        request = IncomingRequest(association, context, message, stream)
        self._by_message_id[request.message_id] = request
        self._take_up(association, request)

    def on_malformed(self, association: Association, context_id: int, error: CommandSetError) -> None:
        """Answer a request whose command set could not be decoded; `error` knows its Message ID and command field."""
        logger.log(self._unreadable_log_level, "%s: unreadable command set: %s", association.title, error)
        self._unreadable_log_level = logging.DEBUG  # once: a peer must not be able to fill the log
        status = UNRECOGNIZED_OPERATION if isinstance(error, UnknownCommand) else PROCESSING_FAILURE
        response = bare_response(error.command_field or 0, error.message_id or 0, status)
        self._take_up(association, _Unreadable(association, context_id, response))

    def on_cancel(self, message_id: int) -> None:
        """PS3.7 9.3.2.3: a C-CANCEL for what is not being served, or not any more, is passed over."""
        request = self._by_message_id.get(message_id)
        if request is not None:
            request.cancel()

    def on_association_over(self, error: AssociationError) -> None:
        """PS3.8 AA-3, AA-4: nobody waits for the answers any more; what runs is cancelled."""
        self._over = True
        for request in self._waiting:
            _give_back(request)
        self._waiting.clear()
        if not isinstance(error, AssociationReleased):
            for task in self._running:
                task.cancel()

    async def wait_idle(self, timeout: float) -> None:
        """Wait until no request is being served, not even a cancelled one; at most `timeout` seconds."""
        running = self._running_elsewhere()
        if running:
            _, stubborn = await asyncio.wait(running, timeout=timeout)
            for task in stubborn:
                what = _name(self._running[task])
                logger.error("a handler of %s has been cancelled, and goes on for more than %g s", what, timeout)

    async def wait_served(self) -> None:
        """Wait until every request that has come is answered, but for one that is being served by the very task that waits."""
        while running := self._running_elsewhere():
            await asyncio.wait(running)

    def _running_elsewhere(self) -> set[asyncio.Task[None]]:
        return {task for task in self._running if task is not asyncio.current_task()}

    def _take_up(self, association: Association, request: IncomingRequest | _Unreadable) -> None:
        self._association = association
        if len(self._running) < _MOST_RUNNING:
            self._start(request)
        else:
            self._waiting.append(request)
            association.connection.hold_reading("requests")

    def _start(self, request: IncomingRequest | _Unreadable) -> None:
        work = self._serve(request) if isinstance(request, IncomingRequest) else _answer(request)
        task = asyncio.get_running_loop().create_task(work)
        self._running[task] = request
        task.add_done_callback(self._done)

    async def _serve(self, request: IncomingRequest) -> None:
        serving.set(request)  # for this task, and what it starts
        try:
            provider = self.providers.serving(request.context.abstract_syntax)
            if provider is None or not _is_performed_here(request):
                await request.refuse(UNRECOGNIZED_OPERATION)
            else:
                await provider.handle(request)
            failure = None if request.responded else "it gave no response"
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._over:
                raise
            if task is not None and task.cancelling():
                # The event loop ends, or somebody has cancelled the task: there is no time to answer.
                self._give_up(request)
                raise
            # Something that the handler waited for was cancelled, not this association: the peer is still to be told.
            failure = "it was cancelled"
        except Exception as error:
            failure = describe_failure(error)
            # In full only for who asks for it: the text of an exception may quote a data set.
            logger.debug("%s: %s failed", request.association.title, type(request.message).__name__, exc_info=True)
        finally:
            if request.data is not None:
                request.data.close()
        if failure is not None and request.association.can_answer:
            logger.error(
                "%s: the handler of %s failed: %s", request.association.title, type(request.message).__name__, failure
            )
            await self._tell_failure(request)

    @staticmethod
    def _give_up(request: IncomingRequest) -> None:
        """Nobody will answer the request, and its peer is not to wait for that."""
        if not request.responded:
            name = type(request.message).__name__
            logger.warning("%s: the handler of %s was cancelled: aborted", request.association.title, name)
            request.association.abort()

    async def _tell_failure(self, request: IncomingRequest) -> None:
        if not request.responded:
            try:
                await request.refuse(PROCESSING_FAILURE, "internal error")
            except AssociationError as error:
                logger.debug("%s: and could not be told so: %s", request.association.title, error)

    def _done(self, task: asyncio.Task[None]) -> None:
        request = self._running.pop(task)
        _give_back(request)  # once more, for a task that was cancelled before it began
        if isinstance(request, IncomingRequest) and self._by_message_id.get(request.message_id) is request:
            del self._by_message_id[request.message_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log_failure(logger, "answering a request", error)
        if self._waiting:
            self._start(self._waiting.popleft())
        association = self._association
        if association is not None:
            if len(self._running) <= _MOST_RUNNING // 2:
                association.connection.allow_reading("requests")
            if not self._running:
                association.on_all_served()


def _is_performed_here(request: IncomingRequest) -> bool:
    """Whether the roles agreed on let the peer ask for this (PS3.7 D.3.3.4); if not, it is an operation that was not agreed upon.

    As the requestor this side performs operations only where it was accepted as SCP. Notifications go the other way, from the SCP
    to the SCU (PS3.7 10.1.1). An acceptor performs all that it accepted: nothing is won by refusing a requestor that asked for the
    SCP role and forgot the other one.
    """
    if not request.association.is_requestor:
        return True
    if isinstance(request.message, NEventReportRQ):
        return request.context.requestor_is_scu
    return request.context.requestor_is_scp


async def _answer(request: _Unreadable) -> None:
    association = request.association
    try:
        await association.send_command_set(request.context_id, request.response)
    except AssociationError as error:
        logger.debug("%s: an unreadable request is not answered: %s", association.title, error)


def _give_back(request: IncomingRequest | _Unreadable) -> None:
    if isinstance(request, IncomingRequest) and request.data is not None:
        request.data.close()


def _name(request: IncomingRequest | _Unreadable) -> str:
    return type(request.message).__name__ if isinstance(request, IncomingRequest) else "an unreadable request"
