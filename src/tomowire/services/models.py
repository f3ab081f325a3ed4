"""The information models of Query/Retrieve (PS3.4 C.3, C.6): their SOP classes and their levels."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, StrEnum
from typing import Any, Final

from tomowire.errors import UsageError
from tomowire.protocol.negotiation import ProposedContext
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

_FIND, _MOVE, _GET = 1, 2, 3


class Level(StrEnum):
    """A query/retrieve level; the text is what stands in (0008,0052) (PS3.4 C.6.1.1.1, C.6.2.1.1)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    @property
    def unique_key(self) -> str:
        """The keyword of the attribute that identifies an entity of this level (PS3.4 C.2.2.1.1)."""
        return _UNIQUE_KEYS[self]


_UNIQUE_KEYS: Final = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}


class Model(Enum):
    """An information model; the value is the UID that those of its SOP classes begin with (PS3.4 C.6.1.3, C.6.2.3)."""

    PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1"
    STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2"
    PATIENT_STUDY_ONLY = "1.2.840.10008.5.1.4.1.2.3"
    """Retired by the standard; some peers still have it."""

    @property
    def find(self) -> str:
        """The SOP class UID of C-FIND in this model."""
        return f"{self.value}.{_FIND}"

    @property
    def move(self) -> str:
        """The SOP class UID of C-MOVE in this model."""
        return f"{self.value}.{_MOVE}"

    @property
    def get(self) -> str:
        """The SOP class UID of C-GET in this model."""
        return f"{self.value}.{_GET}"

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels of this model from the top down."""
        return _LEVELS[self]

    def __str__(self) -> str:
        return _NAMES[self]


_LEVELS: Final = {
    Model.PATIENT_ROOT: (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE),
    Model.STUDY_ROOT: (Level.STUDY, Level.SERIES, Level.IMAGE),
    Model.PATIENT_STUDY_ONLY: (Level.PATIENT, Level.STUDY),
}
_NAMES: Final = {
    Model.PATIENT_ROOT: "Patient Root",
    Model.STUDY_ROOT: "Study Root",
    Model.PATIENT_STUDY_ONLY: "Patient/Study Only",
}
_MODELS: Final = {uid: model for model in Model for uid in (model.find, model.move, model.get)}


def model_of(sop_class_uid: str) -> Model | None:
    """The model that a SOP class of C-FIND, C-MOVE or C-GET belongs to; None for any other SOP class."""
    return _MODELS.get(sop_class_uid)


def checked_models(models: Any) -> tuple[Model, ...]:
    """The `models` that a service is to serve. Raises `UsageError` for what are none: a UID would serve nothing."""
    given = tuple(models) if isinstance(models, Iterable) else None
    if given is None or not all(isinstance(each, Model) for each in given):
        raise UsageError(f"models is a list of Model, such as [Model.STUDY_ROOT], and not {models!r}")
    return given


def querying(model: Model = Model.STUDY_ROOT) -> ProposedContext:
    """The presentation context to propose for C-FIND. One for both transfer syntaxes: any will do for an identifier."""
    return ProposedContext(model.find, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN))
