"""`tomowire db`: look after an archive's data directory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from tomowire.cli.configured import settings_options
from tomowire.cli.guarded import guarded
from tomowire.cli.options import json_option, verbose_option
from tomowire.cli.progress import open_counter
from tomowire.cli.running import ExitCode, complain, leave, printable, readable, set_up_logging
from tomowire.server.counting import counted

if TYPE_CHECKING:
    from tomowire.server.findings import Finding
    from tomowire.server.settings import Settings


@click.group
def command() -> None:
    """Check, rebuild or upgrade an archive's index."""


@command.command
@settings_options
@click.option("--quick", is_flag=True, help="Compare names and sizes only; do not read the objects.")
@click.option("--repair", is_flag=True, help="Mend what can be mended. The archive must not be running.")
@json_option
@verbose_option
def check(settings: Settings, quick: bool, repair: bool, as_json: bool, verbose: int) -> None:
    """Compare the index with the files: every row, every file, every checksum.

    Prints what it finds; exit code 0 means that nothing is wrong, or with --repair that all of it was mended. What a killed process
    left unfinished does not count: the next start removes it. The archive may be running.

    With --repair files that the index does not have are indexed if they are whole; rows whose files are missing or damaged are
    taken out of the index, and those files moved to lost+found in the data directory. No file is deleted.
    """
    from tomowire.server.check import check as find
    from tomowire.server.findings import FindingKind

    set_up_logging(verbose)

    data_dir = settings.data_dir
    findings = _Findings(data_dir, as_json=as_json)
    if repair:
        _repair(settings, findings, content=not quick)

    def work() -> int:
        """How many findings are nothing to act on: what they are of is removed at the next start anyway."""
        left = 0
        with findings, open_counter("checking") as progress:
            for finding in find(data_dir, index_url=settings.index_url, content=not quick, progress=progress):
                findings.show(finding)
                left += finding.kind is FindingKind.UNFINISHED
        return left

    left = guarded(work)
    wrong = findings.count - left
    findings.end(ok=not wrong)
    parts = [counted(wrong, "finding")] if wrong else ["nothing wrong"]
    parts += [f"{left} left by a process that was killed: removed at the next start"] if left else []
    complain("; ".join(parts))
    leave(ExitCode.FAILED if wrong else ExitCode.OK)


@command.command
@settings_options
@click.option("--move", is_flag=True, help="The new index comes to another place than the old one.")
@json_option
@verbose_option
def reindex(settings: Settings, move: bool, as_json: bool, verbose: int) -> None:
    """Build the index again from the files, and put it in place of the old one at the end.

    The archive must not be running. Files that cannot be indexed are printed, and stay where they are (exit code 1).

    With --move it may come from the data directory to PostgreSQL, from there to the data directory, or to another database; without
    it that is refused. Users, tokens, jobs and the audit trail stay behind. Protected studies stay protected if the old index is in
    the data directory.
    """
    from tomowire.server.audit.teller import person
    from tomowire.server.audit.upgraded import UpgradeNoted
    from tomowire.server.audit.upkeep import note_reindexed
    from tomowire.server.findings import FindingKind
    from tomowire.server.reindex import reindex as rebuild

    set_up_logging(verbose)
    findings = _Findings(settings.data_dir, as_json=as_json)

    lost: list[str] = []

    def report(finding: Finding) -> None:
        findings.show(finding)
        if finding.kind is FindingKind.AUDIT_BROKEN:
            lost.append(finding.explanation)

    def work() -> int:
        with findings, open_counter("indexing") as progress:
            count = rebuild(
                settings.data_dir,
                index_url=settings.index_url,
                report=report,
                progress=progress,
                on_upgrade=UpgradeNoted(settings, person()),
                move=move,
            )
            note_reindexed(settings, count, findings.count, lost)
        return count

    count = guarded(work)
    findings.end(indexed=count)
    wrong = f", {counted(findings.count, 'finding')}" if findings.count else ""
    complain(f"{counted(count, 'object')} indexed{wrong}")
    leave(ExitCode.FAILED if findings.count else ExitCode.OK)


@command.command
@settings_options
@verbose_option
def upgrade(settings: Settings, verbose: int) -> None:
    """Bring the index of an older version up to date."""
    from tomowire.server.audit.teller import person
    from tomowire.server.audit.upgraded import UpgradeNoted
    from tomowire.server.upgrade import upgrade as migrate

    set_up_logging(verbose)
    noted = UpgradeNoted(settings, person(), new_too=True)
    before, after = guarded(lambda: migrate(settings.data_dir, index_url=settings.index_url, on_upgrade=noted))
    complain(f"the index is at version {after}" + ("" if before == after else f", and was at {before}"))


def _repair(settings: Settings, findings: _Findings, *, content: bool) -> NoReturn:
    from tomowire.server.audit.teller import person
    from tomowire.server.audit.upgraded import UpgradeNoted
    from tomowire.server.audit.upkeep import RepairNoted
    from tomowire.server.repair import repair

    lost = 0

    def work() -> int:
        """How much could not be mended."""
        nonlocal lost
        left = 0
        with findings, RepairNoted(settings) as noted, open_counter("repairing") as progress:
            for mended in repair(
                settings.data_dir,
                index_url=settings.index_url,
                content=content,
                progress=progress,
                on_upgrade=UpgradeNoted(settings, person()),
            ):
                findings.show(mended.finding, mended.what)
                noted.mended(mended)
                left += not mended.is_mended
                lost += mended.is_lost
        return left

    left = guarded(work)
    findings.end(ok=not left)
    complain(f"{findings.count - left} mended, {left} left" if findings.count else "nothing wrong")
    if lost:
        which = f"{lost} object is" if lost == 1 else f"{lost} objects are"
        complain(f"{which} lost: send what is named above again, or import it from the 'objects' of a backup")
    leave(ExitCode.FAILED if left else ExitCode.OK)


class _Findings:
    """What is found, shown as it comes and not kept: there may be as many findings as there are objects.

    With `as_json` they are rows of one JSON object, which `end` completes; leaving the `with` by an exception does so too.
    """

    def __init__(self, data_dir: Path, *, as_json: bool) -> None:
        self.count = 0
        self._as_json = as_json
        self._before_row = f'{{"data_dir": {json.dumps(readable(data_dir))}, "findings": ['

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.count:
            self.end(ok=False)

    def show(self, finding: Finding, became: str = "") -> None:
        """`became` says what it has been mended to."""
        self.count += 1
        if self._as_json:
            row = {"kind": finding.kind.value, "path": readable(finding.path), "explanation": finding.explanation}
            row |= {"repair": became} if became else {}
            click.echo(self._before_row + json.dumps(row), nl=False)
            self._before_row = ", "
        else:
            click.echo(_line(finding, became))

    def end(self, **facts: object) -> None:
        """No more will come; `facts` are said of all."""
        if self._as_json:
            begin = "" if self.count else self._before_row
            click.echo(f"{begin}], {json.dumps(facts)[1:]}")


def _line(finding: Finding, became: str) -> bytes:
    """As bytes: the name of a foreign file need not be text in any encoding."""
    text = ": ".join(each for each in (finding.kind.value, finding.path, finding.explanation) if each)
    return os.fsencode(printable(f"{text}; {became}" if became else text))
