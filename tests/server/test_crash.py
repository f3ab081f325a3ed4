"""Killed, without power, or with an error at any step: what was answered with Success is there, and what was not is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.crashes import Batch, CrashServer
from support.filesystems import quick_directory
from support.objects import Sample
from support.stored import contents, files_below, findings
from tomowire.server.incoming import DuplicatePolicy

pytestmark = pytest.mark.slow

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


@pytest.fixture
def directory() -> Iterator[Path]:
    with quick_directory() as made:
        yield made


@pytest.mark.parametrize(
    ("policy", "event", "links", "each_index"),
    [
        (DuplicatePolicy.KEEP, "power cut", True, "sqlite"),
        (DuplicatePolicy.REPLACE, "kill", True, "sqlite"),
        (DuplicatePolicy.REPLACE, "kill", True, "postgresql"),
        (DuplicatePolicy.REPLACE, "power cut", True, "sqlite"),
        (DuplicatePolicy.REPLACE, "power cut", False, "sqlite"),
    ],
    ids=lambda value: getattr(value, "value", value),
    indirect=["each_index"],
)
def test_ended_at_each_step(
    server: CrashServer, directory: Path, policy: DuplicatePolicy, event: str, links: bool, each_index: str
) -> None:
    steps = server.store(directory / "all", BATCHES, policy=policy, links=links).steps
    assert steps > 50
    # A database for each step takes its time. Most steps are not about the database.
    for step in range(1, steps + 1, 1 if each_index == "sqlite" else 10):
        root = directory / str(step)
        run = server.store(root, BATCHES, policy=policy, step=step, event=event, links=links)
        assert run.killed
        server.store(root, [], policy=policy)
        held = contents(root)
        # Each batch is there or is not; those that were answered are.
        possible = [{}, *after_each_batch(policy)]
        assert held in possible
        assert possible.index(held) >= [0, 1, 1, 2, 2, 2][len(run.outcomes)]
        assert_nothing_else(root, held)


def after_each_batch(policy: DuplicatePolicy) -> list[dict[str, bytes]]:
    first = {sample.uid: sample.data_set for sample in (ONE, TWO)}
    replaced = {sample.uid: sample.data_set for sample in (OTHER_ONE, OTHER_TWO)}
    return [first, first | {THREE.uid: THREE.data_set} | (replaced if policy is DuplicatePolicy.REPLACE else {})]


def assert_nothing_else(root: Path, held: dict[str, bytes]) -> None:
    assert len(files_below(root)) == len(held)
    assert files_below(root, "incoming") <= {"incoming/journal"}
    assert findings(root) == []


def test_each_step_fails_once(server: CrashServer, directory: Path) -> None:
    """An object that was answered with a failure is not there, the others are; and the next batch is stored."""
    last = Sample(4, study=3)
    batches = [*BATCHES, [(last, False)]]
    steps = server.store(directory / "all", batches, policy=DuplicatePolicy.REPLACE).steps
    ended = 0
    for step in range(1, steps + 1):
        root = directory / str(step)
        run = server.store(root, batches, policy=DuplicatePolicy.REPLACE, step=step, event="error")
        expected: dict[str, bytes] = {}
        for (sample, _), outcome in zip([entry for batch in batches for entry in batch], run.outcomes, strict=False):
            if outcome != "A700":
                expected[sample.uid] = sample.data_set
        if not run.ended:  # the failing step was one of the start's or of the end's
            server.store(root, [])
        assert contents(root) == expected
        if run.ended:
            ended += 1
            assert len(run.outcomes) == 6
            assert run.outcomes.count("A700") <= 3
            assert_nothing_else(root, expected)
    assert ended > steps / 2
