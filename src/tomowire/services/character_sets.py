"""What text a Specific Character Set (0008,0005) can hold (PS3.3 C.12.1.1.2, PS3.5 6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

TEXT_VRS: Final = frozenset({"SH", "LO", "UC", "ST", "LT", "UT", "PN"})
"""Those that Specific Character Set is about (PS3.5 6.1.2.3)."""
_DEFAULT_REPERTOIRE: Final = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})


def can_hold(named: Any, characters: Iterable[str], *, default: str = "ascii") -> bool:
    """Whether each of `characters` is in one of the repertoires that `named` names: escape sequences lead from one to another.

    `named` is the value of Specific Character Set: text, several of them, or None, which means the default repertoire. `default` is
    what Python calls that; "latin-1" for bytes that pydicom has taken for it.
    """
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.charset import convert_encodings, python_encoding

    characters = set(characters)
    if all(map(str.isascii, characters)):
        return True
    names = [named] if isinstance(named, str) else list(named or ("",))
    if not all(name in _DEFAULT_REPERTOIRE or name in python_encoding for name in names):
        return False
    encodings = [
        default if name in _DEFAULT_REPERTOIRE else encoding  # for which pydicom would always take Latin-1
        for name, encoding in zip(names, convert_encodings(list(names)), strict=False)
    ]
    return all(any(_is_in(character, encoding) for encoding in encodings) for character in characters)


def _is_in(character: str, encoding: str) -> bool:
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
