"""The tables of the index: patients, studies, series, instances (PS3.4 C.6), and one row about the archive itself.

The columns for attributes are those that `attributes` declares: text is "" if absent, numbers are NULL, a sequence is a JSON list
of its items. To these come the keys, and for instances what the archive needs to find and to verify the file.

Keys are integers. Of the UIDs only those that name a row are indexed: at ten million instances each index on a UID is most of a
gigabyte. What a study or a series counts or spans is worked out when it is asked for: rows that every new instance rewrote would
be what all writers wait for.

This module needs SQLAlchemy, whose import takes as long as storing a thousand objects; storing does without: see `statements`.
So does the first start, which makes its tables from `schema.sql`: see `ddl`.
"""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

from tomowire.server.index.attributes import (
    InstanceAttributes,
    PatientAttributes,
    SeriesAttributes,
    StudyAttributes,
    attribute_of,
)
from tomowire.server.index.metadata import KEY, TEXT, metadata
from tomowire.server.index.statements import normalized, person_names


def _attribute_column(declared: Field[Any]) -> Column[Any]:
    attribute = attribute_of(declared)
    kinds: dict[str, TypeEngine[Any]] = {"IS": BigInteger(), "US": Integer(), "DS": Float()}
    if attribute is not None and attribute.vr in kinds:
        return Column(declared.name, kinds[attribute.vr])
    return Column(declared.name, TEXT, nullable=False)


def _attribute_columns(level: type[Any]) -> list[Column[Any]]:
    names = (Column(normalized(name), TEXT, nullable=False, server_default="") for name in person_names(level))
    return [*map(_attribute_column, fields(level)), *names]


archive: Final = Table(
    "archive",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("archive_id", TEXT, nullable=False),
    Column("last_batch", BigInteger, nullable=False),
)

patients: Final = Table(
    "patients",
    metadata,
    Column("patient_key", KEY, primary_key=True),
    Column("identity", TEXT, nullable=False),  # see `statements.patient_identity`
    *_attribute_columns(PatientAttributes),
    UniqueConstraint("identity"),
    Index(None, "patient_id"),
    Index(None, "patient_name_normalized"),
    Index(None, "patient_birth_date"),
)

studies: Final = Table(
    "studies",
    metadata,
    Column("study_key", KEY, primary_key=True),
    Column("patient_key", KEY, ForeignKey("patients.patient_key"), nullable=False),
    *_attribute_columns(StudyAttributes),
    UniqueConstraint("study_instance_uid"),
    Index(None, "patient_key"),
    Index(None, "study_date", "study_time"),
    Index(None, "accession_number"),
    Index(None, "study_id"),
)

series: Final = Table(
    "series",
    metadata,
    Column("series_key", KEY, primary_key=True),
    Column("study_key", KEY, ForeignKey("studies.study_key"), nullable=False),
    *_attribute_columns(SeriesAttributes),
    # A Series Instance UID ought to be unique by itself; senders that use one in two studies exist.
    UniqueConstraint("series_instance_uid", "study_key"),
    Index(None, "study_key", "modality"),
    Index(None, "modality"),
    Index(None, "performed_procedure_step_start_date"),
)

instances: Final = Table(
    "instances",
    metadata,
    Column("instance_key", KEY, primary_key=True),
    Column("series_key", KEY, ForeignKey("series.series_key"), nullable=False),
    *_attribute_columns(InstanceAttributes),
    Column("transfer_syntax_uid", TEXT, nullable=False),
    Column("generation", Integer, nullable=False),  # with the UIDs, the file's name: see `server.files`
    Column("header_size", Integer, nullable=False),
    Column("data_set_size", BigInteger, nullable=False),
    Column("checksum", LargeBinary, nullable=False),
    Column("received_at", BigInteger, nullable=False),  # microseconds since 1970, UTC
    Column("received_from", TEXT, nullable=False),
    UniqueConstraint("sop_instance_uid"),
    # With what lists of studies and series say of their instances, so that they need not look at each of them.
    Index(None, "series_key", "received_at", "data_set_size"),
)
