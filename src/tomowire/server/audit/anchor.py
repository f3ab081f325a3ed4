"""The end of the audit trail, in a file of the data directory: who takes events away at the end has to change this too.

It is written after each transaction, so that it may be behind the trail, and never ahead of it. Whose it is:

    the archive    keeps it: it makes it before the first event, and again, which it tells, when it is missing or is not the trail's
    a command      that adds an event moves it on where it finds it, and only if it is the trail's. It makes none: the database of
                   the trail may be of another machine, and a new file would hide that the old one was taken away

Nobody moves it back, and two that write at once do not write into one file: not even two containers, whose processes may have the
same number.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from tomowire.errors import UsageError
from tomowire.server.files import FILE_MODE

ANCHOR: Final = "audit.anchor"
_NEW: Final = f"{ANCHOR}.new-"


def read_anchor(root: Path) -> tuple[int, bytes] | None:
    """Number and hash of an event that was the last one; None if there is no such file. Raises `UsageError` for a damaged one."""
    path = root / ANCHOR
    try:
        found = json.loads(path.read_bytes())
        return int(found["number"]), bytes.fromhex(found["hash"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def write_anchor(root: Path, number: int, digest: bytes, *, fsync: bool = True) -> None:
    """Say that event `number` is the last one. The file is replaced in one step. Raises `OSError`."""
    path = root / ANCHOR
    new = path.with_name(f"{_NEW}{os.getpid()}-{os.urandom(8).hex()}")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE), "wb") as file:
            file.write(json.dumps({"number": number, "hash": digest.hex()}).encode())
            file.flush()
            if fsync:
                os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def move_anchor(root: Path, number: int, digest: bytes) -> None:
    """The same, unless the file names a later event already: another process has added one meanwhile. Raises `OSError`.

    Between the look and the writing another may come, and its event is not the last one in the file: behind, as it may be.
    """
    try:
        known = read_anchor(root)
    except UsageError:  # damaged, which has been told
        known = None
    if known is None or known[0] < number:
        write_anchor(root, number, digest)


def clear_unfinished(root: Path) -> None:
    """Remove what processes that were killed have left. One that writes at this moment says that it could not: no event is lost."""
    for left in root.glob(f"{_NEW}*"):
        with suppress(OSError):
            left.unlink()
