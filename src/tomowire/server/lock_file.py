"""The file `lock` of a data directory: held, with the number of the process in it, by the one that uses the directory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from tomowire.server.posix import lock

_SIZE: Final = 16
"""Of the file: with nobody's number too, since on a full disk it would not grow again."""


def lock_file(path: Path, mode: int) -> int | None:
    """Lock the file, made with `mode` if there is none; None if another process holds it. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        # A start that could not begin removes what it has made (`unmake`): what is locked then is no file of this name any more.
        is_ours = lock(descriptor) and _is_named(path, descriptor)
        if is_ours:
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii").ljust(_SIZE, b"\n"), 0)
    except OSError as error:
        os.close(descriptor)
        error.filename = os.fspath(path)  # which disk is full, say
        raise
    if is_ours:
        return descriptor
    os.close(descriptor)
    return None


def lock_unwritten(path: Path) -> tuple[int | None, bool]:
    """Lock a file that may not be written to, if nobody else has; and whether that is known."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None, False
    try:
        if lock(descriptor):
            return descriptor, True
        is_known = True
    except OSError:  # a network share: only what may be written to is locked
        is_known = False
    os.close(descriptor)
    return None, is_known


def _is_named(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def let_go(descriptor: int) -> None:
    """Unlock a file that was locked here. It names nobody then: the number may soon be that of another process."""
    with suppress(OSError):  # it may not be written to, or its disk has gone
        os.pwrite(descriptor, b"\n" * _SIZE, 0)
    os.close(descriptor)


def holder_of(path: Path) -> str:
    """The number of the process that holds it."""
    try:
        return path.read_bytes().decode("ascii", "replace").strip() or "?"
    except FileNotFoundError:  # gone just now
        return "?"
