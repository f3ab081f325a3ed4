"""`tomowire send`: files and folders to a storage SCP."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tomowire.cli.dicomdir import referenced_files
from tomowire.cli.options import json_option, peer_address, peer_argument, requestor_options, verbose_option
from tomowire.cli.progress import open_progress
from tomowire.cli.resume import ResumeFile
from tomowire.cli.running import ExitCode, complain, exit_code_of, run, set_up_logging
from tomowire.services.dicom_file import DicomFile
from tomowire.services.discovery import Skipped, discover
from tomowire.services.sending import plan, send_files
from tomowire.services.storage import DEFAULT_STORE_TIMEOUT
from tomowire.uids import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tomowire.aio.address import PeerAddress
    from tomowire.services.sending import Sent

# So many files with the same problem are named.
_SAME_REASON = 3


@click.command
@peer_argument
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH...")
@requestor_options
@click.option(
    "-j",
    "--associations",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Associations at the same time.",
)
@click.option(
    "--window",
    type=click.IntRange(1, 65535),
    default=16,
    show_default=True,
    help="Objects under way on one association, if the peer agrees to more than one.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_STORE_TIMEOUT,
    show_default=True,
    help="Seconds in which something must move, for each object.",
)
@click.option(
    "--resume",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Remember in this file what the peer has taken, and pass over what it took before.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar and no summary.")
@json_option
@verbose_option
def command(
    peer: str,
    called_aet: str | None,
    paths: tuple[Path, ...],
    resume: Path | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    verbose: int,
    **options: Any,
) -> None:
    """Send DICOM files to PEER with C-STORE: files, folders with all that is below them, or a DICOMDIR.

    PEER is AET@host:port, or pacs://host:port. What is not DICOM is reported and skipped; one bad file never stops the others.
    Exit code 0 means that every file was taken.
    """
    set_up_logging(verbose)
    address = peer_address(peer, called_aet)
    run(_send(address, paths, resume, dry_run, Report(quiet=quiet, as_json=as_json), options))


async def _send(
    address: PeerAddress,
    paths: Iterable[Path],
    resume: Path | None,
    dry_run: bool,
    report: Report,
    options: dict[str, Any],
) -> int:
    files: list[DicomFile] = []
    for found in discover(paths, read_dicomdir=referenced_files):
        if isinstance(found, Skipped):
            report.skipped(found)
        else:
            files.append(found)
    with ResumeFile(resume, str(address)) as done:
        left = [file for file in files if not done.has(file)]
        report.resumed = len(files) - len(left)
        if dry_run:
            return report.planned(left)
        with open_progress(f"to {address}", sum(file.size for file in left), enabled=not report.quiet) as progress:
            async for sent in send_files(address, left, **options):
                report.sent(sent)
                progress(sent.file.size)
                if not sent.is_failure:
                    done.add(sent.file)
    return report.finish(str(address))


@dataclass
class Report:
    """What became of every file: complaints as they come, and a summary at the end."""

    quiet: bool
    as_json: bool
    resumed: int = 0
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
        if self.as_json:
            outcome = "failed" if skipped.is_error else "skipped"
            self._rows.append({"path": str(skipped.path), "outcome": outcome, "reason": skipped.reason})

    def sent(self, sent: Sent) -> None:
        """A file that was sent, or could not be."""
        file, response = sent.file, sent.response
        if not sent.is_failure:
            self._taken += 1
            self._bytes += file.size
        else:
            self._failures.append(exit_code_of(sent.error) if sent.error is not None else ExitCode.FAILED)
        reason = None
        if response is None:
            reason = str(sent.error)
        elif not response.is_success:
            comment = f": {response.error_comment}" if response.error_comment else ""
            reason = f"the peer answered {response.status}{comment}"
        if reason is not None:
            self._complain(file.path, reason)
        if self.as_json:
            outcome = "failed" if sent.is_failure else "warning" if reason is not None else "stored"
            row = {
                "path": str(file.path),
                "outcome": outcome,
                "sop_instance_uid": file.sop_instance_uid,
                "status": int(response.status) if response is not None else None,
                "reason": reason,
            }
            self._rows.append(row)

    def _complain(self, path: Path, reason: str) -> None:
        """Say what is wrong with a file, but not a thousand times the same: the rest is counted in the end."""
        self._reasons[reason] += 1
        if self._reasons[reason] <= _SAME_REASON:
            complain(f"{path}: {reason}")

    def _complain_of_the_rest(self) -> None:
        for reason, count in self._reasons.items():
            if count > _SAME_REASON:
                complain(f"and {count - _SAME_REASON} more files: {reason}")

    def planned(self, files: list[DicomFile]) -> int:
        """For a dry run: what would be sent, with which presentation contexts."""
        self._complain_of_the_rest()
        groups = plan(files)
        if self.as_json:
            rows = [
                {"path": str(file.path), "sop_instance_uid": file.sop_instance_uid, "bytes": file.size}
                for file in files
            ]
            click.echo(json.dumps({"would_send": rows, "associations": len(groups), "skipped": self._rows}))
        else:
            for file in files:
                click.echo(str(file.path))
            for contexts, members in groups:
                complain(f"an association with {len(contexts)} presentation contexts for {len(members)} files:")
                for context in contexts:
                    complain(f"  {name_of(context.abstract_syntax)}, {name_of(context.transfer_syntaxes[0])}")
        return self._exit_code()

    def finish(self, peer: str) -> int:
        """Print the summary; return the exit code."""
        self._complain_of_the_rest()
        seconds = time.perf_counter() - self._began
        if self.as_json:
            summary = {
                "peer": peer,
                "stored": self._taken,
                "failed": len(self._failures),
                "skipped": self._skipped,
                "resumed": self.resumed,
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

    def _exit_code(self) -> int:
        """What all failures have in common, or that some operation failed."""
        kinds = set(self._failures)
        if not kinds:
            return ExitCode.OK
        everything = len(self._failures) and not self._taken
        return kinds.pop() if len(kinds) == 1 and everything else ExitCode.FAILED
