"""What the SCPs of C-GET and C-MOVE share: what they ask of a handler, and the account of the sub-operations.

PS3.4 C.4.2, C.4.3: each object is a C-STORE sub-operation, of which the responses tell how many remain, are completed, have
failed or ended with a warning; the last one names those that failed.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from tomowire.errors import (
    AssociationError,
    DataSetError,
    QueryFailed,
    RetrieveFailed,
    TomowireError,
    TranscodingFailed,
    UsageError,
)
from tomowire.protocol.status import (
    CANCEL,
    CANNOT_UNDERSTAND,
    PENDING,
    SOME_SUBOPERATIONS_FAILED,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNABLE_TO_PERFORM_SUBOPERATIONS,
    Status,
)
from tomowire.services.answering import is_relational, read_identifier, told_of_cancel
from tomowire.services.failed_list import FailedList
from tomowire.services.models import model_of
from tomowire.wire.elements import DATA_SET_PRESENT
from tomowire.wire.messages import CGetRQ, CGetRSP, CMoveRQ, CMoveRSP
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from tomowire.aio.association import Association
    from tomowire.aio.serving import IncomingRequest
    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.models import Model
    from tomowire.services.storage import StoreResponse

logger = logging.getLogger("tomowire.retrieve")

PENDING_INTERVAL: Final = 0.1
"""Seconds between two pending responses, at the least."""
KEEP_ALIVE: Final = 10.0
"""And at the most, so that a requestor does not take a slow destination for a dead peer."""
_MOST_COUNTED: Final = 0xFFFF

RetrieveRQ: TypeAlias = CGetRQ | CMoveRQ


@value()
class RetrieveRequest:
    """One incoming C-GET or C-MOVE, as its handler sees it; who asks stands in `association`."""

    model: Model
    identifier: bytes
    """The data set with the unique keys, as it came: see `tomowire.services.identifiers.decode`."""
    transfer_syntax_uid: str
    """That of `identifier`."""
    association: Association
    message: RetrieveRQ
    relational: bool = False
    """Whether relational retrieval was negotiated: unique keys above the level may be left out then (PS3.4 C.4.2.2.2.1)."""


@value()
class Retrieval:
    """The objects that a request selects: how many, and where they lie, as many at once as the handler likes.

    An object that is known but has no file (any more) is given with the path where it should be: its sub-operation fails.
    """

    total: int
    files: AsyncIterator[Sequence[DicomFile]]
    kinds: frozenset[tuple[str, str]] = frozenset()
    """The pairs of SOP class and transfer syntax among them, if they are known: a C-MOVE can do with fewer associations then."""
    told: Callable[[str, bool], object] | None = None
    """Called for each object whose sub-operation is over: its UID, and whether the peer has it."""


Objects: TypeAlias = "Callable[[RetrieveRequest], Awaitable[Retrieval]]"


class SubOperations:
    """The account of one request's sub-operations. `total` is None until it is known."""

    def __init__(self, request: IncomingRequest, message: RetrieveRQ) -> None:
        self.total: int | None = None
        self.completed = 0
        self.failed = 0
        self.warning = 0
        self.reason: str | None = None
        """Why the first that failed did so."""
        self._request = request
        self._message = message
        self._failed_uids = FailedList()
        self._changed = asyncio.Event()
        self._told: Callable[[str, bool], object] | None = None

    def begin(self, retrieval: Retrieval) -> None:
        """It is known what they are."""
        self.total = retrieval.total
        self._told = retrieval.told

    @property
    def done(self) -> int:
        return self.completed + self.failed + self.warning

    @property
    def remaining(self) -> int:
        return max((self.total or 0) - self.done, 0)

    @property
    def status(self) -> Status:
        """PS3.4 Tables C.4-2 and C.4-3: that of the final response."""
        if self._request.cancelled and (self.remaining or self.total is None):
            return CANCEL
        if self.failed and not (self.completed or self.warning):
            return UNABLE_TO_PERFORM_SUBOPERATIONS
        return SOME_SUBOPERATIONS_FAILED if self.failed or self.warning else SUCCESS

    def answered(self, response: StoreResponse) -> None:
        """The peer has answered a sub-operation."""
        if self._told is not None and (response.is_success or response.is_warning):
            self._told(response.sop_instance_uid, True)
        if response.is_success:
            self.completed += 1
            self._changed.set()
        elif response.is_warning:
            self.warning += 1
            self._changed.set()
        else:
            # Without the comment, which may quote what is in the object.
            self.not_done(response.sop_instance_uid, f"refused with {response.status}")

    def not_done(self, sop_instance_uid: str, reason: Exception | str) -> None:
        """A sub-operation has failed."""
        text = reason if isinstance(reason, str) else describe(reason)
        logger.info("%s: %s not sent: %s", self._request.association.title, sop_instance_uid, text)
        self.reason = self.reason or text
        self.failed += 1
        if self._told is not None:
            self._told(sop_instance_uid, False)
        self._failed_uids.add(sop_instance_uid)
        self._changed.set()

    def rest_not_done(self, error: Exception | None) -> None:
        """Those that remain have failed; which objects they are is not known. Without an `error` they are gone."""
        if self.remaining:
            self.reason = self.reason or (describe(error) if error is not None else "the object is not there any more")
            self.failed += self.remaining

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """Send pending responses meanwhile, when something has changed and now and then when not."""
        task = asyncio.create_task(self._report())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _report(self) -> None:
        try:
            while True:
                await self._change()
                await self._request.respond(self._response(PENDING))
                await asyncio.sleep(PENDING_INTERVAL)
        except AssociationError:
            return  # whoever sends the final response meets it too

    async def _change(self) -> None:
        """Wait until something has changed, or it is time to say that it has not."""
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    await self._changed.wait()
            except TimeoutError:
                if self.total is None:
                    continue
            self._changed.clear()
            return

    async def respond(self, status: int, comment: str | None = None, offending: tuple[int, ...] = ()) -> None:
        """Send the final response, with the list of what failed (PS3.4 C.4.2.1.4.2)."""
        uids = self._failed_uids
        if uids.left_out:
            comment = f"{uids.left_out} more have failed than are listed: {comment or self.reason}"
        more: dict[str, Any] = {"error_comment": comment, "offending_element": offending}
        data = None
        if uids and status != SUCCESS:
            more["data_set_type"] = DATA_SET_PRESENT
            data = uids.encode(self._request.context.transfer_syntax)
        await self._request.respond(self._response(status, **more), data)

    def _response(self, status: int, **more: Any) -> CGetRSP | CMoveRSP:
        """PS3.7 9.1.3.1.6: how many remain is told as long as it can change, and when it was cancelled."""
        counts: dict[str, Any] = {}
        if self.total is not None:
            counts = {"completed": self.completed, "failed": self.failed, "warning": self.warning}
            if Status(status).is_pending or Status(status).is_cancel:
                counts["remaining"] = self.remaining
        return (CGetRSP if isinstance(self._message, CGetRQ) else CMoveRSP)(
            message_id_being_responded_to=self._message.message_id,
            affected_sop_class_uid=self._message.affected_sop_class_uid,
            status=status,
            **{f"number_of_{name}_suboperations": min(count, _MOST_COUNTED) for name, count in counts.items()} | more,
        )


async def answer_retrieval(
    request: IncomingRequest, work: Callable[[RetrieveRequest, SubOperations], Awaitable[None]]
) -> None:
    """Serve one C-GET or C-MOVE: `work` does the sub-operations and keeps account of them."""
    message = cast("RetrieveRQ", request.message)
    operations = SubOperations(request, message)
    status: int
    comment: str | None = None
    offending: tuple[int, ...] = ()
    try:
        asked = await _read(request, message)
        async with operations.reporting():
            await work(asked, operations)
        status, comment = operations.status, operations.reason
    except (QueryFailed, RetrieveFailed) as failure:
        status, comment, offending = failure.status, failure.error_comment, failure.offending_elements
    except DataSetError as error:
        status, comment = CANNOT_UNDERSTAND, str(error)
    _log(request, message, operations, Status(status), comment)
    await operations.respond(status, comment, offending)


async def unless_cancelled(request: IncomingRequest, wanted: Awaitable[Any]) -> Any:
    """The result of `wanted`, which is cancelled when the peer sends C-CANCEL: None then."""
    try:
        async with asyncio.timeout(None) as limit, told_of_cancel(request, limit):
            return await wanted
    except TimeoutError:
        if not request.cancelled:
            raise
        return None


async def selected(request: IncomingRequest, objects: Awaitable[Retrieval]) -> Retrieval | None:
    """What the handler selects; None when the peer has sent C-CANCEL meanwhile. Raises `UsageError` if the handler returns None."""
    retrieval: Retrieval | None = await unless_cancelled(request, objects)
    if retrieval is None and not request.cancelled:
        # A forgotten `return` must not be told as the success of a retrieval that selects nothing.
        raise UsageError("the handler of the retrieval returned None and not a Retrieval")
    return retrieval


def describe(error: Exception) -> str:
    """What of an error may be told and logged: no paths, and no text of others, which may quote a data set."""
    if isinstance(error, TranscodingFailed):
        return f"it could not be transcoded ({type(error.__cause__ or error).__name__})"
    if isinstance(error, TomowireError):
        return str(error)
    if isinstance(error, OSError):
        return f"the object cannot be read: {error.strerror or 'it is shorter than it should be'}"
    return f"internal error ({type(error).__name__})"


async def _read(request: IncomingRequest, message: RetrieveRQ) -> RetrieveRequest:
    context, association = request.context, request.association
    sop_class = message.affected_sop_class_uid
    model = model_of(sop_class)
    if sop_class != context.abstract_syntax or model is None:
        raise RetrieveFailed(SOP_CLASS_NOT_SUPPORTED, "SOP class is not that of the presentation context")
    identifier = await read_identifier(request)
    relational = is_relational(association, sop_class)
    return RetrieveRequest(model, identifier, context.transfer_syntax, association, message, relational)


def _log(
    request: IncomingRequest, message: RetrieveRQ, operations: SubOperations, status: Status, comment: str | None
) -> None:
    why = f": {comment}" if comment and comment != operations.reason else ""
    what = f"C-MOVE to {message.move_destination!r}" if isinstance(message, CMoveRQ) else "C-GET"
    logger.log(
        logging.WARNING if status.is_failure or operations.failed else logging.INFO,
        "%s: %s ended with %s%s; %d completed, %d failed%s, %d with a warning, %d not begun",
        *(request.association.title, what, status, why),
        *(operations.completed, operations.failed),
        f" (first: {operations.reason})" if operations.reason else "",
        *(operations.warning, operations.remaining),
    )
