"""Killed at any step, the archive keeps what it said Success to, and shows nothing of what it did not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.crashes import Batch, CrashServer
from support.objects import Sample
from support.stored import contents, files_below, findings
from tomowire.server.incoming import DuplicatePolicy

ONE, TWO, THREE = Sample(1), Sample(2, series=2), Sample(3, study=2)
OTHER_ONE = replace(ONE, content="second", series=3)
OTHER_TWO = replace(TWO, content="second")

BATCHES: list[Batch] = [
    [(ONE, False), (TWO, True)],
    [(THREE, False), (OTHER_ONE, False), (OTHER_TWO, True)],
]


@pytest.fixture(scope="module")
def server() -> Iterator[CrashServer]:
    with CrashServer() as started:
        yield started


@pytest.mark.parametrize(
    ("policy", "power_cut"),
    [(DuplicatePolicy.KEEP, True), (DuplicatePolicy.REPLACE, False), (DuplicatePolicy.REPLACE, True)],
    ids=["keep, power cut", "replace, killed", "replace, power cut"],
)
def test_killed_at_each_step(server: CrashServer, tmp_path: Path, policy: DuplicatePolicy, power_cut: bool) -> None:
    steps = server.store(tmp_path / "all", BATCHES, policy=policy).steps
    assert steps > 50
    for kill_at in range(1, steps + 1):
        root = tmp_path / str(kill_at)
        run = server.store(root, BATCHES, policy=policy, kill_at=kill_at, power_cut=power_cut)
        assert run.killed
        server.store(root, [], policy=policy)
        check_consistent(root, len(run.outcomes), policy)


def check_consistent(root: Path, answered: int, policy: DuplicatePolicy) -> None:
    """Each batch is there or not; those that were answered are; and nothing else is."""
    first = {sample.uid: sample.data_set for sample in (ONE, TWO)}
    replaced = {sample.uid: sample.data_set for sample in (OTHER_ONE, OTHER_TWO)}
    second = first | {THREE.uid: THREE.data_set} | (replaced if policy is DuplicatePolicy.REPLACE else {})
    possible = [{}, first, second]
    held = contents(root)
    assert held in possible
    assert possible.index(held) >= [0, 1, 1, 2, 2, 2][answered]
    assert len(files_below(root)) == len(held)
    assert files_below(root, "incoming") <= {"incoming/journal"}
    assert findings(root) == []
