"""DIMSE statuses: values with a class and a meaning (PS3.7 Annex C, PS3.4 for each service)."""

from __future__ import annotations

from typing import Final

_NAMES: Final = {
    0x0000: "success",
    0x0001: "requested optional attributes are not supported",
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0107: "attribute list error",
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0112: "no such SOP instance",
    0x0113: "no such event type",
    0x0114: "no such argument",
    0x0115: "invalid argument value",
    0x0116: "attribute value out of range",
    0x0117: "invalid SOP instance UID",
    0x0118: "no such SOP class",
    0x0119: "class-instance conflict",
    0x0120: "missing attribute",
    0x0121: "missing attribute value",
    0x0122: "SOP class not supported",
    0x0123: "no such action",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
    0xA801: "move destination unknown",
    0xB000: "coercion of data elements, or some sub-operations failed",
    0xB006: "elements discarded",
    0xB007: "data set does not match SOP class",
    0xFE00: "cancelled",
    0xFF00: "pending",
    0xFF01: "pending, with optional keys not supported",
}
# PS3.4 B.2.3: of these codes the last digits are the implementation's own.
_RANGES: Final = (
    (0xA700, 0xA7FF, "refused: out of resources"),
    (0xA900, 0xA9FF, "data set does not match SOP class"),
    (0xC000, 0xCFFF, "cannot understand"),
    (0xA000, 0xAFFF, "failure"),
    (0x0100, 0x02FF, "failure"),
    (0xB000, 0xBFFF, "warning"),
)
_WARNINGS: Final = frozenset({0x0001, 0x0107, 0x0116})


class Status(int):
    """A status code that knows its class and its meaning: `Status(0xA700).is_failure`, `str(...)`, `int(...)`."""

    __slots__ = ()

    @property
    def is_success(self) -> bool:
        return self == 0

    @property
    def is_pending(self) -> bool:
        return self in (0xFF00, 0xFF01)

    @property
    def is_cancel(self) -> bool:
        return self == 0xFE00

    @property
    def is_warning(self) -> bool:
        """PS3.7 C.1: 0001H, Bxxx, 0107H and 0116H."""
        return 0xB000 <= self <= 0xBFFF or self in _WARNINGS

    @property
    def is_failure(self) -> bool:
        """Whatever is nothing else: an unknown code must not pass for a success."""
        return not (self.is_success or self.is_pending or self.is_cancel or self.is_warning)

    @property
    def meaning(self) -> str:
        """The standard's name of the status, in lower case; of a range where the code is not named."""
        if self in _NAMES:
            return _NAMES[int(self)]
        return next((name for low, high, name in _RANGES if low <= self <= high), "status unknown to the standard")

    def __str__(self) -> str:
        return f"{int(self):04X}H ({self.meaning})"

    def __repr__(self) -> str:
        return f"Status(0x{int(self):04X})"


SUCCESS: Final = Status(0x0000)
NO_SUCH_ATTRIBUTE: Final = Status(0x0105)
INVALID_ATTRIBUTE_VALUE: Final = Status(0x0106)
ATTRIBUTE_LIST_ERROR: Final = Status(0x0107)
PROCESSING_FAILURE: Final = Status(0x0110)
DUPLICATE_SOP_INSTANCE: Final = Status(0x0111)
NO_SUCH_SOP_INSTANCE: Final = Status(0x0112)
NO_SUCH_EVENT_TYPE: Final = Status(0x0113)
NO_SUCH_ARGUMENT: Final = Status(0x0114)
INVALID_ARGUMENT_VALUE: Final = Status(0x0115)
ATTRIBUTE_VALUE_OUT_OF_RANGE: Final = Status(0x0116)
INVALID_SOP_INSTANCE: Final = Status(0x0117)
NO_SUCH_SOP_CLASS: Final = Status(0x0118)
CLASS_INSTANCE_CONFLICT: Final = Status(0x0119)
MISSING_ATTRIBUTE: Final = Status(0x0120)
MISSING_ATTRIBUTE_VALUE: Final = Status(0x0121)
SOP_CLASS_NOT_SUPPORTED: Final = Status(0x0122)
NO_SUCH_ACTION: Final = Status(0x0123)
NOT_AUTHORIZED: Final = Status(0x0124)
DUPLICATE_INVOCATION: Final = Status(0x0210)
UNRECOGNIZED_OPERATION: Final = Status(0x0211)
MISTYPED_ARGUMENT: Final = Status(0x0212)
RESOURCE_LIMITATION: Final = Status(0x0213)
OUT_OF_RESOURCES: Final = Status(0xA700)
DATA_SET_MISMATCH: Final = Status(0xA900)
UNABLE_TO_PERFORM_SUBOPERATIONS: Final = Status(0xA702)
MOVE_DESTINATION_UNKNOWN: Final = Status(0xA801)
CANNOT_UNDERSTAND: Final = Status(0xC000)
SOME_SUBOPERATIONS_FAILED: Final = Status(0xB000)
CANCEL: Final = Status(0xFE00)
PENDING: Final = Status(0xFF00)
PENDING_OPTIONAL_KEYS_NOT_SUPPORTED: Final = Status(0xFF01)
