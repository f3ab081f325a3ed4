"""Queries over a few data sets in memory (PS3.4 C.2.2.2): what an `Archive` for tests answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tomowire.services.models import Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydicom import DataElement, Dataset

_RANGES: Final = frozenset({"DA", "TM", "DT"})
_NOT_MATCHED: Final = frozenset(
    {"QueryRetrieveLevel", "SpecificCharacterSet", "RetrieveAETitle", "TimezoneOffsetFromUTC"}
)
_COUNTS: Final = (
    ("NumberOfPatientRelatedStudies", "StudyInstanceUID"),
    ("NumberOfPatientRelatedSeries", "SeriesInstanceUID"),
    ("NumberOfPatientRelatedInstances", "SOPInstanceUID"),
    ("NumberOfStudyRelatedSeries", "SeriesInstanceUID"),
    ("NumberOfStudyRelatedInstances", "SOPInstanceUID"),
    ("NumberOfSeriesRelatedInstances", "SOPInstanceUID"),
)
_GATHERED: Final = (("ModalitiesInStudy", "Modality"), ("SOPClassesInStudy", "SOPClassUID"))
_UNIQUE_KEYS: Final = tuple(level.unique_key for level in Level)


def answers_to(asked: Dataset, level: Level, objects: Iterable[Dataset]) -> Iterator[Dataset]:
    """An identifier for each patient, study, series or image that matches, with the attributes that were asked for."""
    entities: dict[str, list[Dataset]] = {}
    for each in objects:
        entities.setdefault(str(each.get(level.unique_key, "")), []).append(each)
    for members in entities.values():
        entity = _entity(members)
        if all(_matches(key, entity) for key in asked):
            yield _answer(asked, entity)


def selected_by(asked: Dataset, stored: Dataset) -> bool:
    """Whether an object is among those that the unique keys of a retrieval name."""
    return all(_matches(asked[keyword], stored) for keyword in _UNIQUE_KEYS if keyword in asked)


def _entity(members: Sequence[Dataset]) -> Dataset:
    """What is known of a patient, study, series or image: the first object's attributes, and what is counted over all."""
    from pydicom import Dataset as NewDataset

    entity = NewDataset()
    entity.update(members[0])
    for keyword, counted in _COUNTS:
        setattr(entity, keyword, str(len({each.get(counted) for each in members})))
    for keyword, gathered in _GATHERED:
        setattr(entity, keyword, sorted({str(each.get(gathered)) for each in members if gathered in each}))
    return entity


def _answer(asked: Dataset, entity: Dataset) -> Dataset:
    from pydicom import Dataset as NewDataset

    answer = NewDataset()
    for key in asked:
        if key.keyword in _NOT_MATCHED:
            continue
        found: DataElement | None = entity.get(key.tag)
        if found is not None:
            answer.add(found)
        else:
            answer.add_new(key.tag, key.VR, [] if key.VR == "SQ" else None)
    answer.QueryRetrieveLevel = asked.QueryRetrieveLevel
    if "SpecificCharacterSet" in entity:
        answer.SpecificCharacterSet = entity.SpecificCharacterSet
    return answer


def _matches(key: DataElement, entity: Dataset) -> bool:
    if key.keyword in _NOT_MATCHED or key.is_empty:
        return True
    stored: DataElement | None = entity.get(key.tag)
    if key.VR == "SQ":
        items = stored.value if stored is not None else []
        return all(any(all(_matches(each, item) for each in wanted) for item in items) for wanted in key.value)
    values = _values(stored)
    return any(_value_matches(wanted, each, key.VR) for wanted in _values(key) for each in values)


def _values(element: DataElement | None) -> list[str]:
    if element is None or element.is_empty:
        return [""]
    value: Any = element.value
    return [str(each) for each in (value if element.VM > 1 else [value])]


def _value_matches(wanted: str, stored: str, vr: str) -> bool:
    if vr in _RANGES and "-" in wanted:
        first, _, last = wanted.partition("-")
        return stored != "" and (not first or stored >= first) and (not last or stored[: len(last)] <= last)
    if vr == "PN":
        wanted, stored = wanted.rstrip("^=").casefold(), stored.rstrip("^=").casefold()
    if vr == "UI" or not re.search(r"[*?]", wanted):
        return wanted == stored
    pattern = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in wanted)
    return re.fullmatch(pattern, stored, re.DOTALL) is not None
