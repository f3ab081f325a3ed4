"""How long is waited after what nobody has foreseen."""

from __future__ import annotations

import itertools

import pytest

from tomowire.server.setbacks import Setbacks


def test_each_wait_is_twice_the_last_up_to_five_minutes() -> None:
    setbacks = Setbacks("keeping the quota")
    waits = [setbacks.failed(RuntimeError()) for _ in range(8)]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    assert setbacks.in_a_row == 8


def test_after_success_it_begins_anew() -> None:
    setbacks = Setbacks("keeping the quota")
    for _ in range(3):
        setbacks.failed(RuntimeError())
    setbacks.went_well()
    assert setbacks.in_a_row == 0
    assert setbacks.failed(RuntimeError()) == 5


def test_what_fails_for_years_is_still_waited_for() -> None:
    setbacks = Setbacks("keeping the quota")
    waits = [setbacks.failed(RuntimeError()) for _ in itertools.repeat(None, 2000)]
    assert waits[-1] == 300


def test_the_log_says_what_why_and_when(caplog: pytest.LogCaptureFixture) -> None:
    Setbacks("keeping the quota").failed(ZeroDivisionError("a bug"))
    assert "keeping the quota has failed, and is tried again in 5 seconds" in caplog.text
    assert "ZeroDivisionError: a bug" in caplog.text
