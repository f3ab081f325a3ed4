"""Attribute matching (PS3.4 C.2.2.2) as conditions of SQL, for whatever database an index is in: see `dialects`.

    values of the key                      VR                                     matching
    none, or only "*" where that is one    any                                    universal: no condition
    with * or ?                            AE CS LO LT PN SH ST UC UR UT          wild card
    with -                                 DA TM DT                               range
    several                                UI                                     list of UID
    items                                  SQ                                     sequence
    otherwise                              any                                    single value

Text is compared as it is, case and accents included; person names without both, one component group at a time. Dates and
times are compared by their meaning and to the precision of the key: TM 10 is the hour from ten to eleven. Of an attribute with
several values any may match. Several values of a key, for which the standard has no meaning without extended negotiation, are
alternatives. A value that its VR does not allow, such as a date of letters, matches nothing.

This module imports SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, Final

from sqlalchemy import BigInteger, and_, case, false, func, literal, or_, select
from sqlalchemy.sql.selectable import TableValuedAlias

from tomowire.server.index.attributes import NUMBER_VRS, Attribute, attributes_of
from tomowire.server.index.dialects import (
    Condition,
    Value,
    contains,
    expected,
    glob,
    items,
    member,
    one_of,
    parts,
    somewhere,
)
from tomowire.server.index.functions import DATE_TIME_WITHIN
from tomowire.server.index.keys import SPECIFIC_CHARACTER_SET, Key
from tomowire.server.index.moments import HIGHEST, LOWEST, date_bounds, date_time_ends, time_bounds
from tomowire.server.index.numbers import number
from tomowire.server.index.statements import BETWEEN_NAMES
from tomowire.server.index.text import normalize_person_name

_WILDCARD_VRS: Final = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_ONE_TEXT_VRS: Final = frozenset({"LT", "ST", "UT", "UR"})  # PS3.5 6.2: a backslash is no delimiter there
_NEVER_MATCHED: Final = frozenset({SPECIFIC_CHARACTER_SET, 0x00080201})  # PS3.4 C.2.2.2; Timezone Offset From UTC
_LAST: Final = "\U0010ffff"  # sorts behind every character that text has
_MOST_OPEN_COMPONENTS: Final = 4


def condition(
    column: Value, key: Key, attribute: Attribute, *, single: bool = False, zone: Value | None = None
) -> Condition | None:
    """When `column`, which holds `attribute`, matches the key; None if it always does.

    `single` says that the column holds one value only, as all do by which rows are found. `zone` is the column with the offset from
    UTC for date-times that have none. Names are not compared here: see `person_name`.
    """
    if attribute.item is not None:
        return _sequence(column, key, attribute.item)
    if key.tag in _NEVER_MATCHED or not key.values:
        return None
    if attribute.vr in NUMBER_VRS:
        return _number(column, key.values, attribute.vr)
    if attribute.vr == "UI":
        return _any_value(column, partial(_uids, values=key.values), single=single)
    alternatives = [_predicate(attribute.vr, each, zone) for each in key.values]
    if None in alternatives:
        return None
    single = single or attribute.vr in _ONE_TEXT_VRS
    return _any_value(column, lambda each: or_(*(matches(each) for matches in alternatives if matches)), single=single)


def person_name(normalized: Value, key: Key, *, single: bool) -> Condition | None:
    """When `normalized`, a column with names from `normalize_person_name`, matches the key; None if it always does.

    Several names stand in the column with `statements.BETWEEN_NAMES` between them.
    """
    alternatives = [_name(each) for each in key.values]
    if not alternatives or None in alternatives:
        return None
    return _any_value(
        normalized,
        lambda each: or_(*(matches(each) for matches in alternatives if matches)),
        single=single,
        separator=BETWEEN_NAMES,
    )


def unmatched_keys(key: Key, attribute: Attribute) -> bool:
    """Whether the key is a sequence with keys for its items that the index does not have."""
    if attribute.item is None:
        return False
    known = {declared.tag for declared in attributes_of(attribute.item).values()}
    return any(each.tag not in known for item in key.items for each in item)


Predicate = Callable[[Value], Condition]


def _predicate(vr: str, text: str, zone: Value | None) -> Predicate | None:
    """The condition on one value; None if every value, and none at all, fulfils it."""
    if vr == "DA":
        return partial(_between, bounds=date_bounds(text))
    if vr == "TM":
        return partial(_between, bounds=time_bounds(text))
    if vr == "DT":
        return partial(_date_time_within, zone="" if zone is None else zone, key=text)
    if vr in _WILDCARD_VRS and ("*" in text or "?" in text):
        return None if not text.strip("*") else lambda each: _like(each, text)
    return lambda each: each == text


# One value or several


def _any_value(column: Value, matches: Predicate, *, single: bool, separator: str = "\\") -> Condition:
    """PS3.4 C.2.2.3: any of the values of an attribute with several, which stand in the column with backslashes between them."""
    if single:
        return matches(column)
    values = parts(column, separator)
    return case((contains(column, separator), _exists(values, matches(values.c.value))), else_=matches(column))


def _exists(rows: TableValuedAlias, *conditions: Condition) -> Condition:
    return select(literal(1)).select_from(rows).where(*conditions).exists()


# Text


def _uids(column: Value, values: Sequence[str]) -> Condition:
    """PS3.4 C.2.2.2.2."""
    return column == values[0] if len(values) == 1 else one_of(column, values)


def _like(column: Value, pattern: str) -> Condition:
    """PS3.4 C.2.2.2.4: a range of an index of `column`, if it has one, and what is in it."""
    start = _literal_start(pattern)
    return and_(_begins_with(column, start), glob(column, pattern)) if start else glob(column, pattern)


def _begins_with(column: Value, start: str) -> Condition:
    """A range of an index. SQLite is told that more letters find less: it has no other way to choose between keys."""
    return and_(expected(column >= start, max(0.05 ** len(start), 0.0001)), column < start + _LAST)


def _literal_start(pattern: str) -> str:
    return pattern[: min((pattern.find(each) for each in "*?" if each in pattern), default=len(pattern))]


# Person names


def _name(text: str) -> Predicate | None:
    """A name by its component groups (PS3.5 6.2.1.1); groups that are left empty match any.

    A name without "=" may be in any of the groups. If it is ASCII, it is looked for in the first one alone, unless that is empty:
    so it can be found in an index of names.
    """
    groups = normalize_person_name(text).split("=")
    wanted = [(place, group) for place, group in enumerate(groups) if group.strip("* ")]
    if not wanted:
        return None
    if len(groups) == 1 and groups[0].isascii():
        return partial(_first_group, patterns=list(_open_components(groups[0])))
    anywhere = len(groups) == 1
    tests = [(None if anywhere else place, list(_open_components(group))) for place, group in wanted]
    return lambda column: and_(*(and_(somewhere(column, each), _group(column, place, each)) for place, each in tests))


def _first_group(column: Value, patterns: Sequence[str]) -> Condition:
    """In terms of two ranges of an index, so that neither is looked for in the whole of it."""
    start = min((_literal_start(pattern) for pattern in patterns), key=len)
    without_first = and_(_begins_with(column, "="), _group(column, None, patterns))
    if not start:
        return and_(somewhere(column, patterns), or_(and_(column >= "", _group(column, 0, patterns)), without_first))
    return or_(and_(_begins_with(column, start), _group(column, 0, patterns)), without_first)


def _group(column: Value, place: int | None, patterns: Sequence[str]) -> Condition:
    """The group at this place, counted from 0, matches one of the patterns; any group, if the place is None."""
    groups = parts(column, "=")
    found = or_(*(glob(groups.c.value, pattern) for pattern in patterns))
    among = _exists(groups, found) if place is None else _exists(groups, groups.c.key == place, found)
    whole: Condition = false() if place else or_(*(glob(column, pattern) for pattern in patterns))
    return case((contains(column, "="), among), else_=whole)


def _open_components(group: str) -> Iterator[str]:
    """The patterns for a name some of whose components are "*": these may be absent, and with them the space before.

    "smith *" is "smith", or "smith " and something: delimiters behind the last component are left out (PS3.5 6.2.1.1).
    """
    components: list[str] = []
    for component in group.split(" "):
        if component.strip("*") or components[-1:] != ["*"]:
            components.append(component if component.strip("*") else "*")
    if components.count("*") > _MOST_OPEN_COMPONENTS:
        yield group
        return
    for kept in product(*((component, None) if component == "*" else (component,) for component in components)):
        yield " ".join(component for component in kept if component is not None)


# Numbers, dates and times


def _number(column: Value, values: Sequence[str], vr: str) -> Condition:
    usual = "DS" if vr == "DS" else "IS"
    numbers = [number(text.encode("ascii", "replace"), usual, usual, "little") for text in values]
    return or_(false(), *(column == each for each in numbers if each is not None))


def _between(column: Value, bounds: tuple[str, str] | None) -> Condition:
    """PS3.4 C.2.2.2.5: from the first bound on, and before the second."""
    if bounds is None:
        return false()
    first, behind = column >= bounds[0], column < bounds[1]
    if bounds[0] == LOWEST:
        return and_(expected(first, 0.9), behind)
    return and_(first, expected(behind, 0.9) if bounds[1] == HIGHEST else behind)


def _date_time_within(column: Value, zone: Value | str, key: str) -> Condition:
    """PS3.4 C.2.2.2.5.3, with a function that both databases are given: see `functions`."""
    ends = date_time_ends(key)
    if ends is None:
        return false()
    numbers = (literal(each, BigInteger()) for end in ends for each in end)
    within: Condition = getattr(func, DATE_TIME_WITHIN)(column, zone, *numbers) == 1
    return within


# Sequences


def _sequence(column: Value, key: Key, item: type[Any]) -> Condition | None:
    """PS3.4 C.2.2.2.6: one item of the attribute matches all keys of the item."""
    of_column = items(column)
    wanted = matching_item(of_column.c.value, key, item)
    return None if wanted is None else _exists(of_column, wanted)


def matching_item(value: Value, key: Key, item: type[Any]) -> Condition | None:
    """When an item, a JSON object of the attributes that `item` declares, matches; None if it always does."""
    known = {declared.tag: (name, declared) for name, declared in attributes_of(item).items()}
    conditions = []
    for each in (each for keys in key.items for each in keys if each.tag in known):
        name, declared = known[each.tag]
        conditions.append(condition(member(value, name), each, declared))
    wanted = [found for found in conditions if found is not None]
    return and_(*wanted) if wanted else None
