"""The table of DIMSE statuses, as `tomowire.protocol.status` knows them."""

from __future__ import annotations

from tomowire.protocol import status
from tomowire.protocol.status import Status


def statuses() -> str:
    """A row for each code and each range of codes, in the order of the numbers."""
    rows = [(code, code, meaning) for code, meaning in status._NAMES.items()] + list(status._RANGES)
    lines = [f"| {_codes(low, high)} | {_kind(low)} | {meaning} |" for low, high, meaning in sorted(rows)]
    return "\n".join(["| code | is | meaning |", "|---|---|---|", *lines])


def _codes(low: int, high: int) -> str:
    return f"{low:04X}H" if low == high else f"{low:04X}H to {high:04X}H, where it has no row of its own"


def _kind(code: int) -> str:
    kinds = ("success", "pending", "cancel", "warning", "failure")
    return next(kind for kind in kinds if getattr(Status(code), f"is_{kind}"))
