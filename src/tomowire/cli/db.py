"""`tomowire db`: look after an archive's data directory."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from tomowire.cli.options import json_option, verbose_option
from tomowire.cli.progress import open_counter
from tomowire.cli.running import ExitCode, complain, explain, printable, set_up_logging
from tomowire.cli.serve import data_dir_option
from tomowire.errors import TomowireError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tomowire.server.findings import Finding


T = TypeVar("T")


@click.group
def command() -> None:
    """Check, rebuild or upgrade an archive's index."""


@command.command
@data_dir_option
@click.option("--quick", is_flag=True, help="Compare names and sizes only; do not read the objects.")
@json_option
@verbose_option
def check(data_dir: Path, quick: bool, as_json: bool, verbose: int) -> None:
    """Compare the index with the files: every row, every file, every checksum.

    Prints what it finds; exit code 0 means that nothing is wrong. The archive may be running.
    """
    from tomowire.server.check import check as find

    set_up_logging(verbose)

    def work() -> list[Finding]:
        with open_counter("checking") as progress:
            return list(_shown(find(data_dir, content=not quick, progress=progress), as_json=as_json))

    findings = _guarded(work)
    if as_json:
        rows = [{"kind": each.kind.value, "path": str(each.path), "explanation": each.explanation} for each in findings]
        click.echo(json.dumps({"data_dir": str(data_dir), "ok": not findings, "findings": rows}))
    complain("nothing wrong" if not findings else f"{len(findings)} finding{'' if len(findings) == 1 else 's'}")
    sys.exit(ExitCode.FAILED if findings else ExitCode.OK)


@command.command
@data_dir_option
@json_option
@verbose_option
def reindex(data_dir: Path, as_json: bool, verbose: int) -> None:
    """Build the index again from the files, and put it in place of the old one at the end.

    The archive must not be running. Files that cannot be indexed are printed, and stay where they are (exit code 1).
    """
    from tomowire.server.reindex import reindex as rebuild

    set_up_logging(verbose)
    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            click.echo(_line(finding))

    def work() -> int:
        with open_counter("indexing") as progress:
            return rebuild(data_dir, report=report, progress=progress)

    count = _guarded(work)
    if as_json:
        rows = [{"kind": each.kind.value, "path": str(each.path), "explanation": each.explanation} for each in findings]
        click.echo(json.dumps({"data_dir": str(data_dir), "indexed": count, "findings": rows}))
    complain(f"{count} objects indexed" + (f", {len(findings)} files could not be" if findings else ""))
    sys.exit(ExitCode.FAILED if findings else ExitCode.OK)


@command.command
@data_dir_option
@verbose_option
def upgrade(data_dir: Path, verbose: int) -> None:
    """Bring the index of an older version up to date."""
    from tomowire.server.files import DataDirectory
    from tomowire.server.index.versions import upgrade as migrate

    set_up_logging(verbose)

    def work() -> tuple[str | None, str | None]:
        if not data_dir.is_dir():
            raise UsageError(f"{data_dir} is not an archive's data directory")
        directory = DataDirectory.open(data_dir)
        try:
            return migrate(directory.index_path)
        finally:
            directory.close()

    before, after = _guarded(work)
    complain(f"the index is at version {after}" + ("" if before == after else f", and was at {before}"))


def _line(finding: Finding) -> bytes:
    """As bytes: the name of a foreign file need not be text in any encoding."""
    return os.fsencode(printable(f"{finding.kind.value}: {finding.path}: {finding.explanation}"))


def _shown(findings: Iterable[Finding], *, as_json: bool) -> Iterator[Finding]:
    for finding in findings:
        if not as_json:
            click.echo(_line(finding))
        yield finding


def _guarded(work: Callable[[], T]) -> T:
    """Do blocking work; a known error becomes one line on stderr and its exit code."""
    try:
        return work()
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(ExitCode.INTERRUPTED)
    except (TomowireError, OSError) as error:
        complain(explain(error))
        sys.exit(ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.FAILED)
