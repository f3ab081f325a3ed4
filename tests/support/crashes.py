"""Storing in a process that is killed at a chosen step: the client of `support.crash_server`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from support.objects import Sample
from tomowire.server.incoming import DuplicatePolicy

NEVER = 0

Batch = Sequence[tuple[Sample, bool]]
"""Objects, and whether they come in a part file."""


@dataclass(frozen=True)
class Run:
    """What became of one process."""

    outcomes: list[str]
    """Of the objects, in order, as far as the process lived to tell."""

    killed: bool
    steps: int
    """How many steps it took, if it was not killed."""


class CrashServer:
    """Runs one process after the other on data directories."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("crash_server.py")
        paths = [str(script.parents[1]), str(script.parents[2] / "src")]
        start = f"import sys, runpy; sys.path[:0] = {paths!r}; runpy.run_path({str(script)!r}, run_name='__main__')"
        self._process = subprocess.Popen(
            [sys.executable, "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def store(
        self,
        root: Path,
        batches: Sequence[Batch],
        *,
        policy: DuplicatePolicy = DuplicatePolicy.KEEP,
        kill_at: int = NEVER,
        power_cut: bool = False,
    ) -> Run:
        """Start, store `batches` one after the other, stop; or be killed just before step `kill_at` (from 1)."""
        job = {
            "batches": [[(asdict(sample), large) for sample, large in batch] for batch in batches],
            "policy": policy.value,
            "power_cut": power_cut,
        }
        return self._run(root, kill_at, job)

    def reindex(self, root: Path, *, kill_at: int = NEVER) -> Run:
        """Rebuild the index; or be killed just before step `kill_at` (from 1)."""
        return self._run(root, kill_at, {"batches": None, "power_cut": False})

    def _run(self, root: Path, kill_at: int, job: dict[str, object]) -> Run:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"root": str(root), "kill_at": kill_at, **job}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["killed"] or not answer["failed"], "the process failed: see its standard error"
        outcomes = [told["outcome"] for told in answer["told"] if "outcome" in told]
        steps = [told["steps"] for told in answer["told"] if "steps" in told]
        return Run(outcomes, answer["killed"], steps[0] if steps else 0)
