"""Events are small facts."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from tomowire.protocol import events
from tomowire.protocol.events import AssociationEnded, DataReceived, ProtocolEvent, ReleaseRequested

DECLARED = [each for each in vars(events).values() if isinstance(each, type) and dataclasses.is_dataclass(each)]


def test_the_union_names_every_event() -> None:
    assert set(get_args(ProtocolEvent)) == set(DECLARED)
    assert AssociationEnded in DECLARED


@pytest.mark.parametrize("event", DECLARED, ids=lambda event: event.__name__)
def test_events_are_small_and_frozen(event: type) -> None:
    assert "__slots__" in vars(event)
    with pytest.raises(dataclasses.FrozenInstanceError):
        object.__new__(event).anything = 1


def test_events_are_equal_when_they_say_the_same() -> None:
    assert ReleaseRequested(collision=True) == ReleaseRequested(collision=True)
    assert DataReceived(memoryview(b"a"), True) == DataReceived(memoryview(bytearray(b"a")), True)
    assert DataReceived(memoryview(b"a"), True) != DataReceived(memoryview(b"a"), False)
