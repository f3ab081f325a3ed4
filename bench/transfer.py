"""All pairings in turn, round after round, every other round in the opposite order.

What disturbs the machine for a while disturbs them alike, and ratios are taken within a round.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from measure import Run, run
from processes import ProgramFailed
from programs import Pairing
from workloads import ONE_OBJECT, Workload

_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Result:
    """All counted runs of a pairing with a workload, in the order of the rounds.

    `sender_base` is what the sender takes at its peak, in bytes, when it sends one small object.
    """

    pairing: Pairing
    workload: Workload
    runs: Sequence[Run]
    sender_base: int

    @property
    def sender_peak(self) -> int:
        return max(run.sender_peak for run in self.runs)

    @property
    def sender_adds(self) -> int:
        return self.sender_peak - self.sender_base

    @property
    def receiver_peak(self) -> int:
        return max(run.receiver_peak for run in self.runs)

    @property
    def receiver_adds(self) -> int:
        return max(run.receiver_adds for run in self.runs)


def transfer(
    pairings: Sequence[Pairing],
    workloads: Sequence[Workload],
    work_dir: Path,
    *,
    rounds: int,
    warm_up: bool,
    say: Callable[[str], None],
) -> list[Result]:
    """Run everything. With `warm_up` there is one round more, the first, that is not counted: on a virtual machine memory that has
    never been used is slow."""
    bases = _sender_bases(pairings, work_dir)
    results = []
    for workload in workloads:
        source = work_dir / "source"
        workload.write(source)
        runs: dict[str, list[Run]] = {pairing.name: [] for pairing in pairings}
        for number in range(0 if warm_up else 1, rounds + 1):
            for pairing in pairings if number % 2 else reversed(pairings):
                measured = _run(pairing, workload, source, work_dir, say)
                label = f"round {number} of {rounds}" if number else "warm-up"
                say(f"{workload.title}, {label}, {pairing.title}: {measured.start:.2f} + {measured.send:.2f} s")
                if number:
                    runs[pairing.name].append(measured)
        results += [Result(each, workload, runs[each.name], bases[each.sender.title]) for each in pairings]
        shutil.rmtree(source)
    return results


def _run(pairing: Pairing, workload: Workload, source: Path, work_dir: Path, say: Callable[[str], None]) -> Run:
    """One run. A foreign program that hangs or loses an object gets another try, and that is said; one of ours does not."""
    for attempt in range(1 if pairing.ours else _ATTEMPTS):
        try:
            return run(pairing, workload, source, work_dir)
        except ProgramFailed as error:
            if pairing.ours or attempt == _ATTEMPTS - 1:
                raise
            say(f"{workload.title}, {pairing.title}, tried again: {error}")
    raise AssertionError("unreachable")


def _sender_bases(pairings: Sequence[Pairing], work_dir: Path) -> dict[str, int]:
    source = work_dir / "source"
    ONE_OBJECT.write(source)
    one_of_each = {pairing.sender.title: pairing for pairing in reversed(pairings)}
    bases = {title: run(pairing, ONE_OBJECT, source, work_dir).sender_peak for title, pairing in one_of_each.items()}
    shutil.rmtree(source)
    return bases
