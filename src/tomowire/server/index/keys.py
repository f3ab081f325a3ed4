"""What a C-FIND identifier asks for (PS3.4 C.4.1.1.3.1): a level, and keys to match and to return."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.services.models import Level, Model


@value()
class Key:
    """One attribute that is asked for; without a value it matches everything and is only returned (PS3.4 C.2.2.2.3)."""

    tag: int
    vr: str
    """That of the identifier if it says one, or else that of the dictionary; "UN" if neither knows."""

    values: tuple[str, ...] = ()
    """Decoded text without padding, none of them empty; numbers (US) as decimal text. () for a sequence."""

    items: tuple[tuple[Key, ...], ...] = ()
    """Of a sequence: the keys of each item."""


@value()
class Keys:
    """An identifier that has been read and found to be allowed.

    `entries` are in the order of the identifier, that is of their tags. Not among them is what the archive itself says in each
    answer: Specific Character Set, Query/Retrieve Level, Retrieve AE Title, Instance Availability; nor are group lengths.
    """

    level: Level
    model: Model
    character_set: str
    """Specific Character Set (0008,0005) of the identifier, several terms separated by backslashes; "" if absent."""

    entries: tuple[Key, ...]


def parse_keys(identifier: bytes, transfer_syntax_uid: str, model: Model) -> Keys:
    """Read the identifier of a C-FIND request. Imports pydicom: not for the event loop.

    Raises `QueryFailed` (A900) if the level is missing or not of the model, or if the unique key of a level above has no single
    value (PS3.4 C.4.1.2.1: hierarchical queries only); `DataSetError` if the bytes make no data set.
    """
    raise NotImplementedError
