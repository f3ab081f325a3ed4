"""What matching needs and SQLite does not have: functions that are given to each connection that answers queries."""

from __future__ import annotations

import sqlite3
from typing import Final

from tomowire.server.index.moments import date_time_within
from tomowire.server.index.text import normalize_person_name

NORMALIZED_NAME: Final = "tomowire_normalized_name"
DATE_TIME_WITHIN: Final = "tomowire_date_time_within"


def prepare(connection: sqlite3.Connection) -> None:
    """Give the connection the functions that the statements of `select_for` use. Takes microseconds."""
    connection.create_function(NORMALIZED_NAME, 1, normalize_person_name, deterministic=True)
    connection.create_function(DATE_TIME_WITHIN, 3, date_time_within, deterministic=True)
