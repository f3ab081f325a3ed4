"""Whether answers to a C-FIND are about what was asked for.

A peer need not know an optional key. Then it matches everything by it, and says so at most by leaving the attribute out of its
answers or by the status FF01H (PS3.4 C.2.2.1.3, C.4.1.1.4): who retrieved what it answers would get all that it has.
"""

from __future__ import annotations

import re
import unicodedata
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from pydicom import DataElement, Dataset

    Check = Callable[[Any], bool]

_SAYS_NOTHING: Final = frozenset({"SpecificCharacterSet", "QueryRetrieveLevel", "TimezoneOffsetFromUTC"})
# PS3.4 C.2.2.2.4: wildcards. Names are left out: what of them a key is about is the peer's affair (PS3.4 C.2.2.2.1).
_TEXTS: Final = frozenset({"AE", "CS", "LO", "SH", "UC"})
_DAY: Final = re.compile(r"\d{8}")


class Confirmation:
    """Compares answers with the keys of the identifier `asked` that have a value; `implied` are keywords that may be missing."""

    def __init__(self, asked: Dataset, implied: Collection[str] = ()) -> None:
        self._checks = [
            (element.keyword or str(element.tag), int(element.tag), element.keyword in implied, _check_for(element))
            for element in asked
            if element.keyword not in _SAYS_NOTHING and not _is_universal(element)
        ]

    def doubts(self, answer: Dataset) -> list[str]:
        """The keys, by keyword or tag, by which the answer does not match, or says nothing about."""
        return [
            name
            for name, tag, may_be_missing, check in self._checks
            if not _confirms(answer, tag, check, may_be_missing)
        ]


def _confirms(answer: Dataset, tag: int, check: Check | None, may_be_missing: bool) -> bool:
    if tag not in answer:
        return may_be_missing
    try:
        element = answer[tag]
    except Exception:  # pydicom converts a value when it is asked for, and raises whatever it meets
        return False
    if element.is_empty:
        return may_be_missing
    # A private attribute is but bytes where no VR comes with it (PS3.5 6.2.2).
    return check is None or any(isinstance(each, bytes) or check(each) for each in _values(element))


def _is_universal(element: DataElement) -> bool:
    """Whether it matches everything (PS3.4 C.2.2.2.3, C.2.2.2.4)."""
    if element.is_empty:
        return True
    if element.VR == "SQ":
        return all(all(map(_is_universal, item)) for item in element.value)
    return all(set(str(each)) == {"*"} for each in _values(element))


def _values(element: DataElement) -> Iterable[Any]:
    said: Any = element.value
    return said if element.VM > 1 else (said,)


def _check_for(element: DataElement) -> Check | None:
    """What a value of an answer must be; None where only the peer can say, as for names and times."""
    texts = [str(each) for each in _values(element)]
    if element.VR == "UI":
        return partial(_is_among, frozenset(texts))
    if element.VR in _TEXTS:
        return partial(_matches, re.compile("|".join(map(_pattern, texts)), re.DOTALL))
    if element.VR == "DA" and len(texts) == 1:
        first, separator, last = texts[0].partition("-")
        return partial(_is_between, first, last if separator else first)
    return None


def _is_among(uids: frozenset[str], said: Any) -> bool:
    return str(said).strip(" \0") in uids


def _pattern(text: str) -> str:
    return "".join({"*": ".*", "?": "."}.get(character) or re.escape(character) for character in _folded(text))


def _matches(pattern: re.Pattern[str], said: Any) -> bool:
    return pattern.fullmatch(_folded(str(said))) is not None


def _folded(text: str) -> str:
    """Without what peers may look away from: case, accents, spaces around. Each character stays one, as `?` counts them."""
    return "".join(map(_folded_character, unicodedata.normalize("NFC", text.strip(" \0"))))


def _folded_character(character: str) -> str:
    apart = [each for each in unicodedata.normalize("NFD", character) if not unicodedata.combining(each)]
    plain = apart[0] if len(apart) == 1 else character
    lower = plain.lower()
    return lower if len(lower) == 1 else plain


def _is_between(first: str, last: str, said: Any) -> bool:
    """Days as texts of eight digits compare as days do. What has another form only the peer understands."""
    day = str(said).strip()
    if not (_DAY.fullmatch(day) and _DAY.fullmatch(first or day) and _DAY.fullmatch(last or day)):
        return True
    return (first or day) <= day <= (last or day)
