"""Text of data elements: character sets (PS3.5 6.1, PS3.3 C.12.1.1.2), padding, and person names made comparable.

Nothing here raises: what cannot be decoded becomes U+FFFD, and the stored bytes keep what they are.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

_ESCAPE: Final = b"\x1b"
# PS3.5 6.1.2.5.3: after these the initial character set is in force again, whatever was switched to before.
_TEXT_DELIMITERS: Final = frozenset(b"\\\r\n\t\f")
_NAME_DELIMITERS: Final = _TEXT_DELIMITERS | frozenset(b"^=")
# As written in files: "ISO_IR 100", but also "ISO-IR 100", "ISO IR 100", "ISO_2022_IR_87".
_TERM: Final = re.compile(r"ISO[ _-]?(2022[ _-])?IR[ _-]?(\d+)", re.IGNORECASE)

_COMBINING: Final = re.compile(
    "[\u0300-\u036f]+"
)  # Latin, Greek and Cyrillic accents; kana and Indic marks are letters
# Letters that a keyboard without them replaces, and that Unicode does not decompose.
_PLAIN_LETTERS: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)
_CACHED_NAME: Final = 256  # characters; nobody's name is longer


def is_extended(character_set: str) -> bool:
    """Whether escape sequences may occur (code extension): pure ASCII bytes need not be ASCII text then."""
    return "\\" in character_set or "2022" in character_set


def load_character_sets() -> None:
    """Import what text other than ASCII takes to be decoded: a fifth of a second, in which an event loop would stand still."""
    import pydicom  # whole, before its parts
    import pydicom.charset  # noqa: F401


def decode(raw: bytes, character_set: str, *, is_name: bool = False) -> str:
    """Text of a value; `character_set` is the text of Specific Character Set (0008,0005), or ""."""
    try:
        encodings = _python_encodings(character_set)
        if _ESCAPE not in raw or not is_extended(character_set):
            return raw.decode(encodings[0], "replace")
        import pydicom  # noqa: F401 - whole, before its parts
        from pydicom.charset import decode_bytes

        return decode_bytes(raw, encodings, set(_NAME_DELIMITERS if is_name else _TEXT_DELIMITERS))
    except (LookupError, ValueError):  # malformed beyond what the replacement of characters mends
        return raw.decode("ascii", "replace")


def without_padding(text: str) -> str:
    """Without the spaces and NULs around each of the values, and without NULs within them (PS3.5 6.2)."""
    text = text.strip(" \0")
    if "\0" in text:
        text = text.replace("\0", "")  # never valid, and PostgreSQL's text cannot hold it
    if "\\" in text:
        text = "\\".join([value.strip(" ") for value in text.split("\\")])
    return text


def normalize_person_name(name: str) -> str:
    """A person name as it is matched: no case, no accents, components apart by one space, component groups by "=".

    "Müller^Jörg^^Dr." becomes "muller jorg dr."; the wildcards * and ? pass unchanged, so that keys can be treated alike.
    """
    return _cached_normal(name) if len(name) <= _CACHED_NAME else _normal(name)


def _normal(name: str) -> str:
    text = name.casefold()
    if not text.isascii():
        # Case is folded again, as letters come out of letters: a bold A has no case before it is an A.
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
        text = _COMBINING.sub("", text).translate(_PLAIN_LETTERS)
        text = unicodedata.normalize("NFC", text)  # what was decomposed only to be looked at: hangul, kana
    groups = [" ".join(group.replace("^", " ").split()) for group in text.split("=")]
    return "=".join(groups).rstrip("=")


# Instances of one study come one after another, all with the same name.
_cached_normal = lru_cache(maxsize=512)(_normal)


@lru_cache(maxsize=64)
def _python_encodings(character_set: str) -> tuple[str, ...]:
    """Python's names for the terms of Specific Character Set; ISO 8859-1 for what is not known, as pydicom does it."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.charset import STAND_ALONE_ENCODINGS, default_encoding, python_encoding

    terms = [_term(value) for value in character_set.split("\\")]
    if terms[0] in STAND_ALONE_ENCODINGS:  # PS3.3 C.12.1.1.2: no code extension with these
        return (python_encoding[terms[0]],)
    extensions = [term for term in terms[1:] if term not in STAND_ALONE_ENCODINGS]
    return tuple(python_encoding.get(term, default_encoding) for term in (terms[0], *extensions))


def _term(value: str) -> str:
    match = _TERM.fullmatch(value.strip())
    if match is None:
        return value.strip()
    return f"{'ISO 2022 IR' if match[1] else 'ISO_IR'} {match[2]}"
