"""The Storage service class (PS3.4 Annex B): C-STORE, both sides.

A data set passes through here as bytes: the SCU sends what stands in the file, the SCP hands on what came.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import sleep
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from tomowire.errors import NoAcceptedContext, OperationTimeout, UsageError
from tomowire.protocol.negotiation import ProposedContext
from tomowire.protocol.status import Status
from tomowire.services.answered import Answered
from tomowire.services.arguments import checked_association
from tomowire.services.converting import in_agreed_syntax
from tomowire.services.dicom_file import DicomFile
from tomowire.services.exchanging import Exchange
from tomowire.services.retrying import DEFAULT_RETRIES, Retries, retry_waits
from tomowire.services.sources import as_source
from tomowire.services.transfer_progress import ProgressMeter
from tomowire.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    name_of,
    storage_uid,
)
from tomowire.wire.messages import HIGH, LOW, MEDIUM, CStoreRQ
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tomowire.aio.association import Association
    from tomowire.protocol.negotiation import AcceptedContext
    from tomowire.services.sources import Source
    from tomowire.services.transfer_progress import TransferProgress

logger = logging.getLogger("tomowire.storage")

DEFAULT_STORE_TIMEOUT: Final = 30.0

Priority: TypeAlias = Literal["low", "medium", "high"]
_PRIORITIES: Final = {"low": LOW, "medium": MEDIUM, "high": HIGH}  # PS3.7 9.3.1.1


def storage(
    sop_class: str, transfer_syntaxes: Iterable[str] = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
) -> tuple[ProposedContext, ...]:
    """The presentation contexts to propose for a storage SOP class, by name ("CT Image Storage") or UID.

    One for each transfer syntax: of several in one context the peer would take only one (PS3.8 9.3.3.2), and objects in the others
    could not be sent. Name the compressed ones that the files have. Raises `InvalidUid` for an unknown name.
    """
    uid = storage_uid(sop_class)
    if isinstance(transfer_syntaxes, str):
        raise UsageError(f"transfer syntaxes are given as a list: [{str(transfer_syntaxes)!r}]")
    return tuple(ProposedContext(uid, (transfer_syntax,)) for transfer_syntax in transfer_syntaxes)


@value()
class StoreResponse(Answered):
    """What became of one C-STORE: the peer's answer (PS3.7 9.1.1). `status.meaning` says it in words.

    The UIDs are those of the object. `offending_elements` are the tags of which the peer says that they are the reason.
    """

    status: Status
    sop_class_uid: str
    sop_instance_uid: str
    error_comment: str | None = None
    offending_elements: tuple[int, ...] = ()


@value()
class MoveOriginator:
    """Whose C-MOVE is the cause of a C-STORE: the AE title that asked for it, and the Message ID of its request (PS3.7 9.1.1.1)."""

    ae_title: str
    message_id: int


class CStoreScu:
    """C-STORE on an association. Several `send` may run at once: as many are outstanding as the negotiated window allows."""

    def __init__(self, association: Association) -> None:
        self._association: Association = checked_association(association, "CStoreScu")

    async def send(
        self,
        source: Source | Any,
        *,
        transfer_syntax: str | None = None,
        transcode: bool = False,
        timeout: float = DEFAULT_STORE_TIMEOUT,
        priority: Priority = "medium",
        retries: int = DEFAULT_RETRIES,
        progress: Callable[[TransferProgress], object] | None = None,
        originator: MoveOriginator | None = None,
        content: bytes | memoryview | None = None,
        on_bytes: Callable[[int], object] | None = None,
    ) -> StoreResponse:
        """Send one object (PS3.7 9.1.1).

        `source` is a path of a DICOM file, a binary stream of one, a pydicom `Dataset`, or any `Source` (see `as_source`).
        Files and streams are sent in pieces as they are read, and never held as a whole.

        An object is sent in the transfer syntax that it has; an uncompressed `Dataset` in whichever uncompressed one was agreed on.
        With `transcode`, what the peer does not take as it is, is sent in one that it does take, if that can be made without loss;
        `transfer_syntax` (a UID) is the one to be used. That takes memory for the whole object, or for one frame of a stream.

        `timeout` is how long nothing may move, in seconds; `priority` is told to the peer, "low", "medium" or "high"; `originator`
        too. An object that is refused with A7xx (out of resources) is sent again up to `retries` times, after 1, 2, 4 ... seconds,
        unless it comes from a stream that cannot be wound back. `progress` is called at most ten times a second, and at the end.

        `content` is the data set, for callers who have read it already; `on_bytes` gets the number of bytes of each piece sent.

        Raises `NoAcceptedContext` if the peer took no presentation context for the object, `OSError` if it cannot be read,
        `UsageError`, `FileFormatError`, `DataSetError` or `TranscodingFailed` for what cannot be sent, `OperationTimeout` when
        nothing moved for `timeout` seconds, and what else ends an association. A failure status is not an exception: see
        `StoreResponse`.
        """
        if priority not in _PRIORITIES:
            raise UsageError(f"the priority of a C-STORE is {', '.join(map(repr, _PRIORITIES))}: not {priority!r}")
        if not isinstance(source, DicomFile):
            source = await _identified(source, timeout)
        how = _How(timeout, priority, retries, progress, originator, on_bytes)
        context = _find_context(self._association, source)
        if context is not None and transfer_syntax in (None, context.transfer_syntax):
            return await self._until_answered(source, content, context, how)
        agreed = [each.transfer_syntax for each in storing_contexts(self._association, source.sop_class_uid)]
        fitting = in_agreed_syntax(source, content, agreed, transfer_syntax, transcode=transcode)
        async with fitting as (source, content):
            context = _context_for(self._association, source, transfer_syntax)
            return await self._until_answered(source, content, context, how)

    async def _until_answered(
        self, source: Source, content: bytes | memoryview | None, context: AcceptedContext, how: _How
    ) -> StoreResponse:
        """Send it, and send it again when the peer is out of resources."""
        response = await self._attempt(source, content, context, how)
        if how.retries and source.repeatable:
            waits, refusals = Retries(retry_waits(how.retries)), 1
            while (wait := waits.before_sending(response, refusals)) is not None:
                logger.info("%s: %s; sending it again in %.1f s", source.sop_instance_uid, response.status, wait)
                await sleep(wait)
                if not self._association.is_established:
                    break
                response = await self._attempt(source, content, context, how)
                refusals += 1
        return response

    async def _attempt(
        self, source: Source, content: bytes | memoryview | None, context: AcceptedContext, how: _How
    ) -> StoreResponse:
        originator = how.originator
        request = CStoreRQ(
            message_id=self._association.next_message_id(),
            affected_sop_class_uid=source.sop_class_uid,
            affected_sop_instance_uid=source.sop_instance_uid,
            priority=_PRIORITIES[how.priority],
            move_originator_application_entity_title=originator.ae_title if originator is not None else None,
            move_originator_message_id=originator.message_id if originator is not None else None,
        )
        meter = ProgressMeter(how.progress, source.size) if how.progress is not None else None
        exchange = Exchange(self._association, context.context_id, request, how.timeout, how.on_bytes, meter)
        response = await exchange.send(source, content)
        return StoreResponse(
            Status(response.status),
            source.sop_class_uid,
            source.sop_instance_uid,
            response.error_comment or None,
            response.offending_element,
        )


@value()
class _How:
    """The options of one `send`."""

    timeout: float
    priority: Priority
    retries: int
    progress: Callable[[TransferProgress], object] | None
    originator: MoveOriginator | None
    on_bytes: Callable[[int], object] | None


async def _identified(thing: Any, timeout: float) -> Source:
    """Its source. The beginning of a stream may be long in coming."""
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await as_source(thing)
    except TimeoutError:
        if not limit.expired():
            raise
        raise OperationTimeout(f"C-STORE: the stream gave nothing for {timeout:g} s; nothing was sent") from None


def storing_contexts(association: Association, sop_class_uid: str) -> list[AcceptedContext]:
    """The contexts in which this side may send objects of a SOP class.

    The acceptor may where the requestor was given the SCP role (PS3.7 D.3.3.4), as in a C-GET.
    """
    contexts = association.contexts(sop_class_uid)
    return contexts if association.is_requestor else [each for each in contexts if each.requestor_is_scp]


def _find_context(association: Association, source: Source) -> AcceptedContext | None:
    """The context for an object as it is."""
    kind = (source.sop_class_uid, source.transfer_syntax_uid)
    for each in association.agreement.contexts.values():
        if (each.abstract_syntax, each.transfer_syntax) == kind and (association.is_requestor or each.requestor_is_scp):
            return each
    return None


def _context_for(association: Association, source: Source, wanted: str | None) -> AcceptedContext:
    """The context to send it in, `wanted` if that transfer syntax is given. Raises `NoAcceptedContext`, which says why."""
    sop_class, transfer_syntax = source.sop_class_uid, wanted or source.transfer_syntax_uid
    if association.is_requestor:
        return association.context(sop_class, transfer_syntax)
    usable = storing_contexts(association, sop_class)
    for each in usable:
        if each.transfer_syntax == transfer_syntax:
            return each
    if not usable and association.contexts(sop_class):
        raise NoAcceptedContext(f"the requestor did not ask for the SCP role for {name_of(sop_class)}")
    shown = f" in {name_of(transfer_syntax)}" if usable else ""
    raise NoAcceptedContext(f"there is no presentation context for {name_of(sop_class)}{shown}")
