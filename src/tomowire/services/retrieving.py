"""What the SCUs of C-GET and C-MOVE have in common (PS3.4 C.4.2, C.4.3): identifier, progress, and what the end means."""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.responses import LARGEST_DATA_SET, responses
from tomowire.errors import DataSetError, RetrieveFailed, SubOperationFailed, UsageError
from tomowire.protocol.status import (
    CANNOT_UNDERSTAND,
    DATA_SET_MISMATCH,
    MOVE_DESTINATION_UNKNOWN,
    OUT_OF_RESOURCES,
    SOME_SUBOPERATIONS_FAILED,
    UNABLE_TO_PERFORM_SUBOPERATIONS,
    Status,
)
from tomowire.services.find import default_model_of
from tomowire.services.identifiers import decode, encode
from tomowire.services.query import Query
from tomowire.wire.messages import CGetRSP, CMoveRSP
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pydicom import Dataset

    from tomowire.aio.association import Association
    from tomowire.protocol.negotiation import AcceptedContext
    from tomowire.services.models import Model
    from tomowire.wire.messages import CGetRQ, CMoveRQ, Response

__all__ = [
    "DEFAULT_RETRIEVE_TIMEOUT",
    "Progress",
    "SubOperationFailed",
    "encoded_identifier",
    "model_for",
    "names_entities",
    "retrieve_identifier",
    "suboperations",
]

logger = logging.getLogger("tomowire.retrieving")

DEFAULT_RETRIEVE_TIMEOUT: Final = 120.0


@value()
class Progress:
    """How far a retrieval has come, in sub-operations, by the peer's own count; `remaining` is None where it does not say, which
    at the end means that it has counted nothing.
    """

    remaining: int | None
    completed: int
    failed: int
    warning: int
    error_comment: str | None = None
    """What the peer has said at the end of a request of which nothing failed; where something did, the error has it."""


_NOTHING_SAID: Final = Progress(None, 0, 0, 0)


def retrieve_identifier(query: Query | Dataset, model: Model | None = None) -> Dataset:
    """The identifier that asks for what `query` names: its level, and the unique keys down to it (PS3.4 C.4.2.1.4, C.4.3.1.3).

    A data set is taken as it is. Raises `UsageError` for a query with other keys, or without the unique key of its level.
    """
    if not isinstance(query, Query):
        return query
    from pydicom import Dataset as NewDataset

    model = model or query.model
    asked = query.dataset(model)
    unique = [level.unique_key for level in model.levels[: model.levels.index(query.level) + 1]]
    others = [each.keyword or str(each.tag) for each in asked if not each.is_empty and each.keyword not in unique]
    others.remove("QueryRetrieveLevel")
    if others:
        raise UsageError(
            f"a retrieval has no keys but {', '.join(unique)}, and not {', '.join(others)}: find first what matches those"
        )
    made = NewDataset()
    made.QueryRetrieveLevel = query.level.value
    for keyword in unique:
        if not asked[keyword].is_empty:
            made[keyword] = asked[keyword]
    own = made.get(query.level.unique_key)
    if not own or (isinstance(own, str) and not set(own).isdisjoint("*?")):
        raise UsageError(
            f"a retrieval at {query.level} level needs a value for {query.level.unique_key}, without wildcards"
        )
    return made


def names_entities(query: Query | Dataset, model: Model | None = None) -> bool:
    """Whether a retrieval can ask for just this; if not, what matches it has to be found first."""
    try:
        retrieve_identifier(query, model)
    except UsageError:
        return False
    return True


def encoded_identifier(query: Query | Dataset, model: Model, transfer_syntax_uid: str) -> bytes:
    """The identifier as bytes. Raises `UsageError` and `DataSetError`."""
    return encode(retrieve_identifier(query, model), transfer_syntax_uid)


def model_for(query: Query | Dataset, model: Model | None) -> Model:
    """The model in which something is retrieved: `model`, or that in which it would be asked for."""
    return model or default_model_of(query)


async def suboperations(
    association: Association,
    context: AcceptedContext,
    request: CGetRQ | CMoveRQ,
    identifier: bytes,
    *,
    name: str,
    timeout: float | None,
    grace: float,
) -> AsyncGenerator[Progress, None]:
    """Send the request, and yield what its responses tell of the sub-operations; leave it as `responses`.

    Raises what `responses` raises, and at the end `RetrieveFailed`, or one `ExceptionGroup` of `SubOperationFailed`.
    """
    progress = _NOTHING_SAID
    received = responses(association, context, request, identifier, name=name, timeout=timeout, grace=grace)
    async with aclosing(received) as answers:
        async for response, data in answers:
            assert isinstance(response, CGetRSP | CMoveRSP)  # `Operations` has seen to that
            status = Status(response.status)
            failed = _failed_uids(data, context)
            progress = _progress(response, progress, is_final=not status.is_pending, all_well=not failed)
            if status.is_pending or not status.is_failure or _is_counted(response):
                yield progress
            if not status.is_pending:
                too_long = data is None and response.has_data_set
                _check_end(association, request, response, progress, failed, too_long=too_long)


def _progress(response: CGetRSP | CMoveRSP, before: Progress, *, is_final: bool, all_well: bool) -> Progress:
    """The counts are optional (PS3.4 C.4.2.1.6 and following): what is not said has not changed, and at the end nothing remains.

    Of a peer that has said nothing at all it is not known at the end either how many there were.
    """

    def known(count: int | None, otherwise: int) -> int:
        return otherwise if count is None else count

    status, remaining = Status(response.status), response.number_of_remaining_suboperations
    failed = known(response.number_of_failed_suboperations, before.failed)
    warning = known(response.number_of_warning_suboperations, before.warning)
    all_well = all_well and not (failed or status.is_failure or status.is_cancel or _is_unsaid(status, failed, warning))
    is_over = is_final and (_is_counted(response) or before != _NOTHING_SAID)
    return Progress(
        0 if is_over and remaining is None else remaining,
        known(response.number_of_completed_suboperations, before.completed),
        failed,
        warning,
        response.error_comment or None if is_final and all_well else None,
    )


def _is_unsaid(status: Status, failed: int, warning: int) -> bool:
    """Whether something was not transferred, or only with a warning, and the peer does not say of how many objects."""
    return status == SOME_SUBOPERATIONS_FAILED and not (failed or warning)


def _is_counted(response: CGetRSP | CMoveRSP) -> bool:
    counts = (
        response.number_of_completed_suboperations,
        response.number_of_failed_suboperations,
        response.number_of_warning_suboperations,
    )
    return any(count is not None for count in counts)


def _failed_uids(data: bytes | None, context: AcceptedContext) -> list[str]:
    """The Failed SOP Instance UID List (0008,0058). An unreadable one must not hide the counts: then there is none."""
    if not data:
        return []
    try:
        value: Any = decode(data, context.transfer_syntax).get("FailedSOPInstanceUIDList")
    except DataSetError as error:
        logger.warning("the list of failed SOP instances cannot be read: %s", error)
        return []
    if isinstance(value, bytes):  # VR UN, where UI has no room for it (PS3.5 6.2.2)
        value = value.decode("ascii", "replace").split("\\")
    found = [value] if isinstance(value, str) else list(value or ())
    return [uid for each in found if (uid := str(each).strip(" \0"))]


def _check_end(
    association: Association,
    request: CGetRQ | CMoveRQ,
    response: Response,
    progress: Progress,
    failed: list[str],
    *,
    too_long: bool,
) -> None:
    """Raise what the final response means, unless all went well; `too_long` is a list of failures that was not read."""
    status, comment = Status(response.status), response.error_comment or None
    said = f"; it says {comment!r}" if comment else ""
    count = max(progress.failed, len(failed))
    unsaid = not too_long and _is_unsaid(status, count, progress.warning)
    count = max(count, int(too_long or unsaid))
    if unsaid:
        said += "; how many have failed, it does not say"
    if too_long:
        said += f"; its list of those that failed has more than {LARGEST_DATA_SET >> 20} MiB and was not read"
    if (status.is_failure and (status != UNABLE_TO_PERFORM_SUBOPERATIONS or not count)) or status.is_cancel:
        parts = [f"{association.called_ae_title} ended the retrieval: {status}{said}", _advice(status, request)]
        raise RetrieveFailed(
            status,
            comment,
            response.offending_element,
            completed=progress.completed,
            failed=progress.failed,
            warning=progress.warning,
            explanation="; ".join(filter(None, parts)),
        )
    if count:
        errors = [SubOperationFailed(uid) for uid in failed]
        if count > len(failed):
            errors.append(SubOperationFailed(None, count - len(failed)))
        raise ExceptionGroup(
            f"{association.called_ae_title} did not transfer {count} of the objects: {status}{said}", errors
        )


def _advice(status: Status, request: CGetRQ | CMoveRQ) -> str:
    """Whose fault it is and what to do, by PS3.4 Tables C.4-2 and C.4-3."""
    if status == MOVE_DESTINATION_UNKNOWN:
        destination = getattr(request, "move_destination", "")
        return (
            f"it does not know the destination {destination!r}: enter it there, in the list of the peer's remote AE titles,"
            " with host and port"
        )
    if status.is_cancel:
        return "nobody here has cancelled it: the peer was stopped, ask again"
    if status == UNABLE_TO_PERFORM_SUBOPERATIONS:
        return "the peer could not begin: for C-MOVE, see whether it reaches the destination"
    if status >> 8 == OUT_OF_RESOURCES >> 8:
        return "the peer is short of something: ask for less, or later"
    if status >> 8 == DATA_SET_MISMATCH >> 8:
        return "the identifier does not fit the model: give a value to the unique key of each level down to the one asked for"
    if status >> 12 == CANNOT_UNDERSTAND >> 12:
        return "the peer could not process it: its log should say more"
    return ""
