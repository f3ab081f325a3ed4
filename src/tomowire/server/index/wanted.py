"""Which elements the scanner keeps: those behind the declared attributes, and those of the items of their sequences."""

from __future__ import annotations

from typing import Any, Final

from tomowire.server.index.attributes import LEVELS, Attribute, attributes_of
from tomowire.server.index.layout import WantedTags

SPECIFIC_CHARACTER_SET: Final = 0x00080005

ATTRIBUTES: Final[dict[int, Attribute]] = {
    declared.tag: declared for level in LEVELS for declared in attributes_of(level).values()
}
WANTED: Final = WantedTags.of({tag: declared.vr for tag, declared in ATTRIBUTES.items()})


def _wanted_in_items(item: type[Any]) -> WantedTags:
    vrs = {declared.tag: declared.vr for declared in attributes_of(item).values()}
    return WantedTags.of(vrs | {SPECIFIC_CHARACTER_SET: "CS"})  # an item may have its own (PS3.3 C.12.1.1.2)


WANTED_IN_ITEMS: Final = {
    declared.item: _wanted_in_items(declared.item) for declared in ATTRIBUTES.values() if declared.item is not None
}
