"""One DIMSE-N operation or notification of ours (PS3.7 10.1): its data set, its request, and the response as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.errors import DataSetError, InvalidUid, NoAcceptedContext
from tomowire.protocol.status import Status
from tomowire.services.answered import Answered
from tomowire.services.arguments import checked_association
from tomowire.services.attribute_lists import decode_list, encode_elsewhere, gather
from tomowire.uids import is_tolerable_uid, name_of
from tomowire.wire.elements import DATA_SET_PRESENT, NO_DATA_SET
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom import Dataset

    from tomowire.aio.association import Association
    from tomowire.protocol.negotiation import AcceptedContext
    from tomowire.wire.messages import Request, Response

DEFAULT_NORMALIZED_TIMEOUT: Final = 30.0


@value(kw_only=True)
class NormalizedResponse(Answered):
    """The answer to one operation or notification (PS3.7 10.1). A failure status is a value: look at `is_failure`."""

    status: Status
    sop_class_uid: str
    """As the peer names it; if it does not, that of the request."""
    sop_instance_uid: str | None
    """The same. None only when the peer has failed to create one."""
    type_id: int | None = None
    """The action type or event type, if the peer repeats it."""
    data: bytes | None = None
    """The data set as it came: attribute list, action reply or event reply; None if there is none. See `dataset`."""
    transfer_syntax_uid: str
    """That of `data`."""
    error_comment: str | None = None
    error_id: int | None = None
    offending_elements: tuple[int, ...] = ()
    """The tags in which the error is (PS3.7 annex C)."""
    attribute_identifiers: tuple[int, ...] = ()
    """The tags of attributes that are missing or were not known (PS3.7 C.4.2, C.5)."""

    def dataset(self) -> Dataset:
        """`data`, decoded anew with each call; without attributes if there is none. Raises `DataSetError`."""
        return decode_list(self.data, self.transfer_syntax_uid)


class Invoker:
    """What all operations on one association have in common.

    `abstract_syntax` is that of the presentation context, None for the SOP class itself. `as_scp` says which role this side has
    to have in it; `largest` is the most bytes of a response's data set that are taken.
    """

    def __init__(self, association: Association, abstract_syntax: str | None, largest: int, *, as_scp: bool) -> None:
        self._association: Association = checked_association(
            association, "EventReporter" if as_scp else "NormalizedScu"
        )
        self._abstract_syntax = abstract_syntax
        self._largest = largest
        self._as_scp = as_scp

    async def invoke(
        self,
        name: str,
        make: Callable[..., Request],
        dataset: Dataset | bytes | None,
        sop_class_uid: str,
        sop_instance_uid: str | None,
        timeout: float | None,
    ) -> NormalizedResponse:
        """Send what `make(message_id=..., data_set_type=...)` gives, with its data set, and take the response."""
        is_left_to_the_peer = name == "N-CREATE" and sop_instance_uid is None
        if not (
            is_left_to_the_peer or is_tolerable_uid(str(sop_instance_uid))
        ):  # those of others may have leading zeros
            raise InvalidUid(f"{name}: {str(sop_instance_uid)[:80]!r} is not the UID of a SOP instance")
        association = self._association
        context = _context_in_role(association, self._abstract_syntax or sop_class_uid, as_scp=self._as_scp)
        data = await encode_elsewhere(dataset, context.transfer_syntax)
        data_set_type = NO_DATA_SET if data is None else DATA_SET_PRESENT
        request = make(message_id=association.next_message_id(), data_set_type=data_set_type)
        called = f"{name} ({name_of(sop_class_uid)})"
        async with association.operation(request, name=called, timeout=timeout) as operation:
            await association.send(context.context_id, request, data)
            response, stream = await operation.next_response()
            try:
                received = await gather(stream, self._largest)
            except DataSetError as error:
                raise DataSetError(f"{called}: the peer answered {Status(response.status)}, with {error}") from None
        return _read(response, received, context, sop_class_uid, sop_instance_uid)


def _read(
    response: Response, data: bytes | None, context: AcceptedContext, sop_class_uid: str, sop_instance_uid: str | None
) -> NormalizedResponse:
    return NormalizedResponse(
        status=Status(response.status),
        sop_class_uid=response.affected_sop_class_uid or sop_class_uid,
        sop_instance_uid=getattr(response, "affected_sop_instance_uid", None) or sop_instance_uid,
        type_id=getattr(response, "action_type_id", getattr(response, "event_type_id", None)),
        data=data,
        transfer_syntax_uid=context.transfer_syntax,
        error_comment=response.error_comment,
        error_id=response.error_id,
        offending_elements=response.offending_element,
        attribute_identifiers=getattr(response, "attribute_identifier_list", ()),
    )


def _context_in_role(association: Association, abstract_syntax: str, *, as_scp: bool) -> AcceptedContext:
    """The context for an abstract syntax, if this side has the role for it (PS3.7 D.3.3.4): contexts of one syntax share theirs."""
    context = association.context(abstract_syntax)
    needs_scp = association.is_requestor is as_scp  # what the requestor has to be for that
    if context.requestor_is_scp if needs_scp else context.requestor_is_scu:
        return context
    role, needed = "SCP" if as_scp else "SCU", "SCP" if needs_scp else "SCU"
    raise NoAcceptedContext(
        f"this side is not {role} of {name_of(abstract_syntax)}: the requestor has to propose itself as {needed} (role"
        " selection), and the acceptor to agree"
    )
