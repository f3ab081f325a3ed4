"""What the reference page says of the peers is what they have: a name that is missing on either side is found here."""

from __future__ import annotations

import inspect
import re

import pytest

import tomowire.testing
from support.requirements import REPOSITORY
from tomowire.testing import Archive, Behaviour, FaultyPeer, FaultySender

REFERENCE = (REPOSITORY / "docs" / "reference" / "testing.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The part of the page under a heading."""
    return re.split(rf"^## {title}$", REFERENCE, flags=re.MULTILINE)[1].partition("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """The names of what is called, in the first column of the tables."""
    return set(re.findall(r"^\| `(?:await )?(\w+)\(", text, re.MULTILINE))


def methods(kind: type) -> set[str]:
    return {name for name, each in vars(kind).items() if not name.startswith("_") and callable(getattr(kind, name))}


@pytest.mark.parametrize(
    ("kind", "more"), [(FaultyPeer, set()), (FaultySender, set()), (Behaviour, set()), (Archive, {"start", "stop"})]
)
def test_every_method_is_documented(kind: type, more: set[str]) -> None:
    assert first_cells(section(kind.__name__)) == methods(kind) - more


def test_every_name_is_documented() -> None:
    assert set(re.findall(r"`(\w+)`", REFERENCE.partition("\n## ")[0])) >= set(tomowire.testing.__all__)


@pytest.mark.parametrize("name", ["after", "times", "aet", "patience", "receive_buffer"])
def test_the_options_have_the_defaults_that_are_documented(name: str) -> None:
    default = inspect.signature(FaultyPeer).parameters[name].default
    (said,) = re.findall(rf"^\| `{name}` \| (\S+) \|", section("FaultyPeer"), re.MULTILINE)
    expected = {int: str(default), float: f"{default:g}" if isinstance(default, float) else "", str: f'`"{default}"`'}
    assert said == expected.get(type(default), "None")
