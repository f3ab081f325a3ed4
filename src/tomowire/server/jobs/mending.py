"""What the index says of objects, compared with what their files say, and put right in place.

An instance has what its own file says. A series, a study and a patient have what the object says that came first, as when objects
are stored. This module imports SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, select, update

from tomowire.server.index.schema import instances, patients, series, studies
from tomowire.server.index.statements import (
    items_as_json,
    normalized,
    normalized_names,
    patient_identity,
    person_names,
    plain_names,
    sequence_names,
)
from tomowire.wire.value import value

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Table

    from tomowire.server.index.attributes import InstanceRecord


@value()
class Mended:
    """How many rows were put right; `is_of_another_patient`: what the index has no row for, and that is left as it is."""

    rows: int
    is_of_another_patient: bool = False


def mend(connection: Connection, instance_key: int, checksum: bytes, record: InstanceRecord) -> Mended | None:
    """Put right what the index says of an object, with the content of this checksum, and of what is above it as far as that is this
    object's to say. None if the index does not have that object any more."""
    same = and_(instances.c.instance_key == instance_key, instances.c.checksum == checksum)
    source = instances.join(series).join(studies).join(patients)
    keys = select(instances.c.series_key, studies.c.study_key, patients.c.patient_key, patients.c.identity)
    # Whoever deletes goes from the study down: the study first here too, or both wait for each other.
    locked = keys.select_from(source).where(same).with_for_update(of=studies, key_share=True)
    row = connection.execute(locked).one_or_none()
    if row is None:
        return None
    count = _put_right(connection, instances, same, record.instance)
    if not _came_first(connection, instance_key, instances.c.series_key == row.series_key):
        return Mended(count)
    count += _put_right(connection, series, series.c.series_key == row.series_key, record.series)
    if not _came_first(connection, instance_key, series.c.study_key == row.study_key):
        return Mended(count)
    count += _put_right(connection, studies, studies.c.study_key == row.study_key, record.study)
    if patient_identity(record.patient) != row.identity:
        return Mended(count, is_of_another_patient=True)
    if _came_first(connection, instance_key, studies.c.patient_key == row.patient_key):
        count += _put_right(connection, patients, patients.c.patient_key == row.patient_key, record.patient)
    return Mended(count)


def _came_first(connection: Connection, instance_key: int, below: ColumnElement[bool]) -> bool:
    """Whether no object there came before this. Only the keys of objects tell: rows above them are made in the order of their UIDs
    when they are made together."""
    there = instances.join(series).join(studies)
    earlier = select(instances.c.instance_key).select_from(there).where(below, instances.c.instance_key < instance_key)
    return not connection.execute(select(earlier.exists())).scalar_one()


def _put_right(connection: Connection, table: Table, which: ColumnElement[bool], attributes: Any) -> int:
    wanted = _columns_of(attributes)
    row = connection.execute(select(*(table.c[name] for name in wanted)).where(which)).mappings().one()
    wrong = {name: right for name, right in wanted.items() if row[name] != right}
    if wrong:
        connection.execute(update(table).where(which).values(wrong))
    return bool(wrong)


def _columns_of(attributes: Any) -> dict[str, Any]:
    level = type(attributes)
    found = {name: getattr(attributes, name) for name in plain_names(level)}
    found |= {name: items_as_json(getattr(attributes, name)) for name in sequence_names(level)}
    found |= {normalized(name): normalized_names(getattr(attributes, name)) for name in person_names(level)}
    return {name: value for name, value in found.items() if name not in _UNIQUE}


_UNIQUE: Final = frozenset({"study_instance_uid", "series_instance_uid", "sop_instance_uid"})
"""They name the file, and the rows by which it was found."""
