"""What a failure to keep an object means to its sender: the status of the C-STORE response (PS3.4 B.2.3, PS3.7 Annex C)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tomowire.errors import DataSetError, IndexUnavailable, StoreFailed
from tomowire.protocol.status import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, PROCESSING_FAILURE
from tomowire.server.files import OBJECTS
from tomowire.wire.elements import long_string

_COMMENT_LENGTH: Final = 64
"""Error Comment (0000,0902) is an LO: 64 characters (PS3.5 6.2)."""

_POSITION: Final = " (at byte "
"""How `WireError` writes it."""

_GONE: Final = "the data directory is gone"


def store_failed(status: int, comment: str, *, log: str | None = None) -> StoreFailed:
    """A `StoreFailed` whose comment fits into the response: ASCII without backslashes and control characters.

    Its text is for our own log: `log`, or the whole of `comment`. What the status says already belongs in neither.
    """
    failure = StoreFailed(status, comment if log is None else log)
    failure.comment = long_string(_cut(comment)).decode("ascii")
    return failure


def failure_of(error: Exception, root: Path | None = None) -> StoreFailed:
    """The failure that `error` is to the sender of the object; `root` is the data directory, if that may be to blame."""
    match error:
        case StoreFailed():
            return error
        case DataSetError():
            return store_failed(CANNOT_UNDERSTAND, str(error))
        case FileNotFoundError() if root is not None and not (root / OBJECTS).is_dir():  # unmounted, or removed
            return store_failed(OUT_OF_RESOURCES, _GONE, log=f"{_GONE}: {root}")
        case OSError():  # by its number: the text names files
            reason = os.strerror(error.errno) if error.errno else "input/output error"
            return store_failed(OUT_OF_RESOURCES, reason, log=str(error))
        case IndexUnavailable():  # its text may name the database
            return store_failed(OUT_OF_RESOURCES, "the index cannot be used now", log=f"index: {error}")
        case _:
            return store_failed(PROCESSING_FAILURE, f"unforeseen: {type(error).__name__}")


def _cut(comment: str) -> str:
    """What fits, with the position in the data set at its end if it has one."""
    if len(comment) <= _COMMENT_LENGTH:
        return comment
    words, mark, position = comment.rpartition(_POSITION)
    end = mark + position
    return (
        words[: _COMMENT_LENGTH - len(end)] + end if mark and len(end) < _COMMENT_LENGTH else comment[:_COMMENT_LENGTH]
    )
