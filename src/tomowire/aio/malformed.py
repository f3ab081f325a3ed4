"""What is done about DIMSE messages that break PS3.7: the two ways, and their names."""

from __future__ import annotations

from typing import Literal, TypeAlias

from tomowire.errors import UsageError

Malformed: TypeAlias = Literal["strict", "lenient"]
"""`"strict"`: the association is aborted. `"lenient"`: it is told to the log, and the association goes on where it can."""


def check_malformed(name: str, malformed: object) -> None:
    """Raises `UsageError` for what is neither of the two."""
    if malformed not in ("strict", "lenient"):
        raise UsageError(f'{name} is "strict" or "lenient", not {malformed!r}')


def is_lenient(malformed: Malformed) -> bool:
    """Whether it is the second of the two."""
    return malformed == "lenient"
