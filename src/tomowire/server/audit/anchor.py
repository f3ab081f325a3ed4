"""The end of the audit trail, in a file of the data directory: who takes events away at the end has to change this too.

It is written after each transaction, so that it may be behind the trail, and never ahead of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from tomowire.errors import UsageError
from tomowire.server.files import FILE_MODE

ANCHOR: Final = "audit.anchor"


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
    new = path.with_name(f"{ANCHOR}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        os.write(descriptor, json.dumps({"number": number, "hash": digest.hex()}).encode())
        if fsync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(new, path)
