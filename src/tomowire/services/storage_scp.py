"""The Storage SCP (PS3.4 Annex B): C-STORE requests go to a handler, and what it says goes back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import AssociationError, StoreFailed, UsageError
from tomowire.protocol.status import (
    CANNOT_UNDERSTAND,
    INVALID_SOP_INSTANCE,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    UNRECOGNIZED_OPERATION,
)
from tomowire.services.calling import TimeLimit, TookTooLong, awaitable, checked_handler, log_broken
from tomowire.services.data_memory import DataSetMemory
from tomowire.services.handler import status_and_comment, status_of_failure
from tomowire.services.store_request import StoreRequest as StoreRequest
from tomowire.uids import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES, is_tolerable_uid
from tomowire.wire.messages import CStoreRQ, CStoreRSP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container

    from tomowire.aio.serving import IncomingRequest
    from tomowire.aio.streams import DataStream
    from tomowire.services.handler import Outcome

logger = logging.getLogger("tomowire.storage")

_HANDLER: Final = "a storage handler"
_STANDARD: Final = "1.2.840.10008."
_STANDARD_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."


def may_be_storage(abstract_syntax: str) -> bool:
    """Private SOP classes, the storage classes of the standard, and the arc where it puts new ones: not worklists or commitment."""
    return (
        not abstract_syntax.startswith(_STANDARD)
        or abstract_syntax.startswith(_STANDARD_STORAGE)
        or abstract_syntax in STORAGE_SOP_CLASSES
    )


def _shown(uid: str) -> str:
    """A UID as the peer sent it, for the log: it may be anything, control characters and a hundred kilobytes included."""
    return uid if is_tolerable_uid(uid) else repr(uid[:64])


class Storage:
    """The Storage SCP: `keep` is called for every object, as its data set begins to come, and reads it from `request.data`.

    It returns the status, or status and error comment, or raises `StoreFailed`. Anything else that it raises, and what is no
    status, is a failure of that object (0110H; C000H for `DataSetError`) and an entry in the log. A handler that takes more than
    `handler_timeout` seconds without asking for data is cancelled, and its object has failed (0110H); None is no limit.

    It serves the storage SOP classes of the standard, or those in `sop_classes`; with `any_sop_class` private ones too,
    and those that the standard may get. All transfer syntaxes are taken as bytes, or those in `transfer_syntaxes`.
    """

    def __init__(
        self,
        keep: Callable[[StoreRequest], Awaitable[Outcome]],
        *,
        sop_classes: Container[str] = STORAGE_SOP_CLASSES,
        transfer_syntaxes: Container[str] = TRANSFER_SYNTAXES,
        any_sop_class: bool = False,
        handler_timeout: float | None = None,
    ) -> None:
        self._keep = self._blamed = checked_handler(keep, _HANDLER)  # the latter is named when it does wrong
        for name, given in (("SOP classes", sop_classes), ("transfer syntaxes", transfer_syntaxes)):
            if isinstance(given, str):  # of which every part would be taken for a UID
                raise UsageError(f"{name} are given as a list: [{given!r}]")
        self._sop_classes = sop_classes
        self._transfer_syntaxes = transfer_syntaxes
        self._any_sop_class = any_sop_class
        self._memory = DataSetMemory()
        self._time_limit = TimeLimit(handler_timeout, self._keep) if handler_timeout is not None else None

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        if abstract_syntax in self._sop_classes or (self._any_sop_class and may_be_storage(abstract_syntax)):
            return self._transfer_syntaxes
        return None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return False

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        """PS3.4 B.3.1: level of support 2 (all attributes are kept), no digital signatures beyond that, no coercion."""
        return b"\x02\x00\x00\x00\x00\x00"

    async def handle(self, request: IncomingRequest) -> None:
        message = request.message
        if not isinstance(message, CStoreRQ):
            await request.refuse(UNRECOGNIZED_OPERATION)
            return
        try:
            status, comment = await self._store(request, message)
        except Exception as error:
            status, comment = self._answer_to_failure(request, message, error)
        await request.respond(
            CStoreRSP(
                message_id_being_responded_to=message.message_id,
                affected_sop_class_uid=message.affected_sop_class_uid,
                affected_sop_instance_uid=message.affected_sop_instance_uid,
                status=status,
                error_comment=comment,
            )
        )

    def _answer_to_failure(
        self, request: IncomingRequest, message: CStoreRQ, error: Exception
    ) -> tuple[int, str | None]:
        """Status and error comment of an object that has not been stored. Raises `error` when nobody is left to be told."""
        association, uid = request.association, _shown(message.affected_sop_instance_uid)
        if isinstance(error, AssociationError) and not association.can_answer:
            raise error
        status, comment, broken = status_of_failure(error, self._blamed)
        if broken is None:
            logger.warning("%s: %s not stored: %s", association.title, uid, error)
        else:
            log_broken(f"{association.title}: {uid} not stored", self._blamed, broken)
        return status, comment

    async def _store(self, request: IncomingRequest, message: CStoreRQ) -> tuple[int, str | None]:
        context, data = request.context, request.data
        if message.affected_sop_class_uid != context.abstract_syntax:
            raise StoreFailed(SOP_CLASS_NOT_SUPPORTED, "SOP class is not that of the presentation context")
        if not is_tolerable_uid(message.affected_sop_instance_uid):
            raise StoreFailed(INVALID_SOP_INSTANCE, "the SOP instance UID is not a UID")
        if data is None:
            raise StoreFailed(CANNOT_UNDERSTAND, "the request has no data set")
        association = request.association
        object_ = StoreRequest(association, message, context.transfer_syntax, data, self._memory.of(association))
        try:
            outcome = status_and_comment(await self._perform(object_), self._blamed)
            # Whatever the handler made of it: there is no answer to a data set that may still turn out to be cut short.
            if not data.is_over:
                await data.pass_over()
        finally:
            object_.close()
        return outcome

    async def _perform(self, request: StoreRequest) -> Any:
        """Have the object handled; gives what the handler returns."""
        if self._time_limit is None:  # a call less, for each object
            return await awaitable(self._keep(request), self._blamed, _HANDLER)
        return await self._call(request, request.data)

    async def _call(self, request: Any, data: DataStream) -> Any:
        work = awaitable(self._keep(request), self._blamed, _HANDLER)
        if self._time_limit is None:
            return await work
        try:
            return await self._time_limit.call(work, data)
        except TookTooLong:
            seconds = self._time_limit.seconds
            raise StoreFailed(PROCESSING_FAILURE, f"the storage handler did nothing for {seconds:g} s") from None
