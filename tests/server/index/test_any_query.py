"""Queries of any keys against a matcher that is nothing but PS3.4 C.2.2.2, written down a second time.

It has no index, no SQL and no text of a range: a value is matched by calling what the standard says of its VR.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from support.queries import STUDY_UID, Attributes, queried_index
from tomowire.server.index.backend import IndexBackend

DESCRIPTION, ACCESSION, DATE, TIME, NAME = 0x00081030, 0x00080050, 0x00080020, 0x00080030, 0x00100010
OTHER_IDS, NUMBERS, CODES = 0x00101000, 0x00201070, 0x00081032
CODE_VALUE, SCHEME = 0x00080100, 0x00080102
VRS = {DESCRIPTION: "LO", ACCESSION: "SH", DATE: "DA", TIME: "TM", NAME: "PN", OTHER_IDS: "LO", NUMBERS: "IS"}


def text_matches(key: str, value: str) -> bool:
    """C.2.2.2.1 and C.2.2.2.4: exactly, or with wild cards."""
    return re.fullmatch("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in key), value, re.DOTALL) is not None


def name_matches(key: str, value: str) -> bool:
    """C.2.2.2.1.1: neither case nor accents count; delimiters at the end are nothing (PS3.5 6.2.1.1)."""
    key, value = (
        "".join(c for c in unicodedata.normalize("NFD", each.casefold()) if not unicodedata.combining(c)).rstrip("^")
        for each in (key, value)
    )
    return text_matches(key, value)


def ranged(begin: Callable[[str], int], end: Callable[[str], int]) -> Callable[[str, str], bool]:
    """C.2.2.2.5: between the two, both included, or open at one end; one value is a range of itself."""

    def matches(key: str, value: str) -> bool:
        first, hyphen, last = key.partition("-")
        after = not first or begin(first) <= begin(value)
        return after and ((bool(hyphen) and not last) or begin(value) < end(last if hyphen else first))

    return matches


def of_time(text: str) -> int:
    """Microseconds since midnight; what is left out is zero (PS3.5 6.2)."""
    whole, _, fraction = text.partition(".")
    hours, minutes, seconds = (int(whole[at : at + 2] or 0) for at in (0, 2, 4))
    return ((hours * 60 + minutes) * 60 + seconds) * 10**6 + int(fraction.ljust(6, "0"))


def behind_time(text: str) -> int:
    """Where the time that a value stands for is over: TM 10 is the hour."""
    whole, dot, fraction = text.partition(".")
    length = 10 ** (6 - len(fraction)) if dot else {2: 3600, 4: 60, 6: 1}[len(whole)] * 10**6
    return of_time(text) + length


MATCHES: dict[str, Callable[[str, str], bool]] = {
    "LO": text_matches,
    "SH": text_matches,
    "PN": name_matches,
    "DA": ranged(int, lambda text: int(text) + 1),
    "TM": ranged(of_time, behind_time),
    "IS": lambda key, value: int(key) == int(value),
}


def key_matches(vr: str, key: str, stored: str) -> bool:
    """C.2.2.2.3: an empty key matches all, and so does "*" where that is a wild card. C.2.2.3: of several values any may match."""
    if not key or (vr in ("LO", "SH", "PN") and not key.strip("*")):
        return True
    return any(MATCHES[vr](key, value) for value in stored.split("\\") if value)


def items_match(key: Attributes, items: Sequence[Attributes]) -> bool:
    """C.2.2.2.6: all keys in one item."""
    asked = {tag: text for tag, (_, text) in key.items() if text.strip("*")}
    return not asked or any(
        all(key_matches("SH", text, item.get(tag, ("SH", ""))[1]) for tag, text in asked.items()) for item in items
    )


def matches(query: Attributes, stored: Attributes) -> bool:
    return all(
        items_match(key[0] if key else {}, stored[tag][1]) if vr == "SQ" else key_matches(vr, key, stored[tag][1])
        for tag, (vr, key) in query.items()
    )


LETTERS = ["", "A", "a", "Aa", "aA", "A%", "%a", "b", "A b", "aab", "ab%", "%%%"]
DATES = ["", "20231231", "20240101", "20240131", "20240201", "20240229"]
TIMES = ["", "00", "09", "0959", "10", "1000", "1015", "101500", "101500.5", "101559.999999", "11", "235959"]
NAMES = ["", "Doe^Jane", "DÖE^JANE", "Doe^Janet", "Roe", "Roe^^X", "O'Doe^[J", "Do%e^J_"]
SOME_NUMBERS = ["", "0", "5", "50", "-5", "+5", " 5"]


def coded(items: Sequence[dict[int, str]]) -> list[Attributes]:
    return [{tag: ("SH", text) for tag, text in item.items()} for item in items]


def some_object(chance: random.Random) -> Attributes:
    values = {
        DESCRIPTION: chance.choice(LETTERS),
        ACCESSION: chance.choice(LETTERS),
        DATE: chance.choice(DATES),
        TIME: chance.choice(TIMES),
        NAME: chance.choice(NAMES),
        OTHER_IDS: "\\".join(chance.choices(LETTERS, k=chance.randint(1, 3))),
        NUMBERS: chance.choice(SOME_NUMBERS),
    }
    items = [{CODE_VALUE: chance.choice(LETTERS), SCHEME: chance.choice(LETTERS)} for _ in range(chance.randrange(4))]
    return {tag: (VRS[tag], text) for tag, text in values.items()} | {CODES: ("SQ", coded(items))}


patterns = st.text("Aab%*?[", max_size=4)
hyphen = st.just("-")


def ranges(values: Sequence[str]) -> st.SearchStrategy[str]:
    ends, some = st.sampled_from(values), st.sampled_from(values).filter(bool)
    return st.one_of(ends, st.tuples(some, hyphen, ends).map("".join), st.tuples(hyphen, some).map("".join))


@st.composite
def name_patterns(draw: st.DrawFn) -> str:
    """A name, one of its letters a question mark, the end of its last component a star."""
    name = draw(st.sampled_from(NAMES)).lower()
    if name and draw(st.booleans()):
        place = draw(st.integers(0, len(name) - 1))
        name = name[:place] + ("?" if name[place].isalpha() else name[place]) + name[place + 1 :]
    cut = draw(st.integers(0, 3))
    return name[:-cut] + "*" if cut and name[:-cut][-1:].isalpha() else name


queries = st.fixed_dictionaries(
    {},
    optional={
        DESCRIPTION: patterns,
        ACCESSION: patterns,
        DATE: ranges(DATES),
        TIME: ranges(TIMES),
        NAME: name_patterns(),
        OTHER_IDS: patterns,
        NUMBERS: st.sampled_from(SOME_NUMBERS).map(str.strip),
        CODES: st.fixed_dictionaries({}, optional={CODE_VALUE: patterns, SCHEME: patterns}),
    },
)


def asked(query: dict[int, str | dict[int, str]]) -> Attributes:
    return {
        tag: ("SQ", coded([key])) if isinstance(key, dict) else (VRS[tag], key)  # one item (C.2.2.2.6)
        for tag, key in query.items()
    }


def test_what_the_index_finds_is_what_the_standard_says(backend: IndexBackend) -> None:
    chance = random.Random(1)
    utf_8: Attributes = {0x00080005: ("CS", "ISO_IR 192")}
    stored = [some_object(chance) for _ in range(80)]
    with queried_index(backend, [utf_8 | each for each in stored]) as index:

        @settings(max_examples=100, deadline=None)
        @given(queries)
        def check(drawn: dict[int, str | dict[int, str]]) -> None:
            query = asked(drawn)
            expected = [number for number, each in enumerate(stored, 1) if matches(query, each)]
            assert index.numbers("STUDY", {**utf_8, STUDY_UID: ("UI", ""), **query}) == expected

        check()
