"""The items of a sequence whose bytes are at hand: what `HeaderScanner` has kept of a wanted sequence (PS3.5 7.5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tomowire.errors import DataSetError
from tomowire.server.index.layout import UNDEFINED_LENGTH, Layout, WantedTags
from tomowire.server.index.walker import DATA_SET, ITEM, Walker

MAXIMUM_ITEMS: Final = 256  # more are not indexed

_ITEM_HEADER: Final = 8


def read_items(value: bytes, layout: Layout, wanted: WantedTags) -> list[dict[int, bytes]]:
    """The wanted elements of each item, tag -> value. Where the bytes stop making sense, the items end."""
    items: list[dict[int, bytes]] = []
    try:
        for walker in _items(value, layout, wanted):
            items.append(walker.values)
            if len(items) == MAXIMUM_ITEMS:
                break
    except DataSetError:
        pass  # the data set is whole: it was walked by the length of this sequence
    return items


def _items(value: bytes, layout: Layout, wanted: WantedTags) -> Iterator[Walker]:
    pos = 0
    while pos + _ITEM_HEADER <= len(value):
        tag, length = layout.tag_and_length(value, pos)
        if tag != layout.item:
            return
        pos += _ITEM_HEADER
        if length == UNDEFINED_LENGTH:
            walker = Walker(layout, wanted, outermost=ITEM)
            pos += walker.walk(value[pos:])
        else:
            walker = Walker(layout, wanted, outermost=DATA_SET)
            walker.walk(value[pos : pos + length])
            pos += length
        yield walker
