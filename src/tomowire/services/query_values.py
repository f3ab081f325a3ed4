"""What people write as the value of a key, as DICOM writes it; `UsageError` for what it does not allow."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import UsageError
from tomowire.uids import is_tolerable_uid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydicom import DataElement

_TAG: Final = re.compile(r"\(?([0-9A-Fa-f]{4}),? ?([0-9A-Fa-f]{4})\)?")
_ISO_DATE: Final = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
# PS3.5 6.2: HH, HHMM, HHMMSS, and a fraction of a second; PS3.4 C.2.2.2.5 allows the less precise ones in ranges.
_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d|60)?)?")
_FRACTION: Final = re.compile(r"\d{1,6}")
_DATE_TIME: Final = re.compile(r"\d{4}(\d{2}){0,5}(\.\d{1,6})?([+-]\d{4})?")
_MOST_IN_TAG: Final = 0xFFFFFFFF
_NUMBERS: Final = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_NOT_WHAT: Final = {"IS": "is not a whole number", "DS": "is not a number", "AT": "is not a tag"}
_BYTES: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})


def uids(values: Iterable[str]) -> str | list[str]:
    """One UID, or a list of UID to match any of (PS3.4 C.2.2.2.2)."""
    found = [_uid(str(each)) for each in values]
    if not found:
        raise UsageError("which UID?")
    return found[0] if len(found) == 1 else found


def date_range(start: datetime.date | str | None, end: datetime.date | str | EllipsisType | None) -> str:
    """The text for a day, or for a range of days (PS3.4 C.2.2.2.5)."""
    return _range(start, end, _date, _one_date, "date")


def time_range(start: datetime.time | str | None, end: datetime.time | str | EllipsisType | None) -> str:
    """The text for a time, or for a range of times."""
    return _range(start, end, _time, _one_time, "time")


def keyword_of(key: str | int) -> str | int:
    """The keyword of an attribute named by keyword or tag; of a private one the tag. `UsageError` for what is neither."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import keyword_for_tag, tag_for_keyword

    if isinstance(key, str) and (match := _TAG.fullmatch(key)) is None:
        if tag_for_keyword(key) is None:
            raise UsageError(f"{key!r} is neither the keyword of a DICOM attribute nor a tag{_nearest(key)}")
        return _allowed(key)
    tag = int(match[1] + match[2], 16) if isinstance(key, str) and match is not None else int(key)
    if not 0 < tag <= _MOST_IN_TAG:
        raise UsageError(f"{key!r} is no tag")
    keyword = keyword_for_tag(tag)
    if not keyword and not (tag >> 16) & 1:
        raise UsageError(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is not an attribute of DICOM")
    return _allowed(keyword) if keyword else tag


def element_of(key: str | int, value: Any) -> DataElement:
    """The element of a key that `keyword_of` gave. `UsageError` for a value that its VR does not allow."""
    from pydicom import DataElement, Sequence, config
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(key) if isinstance(key, str) else key
    assert tag is not None
    vr = dictionary_VR(tag) if isinstance(key, str) else "LO"
    if vr == "SQ":
        return DataElement(tag, vr, Sequence(_items(key, value)))
    values = [_value(vr, key, each) for each in (value if isinstance(value, list | tuple) else [value])]
    try:
        return DataElement(tag, vr, values[0] if len(values) == 1 else values, validation_mode=config.IGNORE)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{key}: {value!r} {_NOT_WHAT.get(vr, 'cannot be a value of it')}") from error


def _items(key: str | int, value: Any) -> list[Any]:
    """PS3.4 C.2.2.2.6: a sequence key has one item, whose keys must match together."""
    from pydicom import Dataset

    if value is None:
        return []
    if isinstance(value, Dataset):
        return [value]
    if not isinstance(value, Mapping):
        raise UsageError(f"{key} is a sequence: its value is a mapping from keys to values")
    item = Dataset()
    for name, each in value.items():
        item.add(element_of(keyword_of(name), each))
    return [item]


def _value(vr: str, key: str | int, value: Any) -> Any:
    """One value as pydicom takes it."""
    is_number, is_bytes = (not table.isdisjoint(vr.split(" or ")) for table in (_NUMBERS, _BYTES))
    if value is None or value == "":
        return b"" if is_bytes else None if is_number else ""
    try:
        if vr == "UI":
            return _uid(str(value))
        if vr == "DA":
            return _one_date(value) if isinstance(value, str) else _date(value)
        if vr == "TM":
            return _one_time(value) if isinstance(value, str) else _time(value)
        if vr == "DT":
            return _date_time(value)
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from None
    if is_bytes:
        raise UsageError(f"{key} has no values that could be matched")
    if is_number and not isinstance(value, int | float):
        raise UsageError(f"{key}: {value!r} is not a number")
    return value if is_number or vr == "AT" else str(value)


def _uid(text: str) -> str:
    if not is_tolerable_uid(text):
        raise UsageError(f"{text!r} is not a UID")
    return text


def _range(start: Any, end: Any, single: Callable[[Any], str], alone: Callable[[str], str], what: str) -> str:
    if end is ...:
        if start is None:
            raise UsageError(f"which {what}?")
        return alone(start) if isinstance(start, str) else single(start)
    if start is None and end is None:
        raise UsageError(f"a range of {what}s that is open at both ends would match everything")
    first, last = ("" if each is None else single(each) for each in (start, end))
    if first and last and first[: len(last)] > last:
        raise UsageError(f"{first} is after {last}")
    return f"{first}-{last}"


def _one_date(text: str) -> str:
    """A day, or a range as DICOM writes it."""
    if "-" not in text or _ISO_DATE.fullmatch(text):
        return _date(text)
    return _written_range(text, _date)


def _one_time(text: str) -> str:
    return _written_range(text, _time) if "-" in text else _time(text)


def _written_range(text: str, single: Callable[[str], str]) -> str:
    first, _, last = text.partition("-")
    if not (first or last):
        raise UsageError(f"{text!r} is no range")
    return f"{single(first) if first else ''}-{single(last) if last else ''}"


def _date(value: datetime.date | str) -> str:
    if isinstance(value, datetime.date):
        return f"{value.year:04}{value.month:02}{value.day:02}"
    text = str(value).replace("-", "") if _ISO_DATE.fullmatch(str(value)) else str(value)
    try:
        if len(text) == len("YYYYMMDD") and text.isascii() and text.isdigit():
            datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
            return text
    except ValueError:
        pass
    raise UsageError(f"{value!r} is not a date: YYYYMMDD or YYYY-MM-DD")


def _time(value: datetime.time | str) -> str:
    if isinstance(value, datetime.time):
        fraction = f".{value.microsecond:06}" if value.microsecond else ""
        return f"{value.hour:02}{value.minute:02}{value.second:02}{fraction}"
    whole, dot, fraction = str(value).replace(":", "").partition(".")
    if _TIME.fullmatch(whole) and (not dot or (len(whole) == len("HHMMSS") and _FRACTION.fullmatch(fraction))):
        return whole + dot + fraction
    raise UsageError(f"{value!r} is not a time: HHMMSS, HHMM or HH, with colons or without")


def _date_time(value: Any) -> str:
    if isinstance(value, datetime.datetime):
        text = f"{_date(value)}{_time(value.time())}"
        return text + (value.strftime("%z")[:5] if value.tzinfo is not None else "")
    if isinstance(value, datetime.date):
        return _date(value)
    text = str(value)
    if _DATE_TIME.fullmatch(text):
        return text
    # A minus may be that of an offset from UTC as well (PS3.4 C.2.2.2.5): every place where it might divide is tried.
    for place in (each.start() for each in re.finditer("-", text)):
        ends = (text[:place], text[place + 1 :])
        if any(ends) and all(not end or _DATE_TIME.fullmatch(end) for end in ends):
            return text
    raise UsageError(f"{value!r} is neither a date with a time, nor a range of them")


def _allowed(keyword: str) -> str:
    if keyword in ("QueryRetrieveLevel", "SpecificCharacterSet"):
        raise UsageError(f"{keyword} is not for matching: it is set when the query is sent")
    return keyword


def _nearest(word: str) -> str:
    from difflib import get_close_matches

    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import keyword_dict

    near = get_close_matches(word, keyword_dict)
    return f"; near it are {', '.join(near)}" if near else ""
