"""C-MOVE, the SCU (PS3.4 C.4.2): a peer is told to send what it has to a third, or back to where the request came from."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from tomowire.aio.address import check_ae_title
from tomowire.protocol.negotiation import ProposedContext
from tomowire.services.arguments import checked_association
from tomowire.services.find import DEFAULT_CANCEL_GRACE
from tomowire.services.models import Model
from tomowire.services.retrieving import (
    DEFAULT_RETRIEVE_TIMEOUT,
    Progress,
    encoded_identifier,
    model_for,
    suboperations,
)
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.messages import MEDIUM, CMoveRQ

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pydicom import Dataset

    from tomowire.aio.association import Association
    from tomowire.services.query import Query


def moving(model: Model = Model.STUDY_ROOT) -> ProposedContext:
    """The presentation context to propose for C-MOVE."""
    return ProposedContext(model.move, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN))


class CMoveScu:
    """C-MOVE on an association that has a presentation context for the model: `moving(model)`."""

    def __init__(self, association: Association) -> None:
        self._association: Association = checked_association(association, "CMoveScu")

    async def move(
        self,
        query: Query | Dataset,
        destination: str,
        *,
        model: Model | None = None,
        timeout: float | None = DEFAULT_RETRIEVE_TIMEOUT,
        grace: float = DEFAULT_CANCEL_GRACE,
        priority: int = MEDIUM,
        message_id: int | None = None,
    ) -> AsyncGenerator[Progress, None]:
        """Have the peer send what `query` names to the AE title `destination`; yield how far it is (PS3.7 9.1.4).

        `query` has unique keys only, as `Query.study(uid)`; an identifier of one's own is sent as it is. `timeout` is the time in
        seconds to the next response. Left early it sends C-CANCEL and waits up to `grace` seconds for the peer to stop; if it does
        not, the association is aborted. Leave it with `contextlib.aclosing`, or by cancelling the task.

        `message_id` is for who has to know beforehand which one the sub-operations will name as their cause (PS3.7 9.1.1.1): one
        that is not in use on this association, 1 to 65535.

        Raises, at the end, `RetrieveFailed` for a failure status, and one `ExceptionGroup` with a `SubOperationFailed` for each
        object that was not transferred; before, `UsageError` and `DataSetError` for what cannot be asked for; `NoAcceptedContext`,
        `OperationTimeout`, and what else ends an association.
        """
        association = self._association
        model = model_for(query, model)
        context = association.context(model.move)
        check_ae_title(destination)
        identifier = await asyncio.to_thread(encoded_identifier, query, model, context.transfer_syntax)
        request = CMoveRQ(
            message_id=association.next_message_id() if message_id is None else message_id,
            affected_sop_class_uid=model.move,
            move_destination=destination,
            priority=priority,
        )
        progress = suboperations(
            association, context, request, identifier, name=f"C-MOVE ({model})", timeout=timeout, grace=grace
        )
        async with aclosing(progress):
            async for each in progress:
                yield each
