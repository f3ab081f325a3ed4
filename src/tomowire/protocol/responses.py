"""Responses that every service gives: refusals of a request, whatever its kind."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from tomowire.wire import messages
from tomowire.wire.command_set import NO_DATA_SET

if TYPE_CHECKING:
    from tomowire.wire.command_set import Message
    from tomowire.wire.messages import Response

_RESPONSES: Final[dict[type[Message], type[Response]]] = {
    messages.CStoreRQ: messages.CStoreRSP,
    messages.CFindRQ: messages.CFindRSP,
    messages.CGetRQ: messages.CGetRSP,
    messages.CMoveRQ: messages.CMoveRSP,
    messages.CEchoRQ: messages.CEchoRSP,
    messages.NEventReportRQ: messages.NEventReportRSP,
    messages.NGetRQ: messages.NGetRSP,
    messages.NSetRQ: messages.NSetRSP,
    messages.NActionRQ: messages.NActionRSP,
    messages.NCreateRQ: messages.NCreateRSP,
    messages.NDeleteRQ: messages.NDeleteRSP,
}
_ECHOED: Final = ("affected_sop_instance_uid", "requested_sop_instance_uid")
_CLASSES: Final = ("affected_sop_class_uid", "requested_sop_class_uid")
_RESPONSE_BIT: Final = 0x8000
# Group length, command field, Message ID being responded to, data set type, status: all US but the first.
_BARE_RESPONSE: Final = Struct("<HHII" + "HHIH" * 4)


def refusal(request: Message, status: int, comment: str | None = None) -> Response:
    """The response to `request` with a failure `status`; SOP class and instance are echoed where it has them (PS3.7 9.1, 10.1)."""
    response = _RESPONSES[type(request)]
    values: dict[str, Any] = {
        "message_id_being_responded_to": request.message_id,  # type: ignore[attr-defined]
        "status": status,
        "error_comment": comment,
        "affected_sop_class_uid": next((getattr(request, name) for name in _CLASSES if hasattr(request, name)), None),
    }
    if "affected_sop_instance_uid" in response.__dataclass_fields__:
        values["affected_sop_instance_uid"] = next(
            (getattr(request, name) for name in _ECHOED if hasattr(request, name)), None
        )
    return response(**values)


def bare_response(command_field: int, message_id: int, status: int) -> bytes:
    """A response command set to a request whose kind is not known, or whose elements are not whole (PS3.7 C.5.x, 0211H)."""
    size = _BARE_RESPONSE.size - 12
    return _BARE_RESPONSE.pack(
        *(0, 0x0000, 4, size),
        *(0, 0x0100, 2, (command_field | _RESPONSE_BIT) & 0xFFFF),
        *(0, 0x0120, 2, message_id),
        *(0, 0x0800, 2, NO_DATA_SET),
        *(0, 0x0900, 2, status),
    )
