"""From the keys of a query to one statement that finds what matches, with a column for each key that is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tomowire.server.index.keys import UNIQUE_KEYS, Key, Keys
from tomowire.server.index.reader import Dialect, Statement
from tomowire.services.models import Level
from tomowire.wire.value import value

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, FromClause

    from tomowire.server.index.query_columns import Source


@value()
class Selected:
    """A statement for an `IndexReader`, and what its rows are."""

    statement: Statement
    columns: tuple[tuple[int, str], ...]
    """Tag and VR (the dictionary's) of each column of a row, in their order: the keys that are supported, or the unique key of the
    level if none is. Text is str, "" if absent, several values separated by backslashes; IS and US are int, DS float, None if
    absent; a sequence (SQ) is a JSON list of those items that match, see `statements`."""

    supported: frozenset[int]
    """The keys that have a column, by tag."""

    unsupported: frozenset[int]
    """The keys that are not matched, or not wholly so: the status of the answers is FF01 if there is one (PS3.4 C.4.1.1.4). A
    sequence with keys for its items that are not known is in both."""


def select_for(keys: Keys, dialect: Dialect, *, relational: bool = False) -> Selected:
    """The statement for `keys`. With `relational`, keys of the levels below have to match as well: all of them one entity there
    (PS3.4 C.4.1.3.2.1). Imports SQLAlchemy: not for the event loop.
    """
    from sqlalchemy import select

    from tomowire.server.index.compiling import compiled
    from tomowire.server.index.query_columns import joined, source_of

    found = {key.tag: source for key in keys.entries if (source := source_of(key, keys.level)) is not None}
    asked = {key.tag for key in keys.entries}
    below = _below(keys, found) if relational else {}
    partly = {tag for tag, source in [*found.items(), *below.items()] if not source.whole}
    shown = found or _unique_key(keys.level)
    conditions = [source.condition for source in found.values() if source.condition is not None]
    statement = (
        select(*(source.column.label(f"c{tag:08x}") for tag, source in shown.items()))
        .select_from(joined(keys.level, {source.level for source in shown.values()}))
        .where(*conditions, *_has_below(keys.level, below))
    )
    return Selected(
        compiled(statement, dialect),
        tuple((tag, source.vr) for tag, source in shown.items()),
        frozenset(found),
        frozenset(asked - found.keys() - below.keys() | partly),
    )


def _below(keys: Keys, found: Mapping[int, Source]) -> dict[int, Source]:
    """What answers those keys that ask something of the levels below."""
    from tomowire.server.index.query_columns import source_of

    others = {key.tag: source_of(key, Level.IMAGE) for key in keys.entries if key.tag not in found}
    return {tag: source for tag, source in others.items() if source is not None and source.condition is not None}


def _has_below(level: Level, below: Mapping[int, Source]) -> Iterator[ColumnElement[bool]]:
    """The condition that an entity has one below it that all of `below` match."""
    if not below:
        return
    from sqlalchemy import select

    from tomowire.server.index.query_columns import TABLES

    levels = list(TABLES)
    first = levels.index(level) + 1
    deepest = max(levels.index(source.level) for source in below.values())
    tables = [TABLES[each] for each in levels[first : deepest + 1]]
    joined: FromClause = tables[0]
    for table in tables[1:]:
        joined = joined.join(table)
    key = next(iter(TABLES[level].primary_key))
    parent = tables[0].c[key.name]
    inner = (
        select(parent)
        .select_from(joined)
        .where(*(each.condition for each in below.values() if each.condition is not None))
    )
    if below.keys() & UNIQUE_KEYS.values():  # few are found: those first, and then what they belong to
        yield key.in_(inner)
    else:
        yield inner.where(parent == key).correlate(TABLES[level]).exists()


def _unique_key(level: Level) -> dict[int, Source]:
    from tomowire.server.index.query_columns import source_of

    tag = UNIQUE_KEYS[level]
    source = source_of(Key(tag, ""), level)
    assert source is not None  # each level has its own
    return {tag: source}
