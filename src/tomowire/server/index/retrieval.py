"""Which objects are to be retrieved.

Like those in `statements` these are written out in SQL: there are four unique keys (PS3.4 C.6), and no import has to be waited for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from tomowire.server.index.reader import Statement
from tomowire.services.models import Level

_COLUMNS: Final[Mapping[Level, str]] = {
    Level.PATIENT: "patient_id",
    Level.STUDY: "study_instance_uid",
    Level.SERIES: "series_instance_uid",
    Level.IMAGE: "sop_instance_uid",
}
_IN_SERIES: Final = "instances JOIN series USING (series_key) JOIN studies USING (study_key)"


def select_uids(unique_keys: Mapping[Level, Sequence[str]]) -> Statement:
    """The SOP Instance UIDs of all objects below what the keys name, one in each row.

    Series after series, in the order in which they came, as far as no sorting is needed for it.
    """
    source = f"{_IN_SERIES} JOIN patients USING (patient_key)" if Level.PATIENT in unique_keys else _IN_SERIES
    conditions, parameters = [], {}
    for level, values in unique_keys.items():
        column = _COLUMNS[level]
        if len(values) == 1:
            conditions.append(f"{column} = :{column}")
            parameters[column] = values[0]
        else:  # as one parameter, whatever their number
            conditions.append(f"{column} IN (SELECT value FROM json_each(:{column}))")
            parameters[column] = json.dumps(values)
    return Statement(f"SELECT sop_instance_uid FROM {source} WHERE {' AND '.join(conditions)}", parameters)
