"""What the archive holds, in numbers.

They are counted when they are asked for: a row of totals would be one that all who store wait for. That takes a walk over an index
of the instances, in its order, so that there is one row for each series before anything is joined: a tenth of a second for a
million of them, half of what the join of all of them took. Who looks at them all the time makes it work a twentieth of the time.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from tomowire.server.index.reader import Counts
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.server.index.reader import IndexReader
    from tomowire.server.index.readers import IndexReaders

_QUICK: Final = 0.2
"""Seconds. What took no longer is counted anew each time."""

_SHARE: Final = 20
"""What took longer is of use for so many times as long."""


@value()
class ModalityStatistics:
    """What there is of one modality, "" for objects that name none."""

    modality: str
    series: int
    instances: int
    data_set_bytes: int


@value()
class ArchiveStatistics:
    """Counts at each level, and bytes; the modalities in the order of their names."""

    counts: Counts
    data_set_bytes: int
    modalities: tuple[ModalityStatistics, ...]


class CountedStatistics:
    """The statistics of one index, for all who ask for them: they are counted by one at a time, and the others wait for that."""

    def __init__(self) -> None:
        self._counting = asyncio.Lock()
        self._last: ArchiveStatistics | None = None
        self._good_until = 0.0

    async def of(self, index: IndexReaders) -> ArchiveStatistics:
        """Raises `IndexUnavailable`."""
        async with self._counting:
            if self._last is None or time.monotonic() > self._good_until:
                begun = time.monotonic()
                self._last = await index.ask(count)
                took = time.monotonic() - begun
                self._good_until = time.monotonic() + took * _SHARE if took > _QUICK else 0.0
            return self._last


_counted: WeakKeyDictionary[IndexReaders, CountedStatistics] = WeakKeyDictionary()


async def statistics(index: IndexReaders) -> ArchiveStatistics:
    """What an index holds. Raises `IndexUnavailable`."""
    return await _counted.setdefault(index, CountedStatistics()).of(index)


def count(reader: IndexReader) -> ArchiveStatistics:
    """Walks over an index of the instances."""
    from tomowire.server.index.reader import Statement

    by_modality = Statement(
        "SELECT modality, count(*), CAST(sum(number) AS bigint), CAST(sum(size) AS bigint)"
        " FROM (SELECT series_key, count(*) AS number, sum(data_set_size) AS size FROM instances GROUP BY series_key)"
        " AS of_series JOIN series USING (series_key) GROUP BY modality ORDER BY modality",
        {},
    )
    above = Statement("SELECT (SELECT count(*) FROM patients), (SELECT count(*) FROM studies)", {})
    modalities = tuple(ModalityStatistics(*row) for row in reader.rows(by_modality))
    ((patients, studies),) = reader.rows(above)
    counts = Counts(
        patients, studies, sum(each.series for each in modalities), sum(each.instances for each in modalities)
    )
    size = sum(each.data_set_bytes for each in modalities)
    return ArchiveStatistics(counts, size, modalities)
