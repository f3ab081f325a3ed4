"""When a disk is full: 512 MB are left, or a twentieth of one that is small."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tomowire.server.room import is_full

MB, GB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("size", "free", "block", "full"),
    [
        (1000 * GB, 513 * MB, 4096, False),
        (1000 * GB, 511 * MB, 4096, True),
        (4 * GB, 206 * MB, 4096, False),
        (4 * GB, 204 * MB, 4096, True),
        (1000 * GB, 0, 4096, True),
        (0, 0, 0, False),  # it does not say
    ],
)
def test_when_a_disk_is_full(
    size: int, free: int, block: int, full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = block or 1
    figures = SimpleNamespace(f_frsize=block, f_blocks=size // unit, f_bavail=free // unit)
    monkeypatch.setattr(os, "statvfs", lambda path: figures)
    assert is_full(tmp_path) is full
