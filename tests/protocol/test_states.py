"""The names and numbers of the states and events, against the standard's table."""

from __future__ import annotations

import csv
from pathlib import Path

from tomowire.protocol.states import Event, State

with (Path(__file__).parent / "table_9_10.csv").open(newline="") as file:
    HEADER, *ROWS = csv.reader(file)


def test_the_states_are_those_of_the_standard() -> None:
    assert [f"Sta{state.value}" for state in State] == HEADER[2:]


def test_the_events_are_those_of_the_standard() -> None:
    assert [f"Evt{event.value}" for event in Event] == [row[0] for row in ROWS]


def test_each_name_begins_with_the_code_of_the_standard_and_says_more() -> None:
    for prefix, members in (("STA", State), ("EVT", Event)):
        for member in members:
            code, _, meaning = member.name.partition("_")
            assert code == f"{prefix}{member.value}"
            assert meaning
