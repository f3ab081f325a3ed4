"""Dates, times and date-times as keys of a query: one value or a range (PS3.4 C.2.2.2.1.3, C.2.2.2.5).

Values are matched by their meaning: what a value leaves out at its end (PS3.5 6.2) is left open. A range includes both of its ends,
each to its own precision: TM 10-12 ends right before 13:00. One of the ends may be absent.
"""

from __future__ import annotations

import re
from datetime import MAXYEAR, UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from tomowire.wire.value import value

Bounds = tuple[str, str]

_DATE: Final = r"\d{4}(?:\d{2}(?:\d{2})?)?"
_TIME: Final = r"\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?"
_OFFSET: Final = r"[+-](?:0\d|1[0-4])[0-5]\d"  # PS3.5 6.2: -1200 to +1400, so that a range of years is none
_DATE_TIME: Final = rf"{_DATE}(?:(?<=\d{{8}}){_TIME})?"
_DATE_TIME_WITH_OFFSET: Final = rf"{_DATE_TIME}(?:{_OFFSET})?"

LOWEST: Final = "0"
HIGHEST: Final = ":"
"""The bounds of a range without a first or a last value: what sorts first among digits, and what sorts right behind them."""

_ONE: Final = timedelta(microseconds=1)
_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
_END: Final = datetime.max.replace(tzinfo=UTC)  # stands for any moment of its year that is left open


def _one_or_range(form: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<one>{form})|(?P<first>{form})? *- *(?P<last>{form})?", re.ASCII)


_DATES: Final = _one_or_range(_DATE)
_TIMES: Final = _one_or_range(_TIME)
_DATE_TIMES: Final = _one_or_range(_DATE_TIME_WITH_OFFSET)
_MOMENT: Final = re.compile(rf"(?P<when>{_DATE_TIME})(?P<offset>{_OFFSET})?", re.ASCII)


def date_bounds(key: str) -> Bounds | None:
    """Texts to compare the text of a DA with: it matches from the first on and before the second. None: nothing matches."""
    ends = _ends(_DATES, key.replace(".", ""))  # the form of ACR-NEMA, 2024.01.31
    return ends and (ends[0] or LOWEST, ends[1] + HIGHEST)


def time_bounds(key: str) -> Bounds | None:
    """Likewise for TM. What is stored may have any precision, so that the first bound has no zeros at its end: 10 is 1000."""
    ends = _ends(_TIMES, key.replace(":", ""))
    return ends and (_without_zeros(ends[0]) or LOWEST, ends[1] + HIGHEST)


def _ends(pattern: re.Pattern[str], key: str) -> tuple[str, str] | None:
    """First and last of a range, "" for one that is open; for one value that value twice."""
    match = pattern.fullmatch(key)
    if match is None:
        return None
    if match["one"]:
        return match["one"], match["one"]
    first, last = match["first"] or "", match["last"] or ""
    return (first, last) if first or last else None


def _without_zeros(time: str) -> str:
    if "." in time:
        time = time.rstrip("0").rstrip(".")
    while len(time) in (4, 6) and time.endswith("00"):
        time = time[:-2]
    return time


@value()
class Moment:
    """A date-time, as the moments that it may mean: microseconds since the year 1, in the local time of `offset`."""

    earliest: int
    latest: int
    offset: int | None
    """Microseconds ahead of UTC; None if that is not said."""


End = tuple[int | None, int | None]
"""A moment in microseconds since the year 1, None where a range is open, and its offset from UTC."""


def date_time_ends(key: str) -> tuple[End, End] | None:
    """The first moment that a key for a DT means, and the last. None: nothing matches."""
    ends = _ends(_DATE_TIMES, key)
    if ends is None:
        return None
    first, last = _moment(ends[0]), _moment(ends[1])
    if (ends[0] and first is None) or (ends[1] and last is None):
        return None
    return (
        (None, None) if first is None else (first.earliest, first.offset),
        (None, None) if last is None else (last.latest, last.offset),
    )


def date_time_within(
    stored: str, zone: str, first: int | None, first_offset: int | None, last: int | None, last_offset: int | None
) -> bool:
    """Whether a DT lies between the ends of a key. `zone` is the offset of what has none; if there is none for one of two, they are
    compared as they are written (PS3.4 C.2.2.2.5.3 d)."""
    moment = _moment(stored)
    if moment is None:
        return False
    offset = _offset(zone) if moment.offset is None else moment.offset
    after = first is None or first - _apart(first_offset, offset) <= moment.earliest
    return after and (last is None or moment.earliest <= last - _apart(last_offset, offset))


def _apart(one: int | None, other: int | None) -> int:
    return 0 if one is None or other is None else one - other


@lru_cache(maxsize=64)
def _moment(text: str) -> Moment | None:
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    digits, _, fraction = match["when"].partition(".")
    year, *rest = int(digits[:4]), *(int(digits[at : at + 2]) for at in range(4, len(digits), 2))
    month, day, hour, minute, second = (*rest, *(1, 1, 0, 0, 0)[len(rest) :])
    try:
        start = datetime(year, month, day, hour, minute, min(second, 59), int(fraction.ljust(6, "0")), UTC)
        earliest = (start - _BEGINNING) // _ONE
        return Moment(earliest, earliest + _length(start, len(rest), len(fraction)) - 1, _offset(match["offset"] or ""))
    except (ValueError, OverflowError):  # the 30th of February, the year 0
        return None


def _length(start: datetime, components: int, fraction: int) -> int:
    """Microseconds for which a value stands that has so many components after the year, and digits of a second."""
    if fraction:
        return int(10 ** (6 - fraction))
    if start.year == MAXYEAR:
        end = _END
    elif components == 0:
        end = start.replace(year=start.year + 1)
    elif components == 1:
        end = (start + timedelta(days=31)).replace(day=1)
    else:
        end = (
            start + (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))[components - 2]
        )
    return (end - start) // _ONE


def _offset(text: str) -> int | None:
    if re.fullmatch(_OFFSET, text, re.ASCII) is None:
        return None
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:])) // _ONE
    return -offset if text[0] == "-" else offset
