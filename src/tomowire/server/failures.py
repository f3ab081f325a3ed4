"""What a failure to keep an object means to its sender: the status of the C-STORE response (PS3.4 B.2.3, PS3.7 Annex C)."""

from __future__ import annotations

import os

from tomowire.errors import DataSetError, IndexUnavailable, StoreFailed
from tomowire.protocol.status import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, PROCESSING_FAILURE
from tomowire.wire.elements import long_string


def store_failed(status: int, comment: str) -> StoreFailed:
    """A `StoreFailed` whose comment fits into the response: ASCII without backslashes and control characters."""
    return StoreFailed(status, long_string(comment).decode("ascii"))


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
