"""Numbers in what is said to people."""

from __future__ import annotations


def counted(number: int, name: str) -> str:
    """The number, and the name of one of them or of several."""
    return f"{number} {name}{'' if number == 1 else 's'}"
