"""Which keys can be asked for at which level, and where in the index they stand (PS3.4 Tables C.6-1 to C.6-6).

Keys of the levels above are answered as well: in the Study Root model those of the patient belong to the study (C.6.2.1.2).

This module imports SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, Table, UniqueConstraint, func, select

from tomowire.server.index import matching
from tomowire.server.index.attributes import LEVELS, Attribute, attributes_of
from tomowire.server.index.dialects import Condition, distinct_values, items, list_of_items
from tomowire.server.index.keys import Key
from tomowire.server.index.schema import instances, patients, series, studies
from tomowire.server.index.statements import normalized
from tomowire.services.models import Level
from tomowire.wire.value import value

TABLES: Final[Mapping[Level, Table]] = {
    Level.PATIENT: patients,
    Level.STUDY: studies,
    Level.SERIES: series,
    Level.IMAGE: instances,
}
_DEPTH: Final = {level: depth for depth, level in enumerate(TABLES)}
_PATIENT_NAME: Final = 0x00100010


@value()
class Source:
    """What answers a key: the level whose table it needs, the column of the answer, and when it matches."""

    level: Level
    vr: str
    column: ColumnElement[Any]
    condition: Condition | None
    whole: bool = True
    """False if a part of the key is not known."""


def source_of(key: Key, level: Level) -> Source | None:
    """What answers a key in a query at `level`; None if nothing does."""
    made_by = _SOURCES.get(key.tag)
    if made_by is None or _DEPTH[made_by[0]] > _DEPTH[level]:
        return None
    return made_by[1](key)


def joined(level: Level, needed: set[Level]) -> FromClause:
    """The table of a level, and of those above it as far up as one of them is needed."""
    levels = list(TABLES)
    top = min((levels.index(each) for each in needed), default=levels.index(level))
    joined: FromClause = TABLES[level]
    for above in reversed(levels[top : levels.index(level)]):
        joined = joined.join(TABLES[above])
    return joined


_Maker = Callable[[Key], Source]


def _stored(level: Level, name: str, attribute: Attribute) -> _Maker:
    table = TABLES[level]
    column = table.c[name]
    unique = (each for each in table.constraints if isinstance(each, UniqueConstraint))
    single = any(
        name in finder for finder in (*(each.columns for each in table.indexes), *(each.columns for each in unique))
    )
    zone = table.c.get("timezone_offset_from_utc")

    def make(key: Key) -> Source:
        if attribute.vr == "PN":
            is_indexed = key.tag == _PATIENT_NAME
            return Source(level, "PN", column, matching.person_name(table.c[normalized(name)], key, single=is_indexed))
        found = matching.condition(column, key, attribute, single=single, zone=zone)
        answer = column if attribute.item is None else _matching_items(column, key, attribute.item)
        return Source(level, attribute.vr, answer, found, not matching.unmatched_keys(key, attribute))

    return make


def _matching_items(column: ColumnElement[Any], key: Key, item: type[Any]) -> ColumnElement[Any]:
    """PS3.4 C.2.2.2.6: only those items that match are returned."""
    of_column = items(column)
    wanted = matching.matching_item(of_column.c.value, key, item)
    if wanted is None:
        return column
    return select(list_of_items(of_column.c.value)).select_from(of_column).where(wanted).scalar_subquery()


def _counted(level: Level, counted: Level) -> _Maker:
    """The entities of the level `counted` that belong to one of `level`."""
    below = [TABLES[each].alias() for each in Level if _DEPTH[level] < _DEPTH[each] <= _DEPTH[counted]]
    source = below[0]
    joined: Any = source
    for parent, child in pairwise(below):
        joined = joined.join(child, child.c[key_name(parent)] == parent.c[key_name(parent)])
    parent = TABLES[level]
    parent_key = key_name(parent)
    count = select(func.count()).select_from(joined).where(source.c[parent_key] == parent.c[parent_key])
    column = count.correlate(parent).scalar_subquery()
    attribute = Attribute(0, "IS")
    return lambda key: Source(level, "IS", column, matching.condition(column, key, attribute))


def key_name(table: Any) -> str:
    """The primary key of a table: "study_key"."""
    return str(next(iter(table.primary_key)).name)


def _gathered(vr: str, name: str) -> _Maker:
    """All values that series or instances of a study have for an attribute; a key matches if one of them does."""
    inner = series.alias()
    source: Any = inner
    column: ColumnElement[Any]
    if name in inner.c:
        column = inner.c[name]
    else:
        images = instances.alias()
        column = images.c[name]
        source = inner.join(images, images.c.series_key == inner.c.series_key)
    in_study = (inner.c.study_key == studies.c.study_key, column != "")
    answer = (
        select(func.coalesce(distinct_values(column), ""))
        .select_from(source)
        .where(*in_study)
        .correlate(studies)
        .scalar_subquery()
    )
    attribute = Attribute(0, vr)

    def make(key: Key) -> Source:
        found = matching.condition(column, key, attribute, single=True)
        if found is not None:
            found = select(1).select_from(source).where(*in_study, found).correlate(studies).exists()
        return Source(Level.STUDY, vr, answer, found)

    return make


# Available Transfer Syntax UID: who knows what there is, need not propose contexts for all there might be.
_TRANSFER_SYNTAX: Final = Attribute(0x00083002, "UI")

_SOURCES: Final[Mapping[int, tuple[Level, _Maker]]] = {
    declared.tag: (level, _stored(level, name, declared))
    for level, attributes in zip(Level, LEVELS, strict=True)
    for name, declared in attributes_of(attributes).items()
} | {
    0x00080061: (Level.STUDY, _gathered("CS", "modality")),  # Modalities in Study
    0x00080062: (Level.STUDY, _gathered("UI", "sop_class_uid")),  # SOP Classes in Study
    _TRANSFER_SYNTAX.tag: (Level.IMAGE, _stored(Level.IMAGE, "transfer_syntax_uid", _TRANSFER_SYNTAX)),
    0x00201200: (Level.PATIENT, _counted(Level.PATIENT, Level.STUDY)),  # Number of Patient Related Studies
    0x00201202: (Level.PATIENT, _counted(Level.PATIENT, Level.SERIES)),  # ... Series
    0x00201204: (Level.PATIENT, _counted(Level.PATIENT, Level.IMAGE)),  # ... Instances
    0x00201206: (Level.STUDY, _counted(Level.STUDY, Level.SERIES)),  # Number of Study Related Series
    0x00201208: (Level.STUDY, _counted(Level.STUDY, Level.IMAGE)),  # ... Instances
    0x00201209: (Level.SERIES, _counted(Level.SERIES, Level.IMAGE)),  # Number of Series Related Instances
}


@cache
def keywords() -> Mapping[str, int]:
    """The keyword of each attribute that can be asked for, sequences excepted -> its tag. Imports pydicom."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import dictionary_VR, keyword_for_tag

    return {keyword_for_tag(tag): tag for tag in _SOURCES if dictionary_VR(tag) != "SQ"}
