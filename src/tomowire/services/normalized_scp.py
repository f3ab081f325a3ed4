"""The performing side of DIMSE-N (PS3.7 10): one provider, with a handler for each operation that it knows.

A service class is a `Normalized` with its handlers: as arguments, or as the methods of a class that derives from it.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any, TypeAlias

from tomowire.errors import AssociationError, DataSetError, MemoryShort, OperationFailed, UsageError
from tomowire.protocol.responses import refusal
from tomowire.protocol.status import (
    INVALID_SOP_INSTANCE,
    NO_SUCH_SOP_CLASS,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    UNRECOGNIZED_OPERATION,
    Status,
)
from tomowire.services.attribute_lists import LARGEST_LIST, gather
from tomowire.services.calling import TimeLimit, TookTooLong, awaitable, checked_handler, log_broken
from tomowire.services.data_memory import DataSetMemory
from tomowire.services.identifiers import TRANSFER_SYNTAXES
from tomowire.services.normalized_handling import (
    OPERATIONS,
    NormalizedRequest,
    check_failure,
    checked,
    response_of,
    response_of_failure,
)
from tomowire.uids import is_tolerable_uid
from tomowire.wire.messages import NCreateRQ, NEventReportRQ

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Container, Mapping

    from tomowire.aio.held import HeldData
    from tomowire.aio.serving import IncomingRequest
    from tomowire.services.normalized_handling import Answered
    from tomowire.wire.messages import Request, Response

    _Response: TypeAlias = tuple[Response, bytes | None, Callable[[], Awaitable[object]] | None]
    """A response, its data set, and what is to be called when it has been sent."""

logger = logging.getLogger("tomowire.normalized")

Handler: TypeAlias = "Callable[[NormalizedRequest], Awaitable[Answered]]"


class Normalized:
    """An SCP of DIMSE-N for `sop_classes`, with a handler for each operation; one without a handler is refused with 0211H.

    `event` takes notifications, for which this side is SCU: as the requestor, in `associate(..., services=[...])`, or as the
    acceptor, of a requestor that asks for the SCP role.

    Of a Meta SOP class, `members` are the classes that it stands for: `{meta: [class, ...]}`. A request for any other class than
    that of its presentation context is refused with 0118H.

    A handler that raises `OperationFailed` answers with that status of a failure; `DataSetError`, which decoding raises, and any
    other exception with 0110H. A data set of more than `largest` bytes is refused with 0213H, and so is one for which there is no
    memory in the server (`listen(memory=...)`, as for `BufferedStorage`). `handler_timeout` is the seconds that a handler may take,
    then it is cancelled, and 0110H answered; None is no limit. A handler is cancelled, too, when the association is aborted.
    """

    def __init__(
        self,
        sop_classes: Collection[str],
        *,
        create: Handler | None = None,
        set: Handler | None = None,  # noqa: A002 - the standard's name
        get: Handler | None = None,
        action: Handler | None = None,
        delete: Handler | None = None,
        event: Handler | None = None,
        members: Mapping[str, Collection[str]] | None = None,
        transfer_syntaxes: Container[str] = TRANSFER_SYNTAXES,
        largest: int = LARGEST_LIST,
        handler_timeout: float | None = None,
    ) -> None:
        for name, given in (("SOP classes", sop_classes), ("transfer syntaxes", transfer_syntaxes)):
            if isinstance(given, str):
                raise UsageError(f"{name} are given as a list: [{given!r}]")
        self._sop_classes = frozenset(sop_classes)
        self._members = members or {}
        unserved = next((each for each in self._members if each not in self._sop_classes), None)
        if unserved is not None:
            raise UsageError(f"{unserved} has members, and is not among the SOP classes that are served")
        given_handlers = zip(OPERATIONS, (create, set, get, action, delete, event), strict=True)
        self._handlers: dict[type[Request], Handler] = {
            message: checked_handler(handler, f"the handler of {OPERATIONS[message]}")
            for message, handler in given_handlers
            if handler is not None
        }
        self._limits = (
            {message: TimeLimit(handler_timeout, handler) for message, handler in self._handlers.items()}
            if handler_timeout is not None
            else {}
        )
        self._transfer_syntaxes = transfer_syntaxes
        self._largest = largest
        self._memory = DataSetMemory()

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return self._transfer_syntaxes if abstract_syntax in self._sop_classes else None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        """Who reports events is SCP."""
        return abstract_syntax in self._sop_classes and NEventReportRQ in self._handlers

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        return None

    async def handle(self, request: IncomingRequest) -> None:
        association = request.association
        with self._memory.of(association).hold(lambda: association.connection.last_heard) as held:
            then = await self._perform(request, held)
        if then is not None:
            await _go_on(request, then)

    async def _perform(self, request: IncomingRequest, held: HeldData) -> Callable[[], Awaitable[object]] | None:
        """Perform it and respond; gives what is to be called then."""
        message = request.message
        try:
            handler = self._handlers.get(type(message))
            if handler is None:
                raise OperationFailed(UNRECOGNIZED_OPERATION)
            incoming = await self._read(request, held)
        except OperationFailed as refused:
            logger.warning("%s: %s refused: %s", request.association.title, _name(message), refused)
            await request.respond(response_of_failure(message, refused))
            return None
        what = f"{request.association.title}: {incoming.operation} of {incoming.sop_instance_uid}"
        response, data, then = await self._answered(incoming, handler, what)
        await request.respond(response, data)
        return then

    async def _answered(self, incoming: NormalizedRequest, handler: Handler, what: str) -> _Response:
        """The response to what the handler makes of it."""
        message = incoming.message
        try:
            response, data, then = await self._ask(handler, incoming)
        except OperationFailed as failure:
            response, data, then = response_of_failure(message, failure), None, None
        except DataSetError as error:
            response, data, then = refusal(message, PROCESSING_FAILURE, str(error)), None, None
        except Exception as error:
            if isinstance(error, AssociationError) and not incoming.association.can_answer:
                raise
            log_broken(what, handler, error)
            return refusal(message, PROCESSING_FAILURE, "internal error"), None, None
        if Status(response.status).is_failure:
            # Without the comment, which may quote what came.
            logger.warning("%s: %s", what, Status(response.status))
        return response, data, then

    async def _read(self, request: IncomingRequest, held: HeldData) -> NormalizedRequest:
        message: Any = request.message
        asked = "affected" if isinstance(message, NCreateRQ | NEventReportRQ) else "requested"
        sop_class_uid: str = getattr(message, f"{asked}_sop_class_uid")
        abstract_syntax = request.context.abstract_syntax
        if sop_class_uid not in (abstract_syntax, *self._members.get(abstract_syntax, ())):
            raise OperationFailed(NO_SUCH_SOP_CLASS, "SOP class is not that of the presentation context")
        named: str | None = getattr(message, f"{asked}_sop_instance_uid")
        if named is not None and not is_tolerable_uid(named):
            raise OperationFailed(INVALID_SOP_INSTANCE, "the SOP instance UID is not a UID")
        try:
            data = await gather(request.data, self._largest, held)
        except (DataSetError, MemoryShort) as error:
            raise OperationFailed(RESOURCE_LIMITATION, str(error)) from None
        return NormalizedRequest(
            operation=_name(message),
            sop_class_uid=sop_class_uid,
            sop_instance_uid=named or f"2.25.{uuid.uuid4().int}",
            type_id=getattr(message, "action_type_id", getattr(message, "event_type_id", None)),
            attribute_identifiers=getattr(message, "attribute_identifier_list", ()),
            data=data,
            transfer_syntax_uid=request.context.transfer_syntax,
            association=request.association,
            message=message,
        )

    async def _ask(self, handler: Handler, incoming: NormalizedRequest) -> _Response:
        """Call the handler. Raises `UsageError` for what is no answer and no failure either, and what else it raises."""
        try:
            answer = checked(await self._call(handler, incoming), incoming.operation)
        except OperationFailed as failure:
            check_failure(failure, incoming.operation)
            raise
        return *await response_of(incoming, answer), answer.then

    async def _call(self, handler: Handler, incoming: NormalizedRequest) -> Any:
        """What the handler returns, if it does so in time."""
        work = awaitable(handler(incoming), handler, f"the handler of {incoming.operation}")
        limit = self._limits.get(type(incoming.message))
        if limit is None:
            return await work
        try:
            return await limit.call(work, None)
        except TookTooLong:
            logger.error("%s: the handler of %s took too long", incoming.association.title, incoming.operation)
            raise OperationFailed(PROCESSING_FAILURE, f"not done within {limit.seconds:g} s") from None


async def _go_on(request: IncomingRequest, then: Callable[[], Awaitable[object]]) -> None:
    """Call what comes after the response. Nobody is told of its failure but the log: the peer has its answer."""
    what = f"{request.association.title}: after {_name(request.message)}"
    try:
        await awaitable(then(), then, "what comes after an answer")
    except AssociationError as error:
        logger.warning("%s: %s", what, error)
    except Exception as error:
        log_broken(what, then, error)


def _name(message: Request) -> str:
    return OPERATIONS.get(type(message), type(message).__name__)
