"""The SCU of C-FIND (PS3.4 C.4.1): it gives pydicom data sets."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.connect import associate
from tomowire.aio.responses import responses
from tomowire.errors import AssociationError, DataSetError, OperationTimeout, PeerMisbehaved, QueryFailed, UsageError
from tomowire.protocol.status import CANNOT_UNDERSTAND, DATA_SET_MISMATCH, OUT_OF_RESOURCES, Status
from tomowire.services.arguments import checked_association
from tomowire.services.identifiers import decode, encode
from tomowire.services.models import Level, Model
from tomowire.services.query import Query, default_model
from tomowire.wire.messages import CFindRQ

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from pydicom import Dataset

    from tomowire.aio.address import PeerAddress
    from tomowire.aio.association import Association
    from tomowire.protocol.negotiation import ProposedContext
    from tomowire.wire.messages import Response

logger = logging.getLogger("tomowire.find")

DEFAULT_FIND_TIMEOUT: Final = 10.0
DEFAULT_CANCEL_GRACE: Final = 5.0
_MOST_KEPT: Final = 100
"""Errors of single answers that are kept until the end: a peer may send a million of them."""


class CFindScu:
    """C-FIND on an association that has a presentation context for the model: `querying(model)`."""

    def __init__(self, association: Association) -> None:
        self._association: Association = checked_association(association, "CFindScu")

    async def find(
        self,
        query: Query | Dataset,
        *,
        model: Model | None = None,
        timeout: float | None = DEFAULT_FIND_TIMEOUT,
        grace: float = DEFAULT_CANCEL_GRACE,
    ) -> AsyncGenerator[Dataset, None]:
        """Yield the answers as they come (PS3.7 9.1.2). Several may run at once, as the negotiated window allows.

        `query` may be an identifier of one's own, which is sent as it is but for its Specific Character Set. `timeout` is the time
        in seconds to the next answer. Left early it sends C-CANCEL and waits up to `grace` seconds for the peer to stop; if it does
        not, the association is aborted. Leave it with `contextlib.aclosing`, or by cancelling the task.

        Raises `QueryFailed` when the peer ends with a failure (what was yielded before stays valid); `UsageError` and
        `DataSetError` for a query that cannot be sent; `NoAcceptedContext`, `OperationTimeout`, and what else ends an association.
        Answers that cannot be read are passed over, and raised at the end: one `ExceptionGroup` of `DataSetError`, the first 100.
        """
        association = self._association
        model = model or default_model_of(query)
        context = association.context(model.find)
        # In a thread: the first query of a program imports pydicom.
        identifier = await asyncio.to_thread(_encoded, query, model, context.transfer_syntax)
        request = CFindRQ(message_id=association.next_message_id(), affected_sop_class_uid=model.find)
        received = responses(
            association, context, request, identifier, name=f"C-FIND ({model})", timeout=timeout, grace=grace
        )
        unreadable = _Unreadable()
        async with aclosing(received) as answers:
            async for response, data in answers:
                status = Status(response.status)
                if not status.is_pending:
                    _check_end(association, status, response, query, model)
                elif data is None:
                    raise PeerMisbehaved("the peer sent a pending C-FIND response without an identifier")
                elif (answer := unreadable.or_decoded(data, context.transfer_syntax)) is not None:
                    yield answer
        unreadable.check()


class _Unreadable:
    """The answers to one query that cannot be read: they do not keep the others back."""

    def __init__(self) -> None:
        self._count = 0
        self._errors: list[DataSetError] = []

    def or_decoded(self, data: bytes, transfer_syntax: str) -> Dataset | None:
        try:
            return decode(data, transfer_syntax)
        except DataSetError as error:
            self._count += 1
            if len(self._errors) < _MOST_KEPT:
                self._errors.append(error)
            return None

    def check(self) -> None:
        if self._errors:
            raise ExceptionGroup(f"{self._count} of the peer's answers cannot be read", self._errors)


@asynccontextmanager
async def associate_for_queries(
    peer: PeerAddress, contexts: Iterable[ProposedContext], **options: Any
) -> AsyncGenerator[Association, None]:
    """As `associate`, but a query that fails is no reason for an abort: the association is as good as before, and is released."""
    failure: Exception | None = None
    try:
        async with associate(peer, contexts, **options) as association:
            try:
                yield association
            except (QueryFailed, ExceptionGroup) as error:
                failure = error
    except (AssociationError, OperationTimeout):
        if failure is None:
            raise
    if failure is not None:
        raise failure


def default_model_of(query: Any) -> Model:
    """The model in which a query is asked when none is named. Raises `UsageError` for what is no query."""
    if isinstance(query, Query):
        return query.model
    from pydicom import Dataset

    if not isinstance(query, Dataset):
        shown = query.__name__ if isinstance(query, type) else f"a {type(query).__name__}"
        raise UsageError(f"a query is a Query, such as Query.study(uid), or a pydicom Dataset, and not {shown}")
    level = query.get("QueryRetrieveLevel")
    return default_model(Level.PATIENT if level == Level.PATIENT else Level.STUDY)


def _encoded(query: Query | Dataset, model: Model, transfer_syntax_uid: str) -> bytes:
    return encode(query.dataset(model) if isinstance(query, Query) else query, transfer_syntax_uid)


def _check_end(
    association: Association, status: Status, response: Response, query: Query | Dataset, model: Model
) -> None:
    """Raise `QueryFailed` when the final response says that these were not all matches; a warning is only told."""
    if status.is_warning:
        logger.warning(
            "%s ended the query with a warning, and may not have given all matches: %s",
            association.called_ae_title,
            status,
        )
    if not (status.is_failure or status.is_cancel):
        return
    comment = response.error_comment or None
    parts = [f"{association.called_ae_title} did not answer the query: {status}"]
    if comment:
        parts.append(f"it says {comment!r}")
    if response.offending_element:
        parts.append("it is about " + ", ".join(map(_name_of_tag, response.offending_element)))
    lacking = _without_one_value(query, model) if status >> 8 == DATA_SET_MISMATCH >> 8 else {}
    parts.append(_advice(status, lacking))
    raise QueryFailed(
        status,
        comment,
        response.offending_element,
        explanation="; ".join(filter(None, parts)),
        lacking=tuple(lacking),
    )


def _without_one_value(query: Query | Dataset, model: Model) -> dict[str, str]:
    """The unique keys of the levels above that have not one value each (PS3.4 C.4.1.2.1), and what they lack."""
    asked = query.dataset(model) if isinstance(query, Query) else query
    level = asked.get("QueryRetrieveLevel")
    if level not in model.levels:
        return {}
    lacking = {}
    for keyword in (each.unique_key for each in model.levels[: model.levels.index(level)]):
        said = asked.get(keyword)
        if not said:
            lacking[keyword] = "one value"
        elif not isinstance(said, str) or not set(said).isdisjoint("*?"):
            lacking[keyword] = "exactly one value"
    return lacking


def _name_of_tag(tag: int) -> str:
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import keyword_for_tag

    return f"{keyword_for_tag(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})".lstrip()


def _advice(status: Status, lacking: Mapping[str, str]) -> str:
    """Whose fault it is and what to do, by PS3.4 Table C.4-1 and PS3.7 C.5."""
    if status.is_cancel:
        return "nobody here has cancelled it: the peer was stopped, ask again"
    if status >> 8 == OUT_OF_RESOURCES >> 8:
        return "the peer is short of something: ask for less, or later"
    if status >> 8 == DATA_SET_MISMATCH >> 8:
        gifts = " and ".join(f"{keyword} {what}" for keyword, what in lacking.items())
        return f"the query does not fit the model: {f'give {gifts}' if gifts else 'look at its level and its keys'}"
    if status >> 12 == CANNOT_UNDERSTAND >> 12:
        return "the peer could not process it: its log should say more"
    return ""
