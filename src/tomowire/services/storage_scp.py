"""The Storage SCP (PS3.4 Annex B): C-STORE requests go to a handler, and what it says goes back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from tomowire.errors import StoreFailed, UsageError
from tomowire.protocol.status import (
    CANNOT_UNDERSTAND,
    INVALID_SOP_INSTANCE,
    SOP_CLASS_NOT_SUPPORTED,
    UNRECOGNIZED_OPERATION,
)
from tomowire.uids import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES, is_tolerable_uid
from tomowire.wire.messages import CStoreRQ, CStoreRSP
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container

    from tomowire.aio.association import Association
    from tomowire.aio.serving import IncomingRequest
    from tomowire.aio.streams import DataStream

logger = logging.getLogger("tomowire.storage")

_STANDARD: Final = "1.2.840.10008."
_STANDARD_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."


@value()
class StoreRequest:
    """One incoming C-STORE, as its handler sees it. `data` gives the data set; who calls stands in `association`."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    association: Association
    message: CStoreRQ
    data: DataStream


def may_be_storage(abstract_syntax: str) -> bool:
    """Private SOP classes, and the arc of the standard where all its storage classes are: not worklists, queries or commitment."""
    return not abstract_syntax.startswith(_STANDARD) or abstract_syntax.startswith(_STANDARD_STORAGE)


def _shown(uid: str) -> str:
    """A UID as the peer sent it, for the log: it may be anything, control characters and a hundred kilobytes included."""
    return uid if is_tolerable_uid(uid) else repr(uid[:64])


class Storage:
    """The Storage SCP: `keep` is called for every object and returns its status, or raises `StoreFailed`.

    It serves the storage SOP classes of the standard, or those in `sop_classes`; with `any_sop_class` private ones too,
    and those that the standard may get. All transfer syntaxes are taken as bytes, or those in `transfer_syntaxes`.
    """

    def __init__(
        self,
        keep: Callable[[StoreRequest], Awaitable[int]],
        *,
        sop_classes: Container[str] = STORAGE_SOP_CLASSES,
        transfer_syntaxes: Container[str] = TRANSFER_SYNTAXES,
        any_sop_class: bool = False,
    ) -> None:
        self._keep = keep
        self._sop_classes = sop_classes
        self._transfer_syntaxes = transfer_syntaxes
        self._any_sop_class = any_sop_class

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
            status = await self._store(request, message)
            comment = None
        except StoreFailed as failure:
            status, comment = failure.status, failure.comment
            logger.warning(
                "%s: %s not stored: %s", request.association.title, _shown(message.affected_sop_instance_uid), failure
            )
        await request.respond(
            CStoreRSP(
                message_id_being_responded_to=message.message_id,
                affected_sop_class_uid=message.affected_sop_class_uid,
                affected_sop_instance_uid=message.affected_sop_instance_uid,
                status=status,
                error_comment=comment,
            )
        )

    async def _store(self, request: IncomingRequest, message: CStoreRQ) -> int:
        context = request.context
        if message.affected_sop_class_uid != context.abstract_syntax:
            raise StoreFailed(SOP_CLASS_NOT_SUPPORTED, "SOP class is not that of the presentation context")
        if not is_tolerable_uid(message.affected_sop_instance_uid):
            raise StoreFailed(INVALID_SOP_INSTANCE, "the SOP instance UID is not a UID")
        if request.data is None:
            raise StoreFailed(CANNOT_UNDERSTAND, "the request has no data set")
        status: int | None = await self._keep(
            StoreRequest(
                message.affected_sop_class_uid,
                message.affected_sop_instance_uid,
                context.transfer_syntax,
                request.association,
                message,
                request.data,
            )
        )
        if status is None:
            # The commonest mistake there is, a forgotten `return`, must not tell the sender that its object is safe.
            raise UsageError("the storage handler returned None and not a status")
        # Whatever the handler made of it: there is no answer to a data set that may still turn out to be cut short.
        await request.data.pass_over()
        return status
