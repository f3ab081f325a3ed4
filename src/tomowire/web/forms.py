"""Texts that have a form: UIDs, AE titles, and the values of filters (PS3.4 C.2.2.2), each as a pattern and in words.

The OpenAPI document has the patterns; who sends something else is told the words. A range of
dates or times that ends before it begins has no form either: whoever writes it has mistaken something. What follows a form and
matches nothing has an empty answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import Path
from pydantic import AfterValidator, Field, StringConstraints

from tomowire.server.index.keys import MOST_VALUES

LONGEST_LIST: Final = 8000
"""Characters of a list of UIDs: the address of a request has 16 KiB at most."""

_UID: Final = r"[0-9]+(\.[0-9]+)*"
_DATE: Final = r"[0-9]{4}((0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])?)?"
_TIME: Final = r"([01][0-9]|2[0-3])([0-5][0-9](([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?"
_DIGITS: Final = 12
"""Of a time with all its parts."""

_NUMBER: Final = r"[+-]?[0-9]{1,11}"


def _forwards(text: str, words: str) -> str:
    """A year or a month stands for its first day where it begins a range, and for its last where it ends one; so do times."""
    for low, dash, high in (each.replace(".", "").partition("-") for each in text.split("\\")):
        if dash and low and high and low.ljust(_DIGITS, "0") > high.ljust(_DIGITS, "9"):
            raise ValueError(words)
    return text


def _forwards_in_days(text: str) -> str:
    return _forwards(text, "a range of dates begins with the earlier one: YYYYMMDD-YYYYMMDD (DA)")


def _forwards_in_time(text: str) -> str:
    return _forwards(text, "a range of times begins with the earlier one, and ends on the same day: HHMM-HHMM (TM)")


def _one_or_range(form: str) -> str:
    """PS3.4 C.2.2.2.5: each end of a range may be left out, but not both."""
    return f"({form}(-({form})?)?|-{form})"


def _listed(form: str, most: int | None = MOST_VALUES) -> str:
    r"""One or several with backslashes between them, or nothing at all, which matches everything (PS3.4 C.2.2.2.3)."""
    others = "*" if most is None else f"{{0,{most - 1}}}"
    return rf"^({form}(\\{form}){others})?$"


TEXT: Final = r"^[^\x00-\x1f\x7f]*$"
UID: Final = f"^{_UID}$"
AE_TITLE: Final = r"^[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?$"
USER_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$"
TOKEN_ID: Final = r"^[0-9a-f]{12}$"
JOB_ID: Final = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
HOST: Final = r"^[0-9A-Za-z:._%-]+$"
PAGES: Final = {of: rf"^{of}-[0-9]{{1,18}}$" for of in ("studies", "series", "instances", "audit")}
"""What a page ends with, by the list: it means another place in each."""

KEYWORD: Final = r"^([A-Za-z][A-Za-z0-9]*|[0-9A-Fa-f]{8})$"
_UIDS: Final = _listed(_UID, None)
_DATES: Final = _listed(_one_or_range(_DATE))
_TIMES: Final = _listed(_one_or_range(_TIME))
_NUMBERS: Final = _listed(_NUMBER)

WORDS: Final[Mapping[str, str]] = {
    TEXT: "this is to be one line of text, without control characters",
    UID: "a UID is made of numbers with dots between them, such as 1.2.840.10008.1.1",
    AE_TITLE: "an AE title has 1 to 16 characters of ASCII, no backslash, and no space at its ends",
    USER_NAME: "a user's name has 1 to 64 letters, digits and . _ @ + -, and begins with a letter or a digit",
    TOKEN_ID: "the id of a token has 12 hexadecimal digits, in lower case",
    JOB_ID: "the id of a job looks like 0b9f3c1e-5a43-4c5e-9d6b-8a3f4f1f2f60",
    HOST: "a host is a name or an address, without a port",
    **{
        form: f"this is not what a page of {of} ends with: take 'next' of the page before as it is"
        for of, form in PAGES.items()
    },
    KEYWORD: "this is neither the keyword of an attribute, such as PatientName, nor the eight digits of a tag",
    _UIDS: r"a UID is made of numbers with dots between them; several have backslashes between them: 1.2.3\1.2.4",
    _DATES: "a date is written YYYYMMDD, and a range YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD (DA); "
    "a year or a month, YYYY or YYYYMM, stands for all its days",
    _TIMES: "a time is written HHMMSS.FFFFFF, HHMMSS, HHMM or HH, and a range HHMM-HHMM, HHMM- or -HHMM (TM)",
    _NUMBERS: "this is a whole number, such as 1 or -1 (IS)",
}
"""What is to be said when something does not match a pattern."""

Uid = Annotated[str, StringConstraints(max_length=64, pattern=UID), Field(examples=["1.2.826.0.1.3680043.10.1234.1.1"])]
"""A UID (PS3.5 9.1); leading zeros, which many devices write, are taken."""

UidPath = Annotated[
    str,
    Path(max_length=64, pattern=UID, description="A UID (PS3.5 9.1).", examples=["1.2.826.0.1.3680043.10.1234.1.1"]),
]

AeTitle = Annotated[str, StringConstraints(max_length=16, pattern=AE_TITLE), Field(examples=["WORKSTATION"])]
"""An AE title (PS3.5 6.2): ASCII without a backslash; outer spaces mean nothing, and are not taken."""

NodeName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=TEXT), Field(examples=["WORKSTATION"])]
"""What a node is called: its AE title, or its name in the configuration."""

Text = Annotated[str, StringConstraints(max_length=256, pattern=TEXT)]
"""A line of text."""

Filter = Annotated[
    Annotated[str, StringConstraints(max_length=256, pattern=TEXT)] | None,
    Field(
        description="Matched as in PS3.4 C.2.2.2: `*` and `?` stand for characters; several have a backslash between them."
    ),
]
UidFilter = Annotated[
    Annotated[str, StringConstraints(max_length=LONGEST_LIST, pattern=_UIDS)] | None,
    Field(
        description="A UID, or several with a backslash between them (PS3.4 C.2.2.2.2).", examples=["1.2.840.10008.1.1"]
    ),
]
DateFilter = Annotated[
    Annotated[str, StringConstraints(max_length=256, pattern=_DATES), AfterValidator(_forwards_in_days)] | None,
    Field(description="A day, month or year, or a range of them (PS3.4 C.2.2.2.5).", examples=["20260101-20260131"]),
]
TimeFilter = Annotated[
    Annotated[str, StringConstraints(max_length=256, pattern=_TIMES), AfterValidator(_forwards_in_time)] | None,
    Field(description="A time, or a range of them (PS3.4 C.2.2.2.5).", examples=["0800-1159"]),
]
NumberFilter = Annotated[
    Annotated[str, StringConstraints(max_length=256, pattern=_NUMBERS)] | None,
    Field(description="A whole number, or several with a backslash between them.", examples=["1"]),
]
