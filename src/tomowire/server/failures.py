"""What a failure to keep an object means to its sender: the status of the C-STORE response (PS3.4 B.2.3, PS3.7 Annex C)."""

from __future__ import annotations

import os
from typing import Final

from tomowire.errors import DataSetError, IndexUnavailable, StoreFailed

PROCESSING_FAILURE: Final = 0x0110
"""PS3.7 Annex C: ours, and not foreseen."""

DUPLICATE_SOP_INSTANCE: Final = 0x0111
"""PS3.7 Annex C."""

INVALID_SOP_INSTANCE: Final = 0x0117
"""PS3.7 Annex C: the SOP Instance UID breaks the rules for UIDs."""

OUT_OF_RESOURCES: Final = 0xA700
DATA_SET_DOES_NOT_MATCH: Final = 0xA900
"""The data set contradicts the SOP class or the command."""

CANNOT_UNDERSTAND: Final = 0xC000

_COMMENT_LENGTH: Final = 64
"""Error Comment (0000,0902) is an LO: 64 characters (PS3.5 6.2)."""


def store_failed(status: int, comment: str) -> StoreFailed:
    """A `StoreFailed` whose comment fits into the response: ASCII without backslashes and control characters."""
    fitting = "".join(
        letter if " " <= letter <= "~" and letter != "\\" else "?" for letter in comment[:_COMMENT_LENGTH]
    )
    return StoreFailed(status, fitting)


def failure_of(error: Exception) -> StoreFailed:
    """The failure that `error` is to the sender of the object."""
    match error:
        case StoreFailed():
            return error
        case DataSetError():
            return store_failed(CANNOT_UNDERSTAND, f"Cannot understand: {error}")
        case OSError():  # by its number: the text names files
            reason = os.strerror(error.errno) if error.errno else "input/output error"
            return store_failed(OUT_OF_RESOURCES, f"Out of resources: {reason}")
        case IndexUnavailable():
            return store_failed(OUT_OF_RESOURCES, f"Out of resources: index: {error}")
        case _:
            return store_failed(PROCESSING_FAILURE, f"Processing failure: {type(error).__name__}")
