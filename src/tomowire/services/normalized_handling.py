"""What a handler of DIMSE-N gets and what it may answer, and the response that is made of that (PS3.7 10.1, annex C)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tomowire.errors import DataSetError, OperationFailed, UsageError
from tomowire.protocol.responses import refusal
from tomowire.protocol.status import PROCESSING_FAILURE, SUCCESS, Status
from tomowire.services.arguments import is_dataset
from tomowire.services.attribute_lists import decode_list, encode_elsewhere
from tomowire.uids import is_tolerable_uid
from tomowire.wire.elements import DATA_SET_PRESENT
from tomowire.wire.messages import NActionRQ, NCreateRQ, NDeleteRQ, NEventReportRQ, NGetRQ, NSetRQ, Request
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pydicom import Dataset

    from tomowire.aio.association import Association
    from tomowire.wire.messages import Response

logger = logging.getLogger("tomowire.normalized")

OPERATIONS: Final[dict[type[Request], str]] = {
    NCreateRQ: "N-CREATE",
    NSetRQ: "N-SET",
    NGetRQ: "N-GET",
    NActionRQ: "N-ACTION",
    NDeleteRQ: "N-DELETE",
    NEventReportRQ: "N-EVENT-REPORT",
}

_LARGEST_NUMBER: Final = 0xFFFF
_LARGEST_TAG: Final = 0xFFFFFFFF


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


def checked(answered: Any, operation: str) -> NormalizedAnswer:
    """What a handler has returned, as an answer. Raises `UsageError` for what is none: the mistake is to be found in the log."""
    answer: Any = answered
    if isinstance(answered, int) and not isinstance(answered, bool):
        answer = NormalizedAnswer(status=answered)
    elif answered is None or isinstance(answered, bytes) or is_dataset(answered):
        answer = NormalizedAnswer(answered)
    if not isinstance(answer, NormalizedAnswer):
        raise UsageError(f"the handler of {operation} returned {type(answered).__name__}, which is no answer")
    status: Any = answer.status
    if not _is_status(status) or Status(status).is_pending or Status(status).is_cancel:
        shown = status if isinstance(status, int) else type(status).__name__
        raise UsageError(f"the handler of {operation} returned {shown}, which is no status of a response to it")
    if answer.dataset is not None and operation == OPERATIONS[NDeleteRQ]:
        raise UsageError("the handler of N-DELETE returned a data set: its response has none (PS3.7 10.3.6.2)")
    for name, is_good in _fields_of(answer):
        if not is_good:
            # Not what it is: it may be anything, patient data too.
            raise UsageError(f"the handler of {operation} returned a NormalizedAnswer with a wrong `{name}`")
    return answer


def _fields_of(answer: Any) -> tuple[tuple[str, bool], ...]:
    """The other fields, and whether a response can hold what is in them."""
    return (
        ("dataset", answer.dataset is None or isinstance(answer.dataset, bytes) or is_dataset(answer.dataset)),
        ("comment", answer.comment is None or isinstance(answer.comment, str)),
        ("sop_instance_uid", answer.sop_instance_uid is None or is_tolerable_uid(str(answer.sop_instance_uid))),
        ("attribute_identifiers", all(_is_number(each, _LARGEST_TAG) for each in answer.attribute_identifiers)),
        ("offending_elements", all(_is_number(each, _LARGEST_TAG) for each in answer.offending_elements)),
        ("error_id", answer.error_id is None or _is_number(answer.error_id, _LARGEST_NUMBER)),
        ("then", answer.then is None or callable(answer.then)),
    )


def check_failure(failure: OperationFailed, operation: str) -> None:
    """Raise `UsageError` for a status that is none of a failure: the peer must not be told that what failed is done."""
    if not (_is_status(failure.status) and Status(failure.status).is_failure):
        raise UsageError(
            f"the handler of {operation} raised OperationFailed with {failure.status}, which is no status of a failure"
        )


def _is_status(number: object) -> bool:
    return _is_number(number, _LARGEST_NUMBER)


def _is_number(number: object, largest: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= largest


async def response_of(incoming: NormalizedRequest, answer: NormalizedAnswer) -> tuple[Response, bytes | None]:
    """The response to `incoming`, with its data set in the transfer syntax of the request.

    Raises `OperationFailed` when the data set cannot be encoded.
    """
    try:
        data = await encode_elsewhere(answer.dataset, incoming.transfer_syntax_uid)
    except DataSetError:
        # The text of the exception may quote the data set.
        logger.error("%s: the answer to %s cannot be encoded", incoming.association.title, incoming.operation)
        logger.debug("%s: %s", incoming.association.title, incoming.operation, exc_info=True)
        raise OperationFailed(PROCESSING_FAILURE, "the answer cannot be encoded") from None
    response = refusal(incoming.message, answer.status, answer.comment)
    # PS3.7 10.1.5.1.3: of an instance that its N-CREATE does not name the peer is told, unless there is none.
    told: dict[str, Any] = {
        "offending_element": answer.offending_elements,
        "error_id": answer.error_id,
        "attribute_identifier_list": answer.attribute_identifiers,
    }
    if data is not None:
        told["data_set_type"] = DATA_SET_PRESENT
    if answer.sop_instance_uid is not None or not Status(answer.status).is_failure:
        told["affected_sop_instance_uid"] = answer.sop_instance_uid or incoming.sop_instance_uid
    return _with(response, incoming.message, told), data


def response_of_failure(message: Request, failure: OperationFailed) -> Response:
    """The response to an operation that was refused, or has failed."""
    told = {
        "offending_element": failure.offending_elements,
        "error_id": failure.error_id,
        "attribute_identifier_list": failure.attribute_identifiers,
    }
    return _with(refusal(message, failure.status, failure.comment), message, told)


def _with(response: Response, message: Request, told: dict[str, Any]) -> Response:
    """`response` with what it has a place for. The types of action and event are those of the request (PS3.7 C.5.10, C.5.24)."""
    for name in ("action_type_id", "event_type_id"):
        told[name] = getattr(message, name, None)
    return replace(response, **{name: said for name, said in told.items() if name in response.__dataclass_fields__})
