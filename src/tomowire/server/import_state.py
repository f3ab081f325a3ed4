"""What earlier runs have imported, so that the next one need not read it again: a small database, with a row for each file."""

from __future__ import annotations

import os
import sqlite3
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Final, Self

from tomowire.errors import UsageError

_APPLICATION: Final = 0x746D7769
"""Tells SQLite's files of this kind from others (PRAGMA application_id)."""


class Taken:
    """`with Taken(path) as taken`. A file counts as the same while its path, size and time of modification are.

    A row is written when the archive has the object for good: killed in between, a file is looked at once more, and none is left
    out. Entering raises `UsageError` for a file that is something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            (kind,) = connection.execute("PRAGMA application_id").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if kind != _APPLICATION and tables:
                raise sqlite3.DatabaseError("it is another database")
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS taken (file BLOB PRIMARY KEY) WITHOUT ROWID")
        except sqlite3.Error as error:
            raise UsageError(f"{self._path} is not a file that --resume has written: {error}") from error
        self._connection = connection
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def has(self, path: Path) -> bool:
        """Whether an earlier run has imported this file. Raises `OSError`."""
        key = _key(path)
        assert self._connection is not None
        with self._lock:
            return self._connection.execute("SELECT 1 FROM taken WHERE file = ?", (key,)).fetchone() is not None

    def add(self, path: Path) -> None:
        """The archive has this file's object. Raises `OSError`."""
        key = _key(path)
        assert self._connection is not None
        with self._lock:
            self._connection.execute("INSERT OR IGNORE INTO taken VALUES (?)", (key,))


def _key(path: Path) -> bytes:
    found = path.stat()
    text = b"\0".join((os.fsencode(path.absolute()), str(found.st_size).encode(), str(found.st_mtime_ns).encode()))
    return blake2b(text, digest_size=16).digest()
