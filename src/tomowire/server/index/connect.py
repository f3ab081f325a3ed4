"""SQLite connections: the one that writes, and those that only read."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from tomowire.server.posix import is_read_only

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another process that holds the database: a backup, or somebody with a shell."""

_CACHE_KIB: Final = 64 * 1024
_CHECKPOINT_PAGES: Final = 4096
"""Write-ahead log pages (4 KiB each) that are gathered before they go into the database. Objects arrive with UIDs all over the
index, so the more of them share a page by then, the fewer pages are written."""


def connect_writer(path: Path, *, fsync: bool = True, busy_timeout: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    """The connection that stores. Transactions are begun and ended by hand. Raises `sqlite3.Error`."""
    connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL syncs the log with every commit; NORMAL would lose the last ones with the power (DESIGN: the durability promise).
        connection.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'OFF'}")
        # macOS: `fsync` alone leaves the bytes in the disk's own cache. Elsewhere these change nothing.
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _is_fixed(path: Path) -> bool:
    """Whether the database is one file that nobody can change. Without its log SQLite would want to make one, and could not."""
    try:
        return is_read_only(path.parent) and not os.path.exists(f"{path}-wal")
    except OSError:
        return False


def connect_reader(path: Path, *, busy_timeout: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    """A connection that cannot change anything, for one thread at a time. Raises `sqlite3.Error`."""
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if _is_fixed(path) else ''}"
    connection = sqlite3.connect(uri, uri=True, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
