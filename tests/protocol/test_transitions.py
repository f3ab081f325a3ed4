"""The automaton, cell by cell, against PS3.8 Table 9-10: as it is declared, and as it behaves."""

from __future__ import annotations

import re

import pytest

from support.table_9_10 import actions_9_2_2, let_happen, table_9_10
from support.upper_layers import REACHABLE, in_state, sent
from tomowire.errors import UsageError
from tomowire.protocol.states import Event, State
from tomowire.protocol.transitions import TRANSITIONS

TABLE = table_9_10()
CELLS = [
    pytest.param(
        state, event, is_requestor, id=f"{event.name}-{state.name}-{'requestor' if is_requestor else 'acceptor'}"
    )
    for event in Event
    for state, is_requestor in REACHABLE
    # Evt2 is the connection of a requestor, Evt5 that of an acceptor; only a requestor has Evt1.
    if is_requestor or event not in (Event.EVT1_ASSOCIATE_REQUEST, Event.EVT2_TRANSPORT_CONNECTED)
    if not (is_requestor and event is Event.EVT5_TRANSPORT_CONNECTION_INDICATION)
]
MISTAKES = {  # requests of the local user, and connections, which the standard's empty cells rule out
    Event.EVT1_ASSOCIATE_REQUEST,
    Event.EVT2_TRANSPORT_CONNECTED,
    Event.EVT5_TRANSPORT_CONNECTION_INDICATION,
    Event.EVT7_ASSOCIATE_RESPONSE_ACCEPT,
    Event.EVT8_ASSOCIATE_RESPONSE_REJECT,
    Event.EVT9_P_DATA_REQUEST,
    Event.EVT11_RELEASE_REQUEST,
    Event.EVT14_RELEASE_RESPONSE,
}


def code_of(function: object) -> str:
    """`ae_6_examine_associate_rq` -> AE-6."""
    match = re.match(r"([a-z]{2})_(\d+)_[a-z]", function.__name__)  # type: ignore[attr-defined]
    assert match is not None
    return f"{match[1].upper()}-{match[2]}"


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name)
def test_each_row_is_that_of_the_standard(event: Event) -> None:
    ours = {state: code_of(TRANSITIONS[state, event]) for state in State if (state, event) in TRANSITIONS}
    standards = {state: TABLE[state, event] for state in State if (state, event) in TABLE}
    assert ours == standards


def test_there_is_nothing_but_the_cells_of_the_standard() -> None:
    assert set(TRANSITIONS) == set(TABLE)
    assert {code_of(action) for action in TRANSITIONS.values()} == set(actions_9_2_2())


def test_every_state_is_reached_by_the_tests_below() -> None:
    assert {state for state, _ in REACHABLE} == set(State)


@pytest.mark.parametrize(("state", "event", "is_requestor"), CELLS)
def test_what_happens_is_what_the_cell_says(state: State, event: Event, is_requestor: bool) -> None:
    upper = in_state(state, is_requestor=is_requestor)
    code = TABLE.get((state, event))
    if code is not None:
        let_happen(upper, event)
        assert upper.state in actions_9_2_2()[code]
        return
    deadline = upper.deadline
    if event in MISTAKES:
        with pytest.raises(UsageError):
            let_happen(upper, event)
    else:
        assert let_happen(upper, event) == []
    assert upper.state is state
    assert (sent(upper), upper.close_requested, upper.deadline) == (b"", False, deadline)
