"""The series of the objects of a batch, with what is above them: found, or made, for all of them together.

Each step is one exchange with the server, however many series there are. Several programs may make the same patient, study or
series: who is second gets what the first has made. All insert in one order, so that they do not wait for each other in a circle.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tomowire.errors import IndexUnavailable
from tomowire.server.index import statements
from tomowire.server.index.attributes import InstanceRecord
from tomowire.server.index.postgres_connect import Connection, array_of

logger: Final = logging.getLogger(__name__)

SeriesName = tuple[str, str, str]
"""Series Instance UID, Study Instance UID, and the patient's identity."""

_KNOWN_SERIES: Final = 10_000
_TOLD_STUDIES: Final = 10_000

_STUDIES: Final = (
    b"SELECT study_instance_uid, study_key, identity FROM studies JOIN patients USING (patient_key)"
    b" WHERE study_instance_uid = ANY(%s)"
)
_PATIENTS: Final = b"SELECT identity, patient_key FROM patients WHERE identity = ANY(%s)"
_SERIES: Final = (
    b"SELECT series_instance_uid, study_key, series_key FROM series"
    b" WHERE series_instance_uid = ANY(%s) AND study_key = ANY(%s)"
)


def _insert(sql: str, unique: str) -> bytes:
    """An INSERT after which another program's row is there, if ours is not."""
    return f"{sql.replace('?', '%s')} ON CONFLICT ({unique}) DO NOTHING".encode()


_INSERT_PATIENT: Final = _insert(statements.INSERT_PATIENT, "identity")
_INSERT_STUDY: Final = _insert(statements.INSERT_STUDY, "study_instance_uid")
_INSERT_SERIES: Final = _insert(statements.INSERT_SERIES, "series_instance_uid, study_key")


class SeriesKeys:
    """Keys of series, of which the latest are remembered."""

    def __init__(self) -> None:
        # Nearly all objects belong to a series that was there a moment ago. With the patient in the key, an object that names
        # another patient than its study has is noticed once for each series, and told once for each study.
        self._known: dict[SeriesName, int] = {}
        self._told_studies: dict[str, None] = {}

    def forget(self) -> None:
        """What was remembered may have gone, or never have been committed."""
        self._known.clear()

    def known(self, records: Sequence[InstanceRecord]) -> list[int] | None:
        """The key of the series of each record, if all are remembered."""
        try:
            return [self._known[_name(record)] for record in records]
        except KeyError:
            return None

    def of(self, connection: Connection, records: Sequence[InstanceRecord]) -> list[int]:
        """The key of the series of each record, in the transaction that `connection` is in."""
        names = [_name(record) for record in records]
        new = {name: record for name, record in zip(names, records, strict=True) if name not in self._known}
        if new:
            while len(self._known) > _KNOWN_SERIES:
                self._known.pop(next(iter(self._known)))
            self._known |= self._made(connection, new)
        return [self._known[name] for name in names]

    def _made(self, connection: Connection, new: dict[SeriesName, InstanceRecord]) -> dict[SeriesName, int]:
        first: dict[str, InstanceRecord] = {}
        for name, record in new.items():
            first.setdefault(name[1], record)
        studies = self._studies(connection, first)
        for _, study, identity in new:
            if studies[study][1] != identity:
                self._tell_of_another_patient(study)
        wanted = {(name[0], studies[name[1]][0]): record for name, record in reversed(new.items())}
        found = _find_series(connection, wanted)
        missing = [each for each in wanted if each not in found]
        if missing:
            rows = [(each[1], *statements.series_values(wanted[each].series)) for each in sorted(missing)]
            connection.cursor().executemany(_INSERT_SERIES, rows)
            found |= _find_series(connection, missing)
        return {name: _there(found, (name[0], studies[name[1]][0])) for name in new}

    def _studies(self, connection: Connection, wanted: dict[str, InstanceRecord]) -> dict[str, tuple[int, str]]:
        """Study Instance UID -> key, and identity of the patient that it is under. `wanted` in the order of their objects."""
        found = _find_studies(connection, wanted)
        missing = {uid: record for uid, record in wanted.items() if uid not in found}
        if missing:
            patients = _patients(connection, missing.values())
            rows = [
                (patients[statements.patient_identity(record.patient)], *statements.study_values(record.study))
                for _, record in sorted(missing.items())
            ]
            connection.cursor().executemany(_INSERT_STUDY, rows)
            found |= _find_studies(connection, missing)
        return {uid: _there(found, uid) for uid in wanted}

    def _tell_of_another_patient(self, study_uid: str) -> None:
        if study_uid in self._told_studies:
            return
        if len(self._told_studies) >= _TOLD_STUDIES:
            self._told_studies.pop(next(iter(self._told_studies)))
        self._told_studies[study_uid] = None
        logger.warning("study %s has come under another patient before, and stays there", study_uid)


def _name(record: InstanceRecord) -> SeriesName:
    identity = statements.patient_identity(record.patient)
    return record.series.series_instance_uid, record.study.study_instance_uid, identity


def _patients(connection: Connection, records: Iterable[InstanceRecord]) -> dict[str, int]:
    """Identity -> key of the patients of `records`; made if they are new, each as its first record has it."""
    wanted: dict[str, InstanceRecord] = {}
    for record in records:
        wanted.setdefault(statements.patient_identity(record.patient), record)
    found = _find_patients(connection, wanted)
    missing = sorted(identity for identity in wanted if identity not in found)
    if missing:
        rows = [(identity, *statements.patient_values(wanted[identity].patient)) for identity in missing]
        connection.cursor().executemany(_INSERT_PATIENT, rows)
        found |= _find_patients(connection, missing)
    return {identity: _there(found, identity) for identity in wanted}


def _find_patients(connection: Connection, identities: Iterable[str]) -> dict[str, int]:
    return dict(connection.execute(_PATIENTS, (array_of(identities),)).fetchall())


def _find_studies(connection: Connection, uids: Iterable[str]) -> dict[str, tuple[int, str]]:
    rows = connection.execute(_STUDIES, (array_of(uids),)).fetchall()
    return {uid: (key, identity) for uid, key, identity in rows}


def _find_series(connection: Connection, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """(Series Instance UID, key of the study) -> key."""
    uids, studies = zip(*wanted, strict=True)
    rows = connection.execute(_SERIES, (array_of(uids), array_of(map(str, set(studies))))).fetchall()
    return {(uid, study): key for uid, study, key in rows}


def _there(found: dict[Any, Any], name: Any) -> Any:
    """What is found by now: this transaction has inserted it, or another has committed it."""
    try:
        return found[name]
    except KeyError:
        raise IndexUnavailable("another program has just removed what was to be added to: try again") from None
