"""`@value()` has to be indistinguishable from `dataclass(frozen=True, slots=True)`: that is what these tests compare it with."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar

import pytest

from tomowire.wire.value import value


@value()
class Point:
    x: int
    y: int = 7


@value(kw_only=True)
class Base:
    a: int = 1


@value(kw_only=True)
class Derived(Base):
    of_the_class: ClassVar[int] = 3

    b: str
    c: tuple[int, ...] = field(default=(), metadata={"some": "metadata"})


@value()
class Empty:
    """No fields at all."""


@value()
class Discreet:
    secret: str

    def __repr__(self) -> str:
        return "Discreet(...)"


@dataclass(frozen=True, slots=True)
class OrdinaryPoint:
    x: int
    y: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdinaryDerived:
    a: int = 1
    b: str
    c: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("cls", "arguments", "keywords"),
    [
        (Point, (1,), {}),
        (Point, (1, 2), {}),
        (Point, (), {"y": 3, "x": 4}),
        (Point, (), {}),
        (Point, (1, 2, 3), {}),
        (Point, (1,), {"x": 2}),
        (Point, (1,), {"z": 2}),
        (Derived, (), {"b": "text"}),
        (Derived, (), {"b": "text", "a": 5, "c": (1, 2)}),
        (Derived, (), {"a": 5}),
        (Derived, ("text",), {}),
    ],
)
def test_takes_and_refuses_the_arguments_that_a_dataclass_does(
    cls: type[Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    ordinary = {Point: OrdinaryPoint, Derived: OrdinaryDerived}[cls]
    try:
        expected = ordinary(*arguments, **keywords)
    except TypeError:
        with pytest.raises(TypeError):
            cls(*arguments, **keywords)
    else:
        made = cls(*arguments, **keywords)
        assert asdict(made) == asdict(expected)
        assert repr(made) == repr(expected).removeprefix("Ordinary")


@pytest.mark.parametrize(("cls", "ordinary"), [(Point, OrdinaryPoint), (Derived, OrdinaryDerived)])
def test_its_signature_is_that_of_a_dataclass(cls: type[Any], ordinary: type[Any]) -> None:
    shown, expected = (
        [(each.name, each.kind, each.default) for each in inspect.signature(kind).parameters.values()]
        for kind in (cls, ordinary)
    )
    assert shown == expected


def test_a_class_made_of_it_by_hand_works_whichever_is_used_first() -> None:
    @value()
    class First:
        x: int

    class Second(First):
        def __init__(self, x: int) -> None:
            super().__init__(x + 1)

    assert Second(1).x == 2
    assert First(1).x == 1


def test_only_a_class_that_is_used_costs_the_compiling() -> None:
    @value()
    class Unused:
        x: int

    assert not inspect.isfunction(vars(Unused)["__init__"])
    assert Unused(1) == Unused(x=1)
    assert inspect.isfunction(vars(Unused)["__init__"]), "the second value is made as fast as with a dataclass"


def test_is_frozen_and_slotted() -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x
    with pytest.raises(FrozenInstanceError):
        point.other = 2  # type: ignore[attr-defined]
    assert not hasattr(point, "__dict__")
    assert point == Point(1, 7)


def test_compares_and_hashes_by_class_and_values() -> None:
    assert Point(1) == Point(1, 7)
    assert Point(1) != Point(2)
    assert Point(1) != OrdinaryPoint(1)
    assert Base() != Derived(b="")
    assert len({Point(1), Point(1, 7), Point(2), Empty(), Empty()}) == 3


def test_is_a_dataclass_for_the_tools() -> None:
    derived = Derived(b="text")
    assert is_dataclass(derived)
    assert [each.name for each in fields(derived)] == ["a", "b", "c"]
    assert fields(Derived)[2].metadata == {"some": "metadata"}
    assert replace(derived, a=9) == Derived(a=9, b="text")
    match Point(3):
        case Point(x, y):
            assert (x, y) == (3, 7)


def test_is_copied_and_pickled() -> None:
    derived = Derived(b="text", c=(1,))
    assert copy.copy(derived) == derived
    assert copy.deepcopy(derived) == derived
    assert pickle.loads(pickle.dumps(Point(4))) == Point(4)


def test_keeps_a_repr_of_its_own() -> None:
    assert repr(Discreet("password")) == "Discreet(...)"
    assert repr(Empty()) == "Empty()"
