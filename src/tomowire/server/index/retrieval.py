"""Which objects are to be retrieved.

Like those in `statements` these are written out in SQL: there are four unique keys (PS3.4 C.6), and no import has to be waited for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from tomowire.server.index.reader import Dialect, Statement
from tomowire.services.models import Level

_COLUMNS: Final[Mapping[Level, str]] = {
    Level.PATIENT: "patient_id",
    Level.STUDY: "study_instance_uid",
    Level.SERIES: "series_instance_uid",
    Level.IMAGE: "sop_instance_uid",
}
_WITH_KINDS: Final = "sop_instance_uid, sop_class_uid, transfer_syntax_uid"
_IN_SERIES: Final = "instances JOIN series USING (series_key) JOIN studies USING (study_key)"


def select_uids(unique_keys: Mapping[Level, Sequence[str]], dialect: Dialect, *, with_kinds: bool = False) -> Statement:
    """The SOP Instance UIDs of all objects below what the keys name, one in each row; with their SOP Class and Transfer Syntax UIDs
    if they are asked for.

    Series after series, in the order in which they came, as far as no sorting is needed for it.
    """
    make = _sqlite if dialect == "sqlite" else _postgresql
    return make(unique_keys, with_kinds=with_kinds)


def _sqlite(unique_keys: Mapping[Level, Sequence[str]], *, with_kinds: bool) -> Statement:
    conditions, parameters = [], {}
    for level, values in unique_keys.items():
        column = _COLUMNS[level]
        if len(values) == 1:
            conditions.append(f"{column} = :{column}")
            parameters[column] = values[0]
        else:  # as one parameter, whatever their number
            conditions.append(f"{column} IN (SELECT value FROM json_each(:{column}))")
            parameters[column] = json.dumps(values)
    sql = f"SELECT sop_instance_uid FROM {_source(unique_keys)} WHERE {' AND '.join(conditions)}"
    if with_kinds:
        # CROSS JOIN, so that the UIDs stay in their order (https://sqlite.org/optoverview.html, section 8.2).
        sql = f"SELECT {_WITH_KINDS} FROM ({sql}) CROSS JOIN instances USING (sop_instance_uid)"
    return Statement(sql, parameters)


def _postgresql(unique_keys: Mapping[Level, Sequence[str]], *, with_kinds: bool) -> Statement:
    columns = _WITH_KINDS if with_kinds else "sop_instance_uid"
    conditions = " AND ".join(f"{_COLUMNS[level]} = ANY(%({_COLUMNS[level]})s)" for level in unique_keys)
    parameters = {_COLUMNS[level]: list(values) for level, values in unique_keys.items()}
    return Statement(f"SELECT {columns} FROM {_source(unique_keys)} WHERE {conditions}", parameters)


def _source(unique_keys: Mapping[Level, Sequence[str]]) -> str:
    return f"{_IN_SERIES} JOIN patients USING (patient_key)" if Level.PATIENT in unique_keys else _IN_SERIES
