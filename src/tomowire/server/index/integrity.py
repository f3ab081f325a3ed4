"""What can be wrong within the index itself, without looking at files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

_WITHOUT: Final = (
    "SELECT {uid} FROM {table} AS lonely WHERE NOT EXISTS (SELECT 1 FROM {other} WHERE {key} = lonely.{key})"
)

# What is found gets printed and logged: a patient is named by the number of the row, never by the Patient ID.
_RELATIONS: Final = (
    ("patients", "patient_key", "patient_key", "studies", "patient number {} has no study"),
    ("studies", "study_instance_uid", "study_key", "series", "study {} has no series"),
    ("studies", "study_instance_uid", "patient_key", "patients", "study {} has no patient"),
    ("series", "series_instance_uid", "series_key", "instances", "series {} has no instance"),
    ("series", "series_instance_uid", "study_key", "studies", "series {} has no study"),
    ("instances", "sop_instance_uid", "series_key", "series", "instance {} has no series"),
)


def damage(connection: sqlite3.Connection) -> Iterator[str]:
    """What SQLite finds wrong with its own pages and indexes; nothing, if all is well. Raises `sqlite3.Error`.

    `quick_check` takes a second for a million objects, this five. It does not see an index that lacks rows of its table: an object
    that is not found there is taken for one that nobody has.
    """
    for (message,) in connection.execute("PRAGMA integrity_check"):
        if message != "ok":
            yield " ".join(str(message).removeprefix("*** in database main ***").split())


def lonely_rows(execute: Callable[[str], Iterable[tuple[Any, ...]]]) -> Iterator[str]:
    """Rows without a row above or below them: no transaction of the archive leaves one. `execute` gives what a query finds."""
    for table, uid, key, other, text in _RELATIONS:
        for (name,) in execute(_WITHOUT.format(table=table, uid=uid, key=key, other=other)):
            yield text.format(name)
