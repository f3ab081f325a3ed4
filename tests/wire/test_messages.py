"""The declarations against PS3.7: tables 9.3-1 to 9.3-13, 10.3-1 to 10.3-12, annexes C and E, and what others made of them."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from pydicom.datadict import dictionary_keyword, dictionary_VR, tag_for_keyword
from pynetdicom.dimse_messages import _COMMAND_SET_KEYWORDS

from tomowire.wire import messages
from tomowire.wire.elements import AE, AT, LO, MESSAGES, UI, US, Message
from tomowire.wire.messages import (
    CCancelRQ,
    CEchoRQ,
    CFindRQ,
    CGetRQ,
    CMoveRQ,
    CStoreRQ,
    CStoreRSP,
    NSetRQ,
    Request,
    Response,
)

# PS3.7 Table E.1-1 (Command Field), and for each message the elements without which it means nothing.
STANDARD = {
    "C-STORE-RQ": (0x0001, {0x0002, 0x0110, 0x0800, 0x1000}),
    "C-STORE-RSP": (0x8001, {0x0120, 0x0800, 0x0900}),
    "C-GET-RQ": (0x0010, {0x0002, 0x0110, 0x0800}),
    "C-GET-RSP": (0x8010, {0x0120, 0x0800, 0x0900}),
    "C-FIND-RQ": (0x0020, {0x0002, 0x0110, 0x0800}),
    "C-FIND-RSP": (0x8020, {0x0120, 0x0800, 0x0900}),
    "C-MOVE-RQ": (0x0021, {0x0002, 0x0110, 0x0600, 0x0800}),
    "C-MOVE-RSP": (0x8021, {0x0120, 0x0800, 0x0900}),
    "C-ECHO-RQ": (0x0030, {0x0002, 0x0110, 0x0800}),
    "C-ECHO-RSP": (0x8030, {0x0120, 0x0800, 0x0900}),
    "N-EVENT-REPORT-RQ": (0x0100, {0x0002, 0x0110, 0x0800, 0x1000, 0x1002}),
    "N-EVENT-REPORT-RSP": (0x8100, {0x0120, 0x0800, 0x0900}),
    "N-GET-RQ": (0x0110, {0x0003, 0x0110, 0x0800, 0x1001}),
    "N-GET-RSP": (0x8110, {0x0120, 0x0800, 0x0900}),
    "N-SET-RQ": (0x0120, {0x0003, 0x0110, 0x0800, 0x1001}),
    "N-SET-RSP": (0x8120, {0x0120, 0x0800, 0x0900}),
    "N-ACTION-RQ": (0x0130, {0x0003, 0x0110, 0x0800, 0x1001, 0x1008}),
    "N-ACTION-RSP": (0x8130, {0x0120, 0x0800, 0x0900}),
    "N-CREATE-RQ": (0x0140, {0x0002, 0x0110, 0x0800}),
    "N-CREATE-RSP": (0x8140, {0x0120, 0x0800, 0x0900}),
    "N-DELETE-RQ": (0x0150, {0x0003, 0x0110, 0x0800, 0x1001}),
    "N-DELETE-RSP": (0x8150, {0x0120, 0x0800, 0x0900}),
    "C-CANCEL-RQ": (0x0FFF, {0x0120, 0x0800}),
}
STATUS_ELEMENTS = {0x0002, 0x0901, 0x0902, 0x0903, 0x1000, 0x1005}  # PS3.7 annex C: which ones depends on the status

VR_NAMES = {"US": US, "UI": UI, "AE": AE, "LO": LO, "AT": AT}


def message_class(name: str) -> type[Message]:
    """ "N-EVENT-REPORT-RQ" -> NEventReportRQ."""
    service, _, direction = name.rpartition("-")
    found = getattr(messages, "".join(part.capitalize() for part in service.split("-")) + direction)
    assert issubclass(found, Message)
    return found


def elements(message: type[Message]) -> dict[int, str]:
    return {each.metadata["element"].number: each.name for each in fields(message)}


def test_every_command_field_of_the_standard_has_its_message() -> None:
    assert {name: message_class(name).command_field for name in STANDARD} == {
        name: command_field for name, (command_field, _) in STANDARD.items()
    }
    assert {message_class(name).command_field: message_class(name) for name in STANDARD} == MESSAGES


@pytest.mark.parametrize("name", STANDARD)
def test_elements_are_those_of_the_standard(name: str) -> None:
    listed = {tag_for_keyword(keyword) for keyword in _COMMAND_SET_KEYWORDS[name]} - {0x0000, 0x0100}
    ours = set(elements(message_class(name)))
    assert ours >= listed
    assert ours - listed <= (STATUS_ELEMENTS if name.endswith("RSP") else set())


@pytest.mark.parametrize("name", STANDARD)
def test_only_what_is_needed_for_an_answer_is_required(name: str) -> None:
    message = message_class(name)
    assert {number for number, _, _, required in message.layout.decoders if required} == STANDARD[name][1]


@pytest.mark.parametrize("name", STANDARD)
def test_fields_have_the_name_and_the_vr_of_the_dictionary(name: str) -> None:
    for each in fields(message_class(name)):
        number, vr, _ = each.metadata["element"]
        keyword = dictionary_keyword(number)
        words = re.findall("SOP|UID|ID|[A-Z][a-z]+", keyword)
        expected = "_".join(words).lower() if keyword != "CommandDataSetType" else "data_set_type"
        assert each.name == expected
        assert vr is VR_NAMES[dictionary_VR(number)]


def test_requests_and_responses_are_told_apart_by_bit_15() -> None:
    for command_field, message in MESSAGES.items():
        assert issubclass(message, Response) == bool(command_field & 0x8000)
        assert issubclass(message, Request) == (not command_field & 0x8000 and message is not CCancelRQ)


def test_requests_that_always_have_a_data_set_announce_one() -> None:
    assert CStoreRQ(message_id=1, affected_sop_class_uid="1.2", affected_sop_instance_uid="1.3").has_data_set
    assert CFindRQ(message_id=1, affected_sop_class_uid="1.2").has_data_set
    assert CGetRQ(message_id=1, affected_sop_class_uid="1.2").has_data_set
    assert CMoveRQ(message_id=1, affected_sop_class_uid="1.2", move_destination="ARCHIVE").has_data_set
    assert NSetRQ(message_id=1, requested_sop_class_uid="1.2", requested_sop_instance_uid="1.3").has_data_set
    assert not CEchoRQ(message_id=1, affected_sop_class_uid="1.2").has_data_set
    assert not CCancelRQ(message_id_being_responded_to=1).has_data_set
    assert not CStoreRSP(message_id_being_responded_to=1, status=0).has_data_set


@pytest.mark.parametrize(
    ("data_set_type", "present"), [(0x0101, False), (0, True), (1, True), (0x0102, True), (0xFFFF, True)]
)
def test_any_data_set_type_but_0101_means_that_there_is_one(data_set_type: int, present: bool) -> None:
    message = CStoreRSP(message_id_being_responded_to=1, status=0, data_set_type=data_set_type)
    assert message.has_data_set is present


def test_priorities() -> None:
    # PS3.7 Table 9.3-1: LOW 0002H, MEDIUM 0000H, HIGH 0001H; medium unless asked otherwise.
    assert (messages.LOW, messages.MEDIUM, messages.HIGH) == (2, 0, 1)
    assert CFindRQ(message_id=1, affected_sop_class_uid="1.2").priority == 0
