"""The statement behind a page of `listing`. This module imports SQLAlchemy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, select

from tomowire.errors import UsageError
from tomowire.server.index import entries
from tomowire.server.index.compiling import compiled
from tomowire.server.index.keys import LONGEST_VALUE, MOST_VALUES, Key
from tomowire.server.index.query_columns import TABLES, Source, joined, key_name, keywords, source_of
from tomowire.server.index.reader import Dialect, Statement
from tomowire.server.index.schema import instances, patients, series, studies
from tomowire.server.index.text import without_padding
from tomowire.services.models import Level

_MODALITIES_IN_STUDY: Final = 0x00080061
_COLUMNS: Final = {
    Level.STUDY: entries.STUDY_COLUMNS,
    Level.SERIES: entries.SERIES_COLUMNS,
    Level.IMAGE: entries.INSTANCE_COLUMNS,
}


def page_statement(
    dialect: Dialect, level: Level, filters: Mapping[str, str], after: int | None, limit: int, *, newest_first: bool
) -> Statement:
    """Rows with the key, and the columns that the entries of the level are made from. Raises `UsageError` for an unknown filter."""
    page = _keys(level, filters, after, limit, newest_first).cte("page")
    table = TABLES[level]
    key = table.c[key_name(table)]
    columns: list[ColumnElement[Any]] = [_column(name) for name in _COLUMNS[level]]
    source: Any = joined(level, set(TABLES) - {Level.PATIENT} if level is not Level.STUDY else set(TABLES))
    source = source.join(page, page.c.page_key == key)
    if level is Level.STUDY:
        columns.append(_modalities())
    if level is not Level.IMAGE:
        totals = _totals(level, page)
        source = source.join(totals, totals.c.page_key == key)
        columns += [totals.c[name] for name in ("series", "instances", "size", "received_at")]
    found = select(key, *columns).select_from(source).order_by(key.desc() if newest_first else key)
    return compiled(found, dialect)


def _keys(
    level: Level, filters: Mapping[str, str], after: int | None, limit: int, newest_first: bool
) -> Select[tuple[Any]]:
    table = TABLES[level]
    key = table.c[key_name(table)]
    sources = [_filter(level, keyword, text) for keyword, text in filters.items()]
    conditions = [each.condition for each in sources if each.condition is not None]
    if after is not None:
        conditions.append(key < after if newest_first else key > after)
    return (
        select(key.label("page_key"))
        .select_from(joined(level, {each.level for each in sources if each.condition is not None}))
        .where(*conditions)
        .order_by(key.desc() if newest_first else key)
        .limit(limit)
    )


def _totals(level: Level, page: Any) -> Any:
    """Of each study or series of the page."""
    of_page = series.c[key_name(TABLES[level])] == page.c.page_key
    return (
        select(
            page.c.page_key,
            func.count(series.c.series_key.distinct()).label("series"),
            func.count().label("instances"),
            cast(func.sum(instances.c.data_set_size), BigInteger).label("size"),
            func.max(instances.c.received_at).label("received_at"),
        )
        .select_from(page.join(series, of_page).join(instances, instances.c.series_key == series.c.series_key))
        .group_by(page.c.page_key)
        .subquery("totals")
    )


def _column(name: str) -> ColumnElement[Any]:
    for table in (patients, studies, series, instances):
        if name in table.c:
            return table.c[name]
    raise AssertionError(name)


def _modalities() -> ColumnElement[Any]:
    source = source_of(Key(_MODALITIES_IN_STUDY, "CS"), Level.STUDY)
    assert source is not None
    return source.column


def _filter(level: Level, keyword: str, text: str) -> Source:
    tag = keywords().get(keyword)
    if tag is None:
        raise UsageError(f"there is no filter {keyword[:64]!r}")
    known = source_of(Key(tag, ""), level)
    if known is None:
        raise UsageError(f"the filter {keyword} belongs to a level below this one")
    text = without_padding(text.encode("utf-8", "replace").decode("utf-8"))  # half a character may come in JSON
    values = tuple(each for each in text.split("\\") if each)
    if known.vr != "UI" and (len(values) > MOST_VALUES or any(len(each) > LONGEST_VALUE for each in values)):
        raise UsageError(
            f"the filter {keyword} has more than {MOST_VALUES} values, or one of over {LONGEST_VALUE} characters"
        )
    source = source_of(Key(tag, known.vr, values), level)
    assert source is not None
    return source
