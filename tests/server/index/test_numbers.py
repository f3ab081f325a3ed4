"""Numbers as text and as binary values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomowire.server.index.numbers import number


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"33", 33),
        (b" +7 ", 7),
        (b"-1\0", -1),
        (b"1\\2", 1),
        (b"5.0", 5),
        (b"2147483647", 2147483647),
        (b"-2147483648", -2147483648),
        (b"2147483648", None),  # PS3.5 6.2: IS is a 32 bit integer, and so is the column
        (b"9" * 5000, None),
        (b"1e300", None),
        (b"5.5", None),
        (b"1_0", None),
        (b"", None),
        (b"\\", None),
        (b"nan", None),
        (b"inf", None),
        (b"abc", None),
        (b"\xff", None),
    ],
)
def test_integer_as_text(raw: bytes, value: int | None) -> None:
    assert number(raw, "IS", "IS", "little") == value


@pytest.mark.parametrize(
    ("raw", "value"),
    [(b"80.5", 80.5), (b"1e2\0", 100.0), (b"75", 75.0), (b"1e999", None), (b"-inf", None), (b"", None)],
)
def test_decimal_as_text(raw: bytes, value: float | None) -> None:
    found = number(raw, "DS", "DS", "little")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("raw", "vr", "order", "value"),
    [
        (b"\0\2", "US", "little", 512),
        (b"\2\0", "US", "big", 512),
        (b"\2\0\0\0", "UL", "little", 2),
        (b"\xff\xff", "SS", "little", -1),
        (b"\0\2\1\0", "US", "little", 512),  # two values
        (b"\2\0", "UN", "big", 2),  # PS3.5 6.2.2: UN is little endian
        (b"512 ", "IS", "little", 512),
        (b"\1", "US", "little", None),
        (b"\xff\xff\xff\xff", "UL", "little", None),
    ],
)
def test_binary_and_in_another_vr_than_the_dictionary_s(raw: bytes, vr: str, order: Any, value: int | None) -> None:
    assert number(raw, vr, "US", order) == value


@given(
    raw=st.binary(max_size=20) | st.text("0123456789+-.eE_ \\", max_size=20).map(str.encode),
    vr=st.sampled_from(["IS", "DS", "US", "UL", "SV", "UN", "LO", "OB", "\0\0"]),
    usual=st.sampled_from(["IS", "DS", "US"]),
)
def test_anything_is_a_number_or_none(raw: bytes, vr: str, usual: str) -> None:
    found = number(raw, vr, usual, "little")
    assert found is None or type(found) is (float if usual == "DS" else int)
