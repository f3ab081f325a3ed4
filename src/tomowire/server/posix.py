"""What the archive asks of a POSIX system and Windows does not have: a lock that ends with the process, syncs of folders.

And syncs that reach the disk: `fsync` on macOS leaves the bytes in the disk's own cache, where a power cut finds them.
"""

from __future__ import annotations

import os
from pathlib import Path

from tomowire.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def require_posix() -> None:
    """Raises `UsageError` on a system that the archive does not run on."""
    if fcntl is None:
        raise UsageError("the archive runs on POSIX systems only (Linux, macOS, BSD)")


def lock(descriptor: int) -> bool:
    """Lock a file until its descriptor is closed; False if another process holds it. Raises `OSError`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_shared(descriptor: int) -> None:
    """Lock a file together with others who share it; waits for one that has it alone. Raises `OSError`."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def try_lock_shared(descriptor: int) -> bool:
    """Lock a file together with others who share it; False if one has it alone. Raises `OSError`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Let go of a lock, and keep the file open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_read_only(path: Path) -> bool:
    """Whether the file system of `path` takes no changes: mounted so, or since its disk has failed. Raises `OSError`."""
    return bool(os.statvfs(path).f_flag & getattr(os, "ST_RDONLY", 1))


def sync_file(descriptor: int) -> None:
    """Make a file, or the entries of a folder, durable. Raises `OSError`."""
    if not _full_sync(descriptor):
        os.fsync(descriptor)


def sync_data(descriptor: int) -> None:
    """Make the bytes of a file durable; its times need not be. Raises `OSError`."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:  # macOS
        sync_file(descriptor)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable (POSIX: a file's own fsync need not do it)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def _full_sync(descriptor: int) -> bool:
    """What macOS has for it; False elsewhere, and for file systems that do not know it (network shares)."""
    command = getattr(fcntl, "F_FULLFSYNC", None)
    if command is None:
        return False
    try:
        fcntl.fcntl(descriptor, command)
    except OSError:  # if it is the disk that failed, fsync says so too
        return False
    return True
