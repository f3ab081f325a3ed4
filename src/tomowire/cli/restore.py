"""`tomowire restore`: an archive made again from a backup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tomowire.cli.backup import show_problem
from tomowire.cli.configured import index_url_option
from tomowire.cli.guarded import guarded
from tomowire.cli.options import json_option, verbose_option
from tomowire.cli.progress import open_counter
from tomowire.cli.running import ExitCode, complain, leave, readable, set_up_logging
from tomowire.server.counting import counted

if TYPE_CHECKING:
    from tomowire.server.backup_folder import Point, Problem
    from tomowire.server.findings import Finding


@click.command
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The new data directory: a folder that is empty, or does not exist.",
)
@index_url_option
@click.option("--point", metavar="POINT", help="What --list of tomowire backup names. Default: the newest.")
@json_option
@verbose_option
def command(
    folder: Path, data_dir: Path, index_url: str | None, point: str | None, as_json: bool, verbose: int
) -> None:
    """Make the archive of a backup in DIR again: objects, index, users, jobs, audit trail, protected studies.

    Every object is checked against its checksum while it is copied, and the index against the files at the end. An interrupted run
    is gone on with by the same command. The index may go to another database than it came from.
    """
    set_up_logging(verbose)
    problems: list[Problem] = []

    def report(problem: Problem) -> None:
        show_problem(problem)
        problems.append(problem)

    def work() -> tuple[Point, list[Finding]]:
        from tomowire.server.audit.upkeep import note_restored
        from tomowire.server.check import check
        from tomowire.server.index.backend import backend_for
        from tomowire.server.restore import restore
        from tomowire.server.settings import Settings

        backend = backend_for(index_url, data_dir)

        def note(restored: Point) -> None:
            note_restored(Settings(data_dir, index_url=index_url), folder, restored, problems)

        with open_counter("restoring") as progress:
            restored = restore(folder, data_dir, backend, point=point, report=report, loaded=note, progress=progress)
        # Every byte has been compared with its checksum just now.
        return restored, list(check(data_dir, index_url=index_url, content=False))

    restored, findings = guarded(work)
    for finding in findings:
        complain(": ".join(filter(None, [finding.kind.value, str(finding.path), finding.explanation])))
    if as_json:
        wrong = [{"path": readable(each.path), "explanation": each.explanation} for each in problems]
        facts = {"point": restored.name, "objects": restored.objects, "problems": wrong, "findings": len(findings)}
        click.echo(json.dumps({"folder": readable(folder), "data_dir": readable(data_dir), **facts}))
    else:
        whole = restored.objects - len(problems)
        complain(f"restored {whole} of {counted(restored.objects, 'object')}, as of {restored.made_at}")
    leave(ExitCode.FAILED if problems or findings else ExitCode.OK)
