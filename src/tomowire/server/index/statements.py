"""The SQL that storing an object takes, written out once when the module is imported, and the rows that go with it.

SQLAlchemy is not asked: its import costs 150 to 250 ms and each statement some 20 µs more, and these few never change. The names
come from `attributes`, as those of `schema` do; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from operator import attrgetter
from typing import Any, Final

from tomowire.server.index.attributes import (
    InstanceAttributes,
    PatientAttributes,
    SeriesAttributes,
    StudyAttributes,
    attribute_of,
)
from tomowire.server.index.rows import NewRow
from tomowire.server.index.text import normalize_person_name

Row = tuple[Any, ...]

OBJECT_TABLES: Final = ("patients", "studies", "series", "instances")
"""The tables that the files of objects fill, from the top down."""

OF_ITS_TIME: Final = ("job_items", "jobs", "tokens", "users", "removals")
"""The tables of who may do what, and of what is to be done, in the order in which they can be emptied. Of an index that another one
has come after they are out of date: who was locked out would be let in, and what was stored again would be deleted."""

OF_ITS_TIME_SINCE: Final = "0002"
"""The first schema that has these tables."""

_EMPTY_SEQUENCE: Final = "[]"

BETWEEN_NAMES: Final = "^"
"""Stands between names that are normalized, and in none of them."""

FILE_COLUMNS: Final = (
    "transfer_syntax_uid",
    "generation",
    "header_size",
    "data_set_size",
    "checksum",
    "received_at",
    "received_from",
)


def sequence_names(level: type[Any]) -> tuple[str, ...]:
    """The fields of `level` that hold items."""
    return tuple(
        f.name for f in fields(level) if (declared := attribute_of(f)) is not None and declared.item is not None
    )


def plain_names(level: type[Any]) -> tuple[str, ...]:
    """The fields of `level` that hold text or a number."""
    sequences = sequence_names(level)
    return tuple(f.name for f in fields(level) if f.name not in sequences)


def person_names(level: type[Any]) -> tuple[str, ...]:
    """The fields of `level` that hold person names, which are matched by another column each: see `normalized`."""
    named = {f.name for f in fields(level)}
    declared = ((f.name, attribute_of(f)) for f in fields(level))
    return tuple(name for name, each in declared if each and each.vr == "PN" and normalized(name) not in named)


def normalized(name: str) -> str:
    """The column with the names of a column, as they are matched."""
    return f"{name}_normalized"


def normalized_names(names: str) -> str:
    """The person names of an attribute with several values, as they are matched."""
    return BETWEEN_NAMES.join(map(normalize_person_name, names.split("\\"))) if names else ""


def _columns(level: type[Any]) -> tuple[str, ...]:
    return (*plain_names(level), *sequence_names(level), *map(normalized, person_names(level)))


def _values(level: type[Any]) -> Callable[[Any], Row]:
    """A function that gives the values for `_columns(level)`."""
    attributes, names = _attribute_values(level), person_names(level)
    if not names:
        return attributes
    return lambda value: (*attributes(value), *(normalized_names(getattr(value, name)) for name in names))


def _attribute_values(level: type[Any]) -> Callable[[Any], Row]:
    plain: Callable[[Any], Row] = attrgetter(*plain_names(level))
    names = sequence_names(level)
    sequences: Callable[[Any], Any] = attrgetter(*names)
    if len(names) == 1:
        return lambda attributes: (*plain(attributes), items_as_json(sequences(attributes)))
    empty = ((),) * len(names)
    nothing = (_EMPTY_SEQUENCE,) * len(names)

    def values(attributes: Any) -> Row:
        items = sequences(attributes)
        return plain(attributes) + (nothing if items == empty else tuple(map(items_as_json, items)))

    return values


def items_as_json(items: tuple[Any, ...]) -> str:
    """The items of a sequence as a JSON list of objects, without what is absent."""
    if not items:
        return _EMPTY_SEQUENCE
    present = [{name: value for name, value in asdict(item).items() if value not in ("", None, ())} for item in items]
    return json.dumps(present, ensure_ascii=False, separators=(",", ":"))


def _insert(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def _delete_childless(table: str, key: str, *, child: str, parent: str) -> str:
    no_child = f"NOT EXISTS (SELECT 1 FROM {child} WHERE {key} = :key)"
    return f"DELETE FROM {table} WHERE {key} = :key AND {no_child} RETURNING {parent}"


INSERT_PATIENT: Final = _insert("patients", ("identity", *_columns(PatientAttributes)))
INSERT_STUDY: Final = _insert("studies", ("patient_key", *_columns(StudyAttributes)))
INSERT_SERIES: Final = _insert("series", ("study_key", *_columns(SeriesAttributes)))
INSERT_INSTANCE: Final = _insert("instances", ("series_key", *_columns(InstanceAttributes), *FILE_COLUMNS))

FIND_PATIENT: Final = "SELECT patient_key FROM patients WHERE identity = ?"
FIND_STUDY: Final = (
    "SELECT study_key, identity FROM studies JOIN patients USING (patient_key) WHERE study_instance_uid = ?"
)
FIND_SERIES: Final = "SELECT series_key FROM series WHERE series_instance_uid = ? AND study_key = ?"
FIND_OBJECT: Final = (
    "SELECT instance_key, study_instance_uid, series_instance_uid, sop_instance_uid, generation,"
    " sop_class_uid, transfer_syntax_uid, header_size, data_set_size, checksum, received_at"
    " FROM instances JOIN series USING (series_key) JOIN studies USING (study_key)"
)
"""The columns of an `IndexedObject`; with a WHERE to be added."""

DELETE_UPWARDS: Final = (
    "DELETE FROM instances WHERE instance_key = :key RETURNING series_key",
    _delete_childless("series", "series_key", child="instances", parent="study_key"),
    _delete_childless("studies", "study_key", child="series", parent="patient_key"),
    _delete_childless("patients", "patient_key", child="studies", parent="patient_key"),
)
"""Each takes the key that the one before returned: an instance, and what it leaves empty above it."""

patient_values: Final = _values(PatientAttributes)
study_values: Final = _values(StudyAttributes)
series_values: Final = _values(SeriesAttributes)
_instance_values: Final = _values(InstanceAttributes)


def instance_row(series_key: int, row: NewRow) -> Row:
    """The values for `INSERT_INSTANCE`."""
    return (
        series_key,
        *_instance_values(row.record.instance),
        row.record.transfer_syntax_uid,
        row.generation,
        row.header_size,
        row.data_set_size,
        row.checksum,
        row.received_at,
        row.received_from,
    )


def patient_identity(patient: PatientAttributes) -> str:
    """What tells patients apart: Patient ID within its issuer (PS3.3 C.2.2).

    Objects without a Patient ID are not all of one patient: then it is the name and the birth date. Line feeds separate the
    parts: no value of these attributes may hold one (PS3.5 6.2).
    """
    if patient.patient_id:
        return f"{patient.patient_id}\n{patient.issuer_of_patient_id}"
    return f"\n{patient.patient_name_normalized}\n{patient.patient_birth_date}"
