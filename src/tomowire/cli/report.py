"""What became of every file that was to be sent: complaints as they come, and a summary at the end."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from tomowire.cli.running import (
    ExitCode,
    complain,
    exit_code_of,
    explain,
    printable,
    readable,
    writing_to_stdout,
)
from tomowire.errors import NoAcceptedContext
from tomowire.protocol.explain import result_of
from tomowire.server.counting import counted
from tomowire.services.dicom_file import DicomFile
from tomowire.services.sending import plan
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, name_of
from tomowire.wire.items import ContextResult

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tomowire.aio.address import PeerAddress
    from tomowire.services.discovery import Skipped
    from tomowire.services.sending import Sent

# So often is the same said of different files before they are only counted.
_SAME_REASON: Final = 3
_EVERYWHERE: Final = frozenset([IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])


@dataclass
class Report:
    """Told of each file once; `finish` or `planned` ends it and gives the exit code.

    `quiet` tells of failures only, `verbose` of every file where otherwise those with the same reason are only counted.
    """

    peer: PeerAddress
    quiet: bool
    as_json: bool
    verbose: bool
    _began: float = field(default_factory=time.perf_counter)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _taken: int = 0
    _bytes: int = 0
    _skipped: int = 0
    _resumed: int = 0
    _failures: list[ExitCode] = field(default_factory=list)
    _reasons: Counter[str] = field(default_factory=Counter)

    def skipped(self, skipped: Skipped) -> None:
        """A file that is not sent."""
        if skipped.is_error:
            self._complain(skipped.path, skipped.reason)
            self._failures.append(ExitCode.FAILED)
        else:
            self._note(skipped.path, f"skipped: {skipped.reason}")
            self._skipped += 1
        outcome = "failed" if skipped.is_error else "skipped"
        self._add_row(skipped.path, outcome, reason=skipped.reason)

    def resumed(self, file: DicomFile) -> None:
        """A file that the peer has taken in an earlier run."""
        self._resumed += 1
        self._add_row(file.path, "resumed", sop_instance_uid=file.sop_instance_uid)

    def sent(self, sent: Sent) -> None:
        """A file that was sent, or could not be."""
        file, response, error = sent.file, sent.response, sent.error
        assert isinstance(file, DicomFile)  # commands send nothing else
        reason = self._reason(sent)
        if sent.is_failure:
            self._failures.append(exit_code_of(error) if error is not None else ExitCode.FAILED)
            self._complain(file.path, str(reason))
        else:
            self._taken += 1
            self._bytes += file.size
            if reason is not None:
                self._note(file.path, reason)
        is_warning = response is not None and not response.is_success
        outcome = "failed" if sent.is_failure else "warning" if is_warning else "stored"
        status = int(response.status) if response is not None else None
        self._add_row(file.path, outcome, sop_instance_uid=file.sop_instance_uid, status=status, reason=reason)

    def _reason(self, sent: Sent) -> str | None:
        """What there is to say about a file. With Success too a peer may comment, such as that it has the object already."""
        response, error = sent.response, sent.error
        if response is None:
            text = explain(error) if error is not None else "not sent"
            if isinstance(error, NoAcceptedContext) and sent.file.transfer_syntax_uid not in _EVERYWHERE:
                is_about_syntax = result_of(error) in (None, ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED)
                text += "; enable it there, or decompress the file before it is sent" if is_about_syntax else ""
            return text
        if response.is_success:
            return f"stored, and the peer says: {response.error_comment}" if response.error_comment else None
        comment = f": {response.error_comment}" if response.error_comment else ""
        return f"the peer answered {response.status}{comment}"

    def planned(self, files: list[DicomFile]) -> int:
        """For a dry run: what would be sent, with which presentation contexts."""
        self._complain_of_the_rest()
        groups = plan(files)
        if self.as_json:
            import json  # here: it takes 1.5 ms of a start

            rows = [
                {"path": readable(file.path), "sop_instance_uid": file.sop_instance_uid, "bytes": file.size}
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

    def finish(self, not_sent: Sequence[DicomFile] = (), *, interrupted: bool = False) -> int:
        """Print the summary; return the exit code. `interrupted`: of the files `not_sent` nothing is known."""
        for file in not_sent:
            self._add_row(file.path, "not sent", sop_instance_uid=file.sop_instance_uid, reason="interrupted")
        self._complain_of_the_rest()
        seconds = time.perf_counter() - self._began
        if self.as_json:
            import json

            summary = {
                "peer": str(self.peer),
                "stored": self._taken,
                "failed": len(self._failures),
                "skipped": self._skipped,
                "resumed": self._resumed,
                "not_sent": len(not_sent),
                "interrupted": interrupted,
                "bytes": self._bytes,
                "seconds": round(seconds, 3),
                "objects": self._rows,
            }
            with writing_to_stdout():
                click.echo(json.dumps(summary))
        elif not self.quiet:
            rate = self._bytes / seconds / 1e6
            parts = [f"{self._taken} stored ({self._bytes / 1e6:.1f} MB in {seconds:.2f} s, {rate:.0f} MB/s)"]
            parts += [f"{len(self._failures)} failed"] if self._failures else []
            parts += [f"{self._skipped} skipped"] if self._skipped else []
            parts += [f"{self._resumed} stored before"] if self._resumed else []
            parts += [f"{len(not_sent)} not sent"] if not_sent else []
            complain(", ".join(parts))
        return self._exit_code()

    def _add_row(self, path: Path, outcome: str, **facts: object) -> None:
        if self.as_json:
            nothing_known = {"sop_instance_uid": None, "status": None, "reason": None}
            self._rows.append({"path": readable(path), "outcome": outcome} | nothing_known | facts)

    def _note(self, path: Path, text: str) -> None:
        if not self.quiet:
            self._complain(path, text)

    def _complain(self, path: Path, reason: str) -> None:
        """Say what is wrong with a file, but not a thousand times the same: the rest is counted in the end."""
        self._reasons[reason] += 1
        if self.verbose or self._reasons[reason] <= _SAME_REASON:
            complain(f"{path}: {reason}")

    def _complain_of_the_rest(self) -> None:
        for reason, count in self._reasons.items():
            if count > _SAME_REASON and not self.verbose:
                complain(f"and {_count(range(count - _SAME_REASON), 'more file')}: {reason} (-v names them)")

    def _exit_code(self) -> int:
        """What all failures have in common, or that some operation failed."""
        kinds = set(self._failures)
        if not kinds:
            return ExitCode.OK
        return kinds.pop() if len(kinds) == 1 and not self._taken else ExitCode.FAILED


def _count(things: list[Any] | range, name: str) -> str:
    return counted(len(things), name)
