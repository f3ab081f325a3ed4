"""The value representations by the form of their elements in the explicit encodings (PS3.5 7.1.2)."""

from __future__ import annotations

from typing import Final

SHORT_VRS: Final = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS"),
    *("LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"),
)
"""A length of 16 bits (PS3.5 Table 7.1-2)."""

LONG_VRS: Final = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
"""Two reserved bytes and a length of 32 bits (PS3.5 Table 7.1-1); the standard may get more of these."""
