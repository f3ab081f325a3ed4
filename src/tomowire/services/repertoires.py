"""What Specific Character Set is about (PS3.5 6.1.2.3): which text it governs, and which characters an encoding has."""

from __future__ import annotations

from typing import Final

TEXT_VRS: Final = frozenset({"SH", "LO", "UC", "ST", "LT", "UT", "PN"})
"""PS3.5 6.1.2.3."""


def has_character(encoding: str, character: str) -> bool:
    """Whether a character can be written in an encoding, which is named as pydicom's `convert_encodings` gives it."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.charset import custom_encoders

    try:
        if encoding in custom_encoders:
            custom_encoders[encoding](character)
        else:
            character.encode(encoding)
    except UnicodeError:
        return False
    return True
