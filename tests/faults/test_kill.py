"""`serve` killed with SIGKILL while four senders run. The long version: `python -m support.kill_campaign --rounds 50`."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from support.kill_campaign import run

pytestmark = pytest.mark.interop


def test_what_got_success_survives_kill_9(dcmtk: Callable[[str], Path], each_index: str, tmp_path: Path) -> None:
    rounds = 4 if each_index == "sqlite" else 2
    assert dcmtk("storescu")
    seed = random.randrange(1 << 32)
    lines: list[str] = []
    try:
        lines.extend(run(tmp_path, rounds=rounds, seed=seed, objects=80))
    except BaseException as error:
        error.add_note(f"seed {seed}\n" + "\n".join(lines))
        raise
    assert len(lines) == rounds
