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
from support.places import index_url_of
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
    ended: bool
    """It came to its end; otherwise it was killed, or could not start or end because of an error."""

    steps: int
    """How many steps it took, if it came to its end."""


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
        step: int = NEVER,
        event: str = "kill",
        links: bool = True,
    ) -> Run:
        """Start, store `batches` one after the other, stop. `links` says whether the file system has hard links.

        Just before `step` (from 1) the process is killed; with `event` "power cut" what was not synced is lost as well, and with
        "error" the step fails instead, once.
        """
        job = {
            "batches": [[(asdict(sample), large) for sample, large in batch] for batch in batches],
            "policy": policy.value,
            "links": links,
        }
        return self._run(root, step, event, job)

    def delete(self, root: Path, studies: Sequence[str], *, step: int = NEVER, event: str = "kill") -> Run:
        """Start, delete `studies` one after the other, remove their files, stop."""
        job = {"batches": [], "policy": "keep", "links": True, "deleted": list(studies), "sweeps": True}
        return self._run(root, step, event, job)

    def reindex(self, root: Path, *, step: int = NEVER) -> Run:
        """Rebuild the index; or be killed just before `step` (from 1)."""
        return self._run(root, step, "kill", {"batches": None, "links": True})

    def move(self, root: Path, index_url: str | None, *, step: int = NEVER) -> Run:
        """Rebuild the index in another place; or be killed just before `step` (from 1)."""
        return self._run(root, step, "kill", {"batches": None, "links": True, "index_url": index_url, "move": True})

    def restore(self, folder: Path, root: Path, index_url: str | None, *, step: int = NEVER) -> Run:
        """Restore the newest point of the backups in `folder`; or be killed just before `step` (from 1)."""
        job = {"batches": None, "links": True, "restored_from": str(folder), "index_url": index_url}
        return self._run(root, step, "kill", job)

    def _run(self, root: Path, step: int, event: str, job: dict[str, object]) -> Run:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(
            json.dumps({"root": str(root), "index_url": index_url_of(root), "step": step, "event": event, **job}) + "\n"
        )
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["status"] <= (1 if event == "error" else 0), "the process failed: see its standard error"
        outcomes = [told["outcome"] for told in answer["told"] if "outcome" in told]
        steps = [told["steps"] for told in answer["told"] if "steps" in told]
        return Run(outcomes, answer["killed"], bool(steps), steps[0] if steps else 0)
