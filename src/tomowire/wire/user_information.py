"""The User Information item of A-ASSOCIATE-RQ and -AC and all its sub-items (PS3.8 D.1, PS3.7 D.3.3).

Of most kinds "only one" sub-item shall be present (PS3.7 D.3.3.2.3, D.3.3.3.2, D.3.3.7.2); what a receiver does with a second one
is left open. The last one counts here, as in DCMTK, so that both ends believe in the same value; aborting would cost an
association for nothing. Sub-items of unknown types must be ignored (PS3.8 D.2, note 2); they are kept for who wants to look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from struct import error as StructError
from typing import Any, Final

from tomowire.errors import PduError, UsageError
from tomowire.wire.items import (
    USER_INFORMATION_ITEM,
    Item,
    UnknownItem,
    decode_text,
    encode_item,
    encode_text,
    encode_unknown,
    split_items,
)
from tomowire.wire.user_identity import UserIdentity, UserIdentityAC
from tomowire.wire.value import value

MAXIMUM_LENGTH: Final = 0x51
IMPLEMENTATION_CLASS_UID: Final = 0x52
ASYNCHRONOUS_OPERATIONS_WINDOW: Final = 0x53
ROLE_SELECTION: Final = 0x54
IMPLEMENTATION_VERSION_NAME: Final = 0x55
EXTENDED_NEGOTIATION: Final = 0x56
COMMON_EXTENDED_NEGOTIATION: Final = 0x57
USER_IDENTITY_RQ: Final = 0x58
USER_IDENTITY_AC: Final = 0x59

_U32: Final = Struct(">I")
_U16: Final = Struct(">H")
_TWO_U16: Final = Struct(">HH")


@value()
class AsynchronousOperationsWindow:
    """How many operations may be outstanding in each direction (PS3.7 D.3.3.3); 0 means unlimited."""

    maximum_invoked: int
    maximum_performed: int


@value()
class RoleSelection:
    """In the RQ the roles that the requestor proposes for itself, in the AC those that are accepted (PS3.7 D.3.3.4)."""

    sop_class_uid: str
    scu: bool
    scp: bool


@value()
class ExtendedNegotiation:
    """Service-class application information for one SOP class (PS3.7 D.3.3.5); what it means stands in PS3.4."""

    sop_class_uid: str
    application_information: bytes


@value()
class CommonExtendedNegotiation:
    """Service class and related general SOP classes of one SOP class (PS3.7 D.3.3.6); only in the RQ."""

    sop_class_uid: str
    service_class_uid: str
    related_general_sop_class_uids: tuple[str, ...]


@value()
class UserInformation:
    """All that one side says in its User Information item.

    `maximum_length` is the longest P-DATA-TF variable field that the sender of this item wants to receive; 0, which also stands
    for an absent sub-item, means unlimited (PS3.8 D.1).
    """

    maximum_length: int = 0
    implementation_class_uid: str | None = None
    implementation_version_name: str | None = None
    asynchronous_operations_window: AsynchronousOperationsWindow | None = None
    role_selections: tuple[RoleSelection, ...] = ()
    extended_negotiations: tuple[ExtendedNegotiation, ...] = ()
    common_extended_negotiations: tuple[CommonExtendedNegotiation, ...] = ()
    user_identity: UserIdentity | None = None
    user_identity_response: UserIdentityAC | None = None
    unknown_items: tuple[UnknownItem, ...] = ()


def encode_user_information(information: UserInformation) -> bytes:
    """The whole item, header included. Raises `UsageError` for a value that does not fit its field.

    The order of sub-items means nothing, but "some older applications might expect" them to ascend by type (PS3.8 9.3.2.3).
    """
    window = information.asynchronous_operations_window
    identity = information.user_identity
    response = information.user_identity_response
    parts = [encode_item(MAXIMUM_LENGTH, _pack(_U32, information.maximum_length))]
    if information.implementation_class_uid is not None:
        parts.append(encode_item(IMPLEMENTATION_CLASS_UID, encode_text(information.implementation_class_uid)))
    if window is not None:
        body = _pack(_TWO_U16, window.maximum_invoked, window.maximum_performed)
        parts.append(encode_item(ASYNCHRONOUS_OPERATIONS_WINDOW, body))
    parts += (encode_item(ROLE_SELECTION, _encode_role_selection(role)) for role in information.role_selections)
    if information.implementation_version_name is not None:
        parts.append(encode_item(IMPLEMENTATION_VERSION_NAME, encode_text(information.implementation_version_name)))
    parts += (
        encode_item(EXTENDED_NEGOTIATION, _uid_field(each.sop_class_uid) + each.application_information)
        for each in information.extended_negotiations
    )
    parts += (
        encode_item(COMMON_EXTENDED_NEGOTIATION, _encode_common_extended_negotiation(each))
        for each in information.common_extended_negotiations
    )
    if identity is not None:
        parts.append(encode_item(USER_IDENTITY_RQ, _encode_user_identity(identity)))
    if response is not None:
        parts.append(encode_item(USER_IDENTITY_AC, _field(response.server_response)))
    parts.append(encode_unknown(information.unknown_items))
    return encode_item(USER_INFORMATION_ITEM, b"".join(parts))


def decode_user_information(item: Item) -> UserInformation:
    """Raises `PduError` when a sub-item is cut short or holds a value that the standard does not allow."""
    single: dict[str, Any] = {}
    repeated: dict[str, list[Any]] = {}
    for sub_item in split_items(item.body, item.offset):
        if kind := _SINGLE.get(sub_item.item_type):
            name, decode = kind
            single[name] = decode(_Fields(sub_item))
        elif kind := _REPEATED.get(sub_item.item_type):
            name, decode = kind
            repeated.setdefault(name, []).append(decode(_Fields(sub_item)))
        else:
            repeated.setdefault("unknown_items", []).append(sub_item.unknown())
    return UserInformation(**(single | {name: tuple(values) for name, values in repeated.items()}))


class _Fields:
    """Takes the fields of one sub-item in turn. Bytes after the last known field are left alone: a later edition may add some."""

    def __init__(self, item: Item) -> None:
        self._item = item
        self._position = 0

    def more(self) -> bool:
        return self._position < len(self._item.body)

    def take(self, length: int) -> memoryview:
        start = self._position
        if length > len(self._item.body) - start:
            raise self._error(f"a field of {length} bytes goes past its end", start)
        self._position = start + length
        return self._item.body[start : start + length]

    def rest(self) -> memoryview:
        return self.take(len(self._item.body) - self._position)

    def text(self) -> str:
        return decode_text(self.rest())

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def field(self) -> memoryview:
        return self.take(self.u16())

    def sub_fields(self) -> _Fields:
        body = self.field()
        return _Fields(Item(self._item.item_type, body, self._item.offset + self._position - len(body)))

    def uid(self) -> str:
        return decode_text(self.field())

    def flag(self) -> bool:
        start = self._position
        value = self.u8()
        if value > 1:
            raise self._error(f"{value} where only 0 and 1 are defined", start)
        return bool(value)

    def _error(self, problem: str, position: int) -> PduError:
        return PduError(f"sub-item {self._item.item_type:02X}H: {problem}", offset=self._item.offset + position)


def _encode_role_selection(role: RoleSelection) -> bytes:
    return _uid_field(role.sop_class_uid) + bytes((role.scu, role.scp))


def _encode_common_extended_negotiation(negotiation: CommonExtendedNegotiation) -> bytes:
    related = b"".join(_uid_field(uid) for uid in negotiation.related_general_sop_class_uids)
    return _uid_field(negotiation.sop_class_uid) + _uid_field(negotiation.service_class_uid) + _field(related)


def _encode_user_identity(identity: UserIdentity) -> bytes:
    if not 0 <= identity.identity_type <= 0xFF:
        raise UsageError(f"{identity.identity_type} is not a user identity type")
    head = bytes((identity.identity_type, identity.positive_response_requested))
    return head + _field(identity.primary_field) + _field(identity.secondary_field)


def _field(data: bytes) -> bytes:
    return _pack(_U16, len(data)) + data


def _uid_field(uid: str) -> bytes:
    return _field(encode_text(uid))


def _pack(layout: Struct, *numbers: int) -> bytes:
    try:
        return layout.pack(*numbers)
    except StructError:
        raise UsageError(
            f"{', '.join(map(str, numbers))}: too large for a field of a user information sub-item"
        ) from None


def _decode_common_extended_negotiation(fields: _Fields) -> CommonExtendedNegotiation:
    sop_class_uid, service_class_uid = fields.uid(), fields.uid()
    related = fields.sub_fields()
    uids: list[str] = []
    while related.more():
        uids.append(related.uid())
    # What follows is reserved for later versions of this sub-item (PS3.7 Table D.3-12).
    return CommonExtendedNegotiation(sop_class_uid, service_class_uid, tuple(uids))


def _decode_user_identity(fields: _Fields) -> UserIdentity:
    identity_type = fields.u8()
    positive_response_requested = fields.flag()
    return UserIdentity(identity_type, bytes(fields.field()), bytes(fields.field()), positive_response_requested)


_SINGLE: Final[Mapping[int, tuple[str, Callable[[_Fields], Any]]]] = {
    MAXIMUM_LENGTH: ("maximum_length", _Fields.u32),
    IMPLEMENTATION_CLASS_UID: ("implementation_class_uid", _Fields.text),
    ASYNCHRONOUS_OPERATIONS_WINDOW: (
        "asynchronous_operations_window",
        lambda fields: AsynchronousOperationsWindow(fields.u16(), fields.u16()),
    ),
    IMPLEMENTATION_VERSION_NAME: ("implementation_version_name", _Fields.text),
    USER_IDENTITY_RQ: ("user_identity", _decode_user_identity),
    USER_IDENTITY_AC: ("user_identity_response", lambda fields: UserIdentityAC(bytes(fields.field()))),
}

_REPEATED: Final[Mapping[int, tuple[str, Callable[[_Fields], Any]]]] = {
    ROLE_SELECTION: ("role_selections", lambda fields: RoleSelection(fields.uid(), fields.flag(), fields.flag())),
    EXTENDED_NEGOTIATION: (
        "extended_negotiations",
        lambda fields: ExtendedNegotiation(fields.uid(), bytes(fields.rest())),
    ),
    COMMON_EXTENDED_NEGOTIATION: ("common_extended_negotiations", _decode_common_extended_negotiation),
}
