"""What became of every file that was to be sent: complaints as they come, and a summary at the end."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from tomowire.cli.running import ExitCode, complain, exit_code_of, explain, printable
from tomowire.services.sending import plan
from tomowire.uids import name_of

if TYPE_CHECKING:
    from pathlib import Path

    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.discovery import Skipped
    from tomowire.services.sending import Sent

# So often is the same said of different files before they are only counted.
_SAME_REASON: Final = 3


@dataclass
class Report:
    """Told of each file once; `finish` or `planned` ends it and gives the exit code."""

    quiet: bool
    as_json: bool
    resumed: int = 0
    """How many files the peer has taken in earlier runs."""
    _began: float = field(default_factory=time.perf_counter)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _taken: int = 0
    _bytes: int = 0
    _skipped: int = 0
    _failures: list[ExitCode] = field(default_factory=list)
    _reasons: Counter[str] = field(default_factory=Counter)

    def skipped(self, skipped: Skipped) -> None:
        """A file that is not sent."""
        self._complain(skipped.path, f"{'' if skipped.is_error else 'skipped: '}{skipped.reason}")
        if skipped.is_error:
            self._failures.append(ExitCode.FAILED)
        else:
            self._skipped += 1
        outcome = "failed" if skipped.is_error else "skipped"
        self._add_row(skipped.path, outcome, reason=skipped.reason)

    def sent(self, sent: Sent) -> None:
        """A file that was sent, or could not be."""
        file, response, error = sent.file, sent.response, sent.error
        if not sent.is_failure:
            self._taken += 1
            self._bytes += file.size
        else:
            self._failures.append(exit_code_of(error) if error is not None else ExitCode.FAILED)
        reason = None
        if response is None:
            reason = explain(error) if error is not None else "not sent"
        elif not response.is_success:
            comment = f": {response.error_comment}" if response.error_comment else ""
            reason = f"the peer answered {response.status}{comment}"
        if reason is not None:
            self._complain(file.path, reason)
        outcome = "failed" if sent.is_failure else "warning" if reason is not None else "stored"
        status = int(response.status) if response is not None else None
        self._add_row(file.path, outcome, sop_instance_uid=file.sop_instance_uid, status=status, reason=reason)

    def planned(self, files: list[DicomFile]) -> int:
        """For a dry run: what would be sent, with which presentation contexts."""
        self._complain_of_the_rest()
        groups = plan(files)
        if self.as_json:
            rows = [
                {"path": str(file.path), "sop_instance_uid": file.sop_instance_uid, "bytes": file.size}
                for file in files
            ]
            click.echo(json.dumps({"would_send": rows, "associations": len(groups), "left_out": self._rows}))
        else:
            for file in files:
                # A name need not be text in any encoding, and a program that reads it wants it as it is.
                click.echo(printable(str(file.path)) if sys.stdout.isatty() else os.fsencode(file.path))
            for contexts, members in groups:
                complain(
                    f"an association for {_count(members, 'file')}, with {_count(contexts, 'presentation context')}:"
                )
                for context in contexts:
                    complain(f"  {name_of(context.abstract_syntax)}, {name_of(context.transfer_syntaxes[0])}")
        return self._exit_code()

    def finish(self, peer: str, *, interrupted: bool = False) -> int:
        """Print the summary; return the exit code. `interrupted`: not every file's turn has come."""
        self._complain_of_the_rest()
        seconds = time.perf_counter() - self._began
        if self.as_json:
            summary = {
                "peer": peer,
                "stored": self._taken,
                "failed": len(self._failures),
                "skipped": self._skipped,
                "resumed": self.resumed,
                "interrupted": interrupted,
                "bytes": self._bytes,
                "seconds": round(seconds, 3),
                "objects": self._rows,
            }
            click.echo(json.dumps(summary))
        elif not self.quiet:
            rate = self._bytes / seconds / 1e6
            parts = [f"{self._taken} stored ({self._bytes / 1e6:.1f} MB in {seconds:.2f} s, {rate:.0f} MB/s)"]
            parts += [f"{len(self._failures)} failed"] if self._failures else []
            parts += [f"{self._skipped} skipped"] if self._skipped else []
            parts += [f"{self.resumed} stored before"] if self.resumed else []
            complain(", ".join(parts))
        return self._exit_code()

    def _add_row(self, path: Path, outcome: str, **facts: object) -> None:
        if self.as_json:
            nothing_known = {"sop_instance_uid": None, "status": None, "reason": None}
            self._rows.append({"path": str(path), "outcome": outcome} | nothing_known | facts)

    def _complain(self, path: Path, reason: str) -> None:
        """Say what is wrong with a file, but not a thousand times the same: the rest is counted in the end."""
        self._reasons[reason] += 1
        if self._reasons[reason] <= _SAME_REASON:
            complain(f"{path}: {reason}")

    def _complain_of_the_rest(self) -> None:
        for reason, count in self._reasons.items():
            if count > _SAME_REASON:
                complain(f"and {_count(range(count - _SAME_REASON), 'more file')}: {reason}")

    def _exit_code(self) -> int:
        """What all failures have in common, or that some operation failed."""
        kinds = set(self._failures)
        if not kinds:
            return ExitCode.OK
        return kinds.pop() if len(kinds) == 1 and not self._taken else ExitCode.FAILED


def _count(things: list[Any] | range, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
