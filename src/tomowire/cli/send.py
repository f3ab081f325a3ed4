"""`tomowire send`: files and folders to a storage SCP."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tomowire.cli.dicomdir import referenced_files
from tomowire.cli.options import json_option, peer_argument, requestor_options
from tomowire.cli.progress import open_progress
from tomowire.cli.report import Report
from tomowire.cli.resume import ResumeFile
from tomowire.cli.running import ExitCode, complain, run
from tomowire.cli.speed import associations_option, bandwidth_option
from tomowire.services.adapting import AdaptivePace
from tomowire.services.dicom_file import DicomFile
from tomowire.services.discovery import Skipped, discover
from tomowire.services.pacing import Pacer
from tomowire.services.retrying import DEFAULT_RETRIES, retry_waits
from tomowire.services.sending import send_files
from tomowire.services.storage import DEFAULT_STORE_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tomowire.aio.address import PeerAddress

# Files that are looked at before the event loop gets a turn.
_LOOKS_BETWEEN_PAUSES: Final = 256


@click.command
@peer_argument
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@associations_option
@bandwidth_option
@click.option(
    "--window",
    type=click.IntRange(1, 65535),
    default=16,
    show_default=True,
    help="Objects under way on one association, if the peer agrees to more than one.",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=DEFAULT_RETRIES,
    show_default=True,
    help="How often an object is sent again that is refused with A7xx or loses its connection, and a peer tried again that is"
    " gone; with growing waits. With 0 nothing is sent twice.",
)
@click.option(
    "--resume",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Remember in this file what the peer has taken, and pass over what it took before.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Tell of failures only: no progress bar, no summary.")
@json_option
@requestor_options(timeout=DEFAULT_STORE_TIMEOUT, timeout_help="Seconds in which something must move, for each object.")
def command(
    peer: PeerAddress,
    paths: tuple[Path, ...],
    resume: Path | None,
    dry_run: bool,
    retries: int,
    bandwidth: float | None,
    quiet: bool,
    as_json: bool,
    verbose: int,
    options: dict[str, Any],
    **how: Any,
) -> None:
    """Send DICOM files to PEER with C-STORE: files, folders with all that is below them, or a DICOMDIR.

    PEER is AET@host:port, or pacs://host:port. What is not DICOM is reported and skipped; one bad file never stops the others.
    Exit code 0 means that every file was taken.
    """
    report = Report(peer, quiet=quiet, as_json=as_json, verbose=verbose > 0)
    if not retries and isinstance(how["associations"], AdaptivePace):
        how["associations"] = 1  # what it costs to find it out could not be made good
    how["pacer"] = Pacer(bandwidth) if bandwidth is not None else None
    run(_send(paths, resume, dry_run, report, {"retry_waits": retry_waits(retries)} | how | options))


async def _send(
    paths: Sequence[Path], resume: Path | None, dry_run: bool, report: Report, options: dict[str, Any]
) -> int:
    files: list[DicomFile] = []
    left = files
    told: set[Path | None] = set()
    try:
        await _find(paths, files, report)
        if not files:
            complain(f"there is nothing to send: no DICOM file in {', '.join(map(str, paths))}")
            return report.finish() or ExitCode.FAILED
        with ResumeFile(resume, str(report.peer), read_only=dry_run) as done:
            left = []
            for file in files:
                if done.has(file):
                    report.resumed(file)
                else:
                    left.append(file)
            if dry_run:
                return report.planned(left)
            size = sum(file.size for file in left)
            with open_progress(f"to {report.peer}", size, enabled=not report.quiet) as progress:
                async with aclosing(send_files(report.peer, left, progress=progress, **options)) as results:
                    async for sent in results:
                        told.add(sent.path)
                        report.sent(sent)
                        if isinstance(sent.file, DicomFile) and not sent.is_failure:
                            done.add(sent.file)
    except (asyncio.CancelledError, KeyboardInterrupt):
        # Ctrl-C: what has been done is told all the same. Where SIGINT is ignored (in the background of a shell) asyncio does not
        # turn it into a cancellation, and SIGTERM may come out just here.
        report.finish([file for file in left if file.path not in told], interrupted=True)
        raise
    return report.finish()


async def _find(paths: Iterable[Path], files: list[DicomFile], report: Report) -> None:
    """Add to `files` what is to be sent."""
    for number, found in enumerate(discover(paths, read_dicomdir=referenced_files)):
        if isinstance(found, Skipped):
            report.skipped(found)
        else:
            files.append(found)
        if not number % _LOOKS_BETWEEN_PAUSES:
            await asyncio.sleep(0)  # Ctrl-C is heard here
