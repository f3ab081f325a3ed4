"""C-FIND of the Query/Retrieve service class (PS3.4 C.4.1), both sides.

The SCU gives pydicom data sets. The SCP hands identifiers on as bytes, both ways: whoever can answer from something better than
data sets is not made to build them.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.responses import responses
from tomowire.errors import DataSetError, PeerMisbehaved, QueryFailed
from tomowire.protocol.status import (
    CANCEL,
    CANNOT_UNDERSTAND,
    DATA_SET_MISMATCH,
    OUT_OF_RESOURCES,
    PENDING,
    PENDING_OPTIONAL_KEYS_NOT_SUPPORTED,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
    Status,
)
from tomowire.services.identifiers import decode, encode
from tomowire.services.models import Level, Model, model_of
from tomowire.services.query import Query, default_model
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.elements import DATA_SET_PRESENT
from tomowire.wire.messages import CFindRQ, CFindRSP
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Iterable, Sequence

    from pydicom import Dataset

    from tomowire.aio.association import Association
    from tomowire.aio.serving import IncomingRequest
    from tomowire.aio.streams import DataStream
    from tomowire.wire.messages import Response

logger = logging.getLogger("tomowire.find")

DEFAULT_FIND_TIMEOUT: Final = 10.0
DEFAULT_CANCEL_GRACE: Final = 5.0
LARGEST_IDENTIFIER: Final = 4 << 20
"""Bytes of a query that are taken: room for 60,000 UIDs."""

# PS3.4 C.5.1.1.2: relational queries, combined date-time matching, fuzzy matching of names, time zones, multi-frame conversion,
# matching of empty values, matching of multiple values.
_EXTENDED_NEGOTIATION_BYTES: Final = 7
_TRANSFER_SYNTAXES: Final = frozenset({EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN})
# Answers that are sent before the loop looks after other things, such as a C-CANCEL that has come.
_SENT_AT_A_STRETCH: Final = 32


class CFindScu:
    """C-FIND on an association that has a presentation context for the model: `querying(model)`."""

    def __init__(self, association: Association) -> None:
        self._association = association

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
        async with aclosing(received) as answers:
            async for response, data in answers:
                status = Status(response.status)
                if not status.is_pending:
                    _check_end(association, status, response)
                elif data is None:
                    raise PeerMisbehaved("the peer sent a pending C-FIND response without an identifier")
                else:
                    yield decode(data, context.transfer_syntax)


def default_model_of(query: Query | Dataset) -> Model:
    """The model in which a query is asked when none is named."""
    if isinstance(query, Query):
        return query.model
    level = query.get("QueryRetrieveLevel")
    return default_model(Level.PATIENT if level == Level.PATIENT else Level.STUDY)


def _encoded(query: Query | Dataset, model: Model, transfer_syntax_uid: str) -> bytes:
    return encode(query.dataset(model) if isinstance(query, Query) else query, transfer_syntax_uid)


def _check_end(association: Association, status: Status, response: Response) -> None:
    """Raise `QueryFailed` unless the final response says that these were all matches."""
    if not (status.is_failure or status.is_cancel):
        return
    comment = response.error_comment or None
    parts = [f"{association.called_ae_title} did not answer the query: {status}"]
    if comment:
        parts.append(f"it says {comment!r}")
    if response.offending_element:
        parts.append("it is about " + ", ".join(map(_name_of_tag, response.offending_element)))
    parts.append(_advice(status))
    raise QueryFailed(status, comment, response.offending_element, explanation="; ".join(filter(None, parts)))


def _name_of_tag(tag: int) -> str:
    from pydicom.datadict import keyword_for_tag

    return f"{keyword_for_tag(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})".lstrip()


def _advice(status: Status) -> str:
    """Whose fault it is and what to do, by PS3.4 Table C.4-1 and PS3.7 C.5."""
    if status.is_cancel:
        return "nobody here has cancelled it: the peer was stopped, ask again"
    if status >> 8 == OUT_OF_RESOURCES >> 8:
        return "the peer is short of something: ask for less, or later"
    if status >> 8 == DATA_SET_MISMATCH >> 8:
        return "the query does not fit the model: look at its level, and give a value to the unique key of each level above"
    if status >> 12 == CANNOT_UNDERSTAND >> 12:
        return "the peer could not process it: its log should say more"
    return ""


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


@value()
class FindAnswers:
    """Some matches, of which each becomes a pending response: FF00H, or FF01H when optional keys are not supported."""

    identifiers: Sequence[bytes]
    optional_keys_supported: bool = True


class Find:
    """The SCP of C-FIND: `answer` is called for every query, and its iterator gives the matches, as many at once as it likes.

    It raises `QueryFailed` to end with that status. `DataSetError`, which `decode` raises, ends with C000H, any other exception
    with 0110H. When the peer cancels, the iterator is cancelled where it waits, and closed.

    It serves the `models`; with `relational`, relational queries are agreed to when a requestor asks for them (PS3.4 C.5.1.1).
    """

    def __init__(
        self,
        answer: Callable[[FindRequest], AsyncIterator[FindAnswers]],
        *,
        models: Iterable[Model] = tuple(Model),
        relational: bool = False,
    ) -> None:
        self._answer = answer
        self._sop_classes = frozenset(model.find for model in models)
        self._relational = relational

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return _TRANSFER_SYNTAXES if abstract_syntax in self._sop_classes else None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return False

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        """PS3.4 C.5.1.1.2: as many bytes as were proposed, and of what they stand for nothing but relational queries."""
        answered = bytearray(min(max(len(proposed), 1), _EXTENDED_NEGOTIATION_BYTES))
        answered[0] = self._relational and proposed[:1] == b"\x01"
        return bytes(answered)

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
            # Without the comment, which may quote what was asked for.
            logger.warning("%s: query not answered: %s", request.association.title, Status(status))
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
        if request.data is None:
            raise QueryFailed(CANNOT_UNDERSTAND, "the query has no identifier")
        query = FindRequest(
            model,
            await _read(request.data),
            context.transfer_syntax,
            request.association,
            message,
            _is_relational(request.association, model.find),
        )
        try:
            async with asyncio.timeout(None) as limit, _told_of_cancel(request, limit):
                await _send_answers(request, message, self._answer(query))
        except TimeoutError:
            if not request.cancelled:
                raise
        return CANCEL if request.cancelled else SUCCESS


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
    async with _closing(answers):
        async for found in answers:
            response = whole if found.optional_keys_supported else in_part
            for identifier in found.identifiers:
                if request.cancelled:
                    return
                await request.respond(response, identifier)
                sent += 1
                if sent % _SENT_AT_A_STRETCH == 0:
                    await asyncio.sleep(0)


@asynccontextmanager
async def _closing(answers: AsyncIterator[Any]) -> AsyncIterator[None]:
    """Close an iterator that can be closed: generators can, others need not."""
    try:
        yield
    finally:
        close = getattr(answers, "aclose", None)
        if close is not None:
            await close()


@asynccontextmanager
async def _told_of_cancel(request: IncomingRequest, limit: asyncio.Timeout) -> AsyncIterator[None]:
    """Let `limit` run out when the peer sends C-CANCEL: what waits inside it is cancelled then, in its own task."""

    async def watch() -> None:
        await request.wait_cancelled()
        limit.reschedule(asyncio.get_running_loop().time())

    watching = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


async def _read(stream: DataStream) -> bytes:
    """The identifier of a query, which is not to fill the memory."""
    identifier = bytearray()
    async for chunk in stream:
        if len(identifier) + chunk.nbytes > LARGEST_IDENTIFIER:
            raise QueryFailed(OUT_OF_RESOURCES, f"an identifier of more than {LARGEST_IDENTIFIER} bytes")
        for buffer in chunk.buffers:
            identifier += buffer
    return bytes(identifier)


def _is_relational(association: Association, sop_class_uid: str) -> bool:
    agreed = association.agreement.response.user_information.extended_negotiations
    return any(each.sop_class_uid == sop_class_uid and each.application_information[:1] == b"\x01" for each in agreed)
