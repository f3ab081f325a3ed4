"""From the keys of a query to one statement that finds what matches, with a column for each key that is known."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from tomowire.server.index.keys import Keys
from tomowire.wire.value import value


@value()
class Selected:
    """A statement for a connection of `sqlite3` that `prepare` has seen: it uses functions which SQLite does not have."""

    sql: str
    parameters: Mapping[str, Any]
    """By name, as `execute` takes them."""

    columns: tuple[tuple[int, str], ...]
    """Tag and VR (the dictionary's) of each column of a row, in their order. Text is str, "" if absent, several values separated by
    backslashes; IS and US are int, DS float, None if absent; a sequence (SQ) is a JSON list of its items, see `statements`."""

    supported: frozenset[int]
    """The keys that are matched and returned, by tag."""

    unsupported: frozenset[int]
    """The keys that are not, or of a sequence not wholly: the answer's status is FF01 if there is one (PS3.4 C.4.1.1.4)."""


def prepare(connection: sqlite3.Connection) -> None:
    """Give the connection the functions that the statements use. Takes microseconds."""
    raise NotImplementedError


def select_for(keys: Keys) -> Selected:
    """The statement for `keys`. Imports SQLAlchemy: not for the event loop."""
    raise NotImplementedError
