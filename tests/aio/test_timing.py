"""The timer that need not be moved."""

from __future__ import annotations

from typing import Any

from support.clock import ManualClock
from tomowire.aio.timing import Alarm


def alarm(clock: Any, answers: list[float | None]) -> tuple[Alarm, list[float]]:
    """An alarm whose checks give `answers`, and the times at which it was asked."""
    asked: list[float] = []

    def check(now: float) -> float | None:
        asked.append(now)
        return answers.pop(0) if answers else None

    return Alarm(clock, check), asked


def test_it_looks_when_it_is_told_to_and_then_not_again() -> None:
    clock = ManualClock(0)
    each, asked = alarm(clock, [None])
    each.look_at(5)
    clock.advance(4.9)
    assert asked == []
    clock.advance(100)
    assert asked == [5]
    assert clock.pending == []


def test_a_later_time_does_not_move_it_and_an_earlier_one_does() -> None:
    clock = ManualClock(0)
    each, asked = alarm(clock, [])
    each.look_at(5)
    each.look_at(7)
    each.look_at(5)
    assert len(clock.handles) == 1, "progress costs no timer"
    each.look_at(3)
    assert len(clock.pending) == 1
    clock.advance(10)
    assert asked == [3]


def test_the_check_says_when_to_look_again() -> None:
    clock = ManualClock(0)
    each, asked = alarm(clock, [8.0, 9.0, None])
    each.look_at(5)
    clock.advance(100)
    assert asked == [5, 8, 9]


def test_stopped_it_leaves_no_timer_and_can_be_used_again() -> None:
    clock = ManualClock(0)
    each, asked = alarm(clock, [])
    each.look_at(5)
    each.stop()
    each.stop()
    assert clock.pending == []
    each.look_at(6)
    clock.advance(10)
    assert asked == [6]


def test_a_check_that_stops_it_has_the_last_word() -> None:
    """It may abort the association, which stops all its timers, and still say when it would have looked next."""
    clock = ManualClock(0)

    def check(now: float) -> float:
        each.stop()
        return now + 10

    loop: Any = clock
    each = Alarm(loop, check)
    each.look_at(5)
    clock.advance(6)
    assert clock.pending == []
    each.look_at(20)
    assert len(clock.pending) == 1


def test_a_clock_that_calls_a_hair_early_is_not_asked_twice() -> None:
    clock = ManualClock(0)
    each, asked = alarm(clock, [])
    each.look_at(5)
    clock.now = 4.999
    clock.handles[0].callback()
    assert asked == [5]
