"""What an identifier asks for: a level, and keys to match and to return (C-FIND, PS3.4 C.4.1.1.3.1) or those of what is wanted
(C-MOVE and C-GET, C.4.2.1.4.1 and C.4.3.1.3.1)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from tomowire.errors import QueryFailed
from tomowire.protocol.status import DATA_SET_MISMATCH
from tomowire.server.index.text import decode as decode_text
from tomowire.server.index.text import without_padding
from tomowire.services.models import Level, Model
from tomowire.wire.value import value
from tomowire.wire.vrs import LONG_VRS, SHORT_VRS

if TYPE_CHECKING:
    from pydicom import Dataset

SPECIFIC_CHARACTER_SET: Final = 0x00080005
QUERY_RETRIEVE_LEVEL: Final = 0x00080052
RETRIEVE_AE_TITLE: Final = 0x00080054
INSTANCE_AVAILABILITY: Final = 0x00080056

UNIQUE_KEYS: Final[Mapping[Level, int]] = {
    Level.PATIENT: 0x00100020,
    Level.STUDY: 0x0020000D,
    Level.SERIES: 0x0020000E,
    Level.IMAGE: 0x00080018,
}
"""PS3.4 C.6.1.1.2 to C.6.1.1.5: what identifies an entity of each level."""

MOST_VALUES: Final = 64
"""Values of all keys together, other than UIDs: several of one key are alternatives, and each makes the statement longer."""

MOST_KEYS: Final = 1000

LONGEST_VALUE: Final = 1024
LONGEST_TEXT: Final = 10240
"""Characters of a value, and of a long text. No valid one is longer (PS3.5 6.2), and SQLite takes patterns of 50,000 bytes."""

_SAID_BY_THE_ARCHIVE: Final = frozenset(
    {SPECIFIC_CHARACTER_SET, QUERY_RETRIEVE_LEVEL, RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY}
)
_VRS: Final = frozenset((*SHORT_VRS, *LONG_VRS))
_EXTENDED_TEXT: Final = frozenset({"SH", "LO", "UC", "PN"})  # PS3.5 6.1.2.3: as Specific Character Set says
_PLAIN_TEXT: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"})
_ONE_TEXT: Final = frozenset({"LT", "ST", "UT", "UR"})  # PS3.5 6.2: a backslash is no delimiter there
_NO_TEXT: Final = frozenset({"UN", "OB", "OD", "OF", "OL", "OV", "OW"})
_INTEGERS: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q"}


@value()
class Key:
    """One attribute that is asked for; without a value it matches everything and is only returned (PS3.4 C.2.2.2.3)."""

    tag: int
    vr: str
    """That of the identifier if it says one, or else that of the dictionary; "UN" if neither knows."""

    values: tuple[str, ...] = ()
    """Decoded text without padding, none of them empty; integers as decimal text. () for all else."""

    items: tuple[tuple[Key, ...], ...] = ()
    """Of a sequence: the keys of its item; () if it has none. There is one item at most."""


@value()
class Keys:
    """An identifier that has been read and found to be allowed.

    `entries` are in the order of their tags. Not among them is what the archive itself says in each answer: Specific Character
    Set, Query/Retrieve Level, Retrieve AE Title, Instance Availability; nor are group lengths.
    """

    level: Level
    model: Model
    character_set: str
    """Specific Character Set (0008,0005) of the identifier, several terms separated by backslashes; "" if absent."""

    entries: tuple[Key, ...]


def parse_keys(identifier: bytes, transfer_syntax_uid: str, model: Model, *, relational: bool = False) -> Keys:
    """Read the identifier of a C-FIND request. Imports pydicom: not for the event loop.

    Raises `QueryFailed` (A900) if the level is missing or not one of the model, or if the unique key of a level above has no
    single value (PS3.4 C.4.1.2.1: the queries are hierarchical) unless it is `relational` (C.4.1.2.2.1), or for more and longer
    values than the standard has a meaning for; `DataSetError` if the bytes make no data set.
    """
    from tomowire.services.identifiers import decode, unreadable

    dataset = decode(identifier, transfer_syntax_uid)
    if len(dataset) > MOST_KEYS:
        raise QueryFailed(DATA_SET_MISMATCH, f"more than {MOST_KEYS} keys")
    try:
        character_set = _character_set(dataset, "")
        level = _text(dataset, QUERY_RETRIEVE_LEVEL)
        entries = tuple(_keys(dataset, character_set))
    except QueryFailed:
        raise
    except Exception as error:  # pydicom raises whatever it meets, and so does struct
        raise unreadable(identifier, transfer_syntax_uid) from error
    keys = Keys(_level(level, model), model, character_set, entries)
    if not relational:
        _require_unique_keys_above(keys)
    _require_limits(keys.entries)
    return keys


def parse_unique_keys(
    identifier: bytes, transfer_syntax_uid: str, model: Model, *, relational: bool = False
) -> dict[Level, tuple[str, ...]]:
    """Read the identifier of a C-MOVE or C-GET request: the values of the unique keys, of which there is one or more at the level
    asked for. A Patient ID is one single value, and so is what stands above the level unless it is `relational` (PS3.4 C.4.2.2.1,
    C.4.2.2.2.1). Other keys are passed over: what is retrieved is identified and not searched for.

    Imports pydicom: not for the event loop. Raises `QueryFailed` (A900) and `DataSetError` as `parse_keys` does.
    """
    keys = parse_keys(identifier, transfer_syntax_uid, model, relational=relational)
    given = {key.tag: key.values for key in keys.entries}
    unique: dict[Level, tuple[str, ...]] = {}
    for level in model.levels[: model.levels.index(keys.level) + 1]:
        tag = UNIQUE_KEYS[level]
        values = given.get(tag, ())
        if not values and level == keys.level:
            _refuse(f"nothing is named to be retrieved: {level.unique_key} has no value", tag)
        if values and level is Level.PATIENT and not _is_single(values):
            _refuse(f"only one single value of {level.unique_key} can be retrieved", tag)
        if values:
            unique[level] = values
    return unique


def _level(text: str, model: Model) -> Level:
    if not text:
        _refuse("Query/Retrieve Level is missing", QUERY_RETRIEVE_LEVEL)
    if text not in model.levels:
        _refuse(f"{model} has no Query/Retrieve Level {text[:16]}", QUERY_RETRIEVE_LEVEL)
    return Level(text)


def _require_unique_keys_above(keys: Keys) -> None:
    """PS3.4 C.4.1.2.1: the path down to the level has to be given, with a single value at each step."""
    given = {key.tag: key.values for key in keys.entries}
    for level in keys.model.levels[: keys.model.levels.index(keys.level)]:
        tag = UNIQUE_KEYS[level]
        if not _is_single(given.get(tag, ())):
            _refuse(f"level {keys.level} needs one single value of {level.unique_key}", tag)


def _is_single(values: tuple[str, ...]) -> bool:
    return len(values) == 1 and not any(wildcard in values[0] for wildcard in "*?")


def _require_limits(keys: tuple[Key, ...], values: int = 0) -> int:
    """Without extended negotiation only UIDs may be a list (PS3.4 C.2.2.2.2), and a sequence has one item (C.2.2.2.6)."""
    for key in keys:
        values += len(key.values) * (key.vr != "UI")
        if values > MOST_VALUES:
            _refuse(f"more than {MOST_VALUES} values for keys that are no UIDs", key.tag)
        longest = LONGEST_TEXT if key.vr in _ONE_TEXT else LONGEST_VALUE
        if any(len(each) > longest for each in key.values):
            _refuse(f"a value of more than {longest} characters", key.tag)
        if len(key.items) > 1:
            _refuse("more than one item in a sequence to be matched", key.tag)
        for item in key.items:
            values = _require_limits(item, values)
    return values


def _refuse(comment: str, tag: int) -> NoReturn:
    raise QueryFailed(DATA_SET_MISMATCH, comment, (tag,))


def _keys(dataset: Dataset, character_set: str, *, top: bool = True) -> Iterator[Key]:
    for tag in sorted(dataset.keys()):
        if tag & 0xFFFF == 0 or (tag in _SAID_BY_THE_ARCHIVE if top else tag == SPECIFIC_CHARACTER_SET):
            continue
        vr = _vr(dataset, tag)
        _require_kind(dataset, tag, vr)
        if vr == "SQ":
            items = (_keys(item, _character_set(item, character_set), top=False) for item in dataset[tag].value)
            yield Key(int(tag), vr, (), tuple(tuple(item) for item in items))
        else:
            yield Key(int(tag), vr, tuple(_values(dataset, tag, vr, character_set)))


def _vr(dataset: Dataset, tag: int) -> str:
    vr: str | None = dataset.get_item(tag, keep_deferred=True).VR  # None in implicit VR
    if vr not in _VRS:  # what is none is not sent back as one
        vr = "UN"
    usual = _usual_vr(tag) if vr in _NO_TEXT else None  # what is said to be bytes may be text all the same
    return str(vr if usual is None or (usual == "SQ" and vr != "UN") else usual)


def _usual_vr(tag: int) -> str | None:
    """The dictionary's, of "US or SS" the first; None for a private attribute, or one of a newer edition."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import dictionary_VR

    try:
        return str(dictionary_VR(tag))[:2]
    except KeyError:
        return None


def _require_kind(dataset: Dataset, tag: int, vr: str) -> None:
    """A sequence where a value belongs, or a value where a sequence does, must not be taken for a key that matches everything."""
    usual, element = _usual_vr(tag), dataset.get_item(tag, keep_deferred=True)
    if usual is not None and (usual == "SQ") is not (vr == "SQ") and element.value:
        _refuse("a sequence where a value belongs" if vr == "SQ" else "a value where a sequence belongs", tag)


def _values(dataset: Dataset, tag: int, vr: str, character_set: str) -> list[str]:
    """The bytes are taken as they came: pydicom would refuse values that are none of their VR, such as a range."""
    element: Any = dataset.get_item(tag)
    if not element.is_raw or not element.value:  # pydicom gives a number without a value as one that has been read
        return []
    raw: bytes = element.value
    if vr in _INTEGERS:
        return _integers(raw, ("<" if element.is_little_endian else ">") + _INTEGERS[vr])
    if vr in _ONE_TEXT:
        text = decode_text(raw, character_set).replace("\0", "").rstrip(" ")
        return [text] if text else []
    if vr in _EXTENDED_TEXT:
        text = decode_text(raw, character_set, is_name=vr == "PN")
    elif vr in _PLAIN_TEXT:
        text = raw.decode("ascii", "replace")
    else:
        return []
    return [each for each in without_padding(text).split("\\") if each]


def _integers(raw: bytes, form: str) -> list[str]:
    whole = len(raw) // struct.calcsize(form) * struct.calcsize(form)
    return [str(number) for (number,) in struct.iter_unpack(form, raw[:whole])]


def _text(dataset: Dataset, tag: int) -> str:
    """A code string of one value, "" if it is absent."""
    return "\\".join(_values(dataset, tag, "CS", "")) if tag in dataset else ""


def _character_set(dataset: Dataset, outer: str) -> str:
    """What is in force in the data set: its own, or that of the data set around it (PS3.5 7.5.3)."""
    if SPECIFIC_CHARACTER_SET not in dataset:
        return outer
    named = dataset[SPECIFIC_CHARACTER_SET].value or ""
    return named if isinstance(named, str) else "\\".join(str(term or "") for term in named)
