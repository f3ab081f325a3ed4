"""A study, a series and an instance as lists show them. Times are microseconds since 1970, UTC; text is "" if it is absent."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final, Self

from tomowire.server.files import ObjectName
from tomowire.wire.value import value


@value()
class StudyEntry:
    """A study, and of its patient what tells patients apart."""

    study_instance_uid: str
    study_date: str
    study_time: str
    accession_number: str
    study_id: str
    study_description: str
    referring_physician_name: str
    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    modalities: tuple[str, ...]
    series: int
    instances: int
    data_set_bytes: int
    received_at: int
    """When the last of its instances came."""

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Self:
        """From the columns `STUDY_COLUMNS`, the modalities with backslashes between them, and the totals."""
        *attributes, modalities, series, instances, size, received_at = row
        named = tuple(filter(None, sorted(modalities.split("\\"))))
        return cls(*(*attributes, named, series, instances, size, received_at))


@value()
class SeriesEntry:
    """A series."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    series_number: int | None
    series_description: str
    series_date: str
    series_time: str
    body_part_examined: str
    laterality: str
    protocol_name: str
    station_name: str
    manufacturer: str
    instances: int
    data_set_bytes: int
    received_at: int
    """When the last of its instances came."""

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Self:
        """From the columns `SERIES_COLUMNS`, and the totals."""
        *attributes, _series, instances, size, received_at = row
        return cls(*(*attributes, instances, size, received_at))


@value()
class InstanceEntry:
    """An instance, and its file."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: int | None
    number_of_frames: int | None
    rows: int | None
    columns: int | None
    header_size: int
    """Bytes of the file before the data set."""

    data_set_bytes: int
    checksum: bytes
    """Of the data set as received."""

    received_at: int
    received_from: str
    """The AE title of the sender."""

    generation: int

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Self:
        """From the columns `INSTANCE_COLUMNS`."""
        return cls(*row)

    @property
    def path(self) -> str:
        """Where the file lies in the data directory. Raises `InvalidUid` if no file can have such a name."""
        name = ObjectName(self.study_instance_uid, self.series_instance_uid, self.sop_instance_uid, self.generation)
        return name.path


def _names(entry: type[Any], *, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    return tuple(declared.name for declared in fields(entry) if declared.name not in without)


_TOTALS: Final = ("modalities", "series", "instances", "data_set_bytes", "received_at")
STUDY_COLUMNS: Final = _names(StudyEntry, without=_TOTALS)
SERIES_COLUMNS: Final = _names(SeriesEntry, without=_TOTALS)
INSTANCE_COLUMNS: Final = tuple("data_set_size" if name == "data_set_bytes" else name for name in _names(InstanceEntry))
