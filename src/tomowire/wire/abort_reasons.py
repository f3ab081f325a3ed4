"""The Reason/Diag. field of an A-ABORT by the service provider (PS3.8 Table 9-26)."""

from __future__ import annotations

from typing import Final

UNRECOGNIZED_PDU: Final = 1
UNEXPECTED_PDU: Final = 2
UNEXPECTED_PDU_PARAMETER: Final = 5
INVALID_PDU_PARAMETER: Final = 6
