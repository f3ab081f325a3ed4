"""What is wrong about an argument is said where it is given: a peer that fails in the midst of a test looks like a finding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tomowire.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection


def whole_number(name: str, number: Any, *, least: int = 0, most: int | None = None) -> int:
    """`number`, if it is an integer in this range. Raises `UsageError`."""
    if not isinstance(number, int) or number < least or (most is not None and number > most):
        bounds = f"from {least} to {most}" if most is not None else f"of at least {least}"
        raise UsageError(f"{name} is a whole number {bounds}, not {number!r}")
    return number


def positive(name: str, number: Any) -> float:
    """`number`, if it is more than 0. Raises `UsageError`."""
    if not isinstance(number, int | float) or not number > 0:
        raise UsageError(f"{name} is more than 0, not {number!r}")
    return number


def seconds(number: Any) -> float:
    """`number`, if one can wait that long. Raises `UsageError`."""
    if not isinstance(number, int | float) or not number >= 0:
        raise UsageError(f"seconds are at least 0, not {number!r}")
    return number


def one_of(name: str, choice: Any, known: Collection[str]) -> None:
    """Raises `UsageError` for a `choice` that is not among the known."""
    if choice not in known:
        raise UsageError(f"{name} is one of {', '.join(map(repr, known))}, not {choice!r}")
