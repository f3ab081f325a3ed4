"""Statuses and their classes, from PS3.7 annex C and PS3.4 B.2.3, and as pynetdicom knows them."""

from __future__ import annotations

from types import ModuleType

import pytest

from tomowire.protocol import status
from tomowire.protocol.status import Status


def class_of(code: int) -> str:
    value = Status(code)
    classes = {
        "success": value.is_success,
        "warning": value.is_warning,
        "failure": value.is_failure,
        "cancel": value.is_cancel,
        "pending": value.is_pending,
    }
    (name,) = (name for name, holds in classes.items() if holds)
    return name


def convention(code: int) -> str:
    """The table at the head of PS3.7 annex C; what it does not list must not pass for anything good."""
    if code == 0x0000:
        return "success"
    if code == 0x0001 or code >> 12 == 0xB or code in (0x0107, 0x0116):
        return "warning"
    if code == 0xFE00:
        return "cancel"
    if code in (0xFF00, 0xFF01):
        return "pending"
    return "failure"


def test_every_code_has_exactly_the_class_of_the_standard() -> None:
    assert [code for code in range(0x10000) if class_of(code) != convention(code)] == []


def test_another_implementation_has_the_same_classes(pynetdicom: ModuleType) -> None:
    from pynetdicom.status import GENERAL_STATUS, QR_MOVE_SERVICE_CLASS_STATUS, STORAGE_SERVICE_CLASS_STATUS

    for table in (GENERAL_STATUS, STORAGE_SERVICE_CLASS_STATUS, QR_MOVE_SERVICE_CLASS_STATUS):
        for code, (category, _) in table.items():
            assert class_of(code) == category.lower(), f"{code:04X}H"


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (0x0000, "success"),
        (0x0105, "no such attribute"),
        (0x0107, "attribute list error"),
        (0x0110, "processing failure"),
        (0x0111, "duplicate SOP instance"),
        (0x0116, "attribute value out of range"),
        (0x0117, "invalid SOP instance UID"),
        (0x0122, "SOP class not supported"),
        (0x0124, "not authorized"),
        (0x0211, "unrecognized operation"),
        (0x0212, "mistyped argument"),
        (0x0213, "resource limitation"),
        # PS3.4 Table B.2-1
        (0xA700, "refused: out of resources"),
        (0xA7FF, "refused: out of resources"),
        (0xA900, "data set does not match SOP class"),
        (0xA9FF, "data set does not match SOP class"),
        (0xC000, "cannot understand"),
        (0xCFFF, "cannot understand"),
        (0xB006, "elements discarded"),
        (0xB007, "data set does not match SOP class"),
        # PS3.4 C.4.2.1.5
        (0xA801, "move destination unknown"),
        (0xFE00, "cancelled"),
        (0xFF00, "pending"),
        (0xFF01, "pending, with optional keys not supported"),
        # not named
        (0xA001, "failure"),
        (0x02FF, "failure"),
        (0xB123, "warning"),
        (0x1234, "status unknown to the standard"),
    ],
)
def test_meanings(code: int, meaning: str) -> None:
    assert Status(code).meaning == meaning
    assert str(Status(code)) == f"{code:04X}H ({meaning})"


def test_b000_is_the_warning_of_storing_and_of_retrieving() -> None:
    """PS3.4 B.2.3 "Coercion of Data Elements", C.4.2.1.5 "Sub-operations Complete - One or more Failures"."""
    meaning = Status(0xB000).meaning
    assert "coercion" in meaning
    assert "sub-operations failed" in meaning


def test_general_statuses_of_another_implementation_have_names(pynetdicom: ModuleType) -> None:
    from pynetdicom.status import GENERAL_STATUS

    vague = {"failure", "warning", "status unknown to the standard"}
    assert [code for code in GENERAL_STATUS if Status(code).meaning in vague] == []


def test_a_status_is_a_number() -> None:
    assert Status(0xA700) == 0xA700 == int(Status(0xA700))
    assert repr(Status(0xA700)) == "Status(0xA700)"
    assert {0xA700: "yes"}[Status(0xA700)] == "yes"


def test_the_named_statuses_have_the_codes_of_the_standard() -> None:
    assert {name: int(value) for name, value in vars(status).items() if isinstance(value, Status)} == {
        "SUCCESS": 0x0000,
        "NO_SUCH_ATTRIBUTE": 0x0105,
        "INVALID_ATTRIBUTE_VALUE": 0x0106,
        "ATTRIBUTE_LIST_ERROR": 0x0107,
        "PROCESSING_FAILURE": 0x0110,
        "DUPLICATE_SOP_INSTANCE": 0x0111,
        "NO_SUCH_SOP_INSTANCE": 0x0112,
        "NO_SUCH_EVENT_TYPE": 0x0113,
        "NO_SUCH_ARGUMENT": 0x0114,
        "INVALID_ARGUMENT_VALUE": 0x0115,
        "ATTRIBUTE_VALUE_OUT_OF_RANGE": 0x0116,
        "INVALID_SOP_INSTANCE": 0x0117,
        "NO_SUCH_SOP_CLASS": 0x0118,
        "CLASS_INSTANCE_CONFLICT": 0x0119,
        "MISSING_ATTRIBUTE": 0x0120,
        "MISSING_ATTRIBUTE_VALUE": 0x0121,
        "SOP_CLASS_NOT_SUPPORTED": 0x0122,
        "NO_SUCH_ACTION": 0x0123,
        "NOT_AUTHORIZED": 0x0124,
        "DUPLICATE_INVOCATION": 0x0210,
        "UNRECOGNIZED_OPERATION": 0x0211,
        "MISTYPED_ARGUMENT": 0x0212,
        "RESOURCE_LIMITATION": 0x0213,
        "OUT_OF_RESOURCES": 0xA700,
        "DATA_SET_MISMATCH": 0xA900,
        "UNABLE_TO_PERFORM_SUBOPERATIONS": 0xA702,
        "MOVE_DESTINATION_UNKNOWN": 0xA801,
        "CANNOT_UNDERSTAND": 0xC000,
        "SOME_SUBOPERATIONS_FAILED": 0xB000,
        "CANCEL": 0xFE00,
        "PENDING": 0xFF00,
        "PENDING_OPTIONAL_KEYS_NOT_SUPPORTED": 0xFF01,
    }
