"""What the archive holds, in pages: for the REST API and whoever looks through it.

Filters are keywords of attributes with values as C-FIND takes them (PS3.4 C.2.2.2): wild cards, ranges of dates, several values
with backslashes between them. A page ends with a token that names its last row, so that the thousandth page costs what the first
one does, and what comes or goes meanwhile moves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from tomowire.errors import UsageError
from tomowire.server.index.entries import InstanceEntry, SeriesEntry, StudyEntry
from tomowire.server.index.statistics import ArchiveStatistics, statistics
from tomowire.services.models import Level
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.server.index.reader import Dialect, IndexReader
    from tomowire.server.index.readers import IndexReaders

__all__ = ["ArchiveStatistics", "InstanceEntry", "Listing", "Page", "SeriesEntry", "StudyEntry"]

MOST: Final = 1000
"""Entries of a page."""

T = TypeVar("T")
_UID: Final = re.compile(r"[0-9.]+", re.ASCII)
_NOTHING: Final[Mapping[str, str]] = {}


@value()
class Page(Generic[T]):
    """Some of the entries. `after` is what to ask for the next page with; None if there is none."""

    entries: tuple[T, ...]
    after: str | None


class Listing:
    """Answers in worker threads. All of it raises `IndexUnavailable`.

    `filters` maps keywords ("PatientName", "StudyDate", "ModalitiesInStudy") of the level or one above to values; `after` is that
    of the page before; `limit` is 1 to `MOST`. Raises `UsageError` for a keyword that is not known there, and for a token that is
    none.
    """

    def __init__(self, index: IndexReaders) -> None:
        self._index = index

    async def studies(
        self,
        filters: Mapping[str, str] = _NOTHING,
        *,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> Page[StudyEntry]:
        """Studies in the order in which they came."""
        return await self._page(Level.STUDY, StudyEntry.of, filters, after, limit, newest_first)

    async def series(
        self,
        filters: Mapping[str, str] = _NOTHING,
        *,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Page[SeriesEntry]:
        """Series in the order in which they came; those of one study with the filter StudyInstanceUID."""
        return await self._page(Level.SERIES, SeriesEntry.of, filters, after, limit, newest_first)

    async def instances(
        self,
        filters: Mapping[str, str] = _NOTHING,
        *,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Page[InstanceEntry]:
        """Instances in the order in which they came; those of one series with the filter SeriesInstanceUID."""
        return await self._page(Level.IMAGE, InstanceEntry.of, filters, after, limit, newest_first)

    async def study(self, study_instance_uid: str) -> StudyEntry | None:
        """The study with this UID."""
        return _first(await self.studies({"StudyInstanceUID": _one_uid(study_instance_uid)}, limit=1))

    async def one_series(self, series_instance_uid: str, study_instance_uid: str | None = None) -> SeriesEntry | None:
        """The series with this UID; the first that came, if senders have used it in several studies and none of these is named."""
        filters = {"SeriesInstanceUID": _one_uid(series_instance_uid)}
        if study_instance_uid is not None:
            filters["StudyInstanceUID"] = _one_uid(study_instance_uid)
        return _first(await self.series(filters, limit=1))

    async def instance(self, sop_instance_uid: str) -> InstanceEntry | None:
        """The instance with this UID, and where its file lies."""
        return _first(await self.instances({"SOPInstanceUID": _one_uid(sop_instance_uid)}, limit=1))

    async def statistics(self) -> ArchiveStatistics:
        """Counts and bytes, in all and for each modality; in a large archive those of a moment ago."""
        return await statistics(self._index)

    async def _page(
        self,
        level: Level,
        entry: Callable[[tuple[object, ...]], T],
        filters: Mapping[str, str],
        after: str | None,
        limit: int,
        newest_first: bool,
    ) -> Page[T]:
        if not 1 <= limit <= MOST:
            raise UsageError(f"a page has 1 to {MOST} entries, and not {limit}")
        token = _key(after)
        found = await self._index.ask(
            partial(_rows, self._index.dialect, level, dict(filters), token, limit + 1, newest_first)
        )
        shown = found[:limit]
        following = str(shown[-1][0]) if len(found) > limit else None
        return Page(tuple(entry(row[1:]) for row in shown), following)


def _rows(
    dialect: Dialect,
    level: Level,
    filters: Mapping[str, str],
    after: int | None,
    limit: int,
    newest_first: bool,
    reader: IndexReader,
) -> list[tuple[object, ...]]:
    from tomowire.server.index.listing_statements import page_statement

    return reader.rows(page_statement(dialect, level, filters, after, limit, newest_first=newest_first))


def _first(page: Page[T]) -> T | None:
    return page.entries[0] if page.entries else None


def _one_uid(uid: str) -> str:
    """The UID as a filter, in which several would be a list and none at all would be any."""
    return uid if _UID.fullmatch(uid) else "-"


def _key(after: str | None) -> int | None:
    """The key in a token. Nobody is to make one by hand: it is not said what it means."""
    if after is None:
        return None
    if not (after.isascii() and after.isdecimal() and len(after) < 19):
        raise UsageError(f"{after[:40]!r} is not what a page ends with")
    return int(after)
