"""Dates, times and date-times as keys (PS3.4 C.2.2.2.5); what they match in an index is tested in `test_matching`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomowire.server.index.moments import date_bounds, date_time_ends, date_time_within, time_bounds

TIMES = st.times().map(lambda time: time.strftime("%H%M%S.%f"))
LENGTHS = st.sampled_from([2, 4, 6, 8, 10, 13])


def within(stored: str, zone: str, key: str) -> bool:
    """Whether a stored DT matches the key."""
    ends = date_time_ends(key)
    return ends is not None and date_time_within(stored, zone, *ends[0], *ends[1])


def meant(time: str) -> tuple[str, str]:
    """First and last moment of a TM (PS3.5 6.2), as texts of equal length."""
    return time + "000000.000000"[len(time) :], time + "595959.999999"[len(time) :]


@given(TIMES, LENGTHS, TIMES, LENGTHS, TIMES, LENGTHS)
def test_times_are_compared_by_their_meaning(stored: str, n: int, first: str, m: int, last: str, k: int) -> None:
    stored, first, last = stored[:n], first[:m], last[:k]
    bounds = time_bounds(f"{first}-{last}")
    assert bounds is not None
    # A time that is stored with less precision than the key has is its first moment.
    expected = meant(first)[0] <= meant(stored)[0] <= meant(last)[1]
    assert (bounds[0] <= stored < bounds[1]) == expected


@pytest.mark.parametrize("key", ["", "-", "x", "2024010", "20240101-x", "20240101-20240102-20240103", "２０２４"])
def test_what_is_no_date_has_no_bounds(key: str) -> None:
    assert date_bounds(key) is None


ZONES = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1900, 1, 2), datetime(2100, 1, 1), timezones=ZONES)  # noqa: DTZ001 - hypothesis wants it so


def written(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%S.%f%z")


@given(MOMENTS, MOMENTS, MOMENTS)
def test_date_times_are_moments(stored: datetime, first: datetime, last: datetime) -> None:
    key = f"{written(first)}-{written(last)}"
    assert within(written(stored), "", key) == (first <= stored <= last)
    assert within(written(stored), "", f"{written(first)}-") == (first <= stored)
    assert within(written(stored), "", f"-{written(last)}") == (stored <= last)


@given(MOMENTS)
def test_the_zone_is_that_of_a_value_without_an_offset(stored: datetime) -> None:
    local, zone = written(stored)[:-5], written(stored)[-5:]
    key = written(stored.astimezone(UTC))
    assert within(local, zone, key)
    assert within(written(stored), "+1234", key)


@pytest.mark.parametrize("text", ["", "20240230", "0000", "2024-01-01", "20240101250000", "99999"])
def test_what_is_no_date_time_matches_nothing(text: str) -> None:
    assert not within(text, "", "19000101-")
    assert not within("20240101", "", text)


@pytest.mark.parametrize(
    ("key", "last"),
    [
        ("2024", "20241231235959.999999"),
        ("9999", "99991231235959.999998"),
        ("202402", "20240229235959.999999"),
        ("202412", "20241231235959.999999"),
        ("20240229", "20240229235959.999999"),
        ("2024022923", "20240229235959.999999"),
        ("202402292315", "20240229231559.999999"),
        ("20240229231545", "20240229231545.999999"),
        ("20240229231545.12", "20240229231545.129999"),
    ],
)
def test_a_key_is_as_precise_as_it_is_written(key: str, last: str) -> None:
    assert within(last, "", key)
    fraction = int(last[15:]) + 1
    if fraction < 10**6:
        assert not within(f"{last[:15]}{fraction}", "", key)
