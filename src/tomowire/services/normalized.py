"""The SCU of DIMSE-N (PS3.7 10): operations on SOP instances of the peer; and, for an SCP, reports of events to it.

Nothing here knows a service class: what the attributes, actions and events of one mean stands in PS3.4, in a file of its own here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import PeerMisbehaved, UsageError
from tomowire.services.attribute_lists import LARGEST_LIST
from tomowire.services.invoking import DEFAULT_NORMALIZED_TIMEOUT, Invoker, NormalizedResponse
from tomowire.wire.messages import NActionRQ, NCreateRQ, NDeleteRQ, NEventReportRQ, NGetRQ, NSetRQ

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom import Dataset

    from tomowire.aio.association import Association

_LARGEST_TYPE: Final = 0xFFFF
_LARGEST_TAG: Final = 0xFFFFFFFF


class NormalizedScu:
    """The operations of DIMSE-N on an association that has a presentation context for the SOP class, in which this side is SCU.

    `abstract_syntax` is that of the presentation context, where it is not the SOP class itself: a Meta SOP class, such as Basic
    Grayscale Print Management (PS3.4 H.3.2), stands for the classes that it consists of. `largest` is the most bytes of a
    response's data set that are read into memory.

    Data sets are given as a pydicom `Dataset`, which is not changed, and is encoded in a thread as the context asks; or as bytes in
    the transfer syntax of the context. `timeout` is the seconds in which something must move; None waits for ever.

    All raise `UsageError` and `InvalidUid` for what no request can hold, `NoAcceptedContext`, `DataSetError` for a data set that
    cannot be encoded or is too large, `OperationTimeout` (the association is aborted then), and what else ends an association.
    Cancelled, they leave it usable: what the peer still answers is passed over.
    """

    def __init__(
        self, association: Association, abstract_syntax: str | None = None, *, largest: int = LARGEST_LIST
    ) -> None:
        self._invoker = Invoker(association, abstract_syntax, largest, as_scp=False)

    async def create(
        self,
        sop_class_uid: str,
        attributes: Dataset | bytes | None = None,
        *,
        sop_instance_uid: str | None = None,
        timeout: float | None = DEFAULT_NORMALIZED_TIMEOUT,
    ) -> NormalizedResponse:
        """N-CREATE (PS3.7 10.1.5). Without an instance UID the peer makes one: `NormalizedResponse.sop_instance_uid`.

        Raises `PeerMisbehaved` when it made one and does not say which.
        """
        make = partial(NCreateRQ, affected_sop_class_uid=sop_class_uid, affected_sop_instance_uid=sop_instance_uid)
        response = await self._invoker.invoke("N-CREATE", make, attributes, sop_class_uid, sop_instance_uid, timeout)
        if response.sop_instance_uid is None and not response.is_failure:
            raise PeerMisbehaved(
                "N-CREATE: the peer has made a SOP instance, and does not say which (PS3.7 10.1.5.1.3)"
            )
        return response

    async def set(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        modifications: Dataset | bytes,
        *,
        timeout: float | None = DEFAULT_NORMALIZED_TIMEOUT,
    ) -> NormalizedResponse:
        """N-SET (PS3.7 10.1.3): change attributes of an instance."""
        make = partial(NSetRQ, requested_sop_class_uid=sop_class_uid, requested_sop_instance_uid=sop_instance_uid)
        return await self._invoker.invoke("N-SET", make, modifications, sop_class_uid, sop_instance_uid, timeout)

    async def get(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        attributes: Iterable[int] = (),
        *,
        timeout: float | None = DEFAULT_NORMALIZED_TIMEOUT,
    ) -> NormalizedResponse:
        """N-GET (PS3.7 10.1.2): the values of the attributes with these tags; of all, if none is named."""
        make = partial(
            NGetRQ,
            requested_sop_class_uid=sop_class_uid,
            requested_sop_instance_uid=sop_instance_uid,
            attribute_identifier_list=_tags(attributes),
        )
        return await self._invoker.invoke("N-GET", make, None, sop_class_uid, sop_instance_uid, timeout)

    async def action(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        action_type_id: int,
        information: Dataset | bytes | None = None,
        *,
        timeout: float | None = DEFAULT_NORMALIZED_TIMEOUT,
    ) -> NormalizedResponse:
        """N-ACTION (PS3.7 10.1.4): have the peer do something. `NormalizedResponse.dataset` is the action reply."""
        make = partial(
            NActionRQ,
            requested_sop_class_uid=sop_class_uid,
            requested_sop_instance_uid=sop_instance_uid,
            action_type_id=_type_id(action_type_id),
        )
        return await self._invoker.invoke("N-ACTION", make, information, sop_class_uid, sop_instance_uid, timeout)

    async def delete(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        *,
        timeout: float | None = DEFAULT_NORMALIZED_TIMEOUT,
    ) -> NormalizedResponse:
        """N-DELETE (PS3.7 10.1.6)."""
        make = partial(NDeleteRQ, requested_sop_class_uid=sop_class_uid, requested_sop_instance_uid=sop_instance_uid)
        return await self._invoker.invoke("N-DELETE", make, None, sop_class_uid, sop_instance_uid, timeout)


class EventReporter:
    """N-EVENT-REPORT, from the side that is SCP to the one that is SCU (PS3.7 10.1.1). All else is as with `NormalizedScu`.

    The acceptor is SCP if nothing else was agreed on. A requestor that reports events proposes its context with `scu=False,
    scp=True`.
    """

    def __init__(
        self, association: Association, abstract_syntax: str | None = None, *, largest: int = LARGEST_LIST
    ) -> None:
        self._invoker = Invoker(association, abstract_syntax, largest, as_scp=True)

    async def report(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        event_type_id: int,
        information: Dataset | bytes | None = None,
        *,
        timeout: float | None = DEFAULT_NORMALIZED_TIMEOUT,
    ) -> NormalizedResponse:
        """Tell the peer of an event about an instance. `NormalizedResponse.dataset` is the event reply."""
        make = partial(
            NEventReportRQ,
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
            event_type_id=_type_id(event_type_id),
        )
        return await self._invoker.invoke("N-EVENT-REPORT", make, information, sop_class_uid, sop_instance_uid, timeout)


def _type_id(number: Any) -> int:
    """Of an action or event."""
    if not isinstance(number, int) or not 0 <= number <= _LARGEST_TYPE:
        raise UsageError(f"the type of an action or event is a number of 16 bits, and not {number!r}")
    return int(number)


def _tags(given: Any) -> tuple[int, ...]:
    """Tags are numbers, such as those of pydicom."""
    tags = (given,) if isinstance(given, str) or not hasattr(given, "__iter__") else tuple(given)
    for each in tags:
        if tags == (given,) or not isinstance(each, int) or not 0 <= each <= _LARGEST_TAG:
            raise UsageError(f"attributes are given as a list of tags, such as 0x00100020, and not as {each!r}")
    return tuple(map(int, tags))
