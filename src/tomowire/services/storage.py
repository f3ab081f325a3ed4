"""The Storage service class (PS3.4 Annex B): C-STORE, both sides.

A data set passes through here as bytes: the SCU sends what stands in the file, the SCP hands on what came.
"""

from __future__ import annotations

import logging
from asyncio import to_thread
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.errors import AssociationError, NoAcceptedContext
from tomowire.protocol.negotiation import ProposedContext
from tomowire.protocol.status import (
    Status,
)
from tomowire.services.dicom_file import DicomFile, inspect
from tomowire.services.reading import even, read_pieces
from tomowire.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    name_of,
    storage_uid,
)
from tomowire.wire.messages import CStoreRQ
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from os import PathLike

    from tomowire.aio.association import Association
    from tomowire.aio.operation import Operation
    from tomowire.protocol.negotiation import AcceptedContext

logger = logging.getLogger("tomowire.storage")

DEFAULT_STORE_TIMEOUT: Final = 30.0

_STANDARD: Final = "1.2.840.10008."
_STANDARD_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."


def storage(
    sop_class: str, transfer_syntaxes: Iterable[str] = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
) -> tuple[ProposedContext, ...]:
    """The presentation contexts to propose for a storage SOP class, by name ("CT Image Storage") or UID.

    One for each transfer syntax: of several in one context the peer would take only one (PS3.8 9.3.3.2), and objects in the others
    could not be sent. Name the compressed ones that the files have. Raises `InvalidUid` for an unknown name.
    """
    uid = storage_uid(sop_class)
    return tuple(ProposedContext(uid, (transfer_syntax,)) for transfer_syntax in transfer_syntaxes)


@value()
class StoreResponse:
    """What became of one C-STORE: the peer's answer (PS3.7 9.1.1)."""

    status: Status
    sop_class_uid: str
    sop_instance_uid: str
    error_comment: str | None = None

    @property
    def is_success(self) -> bool:
        return self.status.is_success

    @property
    def is_warning(self) -> bool:
        return self.status.is_warning

    @property
    def is_failure(self) -> bool:
        return self.status.is_failure


@value()
class MoveOriginator:
    """Whose C-MOVE is the cause of a C-STORE: the AE title that asked for it, and the Message ID of its request (PS3.7 9.1.1.1)."""

    ae_title: str
    message_id: int


class CStoreScu:
    """C-STORE on an association. Several `send` may run at once: as many are outstanding as the negotiated window allows."""

    def __init__(self, association: Association) -> None:
        self._association = association

    async def send(
        self,
        source: DicomFile | str | PathLike[str],
        *,
        content: bytes | memoryview | None = None,
        timeout: float = DEFAULT_STORE_TIMEOUT,
        progress: Callable[[int], None] | None = None,
        originator: MoveOriginator | None = None,
    ) -> StoreResponse:
        """Send the object in a DICOM file (PS3.7 9.1.1); the file is streamed and never held as a whole.

        `content` is the data set, for callers who have read it already. `progress` is called with the number of bytes after each
        piece sent; `originator` is told to the peer.

        Raises `NoAcceptedContext` if the peer took no presentation context for the object, `OSError` if the file cannot be read,
        `OperationTimeout` when no byte moved for `timeout` seconds, and what else ends an association. A failure status is not
        an exception: see `StoreResponse`.
        """
        association = self._association
        file = source if isinstance(source, DicomFile) else await to_thread(inspect, Path(source))
        context = _context_for(association, file)
        request = CStoreRQ(
            message_id=association.next_message_id(),
            affected_sop_class_uid=file.sop_class_uid,
            affected_sop_instance_uid=file.sop_instance_uid,
            move_originator_application_entity_title=originator.ae_title if originator is not None else None,
            move_originator_message_id=originator.message_id if originator is not None else None,
        )
        name = f"C-STORE of {file.sop_instance_uid}"
        lost: AssociationError | None = None
        async with association.operation(request, name=name, timeout=timeout) as operation:
            try:
                if content is not None:
                    await association.send(context.context_id, request, even(content))
                    if progress is not None:
                        progress(file.size)
                else:
                    await self._stream(context, request, operation, file, progress)
            except AssociationError as error:
                if not operation.answered:
                    raise
                lost = error
            response = await operation.only_response()
            status = Status(response.status)
            # An SCP that is out of resources may say so and go away without taking the rest. Success it cannot mean.
            if lost is not None and not status.is_failure:
                raise lost
        return StoreResponse(status, file.sop_class_uid, file.sop_instance_uid, response.error_comment or None)

    async def _stream(
        self,
        context: AcceptedContext,
        request: CStoreRQ,
        operation: Operation,
        file: DicomFile,
        progress: Callable[[int], None] | None,
    ) -> None:
        association = self._association
        async with (
            read_pieces(file.path, file.offset, file.size, association.payload_maximum) as pieces,
            association.sending(context.context_id, request, operation) as sender,
        ):
            async for piece, last in pieces:
                await sender.write(piece, last=last)
                if progress is not None:
                    progress(len(piece))


def storing_contexts(association: Association, sop_class_uid: str) -> list[AcceptedContext]:
    """The contexts in which this side may send objects of a SOP class.

    The acceptor may where the requestor was given the SCP role (PS3.7 D.3.3.4), as in a C-GET.
    """
    contexts = association.contexts(sop_class_uid)
    return contexts if association.is_requestor else [each for each in contexts if each.requestor_is_scp]


def _context_for(association: Association, file: DicomFile) -> AcceptedContext:
    sop_class, transfer_syntax = file.sop_class_uid, file.transfer_syntax_uid
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
