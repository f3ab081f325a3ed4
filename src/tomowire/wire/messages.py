"""Every DIMSE message, each declared once: DIMSE-C (PS3.7 9.3), then DIMSE-N (PS3.7 10.3).

Requests carry the elements of their own table. A response may also say more about its status (PS3.7 annex C), and which of these
elements it then has depends on the status and not on the service: they stand in `Response`.
"""

from __future__ import annotations

from dataclasses import field

from tomowire.wire.elements import AE, AT, DATA_SET_PRESENT, LO, UI, US, Message, element
from tomowire.wire.value import value

LOW, MEDIUM, HIGH = 0x0002, 0x0000, 0x0001
"""Values of `priority`."""


@value(kw_only=True)
class Request(Message):
    """What invokes an operation or notification and expects a response."""

    message_id: int = field(metadata=element(0x0110, US))


@value(kw_only=True)
class Response(Message):
    """What answers a request. `status` is one of PS3.7 annex C or of the service class (PS3.4)."""

    affected_sop_class_uid: str | None = field(default=None, metadata=element(0x0002, UI))
    message_id_being_responded_to: int = field(metadata=element(0x0120, US))
    status: int = field(metadata=element(0x0900, US))
    offending_element: tuple[int, ...] = field(default=(), metadata=element(0x0901, AT))
    error_comment: str | None = field(default=None, metadata=element(0x0902, LO))
    error_id: int | None = field(default=None, metadata=element(0x0903, US))


@value(kw_only=True)
class CStoreRQ(Request, command_field=0x0001):
    """PS3.7 9.3.1.1. The move originator is told when a C-MOVE is the cause."""

    affected_sop_class_uid: str = field(metadata=element(0x0002, UI))
    affected_sop_instance_uid: str = field(metadata=element(0x1000, UI))
    priority: int = field(default=MEDIUM, metadata=element(0x0700, US))
    move_originator_application_entity_title: str | None = field(default=None, metadata=element(0x1030, AE))
    move_originator_message_id: int | None = field(default=None, metadata=element(0x1031, US))
    data_set_type: int = field(default=DATA_SET_PRESENT, metadata=element(0x0800, US, required=True))


@value(kw_only=True)
class CStoreRSP(Response, command_field=0x8001):
    """PS3.7 9.3.1.2."""

    affected_sop_instance_uid: str | None = field(default=None, metadata=element(0x1000, UI))


@value(kw_only=True)
class CFindRQ(Request, command_field=0x0020):
    """PS3.7 9.3.2.1. The data set is the identifier."""

    affected_sop_class_uid: str = field(metadata=element(0x0002, UI))
    priority: int = field(default=MEDIUM, metadata=element(0x0700, US))
    data_set_type: int = field(default=DATA_SET_PRESENT, metadata=element(0x0800, US, required=True))


@value(kw_only=True)
class CFindRSP(Response, command_field=0x8020):
    """PS3.7 9.3.2.2. Pending responses have an identifier, the final one has none."""


@value(kw_only=True)
class CGetRQ(Request, command_field=0x0010):
    """PS3.7 9.3.3.1. The data set is the identifier."""

    affected_sop_class_uid: str = field(metadata=element(0x0002, UI))
    priority: int = field(default=MEDIUM, metadata=element(0x0700, US))
    data_set_type: int = field(default=DATA_SET_PRESENT, metadata=element(0x0800, US, required=True))


@value(kw_only=True)
class _RetrieveRSP(Response):
    """The counts that C-GET and C-MOVE share. The identifier, if there is one, lists the failed SOP instances."""

    number_of_remaining_suboperations: int | None = field(default=None, metadata=element(0x1020, US))
    number_of_completed_suboperations: int | None = field(default=None, metadata=element(0x1021, US))
    number_of_failed_suboperations: int | None = field(default=None, metadata=element(0x1022, US))
    number_of_warning_suboperations: int | None = field(default=None, metadata=element(0x1023, US))


@value(kw_only=True)
class CGetRSP(_RetrieveRSP, command_field=0x8010):
    """PS3.7 9.3.3.2."""


@value(kw_only=True)
class CMoveRQ(Request, command_field=0x0021):
    """PS3.7 9.3.4.1. The data set is the identifier."""

    affected_sop_class_uid: str = field(metadata=element(0x0002, UI))
    move_destination: str = field(metadata=element(0x0600, AE))
    priority: int = field(default=MEDIUM, metadata=element(0x0700, US))
    data_set_type: int = field(default=DATA_SET_PRESENT, metadata=element(0x0800, US, required=True))


@value(kw_only=True)
class CMoveRSP(_RetrieveRSP, command_field=0x8021):
    """PS3.7 9.3.4.2."""


@value(kw_only=True)
class CEchoRQ(Request, command_field=0x0030):
    """PS3.7 9.3.5.1."""

    affected_sop_class_uid: str = field(metadata=element(0x0002, UI))


@value(kw_only=True)
class CEchoRSP(Response, command_field=0x8030):
    """PS3.7 9.3.5.2."""


@value(kw_only=True)
class CCancelRQ(Message, command_field=0x0FFF):
    """PS3.7 9.3.2.3, 9.3.3.3, 9.3.4.3: cancels the C-FIND, C-GET or C-MOVE of that Message ID. It has no ID of its own."""

    message_id_being_responded_to: int = field(metadata=element(0x0120, US))


@value(kw_only=True)
class NEventReportRQ(Request, command_field=0x0100):
    """PS3.7 10.3.1.1."""

    affected_sop_class_uid: str = field(metadata=element(0x0002, UI))
    affected_sop_instance_uid: str = field(metadata=element(0x1000, UI))
    event_type_id: int = field(metadata=element(0x1002, US))


@value(kw_only=True)
class NEventReportRSP(Response, command_field=0x8100):
    """PS3.7 10.3.1.2."""

    affected_sop_instance_uid: str | None = field(default=None, metadata=element(0x1000, UI))
    event_type_id: int | None = field(default=None, metadata=element(0x1002, US))


@value(kw_only=True)
class NGetRQ(Request, command_field=0x0110):
    """PS3.7 10.3.2.1. No attribute identifiers means all attributes."""

    requested_sop_class_uid: str = field(metadata=element(0x0003, UI))
    requested_sop_instance_uid: str = field(metadata=element(0x1001, UI))
    attribute_identifier_list: tuple[int, ...] = field(default=(), metadata=element(0x1005, AT))


@value(kw_only=True)
class NGetRSP(Response, command_field=0x8110):
    """PS3.7 10.3.2.2. The list names attributes that were not recognized (PS3.7 C.4.2)."""

    affected_sop_instance_uid: str | None = field(default=None, metadata=element(0x1000, UI))
    attribute_identifier_list: tuple[int, ...] = field(default=(), metadata=element(0x1005, AT))


@value(kw_only=True)
class NSetRQ(Request, command_field=0x0120):
    """PS3.7 10.3.3.1. The data set is the modification list."""

    requested_sop_class_uid: str = field(metadata=element(0x0003, UI))
    requested_sop_instance_uid: str = field(metadata=element(0x1001, UI))
    data_set_type: int = field(default=DATA_SET_PRESENT, metadata=element(0x0800, US, required=True))


@value(kw_only=True)
class NSetRSP(Response, command_field=0x8120):
    """PS3.7 10.3.3.2. The list names attributes that are missing or were not recognized (PS3.7 C.4.2, C.5)."""

    affected_sop_instance_uid: str | None = field(default=None, metadata=element(0x1000, UI))
    attribute_identifier_list: tuple[int, ...] = field(default=(), metadata=element(0x1005, AT))


@value(kw_only=True)
class NActionRQ(Request, command_field=0x0130):
    """PS3.7 10.3.4.1."""

    requested_sop_class_uid: str = field(metadata=element(0x0003, UI))
    requested_sop_instance_uid: str = field(metadata=element(0x1001, UI))
    action_type_id: int = field(metadata=element(0x1008, US))


@value(kw_only=True)
class NActionRSP(Response, command_field=0x8130):
    """PS3.7 10.3.4.2."""

    affected_sop_instance_uid: str | None = field(default=None, metadata=element(0x1000, UI))
    action_type_id: int | None = field(default=None, metadata=element(0x1008, US))


@value(kw_only=True)
class NCreateRQ(Request, command_field=0x0140):
    """PS3.7 10.3.5.1. Without an instance UID the SCP makes one."""

    affected_sop_class_uid: str = field(metadata=element(0x0002, UI))
    affected_sop_instance_uid: str | None = field(default=None, metadata=element(0x1000, UI))


@value(kw_only=True)
class NCreateRSP(Response, command_field=0x8140):
    """PS3.7 10.3.5.2. The list names attributes that are missing or were not recognized (PS3.7 C.4.2, C.5)."""

    affected_sop_instance_uid: str | None = field(default=None, metadata=element(0x1000, UI))
    attribute_identifier_list: tuple[int, ...] = field(default=(), metadata=element(0x1005, AT))


@value(kw_only=True)
class NDeleteRQ(Request, command_field=0x0150):
    """PS3.7 10.3.6.1."""

    requested_sop_class_uid: str = field(metadata=element(0x0003, UI))
    requested_sop_instance_uid: str = field(metadata=element(0x1001, UI))


@value(kw_only=True)
class NDeleteRSP(Response, command_field=0x8150):
    """PS3.7 10.3.6.2."""

    affected_sop_instance_uid: str | None = field(default=None, metadata=element(0x1000, UI))
