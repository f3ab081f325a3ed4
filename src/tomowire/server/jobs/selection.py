"""The objects that a job is about, written down when the job is made: what comes to a study later is not part of it.

A thousand at a time, so that it takes the same memory for a hundred objects and for a million, and nobody who stores has to wait
for long. This module imports SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from tomowire.server.index.schema import instances, patients, series, studies
from tomowire.services.models import Level
from tomowire.wire.value import value

if TYPE_CHECKING:
    from sqlalchemy import Connection

PAGE: Final = 1000
_LOOKED_UP_AT_ONCE: Final = 500


@value()
class SelectedObject:
    """One object that is to be sent."""

    uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    size: int


_OBJECT: Final = (
    instances.c.sop_instance_uid,
    instances.c.sop_class_uid,
    instances.c.transfer_syntax_uid,
    instances.c.data_set_size,
    instances.c.instance_key,
)


def missing(connection: Connection, level: Level, uids: Sequence[str]) -> list[str]:
    """Those of `uids` that the archive does not have."""
    column = _COLUMNS[level]
    found: set[str] = set()
    for some in _some(uids):
        found.update(connection.execute(select(column).where(column.in_(some))).scalars())
    return [uid for uid in uids if uid not in found]


def series_keys(connection: Connection, level: Level, uids: Sequence[str]) -> list[int]:
    """The series below patients, studies or series, in the order in which they came."""
    source = series.join(studies).join(patients) if level is Level.PATIENT else series.join(studies)
    keys: set[int] = set()
    for some in _some(uids):
        query = select(series.c.series_key).select_from(source).where(_COLUMNS[level].in_(some))
        keys.update(connection.execute(query).scalars())
    return sorted(keys)


def of_series(connection: Connection, series_key: int, after: int) -> tuple[list[SelectedObject], int]:
    """The next objects of a series after the key `after`, and the key of the last of them."""
    query = select(*_OBJECT).where(instances.c.series_key == series_key, instances.c.instance_key > after)
    rows = connection.execute(query.order_by(instances.c.instance_key).limit(PAGE)).all()
    return [_selected(row) for row in rows], rows[-1].instance_key if rows else after


def of_uids(connection: Connection, uids: Sequence[str]) -> list[SelectedObject]:
    """The objects with these UIDs, in that order, as far as they are there."""
    rows = connection.execute(select(*_OBJECT).where(instances.c.sop_instance_uid.in_(uids)))
    found = {row.sop_instance_uid: _selected(row) for row in rows}
    return [found[uid] for uid in uids if uid in found]


def _some(uids: Sequence[str]) -> Iterator[Sequence[str]]:
    """`uids`, as many at a time as are looked up at once."""
    return (uids[start : start + _LOOKED_UP_AT_ONCE] for start in range(0, len(uids), _LOOKED_UP_AT_ONCE))


def _selected(row: Any) -> SelectedObject:
    return SelectedObject(row.sop_instance_uid, row.sop_class_uid, row.transfer_syntax_uid, row.data_set_size)


_COLUMNS: Final = {
    Level.PATIENT: patients.c.patient_id,
    Level.STUDY: studies.c.study_instance_uid,
    Level.SERIES: series.c.series_instance_uid,
    Level.IMAGE: instances.c.sop_instance_uid,
}
