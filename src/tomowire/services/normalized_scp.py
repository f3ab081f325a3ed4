"""The performing side of DIMSE-N (PS3.7 10): one provider, with a handler for each operation that it knows.

A service class is a `Normalized` with its handlers: as arguments, or as the methods of a class that derives from it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tomowire.errors import AssociationError, DataSetError, MemoryShort, OperationFailed, UsageError
from tomowire.protocol.responses import refusal
from tomowire.protocol.status import (
    INVALID_SOP_INSTANCE,
    NO_SUCH_SOP_CLASS,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
    Status,
)
from tomowire.services.attribute_lists import LARGEST_LIST, decode_list, encode_elsewhere, gather
from tomowire.services.data_memory import DataSetMemory
from tomowire.services.identifiers import TRANSFER_SYNTAXES
from tomowire.services.sources import is_dataset
from tomowire.uids import is_tolerable_uid
from tomowire.wire.elements import DATA_SET_PRESENT
from tomowire.wire.messages import NActionRQ, NCreateRQ, NDeleteRQ, NEventReportRQ, NGetRQ, NSetRQ
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Container, Mapping

    from pydicom import Dataset

    from tomowire.aio.association import Association
    from tomowire.aio.held import HeldData
    from tomowire.aio.serving import IncomingRequest
    from tomowire.wire.messages import Request, Response

logger = logging.getLogger("tomowire.normalized")

_NAMES: Final[dict[type[Request], str]] = {
    NCreateRQ: "N-CREATE",
    NSetRQ: "N-SET",
    NGetRQ: "N-GET",
    NActionRQ: "N-ACTION",
    NDeleteRQ: "N-DELETE",
    NEventReportRQ: "N-EVENT-REPORT",
}


@value(kw_only=True)
class NormalizedRequest:
    """One incoming operation or notification, as its handler sees it; who asks stands in `association`."""

    operation: str
    """Such as "N-CREATE"."""
    sop_class_uid: str
    sop_instance_uid: str
    """Of an N-CREATE that names none: one that has been made here, and is told to the peer."""
    type_id: int | None
    """The action type of an N-ACTION, the event type of an N-EVENT-REPORT; else None."""
    attribute_identifiers: tuple[int, ...]
    """The tags that an N-GET asks for; none means all."""
    data: bytes | None
    """The data set as it came; None if there is none. See `dataset`."""
    transfer_syntax_uid: str
    """That of `data`, and of the data set in the answer."""
    association: Association
    message: Request

    def dataset(self) -> Dataset:
        """`data`, decoded anew with each call; without attributes if there is none. Raises `DataSetError`, which answers 0110H.

        Decoding blocks: use `asyncio.to_thread` for what may be large.
        """
        return decode_list(self.data, self.transfer_syntax_uid)


@value()
class NormalizedAnswer:
    """What a handler answers, where a data set or a status alone does not say it all."""

    dataset: Dataset | bytes | None = None
    """Attribute list, action reply or event reply; bytes are in the transfer syntax of the request."""
    status: int = SUCCESS
    comment: str | None = None
    sop_instance_uid: str | None = None
    """The instance, if it is not that of the request."""
    attribute_identifiers: tuple[int, ...] = ()
    """Attributes that are missing or not known; for N-CREATE, N-GET and N-SET."""
    offending_elements: tuple[int, ...] = ()
    error_id: int | None = None
    then: Callable[[], Awaitable[object]] | None = None
    """Called when the response has been sent, such as to report an event on the same association."""


Answered: TypeAlias = "NormalizedAnswer | Dataset | bytes | int | None"
"""What a handler returns. None is Success without a data set, a data set is Success with it, a number is a status."""
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
        self._sop_classes = frozenset(sop_classes)
        handlers = (create, set, get, action, delete, event)
        self._handlers = dict(zip(_NAMES, handlers, strict=True))
        self._members = members or {}
        self._transfer_syntaxes = transfer_syntaxes
        self._largest = largest
        self._handler_timeout = handler_timeout
        self._memory = DataSetMemory()

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return self._transfer_syntaxes if abstract_syntax in self._sop_classes else None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        """Who reports events is SCP."""
        return abstract_syntax in self._sop_classes and self._handlers[NEventReportRQ] is not None

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
        then = None
        try:
            handler = self._handlers.get(type(request.message))
            if handler is None:
                raise OperationFailed(UNRECOGNIZED_OPERATION)
            incoming = await self._read(request, held)
            answer = await self._ask(handler, incoming)
            response, data = await _response_of(incoming, answer)
            then = answer.then
        except OperationFailed as failure:
            _check_failure(failure, _name(request.message))
            response, data = _failure(request.message, failure), None
        except DataSetError as error:
            response, data = refusal(request.message, PROCESSING_FAILURE, str(error)), None
        if Status(response.status).is_failure:
            # Without the comment, which may quote what came.
            logger.warning("%s: %s: %s", request.association.title, _name(request.message), Status(response.status))
        await request.respond(response, data)
        return then

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

    async def _ask(self, handler: Handler, incoming: NormalizedRequest) -> NormalizedAnswer:
        limit = asyncio.timeout(self._handler_timeout)
        try:
            async with limit:
                answered = await handler(incoming)
        except TimeoutError:
            if not limit.expired():
                raise
            logger.error("%s: the handler of %s took too long", incoming.association.title, incoming.operation)
            raise OperationFailed(PROCESSING_FAILURE, f"not done within {self._handler_timeout:g} s") from None
        return _checked(answered, incoming.operation)


def _checked(answered: Any, operation: str) -> NormalizedAnswer:
    """What a handler has returned, as an answer. Raises `UsageError` for what is none: the mistake is to be found in the log."""
    answer = answered
    if isinstance(answered, int) and not isinstance(answered, bool):
        answer = NormalizedAnswer(status=answered)
    elif answered is None or isinstance(answered, bytes) or is_dataset(answered):
        answer = NormalizedAnswer(answered)
    if not isinstance(answer, NormalizedAnswer):
        raise UsageError(f"the handler of {operation} returned {type(answered).__name__}, which is no answer")
    status = Status(answer.status)
    if not 0 <= status <= 0xFFFF or status.is_pending or status.is_cancel:
        raise UsageError(f"the handler of {operation} returned {answer.status}, which is no status of a response to it")
    if answer.dataset is not None and operation == _NAMES[NDeleteRQ]:
        raise UsageError("the handler of N-DELETE returned a data set: its response has none (PS3.7 10.3.6.2)")
    return answer


def _check_failure(failure: OperationFailed, operation: str) -> None:
    """Raise `UsageError` for a status that is none of a failure: the peer must not be told that what failed is done."""
    if not (0 <= failure.status <= 0xFFFF and Status(failure.status).is_failure):
        raise UsageError(
            f"the handler of {operation} raised OperationFailed with {failure.status}, which is no status of a failure"
        )


async def _response_of(incoming: NormalizedRequest, answer: NormalizedAnswer) -> tuple[Response, bytes | None]:
    """The response to `incoming`, with its data set in the transfer syntax of the request."""
    try:
        data = await encode_elsewhere(answer.dataset, incoming.transfer_syntax_uid)
    except DataSetError:
        # The text of the exception may quote the data set.
        logger.error("%s: the answer to %s cannot be encoded", incoming.association.title, incoming.operation)
        logger.debug("%s: %s", incoming.association.title, incoming.operation, exc_info=True)
        raise OperationFailed(PROCESSING_FAILURE, "the answer cannot be encoded") from None
    response = refusal(incoming.message, answer.status, answer.comment)
    told: dict[str, Any] = {
        "affected_sop_instance_uid": answer.sop_instance_uid or incoming.sop_instance_uid,
        "offending_element": answer.offending_elements,
        "error_id": answer.error_id,
        "attribute_identifier_list": answer.attribute_identifiers,
        "action_type_id": incoming.type_id,
        "event_type_id": incoming.type_id,
    }
    if data is not None:
        told["data_set_type"] = DATA_SET_PRESENT
    return _with(response, told), data


def _failure(message: Request, failure: OperationFailed) -> Response:
    told = {
        "offending_element": failure.offending_elements,
        "error_id": failure.error_id,
        "attribute_identifier_list": failure.attribute_identifiers,
    }
    return _with(refusal(message, failure.status, failure.comment), told)


def _with(response: Response, told: dict[str, Any]) -> Response:
    """`response` with what it has a place for."""
    return replace(response, **{name: said for name, said in told.items() if name in response.__dataclass_fields__})


async def _go_on(request: IncomingRequest, then: Callable[[], Awaitable[object]]) -> None:
    try:
        await then()
    except AssociationError as error:
        logger.warning("%s: after %s: %s", request.association.title, _name(request.message), error)


def _name(message: Request) -> str:
    return _NAMES.get(type(message), type(message).__name__)
