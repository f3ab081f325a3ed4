"""The automaton of PS3.8 as it is programmed, for the picture and the tables of docs/states.md.

All is read from `tomowire.protocol`: the transitions from their table, and from each action's own text which states it leads to.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from svg import FILL, NOTE, STRONG, Point, arrow, border, box, picture, text
from tomowire.protocol import actions
from tomowire.protocol.states import Event, State
from tomowire.protocol.transitions import TRANSITIONS

Edge = tuple[State, State]

_WIDTH, _HEIGHT = 1240, 830
_SIZE: Final = (220.0, 58.0)
# Three columns: what a requestor does, what both do, what an acceptor does.
_LEFT, _MIDDLE, _RIGHT = 250.0, 600.0, 955.0
_PLACES: Final[Mapping[int, Point]] = {
    1: (_MIDDLE, 50),
    2: (_RIGHT, 160),
    3: (_RIGHT, 290),
    4: (_LEFT, 160),
    5: (_LEFT, 290),
    6: (_MIDDLE, 400),
    7: (_LEFT, 510),
    8: (_RIGHT, 510),
    9: (_LEFT, 650),
    10: (_MIDDLE, 650),
    11: (_LEFT, 780),
    12: (_MIDDLE, 780),
    13: (_RIGHT, 780),
}
# Arrows that a straight line would lead through other boxes go round them; the label stands at the point that comes last.
_DETOURS: Final[Mapping[tuple[int, int], tuple[Sequence[Point], Point]]] = {
    (7, 1): ([(140, 510), (90, 510), (90, 60), (490, 60)], (90, 225)),
    (11, 1): ([(140, 780), (24, 780), (24, 40), (490, 40)], (260, 34)),
    (2, 13): ([(1065, 160), (1152, 160), (1152, 780), (1065, 780)], (1142, 225)),
    (3, 13): ([(1065, 290), (1104, 290), (1104, 768), (1065, 768)], (1066, 420)),
    (13, 1): ([(1065, 792), (1222, 792), (1222, 50), (710, 50)], (960, 44)),
}
# Where a label in the middle of its arrow would hide something: how far it is moved.
_MOVED: Final[Mapping[tuple[int, int], Point]] = {(5, 1): (30, 0), (7, 9): (-20, 0), (7, 10): (40, 0), (8, 13): (0, 40)}
_WORDS: Final = {
    "ASSOCIATE_AC_OR_RJ": "A-ASSOCIATE-AC or -RJ",
    "ASSOCIATE_AC": "A-ASSOCIATE-AC",
    "ASSOCIATE_RJ": "A-ASSOCIATE-RJ",
    "ASSOCIATE_RQ": "A-ASSOCIATE-RQ",
    "P_DATA_TF": "P-DATA-TF",
    "P_DATA": "P-DATA",
    "RELEASE_RQ": "A-RELEASE-RQ",
    "RELEASE_RP": "A-RELEASE-RP",
    "ASSOCIATE_RE": "A-ASSOCIATE re",
    "RELEASE_RE": "A-RELEASE re",
    "ABORT": "A-ABORT",
    "ARTIM": "ARTIM",
    "PDU": "PDU",
}


def code(action: Any) -> str:
    """`AE-6` of `ae_6_examine_associate_rq`."""
    family, number = action.__name__.split("_")[:2]
    return f"{family.upper()}-{number}"


def words(name: State | Event) -> str:
    """`A-ASSOCIATE-RQ received` of `EVT6_ASSOCIATE_RQ_RECEIVED`."""
    plain = name.name.split("_", 1)[1]
    for theirs, ours in _WORDS.items():
        plain = re.sub(rf"(?<![A-Z]){theirs}(?![A-Z])" if not theirs.endswith("_RE") else theirs, f"<{ours}>", plain)
    return "".join(
        part[1:-1] if part.startswith("<") else part.lower().replace("_", " ") for part in re.split("(<[^>]*>)", plain)
    )


@cache
def next_states(action: Any) -> tuple[State, ...]:
    """Where an action leads: the states that its text returns, its own and those of an action that it ends in."""
    found: list[State] = []
    for node in ast.walk(ast.parse(inspect.getsource(action))):
        if isinstance(node, ast.Return):
            match node.value:
                case ast.Attribute(value=ast.Name(id="State"), attr=name):
                    found.append(State[name])
                case ast.Call(func=ast.Name(id=name)):
                    found += next_states(getattr(actions, name))
    return tuple(sorted(set(found)))


def is_trouble(action: Any) -> bool:
    """Whether it is one of Table 9-9: aborts."""
    return code(action).startswith("AA-")


def edges() -> dict[Edge, list[tuple[Event, str]]]:
    """From one state to another, but for aborts: the events that lead there, and the action's code."""
    found = defaultdict(list)
    for (state, event), action in TRANSITIONS.items():
        if not is_trouble(action):
            for after in next_states(action):
                found[State(state), after].append((Event(event), code(action)))
    return dict(found)


def state_diagram() -> str:
    """The picture: boxes where `_PLACES` has them, an arrow for each way that is not an abort."""
    ways = edges()
    stays = {state: sorted({each for _, each in how}) for (state, after), how in ways.items() if state == after}
    drawn = [_arrow(edge, how) for edge, how in ways.items() if edge[0] != edge[1]]
    parts = [line for line, _ in drawn]
    parts += [_state(state, stays.get(state, [])) for state in State]
    parts += [box((_MIDDLE, 520), (300, 76), _trouble(), fill=NOTE)]
    parts += [label for _, label in drawn]
    return picture(_WIDTH, _HEIGHT, "The states of a DICOM association (PS3.8 9.2)", parts)


def _state(state: State, stays: Sequence[str]) -> str:
    who, plain = f"Sta{state.value}", words(state)
    if plain.startswith("collision "):
        _, side, plain = plain.split(" ", 2)
        who += f" (collision, {side})"
    if stays:
        who += f" (P-DATA: {', '.join(stays)})"
    return box(_PLACES[state], _SIZE, [who, plain], fill=STRONG if state is State.STA6_DATA_TRANSFER else FILL)


def _arrow(edge: Edge, how: Sequence[tuple[Event, str]]) -> tuple[str, str]:
    """The line, and the label that is to lie above all lines."""
    start, end = (_PLACES[state] for state in edge)
    points, at = _DETOURS.get(edge, ([border(start, _SIZE, end), border(end, _SIZE, start)], None))
    x, y = at or ((points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2)
    dx, dy = _MOVED.get(edge, (0, 0))
    lines = [line for event, action in how for line in (words(event), action)]
    labels = [
        text((x + dx, y + dy + 4 + 13 * n - 6.5 * (len(lines) - 1)), each, halo=True) for n, each in enumerate(lines)
    ]
    return arrow(points), "\n".join(labels)


def _trouble() -> list[str]:
    """What the picture leaves out, in words."""
    by_end = defaultdict(set)
    for action in TRANSITIONS.values():
        if is_trouble(action):
            for after in next_states(action):
                by_end[after].add(code(action))
    return [
        "What is not drawn, from any state",
        f"the peer aborts or is lost → Sta1 ({_span(by_end[State.STA1_IDLE])})",
        f"we abort → Sta13 ({_span(by_end[State.STA13_AWAITING_TRANSPORT_CLOSE])})",
    ]


def _span(codes: set[str]) -> str:
    return ", ".join(sorted(codes)).replace(", AA-", ", ")


def transition_table() -> str:
    """Table 9-10 in Markdown: a row for each event, a column for each state."""
    head = ["| event | " + " | ".join(f"Sta{state.value}" for state in State) + " |", "|---" * (len(State) + 1) + "|"]
    rows = [[TRANSITIONS.get((state, event)) for state in State] for event in Event]
    return "\n".join(
        head
        + [
            f"| {words(event)} | " + " | ".join(code(each) if each else "" for each in row) + " |"
            for event, row in zip(Event, rows, strict=True)
        ]
    )


def action_table() -> str:
    """What each action is called, and where it leads."""
    unique = {code(action): action for action in TRANSITIONS.values()}
    order = sorted(unique, key=lambda name: (["AE", "DT", "AR", "AA"].index(name[:2]), int(name[3:])))
    rows = [
        f"| {name} | {' '.join(unique[name].__name__.split('_')[2:])} | "
        f"{' or '.join(f'Sta{state.value}' for state in next_states(unique[name]))} |"
        for name in order
    ]
    return "\n".join(["| action | what | next state |", "|---|---|---|", *rows])


def state_table() -> str:
    """The states by number."""
    return "\n".join(["| state | |", "|---|---|", *(f"| Sta{state.value} | {words(state)} |" for state in State)])
