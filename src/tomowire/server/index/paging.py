"""Rows in the order of their keys, a page at a time: nobody holds the index for as long as all of them take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from tomowire.errors import IndexUnavailable

T = TypeVar("T")


def each_of_pages(read: Callable[[int], list[T]], key: Callable[[T], int], after: int) -> Iterator[T]:
    """All rows whose keys are greater than `after`; `read` gives the first of those that are greater than one.

    Raises what `read` raises, and `IndexUnavailable` if a damaged database says that they are in order, and they are not: it would
    give the same ones for ever.
    """
    while page := read(after):
        yield from page
        last = key(page[-1])
        if last <= after:
            raise IndexUnavailable("rows are not in the order of their keys", is_damage=True)
        after = last
