"""What is drawn from the code and kept in docs/ is what the code says. `scripts/docs --update` brings it up to date."""

from __future__ import annotations

import csv
import re
from xml.etree import ElementTree

import pytest

import automaton
import command_line
import docstrings
import generate
from support.requirements import REPOSITORY
from tomowire.protocol.states import State
from tomowire.services.models import Model
from tomowire.uids import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES

_ACTIONS = REPOSITORY / "tests" / "protocol" / "actions_9_2_2.csv"
_SVG = "{http://www.w3.org/2000/svg}"


def test_the_pictures_and_tables_are_up_to_date() -> None:
    assert generate.outdated() == [], "run scripts/docs --update"


def test_an_outdated_table_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSFER_SYNTAXES, "1.2.3", "A New Transfer Syntax")  # type: ignore[misc]
    assert generate.outdated() == ["conformance.md"]


def test_each_action_leads_where_the_standard_says() -> None:
    """PS3.8 9.2.2, typed from the standard: the picture takes it from the text of the program."""
    with _ACTIONS.open(newline="") as file:
        expected = {row["action"]: set(re.findall(r"Sta\d+", row["next_states"])) for row in csv.DictReader(file)}
    actions = {automaton.code(each): each for each in automaton.TRANSITIONS.values()}
    found = {name: {f"Sta{state.value}" for state in automaton.next_states(each)} for name, each in actions.items()}
    assert found == expected


def test_the_picture_has_every_state_and_every_way_that_is_no_abort() -> None:
    picture = ElementTree.fromstring(automaton.state_diagram())
    arrows = picture.findall(f"{_SVG}polyline")
    assert len(arrows) == len([edge for edge in automaton.edges() if edge[0] != edge[1]]) == 20
    texts = {each.text for each in picture.iter(f"{_SVG}text")}
    assert all(any(f"Sta{state.value}" in (text or "").split() for text in texts) for state in State)


def test_the_conformance_statement_names_every_class_and_syntax() -> None:
    page = (REPOSITORY / "docs" / "conformance.md").read_text()
    uids = [
        *STORAGE_SOP_CLASSES,
        *TRANSFER_SYNTAXES,
        *(uid for model in Model for uid in (model.find, model.move, model.get)),
    ]
    assert [uid for uid in uids if f"| {uid} |" not in page] == []


def test_a_bar_in_an_option_ends_no_cell() -> None:
    pages = map(command_line.program, command_line.programs())
    rows = [line for page in pages for line in page.splitlines() if line.startswith("| `")]
    assert any(r"\|" in row for row in rows)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["`Smith*`, or Smith* in words"], ["``Smith*``, or Smith\\* in words"]),
        (["see `Status.meaning` and `release()`"], ["see `Status.meaning` and `release()`"]),
        (["`Storage(keep)`"], ["``Storage(keep)``"]),
        (["a", "", "    tree", "    ├── leaf", "", "b"], ["a", "", "::", "", "    tree", "    ├── leaf", "", "b"]),
        (["- one *two*", "- three"], ["- one \\*two\\*", "- three"]),
        (["a name_ and a | and \\d"], ["a name\\_ and a \\| and \\\\d"]),
        (
            ["so:", "```python", "a = 1", "", "b *= 2", "```", "c"],
            ["so:", "", "::", "", "    a = 1", "    ", "    b *= 2", "", "c"],
        ),
        (["so::", "", "    a * b"], ["so:", "", "::", "", "    a * b"]),
        ([">>> f(*a)", "1"], ["::", "", "    >>> f(*a)", "    1"]),
    ],
    ids=["stars", "names", "code", "tree", "list", "marks", "fence", "colons", "prompt"],
)
def test_a_docstring_looks_as_it_is_written(written: list[str], expected: list[str]) -> None:
    assert docstrings.as_restructured_text(written) == expected
