"""`tomowire backup`: copies of an archive, made while it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tomowire.cli.configured import settings_options
from tomowire.cli.guarded import guarded
from tomowire.cli.options import json_option, verbose_option
from tomowire.cli.progress import open_counter
from tomowire.cli.running import ExitCode, complain, leave, printable, readable, set_up_logging
from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.counting import counted

if TYPE_CHECKING:
    from tomowire.server.backup_folder import Point, Problem
    from tomowire.server.settings import Settings


@click.command
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@settings_options
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Give up all points but the N newest afterwards, if nothing is wrong.",
)
@click.option(
    "--link", is_flag=True, help="Make hard links where both are on one file system: no second copy, no space."
)
@click.option("--list", "as_list", is_flag=True, help="Make none: print the points that there are.")
@click.option(
    "--verify", is_flag=True, help="Make none: read the newest point, or that of --point, and compare checksums."
)
@click.option("--point", metavar="POINT", help="With --verify: the point to be read.")
@json_option
@verbose_option
def command(
    folder: Path,
    settings: Settings,
    keep: int | None,
    link: bool,
    as_list: bool,
    verify: bool,
    point: str | None,
    as_json: bool,
    verbose: int,
) -> None:
    """Add a point to the backups in DIR: what the archive holds now, which may be running and storing.

    Objects that an earlier point has are not copied again; an interrupted run is gone on with by the next. Exit code 0 means that
    everything the index names is in the backup, with its checksum.
    """
    set_up_logging(verbose)
    if as_list and verify:
        raise click.UsageError("--list and --verify exclude each other")
    if point is not None and not verify:
        raise click.UsageError("--point goes with --verify")
    if (as_list or verify) and (link or keep is not None):
        raise click.UsageError("--keep and --link are for who makes a point: not with --list or --verify")
    if as_list:
        _list(folder, as_json=as_json)
    elif verify:
        _verify(folder, point, as_json=as_json)
    else:
        _make(folder, settings, keep, link=link, as_json=as_json)


def _make(folder: Path, settings: Settings, keep: int | None, *, link: bool, as_json: bool) -> None:
    from tomowire.server.audit.upkeep import BackupNoted
    from tomowire.server.backup import backup
    from tomowire.server.backup_folder import BackupFolder
    from tomowire.server.backup_upkeep import prune
    from tomowire.server.index.backend import backend_for

    def work() -> tuple[Point, list[str], str]:
        backend = backend_for(settings.index_url, settings.data_dir)
        with BackupNoted(settings, folder) as noted, open_counter("copying") as progress:
            made = backup(
                settings.data_dir,
                folder,
                backend,
                link=link,
                report=show_problem,
                copied=noted.copied,
                progress=progress,
            )
            noted.made(made)
        if keep is None or made.problem_count:  # older points may have what this one lacks
            return made, [], ""
        try:
            with BackupFolder.open(folder, create=False) as opened:
                return made, [gone.name for gone in prune(opened, keep)], ""
        except (UsageError, IndexUnavailable) as error:
            return made, [], str(error)

    made, gone, obstacle = guarded(work)
    if as_json:
        click.echo(json.dumps({"folder": readable(folder), **_facts(made), "given_up": gone}))
    else:
        complain(
            f"point {made.name}: {counted(made.objects, 'object')}, {_size(made.bytes)}, {made.copied} of them copied"
            + (f"; {counted(len(gone), 'older point')} given up" if gone else "")
        )
    if obstacle:
        complain(f"the point is made, and older ones were not given up, or not all that only they had: {obstacle}")
    leave(ExitCode.FAILED if made.problem_count or obstacle else ExitCode.OK)


def _list(folder: Path, *, as_json: bool) -> None:
    from tomowire.server.backup_folder import points_of

    damaged: list[Problem] = []
    points = guarded(lambda: points_of(folder, damaged.append))
    for each in damaged:
        complain(each.explanation)
    if as_json:
        click.echo(json.dumps({"folder": readable(folder), "points": [_facts(point) for point in points]}))
    else:
        for point in points:
            wrong = f", {counted(point.problem_count, 'problem')}" if point.problem_count else ""
            click.echo(f"{point.name}  {counted(point.objects, 'object')}  {_size(point.bytes)}{wrong}")
    leave(ExitCode.FAILED if damaged else ExitCode.OK)


def _verify(folder: Path, name: str | None, *, as_json: bool) -> None:
    from tomowire.server.backup_upkeep import verify

    problems: list[Problem] = []

    def report(problem: Problem) -> None:
        show_problem(problem)
        problems.append(problem)

    def work() -> Point:
        with open_counter("verifying") as progress:
            return verify(folder, name, report=report, progress=progress)

    point = guarded(work)
    wrong = [{"path": readable(each.path), "explanation": each.explanation} for each in problems]
    if as_json:
        click.echo(json.dumps({"folder": readable(folder), **_facts(point), "damaged": wrong}))
    else:
        complain(f"point {point.name}: {counted(point.objects, 'object')}, {len(wrong)} of them damaged or missing")
    leave(ExitCode.FAILED if wrong or point.problem_count else ExitCode.OK)


def show_problem(problem: Problem) -> None:
    """A line on stderr."""
    complain(printable(f"{problem.path}: {problem.explanation}"))


def _facts(point: Point) -> dict[str, Any]:
    return {
        "point": point.name,
        "made_at": point.made_at,
        "objects": point.objects,
        "bytes": point.bytes,
        "copied": point.copied,
        "problems": point.problem_count,
    }


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"
