"""A query, built step by step: `Query.studies().patient_name("Smith*").study_date("20260101", None).modality("CT")`."""

from __future__ import annotations

from types import EllipsisType
from typing import TYPE_CHECKING, Any, Final, Self

from tomowire.errors import UsageError
from tomowire.services.models import Level, Model
from tomowire.services.query_values import date_range, element_of, keyword_of, time_range, uids

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping

    from pydicom import Dataset

# PS3.4 C.6.1.1 and C.6.2.1: the required keys of each level, and the optional ones that people look at.
_PATIENT: Final = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_STUDY: Final = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ModalitiesInStudy",
    "ReferringPhysicianName",
    "StudyDescription",
    "StudyInstanceUID",
    "StudyID",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)
_RETURNED: Final = {
    Level.PATIENT: (*_PATIENT, "NumberOfPatientRelatedStudies"),
    Level.STUDY: _STUDY,
    Level.SERIES: (
        "Modality",
        "SeriesNumber",
        "SeriesInstanceUID",
        "SeriesDescription",
        "SeriesDate",
        "SeriesTime",
        "BodyPartExamined",
        "NumberOfSeriesRelatedInstances",
    ),
    Level.IMAGE: ("SOPClassUID", "SOPInstanceUID", "InstanceNumber"),
}


class Query:
    """What is asked for: a level, the keys to match, and the attributes to be returned. Immutable: each method gives a new one.

    A key matches as PS3.4 C.2.2.2 says: `*` and `?` are wildcards in text, `A-B` is a range of dates or times, several UIDs are a
    list of which any matches, an empty value matches everything. Attributes of the level come back without being asked for.

    Methods raise `UsageError` for what cannot be a value of the attribute. pydicom is imported when it is first needed: by `where`,
    `returning` and `dataset`.
    """

    __slots__ = ("_keys", "level")

    def __init__(self, level: Level, keys: Mapping[str | int, Any] | None = None) -> None:
        self.level: Final = Level(level)
        self._keys: Final[Mapping[str | int, Any]] = dict(keys or {})

    @classmethod
    def patients(cls) -> Self:
        """Patients. Only the Patient Root model has them."""
        return cls(Level.PATIENT)

    @classmethod
    def studies(cls) -> Self:
        """Studies, with the attributes of their patients."""
        return cls(Level.STUDY)

    @classmethod
    def study(cls, study_uid: str) -> Self:
        """One study."""
        return cls.studies().study_uid(study_uid)

    @classmethod
    def series(cls, study_uid: str | None = None) -> Self:
        """The series of a study. Without the study most peers refuse (PS3.4 C.4.1.2.1: each unique key above has one value)."""
        query = cls(Level.SERIES)
        return query if study_uid is None else query.study_uid(study_uid)

    @classmethod
    def images(cls, study_uid: str | None = None, series_uid: str | None = None) -> Self:
        """The instances of a series, images or not. Without study and series most peers refuse, as with `series`."""
        query = cls(Level.IMAGE)
        if study_uid is not None:
            query = query.study_uid(study_uid)
        return query if series_uid is None else query.series_uid(series_uid)

    def patient_name(self, name: object) -> Self:
        """`Smith^John`, or with wildcards: `Smith*`. Whether case matters is the peer's affair (PS3.4 C.2.2.2.1)."""
        return self._with("PatientName", str(name))

    def patient_id(self, patient_id: str) -> Self:
        return self._with("PatientID", patient_id)

    def accession_number(self, number: str) -> Self:
        return self._with("AccessionNumber", number)

    def study_uid(self, *study_uids: str) -> Self:
        """One or more Study Instance UIDs, of which any may match."""
        return self._with("StudyInstanceUID", uids(study_uids))

    def series_uid(self, *series_uids: str) -> Self:
        """One or more Series Instance UIDs, of which any may match."""
        return self._with("SeriesInstanceUID", uids(series_uids))

    def sop_instance_uid(self, *sop_instance_uids: str) -> Self:
        """One or more SOP Instance UIDs, of which any may match."""
        return self._with("SOPInstanceUID", uids(sop_instance_uids))

    def modality(self, *names: str) -> Self:
        """`CT`, `MR`, ...: of a study those in it. What more than one means is the peer's affair: mostly any of them."""
        if not names:
            raise UsageError("which modality?")
        key = "ModalitiesInStudy" if self.level in (Level.PATIENT, Level.STUDY) else "Modality"
        return self._with(key, names[0] if len(names) == 1 else list(names))

    def study_date(
        self, start: datetime.date | str | None, end: datetime.date | str | EllipsisType | None = ...
    ) -> Self:
        """The day `start`, or the days from `start` to `end`, both included; None is an open end.

        A date, `20260131` or `2026-01-31`; alone also a range as in PS3.4 C.2.2.2.5: `20260101-20260131`.
        """
        return self._with("StudyDate", date_range(start, end))

    def study_time(
        self, start: datetime.time | str | None, end: datetime.time | str | EllipsisType | None = ...
    ) -> Self:
        """The time `start`, or those from `start` to `end`, both included; None is an open end.

        A time, `1230` or `12:30`; `12` is the whole hour. Independent of the date: see PS3.4 C.2.2.2.5.
        """
        return self._with("StudyTime", time_range(start, end))

    def where(self, key: str | int, value: Any) -> Self:
        """Any other key: a keyword, or a tag as `"0010,0020"` or `0x00100020`.

        `value` is text, a number, a date or a time, a list of several, or for a sequence a mapping from keys to values: those that
        one item must have together. Private attributes are sent as text (LO), so name their creator too.
        """
        name = keyword_of(key)
        element_of(name, value)
        return self._with(name, value)

    def returning(self, *keys: str | int) -> Self:
        """Attributes to be returned, besides those of the level that are returned anyway."""
        query = self
        for name in map(keyword_of, keys):
            if name not in query._keys:
                query = query._with(name, None)
        return query

    @property
    def model(self) -> Model:
        """The model in which this is asked unless another is named: Study Root, and Patient Root for patients."""
        return default_model(self.level)

    def dataset(self, model: Model | None = None) -> Dataset:
        """The identifier, as a data set of one's own.

        Raises `UsageError` for a model that does not have the level, and for a unique key of a level below, by which no peer has to
        match (PS3.4 C.4.1.2.1).
        """
        from pydicom import Dataset

        model = model or self.model
        if self.level not in model.levels:
            raise UsageError(f"the {model} model has no {self.level} level")
        for below in model.levels[model.levels.index(self.level) + 1 :]:
            if self._keys.get(below.unique_key):
                raise UsageError(f"{below.unique_key} is no key of the {self.level} level: ask at {below} level")
        made = Dataset()
        made.QueryRetrieveLevel = self.level.value
        keys: dict[str | int, Any] = dict.fromkeys(_returned(self.level, model))
        for key, value in (keys | dict(self._keys)).items():
            made.add(element_of(key, value))
        return made

    def _with(self, key: str | int, value: Any) -> Self:
        return type(self)(self.level, {**self._keys, key: value})

    def __eq__(self, other: object) -> bool:
        return (self.level, self._keys) == (other.level, other._keys) if isinstance(other, Query) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Query {self.level} {dict(self._keys)!r}>"


def default_model(level: Level) -> Model:
    """The model for a query of `level` when none is named."""
    return Model.PATIENT_ROOT if level is Level.PATIENT else Model.STUDY_ROOT


def _returned(level: Level, model: Model) -> tuple[str, ...]:
    """The keys that are sent empty. In Study Root the patient's attributes are those of the study (PS3.4 C.6.2.1.2).

    The unique keys above the level are among them: whoever answers without their having a value says what they are.
    """
    if level is Level.STUDY and model is Model.STUDY_ROOT:
        return (*_STUDY, *_PATIENT)
    above = model.levels[: model.levels.index(level)]
    return (*(each.unique_key for each in above), *_RETURNED[level])
