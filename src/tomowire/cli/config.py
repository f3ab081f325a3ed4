"""`tomowire config`: is a configuration right, and what does it come to?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tomowire.cli.configured import CONFIG, Source
from tomowire.cli.options import json_option
from tomowire.cli.running import ExitCode, complain, leave, printable
from tomowire.errors import ConfigurationInvalid
from tomowire.server.counting import counted

if TYPE_CHECKING:
    from tomowire.server.config import Loaded, Origin, Problem
    from tomowire.server.config.problems import Path as KeyPath

_file = click.argument(
    "file", type=click.Path(dir_okay=False, path_type=Path), required=False, envvar=CONFIG, metavar="[FILE]"
)


@click.group
def command() -> None:
    """Check a configuration, or show what it comes to.

    FILE is TOML or JSON; without it, $TOMOWIRE_CONFIG. Variables such as TOMOWIRE_DICOM__PORT go over it.
    """


@command.command
@_file
@json_option
def check(file: Path | None, as_json: bool) -> None:
    """Say all that is wrong with a configuration, each with its file, line and key; exit code 2 if anything is.

    Files that it names are looked at; nobody is called.
    """
    problems = _problems(file)
    wrong = sum(not each.is_warning for each in problems)
    if as_json:
        click.echo(json.dumps({"ok": not wrong, "problems": [each.as_json() for each in problems]}))
    else:
        for each in problems:
            click.echo(printable(f"{'warning: ' if each.is_warning else ''}{each}"))
    name = "the configuration" if file is None else str(file)
    complain(f"{name}: {_counted(wrong, len(problems) - wrong)}")
    leave(ExitCode.USAGE if wrong else ExitCode.OK)


@command.command
@_file
@json_option
def show(file: Path | None, as_json: bool) -> None:
    """Print all keys with what is in force, and where it was said. Passwords are left out."""
    from tomowire.server.config import as_toml, shown

    try:
        loaded = Source(file, {}).load()
    except ConfigurationInvalid as invalid:
        for each in invalid.problems:
            complain(str(each))
        leave(ExitCode.USAGE)
    tree = shown(loaded.configuration)
    if as_json:
        click.echo(json.dumps(tree))
    else:
        click.echo(as_toml(tree, lambda path: _said(loaded, path)), nl=False)
    leave(ExitCode.OK)


def _problems(file: Path | None) -> list[Problem]:
    from tomowire.server.config import check as find

    try:
        return find(Source(file, {}).load())
    except ConfigurationInvalid as invalid:
        return list(invalid.problems)


def _said(loaded: Loaded, path: KeyPath) -> str:
    from tomowire.server.config.explain import origin_of

    origin: Origin | None = origin_of(path, loaded.origins) if loaded.is_said(*path) else None
    return "default" if origin is None else printable(str(origin))


def _counted(wrong: int, warnings: int) -> str:
    parts = [counted(wrong, "mistake")] if wrong else ["no mistakes"]
    parts += [counted(warnings, "warning")] if warnings else []
    return ", ".join(parts)
