"""What matching needs and SQLite does not have: a function that is given to each connection that answers queries.

PostgreSQL has it in PL/pgSQL, from migration 0002: both give the same answers.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from tomowire.server.index.moments import date_time_within

DATE_TIME_WITHIN: Final = "tomowire_date_time_within"


def prepare(connection: sqlite3.Connection) -> None:
    """Give the connection the function that the statements of `select_for` use. Takes microseconds."""
    connection.create_function(DATE_TIME_WITHIN, 6, date_time_within, deterministic=True)
