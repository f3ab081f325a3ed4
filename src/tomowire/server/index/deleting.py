"""Taking objects out of the index: the statements, the same for every backend, and what they are about.

The names of the files go into the table `removals` in the transaction that deletes the rows: so they are known, and a killed
process forgets none of them, until they are gone from the disk. See `server.removal`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tomowire.errors import StudyProtected
from tomowire.server.files import ObjectName
from tomowire.services.models import Level
from tomowire.wire.value import value

Execute = Callable[[str, Mapping[str, Any]], Sequence[Sequence[Any]]]
"""Does one statement, whose parameters are written `:name`, and gives its rows (none for one that changes something)."""


@value()
class Doomed:
    """What is to be deleted: everything below `uid` at `level` (study, series or image).

    `study` narrows a series down to one study: senders that use one Series Instance UID in two studies exist. `unless_newer` leaves
    all as it is if an object came after that time (microseconds since 1970): whoever decided did not know of it. `lost` is for an
    object that is not there any more: protection cannot keep it, and no file is to be removed. (One that comes back, with a disk
    that was not mounted, is all that is left of the object.)
    """

    level: Level
    uid: str
    study: str = ""
    unless_newer: int | None = None
    lost: bool = False


@value()
class Deleted:
    """What is not in the archive any more, of one study; whether anything of the study is left is in `is_whole_study`."""

    study_instance_uid: str
    patient_id: str
    patient_name: str
    """Of the study's patient, for the audit trail; never for a log."""

    series: int
    instances: int
    bytes: int
    """Of files."""

    is_whole_study: bool
    sop_classes: tuple[tuple[str, int], ...] = ()
    """How many instances of which SOP classes."""

    last_key: int = 0
    """The greatest key of an instance that went."""


@value()
class Removal:
    """A file that belongs to no object any more."""

    key: int
    name: ObjectName


_OBJECTS: Final = (
    "instances JOIN series ON series.series_key = instances.series_key"
    " JOIN studies ON studies.study_key = series.study_key"
)
_BELOW: Final[Mapping[Level, str]] = {
    Level.STUDY: "studies.study_instance_uid = :uid",
    Level.SERIES: "series.series_instance_uid = :uid AND (:study = '' OR studies.study_instance_uid = :study)",
    Level.IMAGE: "instances.sop_instance_uid = :uid",
}
_WHAT: Final = (
    "SELECT studies.study_key, studies.study_instance_uid, studies.patient_key, patients.patient_id, patients.patient_name,"
    " count(DISTINCT series.series_key), count(*), sum(header_size + data_set_size), max(received_at), max(instance_key)"
    f" FROM {_OBJECTS} JOIN patients ON patients.patient_key = studies.patient_key WHERE {{below}}"
    " GROUP BY studies.study_key, studies.study_instance_uid, studies.patient_key, patients.patient_id, patients.patient_name"
)
_CLASSES: Final = (
    f"SELECT studies.study_key, sop_class_uid, count(*) FROM {_OBJECTS} WHERE {{below}}"
    " GROUP BY studies.study_key, sop_class_uid"
)
_LOCK: Final = "UPDATE studies SET patient_key = patient_key WHERE study_key = :study_key"
"""Changes nothing. In PostgreSQL it keeps a study from being protected between the look whether it is and the end of it."""

_PROTECTED: Final = "SELECT 1 FROM protected_studies WHERE study_instance_uid = :study"
_REMEMBER: Final = (
    "INSERT INTO removals (study_instance_uid, series_instance_uid, sop_instance_uid, generation)"
    " SELECT study_instance_uid, series_instance_uid, sop_instance_uid, generation"
    f" FROM {_OBJECTS} WHERE {{below}}"
)
_INSTANCES: Final[Mapping[Level, str]] = {
    Level.STUDY: "series_key IN (SELECT series_key FROM series WHERE study_key = :study_key)",
    Level.SERIES: (
        "series_key IN (SELECT series_key FROM series WHERE study_key = :study_key AND series_instance_uid = :uid)"
    ),
    Level.IMAGE: "sop_instance_uid = :uid",
}
_EMPTY_SERIES: Final = (
    "DELETE FROM series WHERE study_key = :study_key"
    " AND NOT EXISTS (SELECT 1 FROM instances WHERE instances.series_key = series.series_key)"
)
_EMPTY_STUDY: Final = (
    "DELETE FROM studies WHERE study_key = :study_key"
    " AND NOT EXISTS (SELECT 1 FROM series WHERE series.study_key = studies.study_key)"
)
_EMPTY_PATIENT: Final = (
    "DELETE FROM patients WHERE patient_key = :patient_key"
    " AND NOT EXISTS (SELECT 1 FROM studies WHERE studies.patient_key = patients.patient_key)"
)
_IS_THERE: Final = "SELECT 1 FROM studies WHERE study_key = :study_key"

_LONELY: Final = tuple(
    f"DELETE FROM {table} WHERE NOT EXISTS (SELECT 1 FROM {other} WHERE {other}.{key} = {table}.{key})"
    for table, other, key in (
        ("studies", "patients", "patient_key"),
        ("series", "studies", "study_key"),
        ("instances", "series", "series_key"),
        ("series", "instances", "series_key"),
        ("studies", "series", "study_key"),
        ("patients", "studies", "patient_key"),
    )
)

ADD_REMOVAL: Final = (
    "INSERT INTO removals (study_instance_uid, series_instance_uid, sop_instance_uid, generation)"
    " VALUES (:study, :series, :instance, :generation)"
)
_REMOVALS: Final = (
    "SELECT removal_key, study_instance_uid, series_instance_uid, sop_instance_uid, generation FROM removals"
    " WHERE removal_key > :after ORDER BY removal_key LIMIT :limit"
)
_FORGET: Final = "DELETE FROM removals WHERE removal_key = :key"


def delete(execute: Execute, doomed: Doomed) -> list[Deleted]:
    """Delete rows, in a transaction that is the caller's; gives what went, one value for each study; nothing if there was nothing.

    Raises `StudyProtected`: then the transaction is to be rolled back.
    """
    names = {"uid": doomed.uid, "study": doomed.study} if doomed.level is Level.SERIES else {"uid": doomed.uid}
    found = execute(_WHAT.format(below=_BELOW[doomed.level]), names)
    if doomed.unless_newer is not None and any(row[8] > doomed.unless_newer for row in found):
        return []
    for row in () if doomed.lost else found:
        execute(_LOCK, {"study_key": row[0]})
        if execute(_PROTECTED, {"study": row[1]}):
            raise StudyProtected(f"the study {row[1]} is protected: end its protection first")
    classes = execute(_CLASSES.format(below=_BELOW[doomed.level]), names) if found else ()
    if found and not doomed.lost:
        execute(_REMEMBER.format(below=_BELOW[doomed.level]), names)
    return [_delete_from_study(execute, doomed, row, classes) for row in found]


def removals(execute: Execute, after: int, limit: int) -> list[Removal]:
    """Up to `limit` files that are to be removed, with keys greater than `after`."""
    return [Removal(key, ObjectName(*name)) for key, *name in execute(_REMOVALS, {"after": after, "limit": limit})]


def defer(execute: Execute, names: Sequence[ObjectName]) -> None:
    """Add files to those that are to be removed."""
    for name in names:
        values = {
            "study": name.study_instance_uid,
            "series": name.series_instance_uid,
            "instance": name.sop_instance_uid,
            "generation": name.generation,
        }
        execute(ADD_REMOVAL, values)


def forget(execute: Execute, keys: Sequence[int]) -> None:
    """These files are gone, durably."""
    for key in keys:
        execute(_FORGET, {"key": key})


def delete_lonely(execute: Execute) -> None:
    """Delete rows without a row above them, with all below them, and rows without one below them. No file is forgotten by it: one
    whose row goes is found not to be indexed."""
    for statement in _LONELY:
        execute(statement, {})


def _delete_from_study(
    execute: Execute, doomed: Doomed, row: Sequence[Any], classes: Sequence[Sequence[Any]]
) -> Deleted:
    study_key, study, patient_key, patient_id, patient_name, series, instances, size, _, last_key = row
    keys = {"study_key": study_key}
    values = {Level.STUDY: keys, Level.SERIES: {**keys, "uid": doomed.uid}, Level.IMAGE: {"uid": doomed.uid}}
    execute(f"DELETE FROM instances WHERE {_INSTANCES[doomed.level]}", values[doomed.level])
    execute(_EMPTY_SERIES, keys)
    execute(_EMPTY_STUDY, keys)
    execute(_EMPTY_PATIENT, {"patient_key": patient_key})
    is_whole = not execute(_IS_THERE, keys)
    of_study = tuple((uid, count) for key, uid, count in classes if key == study_key)
    return Deleted(study, patient_id, patient_name, series, instances, int(size), is_whole, of_study, last_key)
