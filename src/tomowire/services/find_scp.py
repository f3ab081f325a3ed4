"""The SCP of C-FIND (PS3.4 C.4.1).

It hands identifiers on as bytes, both ways: whoever can answer from something better than data sets is not made to build them.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, Final, cast

from tomowire.errors import DataSetError, QueryFailed, UsageError
from tomowire.protocol.status import (
    CANCEL,
    CANNOT_UNDERSTAND,
    PENDING,
    PENDING_OPTIONAL_KEYS_NOT_SUPPORTED,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
    Status,
)
from tomowire.services.answering import (
    IDENTIFIER_SYNTAXES,
    closing,
    read_identifier,
    told_of_cancel,
)
from tomowire.services.calling import checked_generator
from tomowire.services.extended import QueryOptions
from tomowire.services.models import Model, checked_models, model_of
from tomowire.wire.elements import DATA_SET_PRESENT
from tomowire.wire.messages import CFindRQ, CFindRSP
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Iterable, Sequence

    from tomowire.aio.association import Association
    from tomowire.aio.serving import IncomingRequest

logger = logging.getLogger("tomowire.find")

_NOTHING_MORE: Final = QueryOptions()
# Answers that are sent before the loop looks after other things, such as a C-CANCEL that has come.
_SENT_AT_A_STRETCH: Final = 32
_ENCODED: Final = (bytes, bytearray, memoryview)


@value()
class FindRequest:
    """One incoming C-FIND, as its handler sees it; who asks stands in `association`."""

    model: Model
    identifier: bytes
    """The data set with the keys, as it came: see `tomowire.services.identifiers.decode`."""
    transfer_syntax_uid: str
    """That of `identifier`, and of the identifiers in the answers."""
    association: Association
    message: CFindRQ
    relational: bool = False
    """Whether relational queries were negotiated: unique keys above the level need no value then (PS3.4 C.4.1.2.2.1)."""
    options: QueryOptions = QueryOptions()
    """All that was negotiated, `relational` included (PS3.4 C.5.1.1)."""


@value()
class FindAnswers:
    """Some matches, of which each becomes a pending response: FF00H, or FF01H when optional keys are not supported."""

    identifiers: Sequence[bytes]
    optional_keys_supported: bool = True


class Find:
    """The SCP of C-FIND: `answer` is called for every query, and its iterator gives the matches, as many at once as it likes.

    It raises `QueryFailed` to end with that status; the comment goes to the log as well as to the peer, and names no patient.
    `DataSetError`, which `decode` raises, ends with C000H, any other exception with 0110H. When the peer cancels, the iterator is
    cancelled where it waits, and closed.

    It serves the `models`; with `relational`, relational queries are agreed to when a requestor asks for them (PS3.4 C.5.1.1), and
    so is whatever else `answer` can do and `options` names.
    """

    def __init__(
        self,
        answer: Callable[[FindRequest], AsyncIterator[FindAnswers]],
        *,
        models: Iterable[Model] = tuple(Model),
        relational: bool = False,
        options: QueryOptions = _NOTHING_MORE,
    ) -> None:
        self._answer = checked_generator(answer, "a query handler")
        self._sop_classes = frozenset(model.find for model in checked_models(models))
        self._options = replace(options, relational=options.relational or relational)

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return IDENTIFIER_SYNTAXES if abstract_syntax in self._sop_classes else None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return False

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        """PS3.4 C.5.1.1.2."""
        return self._options.answer(proposed)

    async def handle(self, request: IncomingRequest) -> None:
        message = request.message
        if not isinstance(message, CFindRQ):
            await request.refuse(UNRECOGNIZED_OPERATION)
            return
        status: int
        comment: str | None = None
        offending: tuple[int, ...] = ()
        try:
            status = await self._find(request, message)
        except QueryFailed as failure:
            status, comment, offending = failure.status, failure.error_comment, failure.offending_elements
        except DataSetError as error:
            status, comment = CANNOT_UNDERSTAND, str(error)
        if Status(status).is_failure:
            why = f": {comment}" if comment else ""
            logger.warning("%s: query not answered: %s%s", request.association.title, Status(status), why)
        await request.respond(
            CFindRSP(
                message_id_being_responded_to=message.message_id,
                affected_sop_class_uid=message.affected_sop_class_uid,
                status=status,
                error_comment=comment,
                offending_element=offending,
            )
        )

    async def _find(self, request: IncomingRequest, message: CFindRQ) -> Status:
        context = request.context
        model = model_of(message.affected_sop_class_uid)
        if message.affected_sop_class_uid != context.abstract_syntax or model is None:
            raise QueryFailed(SOP_CLASS_NOT_SUPPORTED, "SOP class is not that of the presentation context")
        options = QueryOptions.agreed(request.association, model.find)
        query = FindRequest(
            model,
            await read_identifier(request),
            context.transfer_syntax,
            request.association,
            message,
            options.relational,
            options,
        )
        try:
            async with asyncio.timeout(None) as limit, told_of_cancel(request, limit):
                await _send_answers(request, message, _iterator(self._answer(query)))
        except TimeoutError:
            if not request.cancelled:
                raise
        return CANCEL if request.cancelled else SUCCESS


def _iterator(answers: Any) -> AsyncIterator[FindAnswers]:
    """What a handler has returned, if it can be iterated: an `async def` without `yield` is a mistake that is soon made."""
    if not hasattr(answers, "__aiter__"):
        if iscoroutine(answers):
            answers.close()
        raise UsageError(f"the query handler returned a {type(answers).__name__}: it has to be an async generator")
    return cast("AsyncIterator[FindAnswers]", answers)


def _check(found: Any) -> None:
    if not isinstance(found, FindAnswers):
        raise UsageError(
            f"the query handler yielded a {type(found).__name__}: it has to yield FindAnswers([identifier, ...])"
        )
    for each in found.identifiers:
        if not isinstance(each, _ENCODED):
            raise UsageError(f"an identifier in FindAnswers is a {type(each).__name__}, and not bytes: see `encode`")


async def _send_answers(request: IncomingRequest, message: CFindRQ, answers: AsyncIterator[FindAnswers]) -> None:
    """Send what the iterator gives until it ends, or the peer has cancelled."""

    def pending(status: Status) -> CFindRSP:
        return CFindRSP(
            message_id_being_responded_to=message.message_id,
            affected_sop_class_uid=message.affected_sop_class_uid,
            status=status,
            data_set_type=DATA_SET_PRESENT,
        )

    whole, in_part = pending(PENDING), pending(PENDING_OPTIONAL_KEYS_NOT_SUPPORTED)
    sent = 0
    async with closing(answers):
        async for found in answers:
            _check(found)
            response = whole if found.optional_keys_supported else in_part
            for identifier in found.identifiers:
                if request.cancelled:
                    return
                await request.respond(response, identifier)
                sent += 1
                if sent % _SENT_AT_A_STRETCH == 0:
                    await asyncio.sleep(0)
