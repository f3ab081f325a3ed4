"""Writing many buffers to a file without joining them first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_BUFFERS_PER_CALL: Final = 1024
"""IOV_MAX on Linux and the BSDs."""


def write_all(descriptor: int, buffers: Sequence[bytes | memoryview]) -> None:
    """Write all of `buffers` to a file, in as few calls as the system allows. Raises `OSError`."""
    if not hasattr(os, "writev"):  # Windows
        _write_rest(descriptor, buffers, 0)
        return
    for first in range(0, len(buffers), _BUFFERS_PER_CALL):
        group = buffers[first : first + _BUFFERS_PER_CALL]
        written = os.writev(descriptor, group)
        if written < sum(map(len, group)):
            # The disk is full, and the next call says so; or it was more than the 2 GiB that Linux writes at once.
            _write_rest(descriptor, group, written)


def _write_rest(descriptor: int, buffers: Sequence[bytes | memoryview], skip: int) -> None:
    """One by one, without the first `skip` bytes."""
    for buffer in buffers:
        view = memoryview(buffer)[skip:]
        skip = max(0, skip - len(buffer))
        while view:
            view = view[os.write(descriptor, view) :]
