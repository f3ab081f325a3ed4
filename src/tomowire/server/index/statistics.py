"""What the archive holds, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.server.index.reader import Counts
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.server.index.reader import Dialect, IndexReader


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


def statistics(_dialect: Dialect, reader: IndexReader) -> ArchiveStatistics:
    """Walks over an index of the instances."""
    from tomowire.server.index.reader import Statement

    by_modality = Statement(
        "SELECT modality, count(DISTINCT series_key), count(*), CAST(sum(data_set_size) AS bigint)"
        " FROM series JOIN instances USING (series_key) GROUP BY modality ORDER BY modality",
        {},
    )
    above = Statement("SELECT (SELECT count(*) FROM patients), (SELECT count(*) FROM studies)", {})
    modalities = tuple(ModalityStatistics(*row) for row in reader.rows(by_modality))
    ((patients, studies),) = reader.rows(above)
    counts = Counts(
        patients, studies, sum(each.series for each in modalities), sum(each.instances for each in modalities)
    )
    return ArchiveStatistics(counts, sum(each.data_set_bytes for each in modalities), modalities)
