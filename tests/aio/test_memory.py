"""The arithmetic of memory for data sets: who gets some, who waits, who is given up."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomowire.aio.memory import NONE_LEFT, TOO_LARGE, DataMemory, Share
from tomowire.errors import MemoryShort

WAIT = 10.0


@dataclass
class DataSet:
    """One that comes, and what it was told."""

    memory: DataMemory
    heard: float = 0.0
    changes: int = 0
    share: Share = field(init=False)

    def __post_init__(self) -> None:
        self.share = self.memory.enter(self.heard, self._on_change, lambda: self.heard)

    def _on_change(self) -> None:
        self.changes += 1

    def ask(self, size: int, now: float = 0.0) -> bool:
        return self.memory.ask(self.share, size, now)

    def leave(self, now: float = 0.0) -> None:
        self.memory.leave(self.share, now)

    @property
    def held(self) -> int:
        return self.share.held


def data_sets(memory: DataMemory, count: int) -> list[DataSet]:
    return [DataSet(memory) for _ in range(count)]


def test_what_fits_is_had_at_once() -> None:
    memory = DataMemory(200)
    first, second = data_sets(memory, 2)
    assert first.ask(60)
    assert second.ask(40)
    assert (memory.used, memory.is_short) == (100, False)
    first.leave()
    assert memory.used == 40


def test_half_is_for_all_and_the_other_half_for_the_first_that_is_coming() -> None:
    memory = DataMemory(100)
    first, second, third = data_sets(memory, 3)
    assert second.ask(25)
    assert first.ask(25)
    assert not second.ask(1)
    assert not third.ask(1)
    assert first.ask(50)
    first.leave()
    assert (second.held, third.held) == (26, 1)


def test_when_the_first_is_whole_it_is_the_turn_of_the_next() -> None:
    memory = DataMemory(100)
    first, second = data_sets(memory, 2)
    first.ask(40)
    second.ask(10)
    assert not second.ask(30)
    memory.finish(first.share, 0.0)
    assert second.held == 40


def test_what_is_whole_may_have_the_other_half_too() -> None:
    memory = DataMemory(100)
    first, second = data_sets(memory, 2)
    first.ask(20)
    second.ask(30)
    memory.finish(second.share, 0.0)
    assert second.ask(50)


def test_nothing_can_always_be_had() -> None:
    memory = DataMemory(100)
    first, second, third = data_sets(memory, 3)
    assert first.ask(100)
    assert not second.ask(1)
    assert third.ask(0)


def test_what_could_never_fit_is_refused_at_once() -> None:
    memory = DataMemory(100)
    (only,) = data_sets(memory, 1)
    assert only.ask(60)
    with pytest.raises(MemoryShort, match=TOO_LARGE):
        only.ask(41)
    assert only.ask(40), "what it holds it keeps, until it leaves"


def test_who_waits_gets_it_when_another_leaves() -> None:
    memory = DataMemory(100)
    first, second = data_sets(memory, 2)
    first.ask(80)
    assert not second.ask(30)
    assert memory.is_short
    first.leave()
    assert (second.held, second.changes, memory.is_short) == (30, 1, False)


def test_the_data_set_that_came_first_is_served_first_whoever_asked_first() -> None:
    memory = DataMemory(100)
    holder, old, young = data_sets(memory, 3)
    holder.ask(100)
    assert not young.ask(60)
    assert not old.ask(60)
    holder.leave()
    assert (old.held, young.held) == (60, 0)


def test_nobody_overtakes_one_that_waits_and_came_before() -> None:
    """Not even with little: else who wants much would wait for ever."""
    memory = DataMemory(100)
    holder, old, young = data_sets(memory, 3)
    holder.ask(45)
    assert not old.ask(60)
    assert not young.ask(5)
    holder.leave()
    assert (old.held, young.held) == (60, 0)
    old.leave()
    assert young.held == 5


def test_who_has_left_does_not_come_back() -> None:
    memory = DataMemory(100)
    (only,) = data_sets(memory, 1)
    only.ask(10)
    only.leave()
    with pytest.raises(MemoryShort):
        only.ask(10)
    assert memory.used == 0


def test_who_came_before_those_that_wait_takes_what_there_is() -> None:
    memory = DataMemory(100)
    old, holder, young = data_sets(memory, 3)
    holder.ask(60)
    assert not young.ask(60)
    assert old.ask(40)


def test_when_all_that_hold_some_wait_for_more_the_last_that_came_is_given_up() -> None:
    memory = DataMemory(100)
    first, second, third = data_sets(memory, 3)
    for each in (first, second, third):
        assert each.ask(16)
    assert not third.ask(10)
    assert not second.ask(10)
    assert first.ask(30)
    assert third.changes == 0, "the first may finish, and give all back"
    assert first.ask(30), "now nobody can go on, but for what the last held"
    assert (third.share.is_given_up, third.held, third.changes) == (True, 0, 1)
    assert (first.held, second.held) == (76, 16)
    with pytest.raises(MemoryShort, match=NONE_LEFT):
        third.ask(1)
    third.leave()
    first.leave()
    assert second.held == 26


def test_the_one_that_is_given_up_may_be_the_one_that_asks() -> None:
    memory = DataMemory(100)
    first, second = data_sets(memory, 2)
    assert first.ask(25)
    assert second.ask(25)
    assert not first.ask(60)
    with pytest.raises(MemoryShort, match=NONE_LEFT):
        second.ask(1)
    assert first.held == 85


def test_a_data_set_that_holds_nothing_yet_is_not_given_up_for_others() -> None:
    memory = DataMemory(100)
    first, second, third = data_sets(memory, 3)
    first.ask(25)
    second.ask(25)
    assert not third.ask(10)
    assert not first.ask(60)
    with pytest.raises(MemoryShort):
        second.ask(10)
    assert (first.held, third.held, third.share.is_given_up) == (85, 0, False)
    first.leave()
    assert third.held == 10


def test_one_that_is_whole_and_wants_more_is_told_and_gives_back_itself() -> None:
    """Its bytes are in a handler's hands."""
    memory = DataMemory(100)
    first, second = data_sets(memory, 2)
    first.ask(25)
    second.ask(25)
    memory.finish(second.share, 0.0)
    assert not first.ask(60)
    with pytest.raises(MemoryShort):
        second.ask(40)
    assert (memory.used, first.held) == (50, 25)
    second.leave()
    assert first.held == 85


def test_who_has_waited_too_long_is_given_up_the_last_that_came_first() -> None:
    memory = DataMemory(100, wait=WAIT)
    holder, old, young = data_sets(memory, 3)
    holder.ask(30)
    memory.finish(holder.share, 0.0)
    old.ask(10)
    young.ask(10)
    assert not old.ask(60, now=1.0)
    assert not young.ask(5, now=2.0)
    assert memory.give_up_late(5.0) == 11.0
    assert memory.give_up_late(10.9) == 11.0
    assert memory.give_up_late(12.0) is None
    assert young.share.is_given_up, "both are late"
    assert (old.share.is_given_up, old.held) == (False, 70), "but what the one gives back is enough for the other"


def test_of_many_that_are_late_some_may_be_given_up_for_the_first_meanwhile() -> None:
    """The last is silent. When it has gone, the others are left waiting for each other, and one of them has to go for that."""
    memory = DataMemory(100, wait=WAIT)
    first, second, third, fourth = data_sets(memory, 4)
    first.ask(16)
    second.ask(16)
    third.ask(16)
    assert not first.ask(80)
    assert not second.ask(20)
    assert not fourth.ask(20, now=5.0)
    assert memory.give_up_late(WAIT) == 5.0 + WAIT
    assert (first.held, second.share.is_given_up, third.share.is_given_up) == (96, True, True)


def test_a_data_set_of_which_nothing_comes_is_given_up_before_those_that_wait_for_it() -> None:
    memory = DataMemory(100, wait=WAIT)
    silent, other = data_sets(memory, 2)
    silent.ask(60)
    silent.heard = 3.0
    assert not other.ask(60, now=5.0)
    assert memory.give_up_late(12.9) == 13.0
    assert memory.give_up_late(13.0) is None
    assert (silent.share.is_given_up, other.held) == (True, 60)


def test_a_data_set_that_comes_slowly_keeps_what_it_has() -> None:
    memory = DataMemory(100, wait=WAIT)
    slow, other = data_sets(memory, 2)
    slow.ask(60)
    assert not other.ask(60, now=5.0)
    slow.heard = 14.5
    assert memory.give_up_late(15.0) is None
    assert (slow.held, other.share.is_given_up) == (60, True)


def test_nobody_is_late_while_nobody_waits() -> None:
    memory = DataMemory(100, wait=WAIT)
    (silent,) = data_sets(memory, 1)
    silent.ask(60)
    assert memory.give_up_late(1000.0) is None
    assert not silent.share.is_given_up


def test_who_does_not_wait_any_more_lets_others_by() -> None:
    memory = DataMemory(100)
    holder, first, second = data_sets(memory, 3)
    holder.ask(20)
    assert not first.ask(90)
    assert not second.ask(30)
    memory.withdraw(first.share, 0.0)
    assert (second.held, first.changes) == (30, 0)
    memory.withdraw(first.share, 0.0)
    first.leave()
    first.leave()
    assert memory.used == 50


@dataclass
class Sender:
    """A data set in the property test, which comes in pieces, is used for a while, and then not any more."""

    data_set: DataSet
    pieces: list[int]
    is_waiting: bool = False
    is_over: bool = False

    def go_on(self, now: float) -> None:
        """Ask for the next piece; or it is whole, or over."""
        share = self.data_set.share
        if not self.pieces:
            if share.is_whole:
                self._end(now)
            else:
                self.data_set.memory.finish(share, now)
            return
        try:
            self.is_waiting = not self.data_set.ask(self.pieces[0], now)
        except MemoryShort:
            self._end(now)
        else:
            if not self.is_waiting:
                self.pieces.pop(0)

    def told(self, now: float) -> None:
        """After something changed: it has what it waited for, or was given up."""
        share = self.data_set.share
        if self.is_waiting and share.is_given_up:
            self._end(now)
        elif self.is_waiting and not share.wanted:
            self.is_waiting = False
            self.pieces.pop(0)

    def _end(self, now: float) -> None:
        self.is_waiting, self.is_over = False, True
        self.data_set.leave(now)


def check(memory: DataMemory, senders: list[Sender]) -> None:
    held = [each.data_set.held for each in senders]
    assert 0 <= memory.used == sum(held) <= memory.limit
    assert memory.is_short == any(each.data_set.share.wanted for each in senders)


def run_in_any_order(sizes: list[list[int]], data: st.DataObject) -> list[Sender]:
    """Whoever can go on does so, in any order, until nobody can. No time passes."""
    memory = DataMemory(100)
    senders = [Sender(DataSet(memory), list(pieces)) for pieces in sizes]
    while able := [each for each in senders if not each.is_over and not each.is_waiting]:
        data.draw(st.sampled_from(able)).go_on(0.0)
        for each in senders:
            each.told(0.0)
        check(memory, senders)
    assert all(each.is_over for each in senders), "nobody is left waiting for nothing"
    assert memory.used == 0
    return senders


@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_in_any_order_memory_is_kept_to_and_everybody_comes_to_an_end(
    sizes: list[list[int]], data: st.DataObject
) -> None:
    senders = run_in_any_order(sizes, data)
    assert bool(senders[0].pieces) == (sum(sizes[0]) > 100), "the first that came is never given up"


@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4), min_size=1, max_size=8), st.data())
def test_in_any_order_none_is_given_up_if_none_is_larger_than_half(sizes: list[list[int]], data: st.DataObject) -> None:
    assert not any(each.pieces for each in run_in_any_order(sizes, data))


@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(1, 60)), max_size=80),
)
def test_whatever_happens_the_sums_are_right(steps: list[tuple[int, int, int]]) -> None:
    """Asking, leaving, withdrawing and time that passes, in any order."""
    memory = DataMemory(100, wait=WAIT)
    senders = [Sender(DataSet(memory), []) for _ in range(8)]
    now = 0.0
    for number, action, size in steps:
        sender = senders[number]
        share = sender.data_set.share
        if action == 0 and not share.wanted:
            try:
                memory.ask(share, size, now)
            except MemoryShort:
                assert share.is_given_up or share.held + size > memory.limit
        elif action == 1:
            sender.data_set.leave(now)
            senders[number] = Sender(DataSet(memory, heard=now), [])
        elif action == 2:
            memory.withdraw(share, now)
            memory.finish(share, now)
        else:
            now += size / 6
            due = memory.give_up_late(now)
            assert (due is None) == (not memory.is_short)
            assert due is None or due > now
        check(memory, senders)
    for each in senders:
        each.data_set.leave(now)
    assert (memory.used, memory.is_short) == (0, False)
