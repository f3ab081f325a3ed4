"""What both sides of an index in SQLite share: its errors, and the shape of a row."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tomowire.errors import IndexUnavailable
from tomowire.server.files import ObjectName
from tomowire.server.index.rows import IndexedObject


def indexed_object(row: Sequence[Any]) -> IndexedObject:
    """From the columns of `statements.FIND_OBJECT`."""
    key, study, series, instance, generation, *rest = row
    return IndexedObject(key, ObjectName(study, series, instance, generation), *rest)


@contextmanager
def sqlite_errors() -> Iterator[None]:
    """What the database cannot do becomes `IndexUnavailable`; what is wrong with a value or a statement stays as it is."""
    try:
        yield
    except sqlite3.OperationalError as error:
        # Only a failed sync leaves a commit in doubt: the pages and the commit mark are in the log, perhaps for good.
        in_doubt = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_FSYNC
        raise IndexUnavailable(str(error), in_doubt=in_doubt) from error
    except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError):
        raise
    except sqlite3.DatabaseError as error:  # "database disk image is malformed", "file is not a database"
        raise IndexUnavailable(str(error), is_damage=True) from error
