"""What a caller may do with an archive."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from tomowire.errors import UsageError


class Right(StrEnum):
    """One thing that a caller may do. The text is how it is written in a configuration."""

    ECHO = "echo"
    STORE = "store"
    QUERY = "query"
    RETRIEVE = "retrieve"
    """C-GET, and C-MOVE to a node that may be a destination."""
    MOVE_DESTINATION = "move-destination"
    """To be sent objects by the C-MOVE of others: of a node only, since only of a node it is known where it is."""


OF_CALLERS: Final = frozenset(Right) - {Right.MOVE_DESTINATION}
"""All that a caller can do."""
OF_NODES: Final = frozenset(Right)
"""All that a node can do."""


def rights(names: Iterable[str], allowed: frozenset[Right] = OF_NODES) -> frozenset[Right]:
    """The rights of these names. Raises `UsageError` for one that is none of `allowed`."""
    found = frozenset(names)
    unknown = sorted(str(each) for each in found if each not in allowed)
    if unknown:
        what = "a right of nodes only" if unknown[0] in OF_NODES else "not a right"
        known = ", ".join(right for right in Right if right in allowed)
        raise UsageError(f"{unknown[0]!r} is {what}; there are {known}")
    return frozenset(map(Right, found))
