"""What is counted object by object is told before there is much of it: whoever is killed has not told of the rest."""

from __future__ import annotations

from support.clock import ManualClock
from tomowire.server.audit.counted import LONGEST, MOST_OBJECTS, Counted
from tomowire.server.audit.events import Study


def test_much_is_told_at_once_and_little_when_it_is_late() -> None:
    told: list[list[Study]] = []
    clock = ManualClock()
    counted = Counted(told.append, clock=clock.time)
    for _ in range(MOST_OBJECTS - 1):
        counted.add("1.2", "1.1")
    assert told == []
    counted.add("1.2", "1.1")
    assert told == [[Study("1.2", (("1.1", MOST_OBJECTS),))]]
    clock.advance(2 * LONGEST)
    counted.add("1.3", "1.1")
    assert len(told) == 1, "it has not waited"
    clock.advance(LONGEST)
    counted.add("1.4", "1.1")
    assert told[1:] == [[Study("1.3", (("1.1", 1),)), Study("1.4", (("1.1", 1),))]]
    counted.tell()
    assert len(told) == 2
    for number in range(1000):
        counted.add(f"1.2.{number}", "1.1")
    assert sum(map(len, told[2:])) == 1000
    assert max(map(len, told)) < 1000
