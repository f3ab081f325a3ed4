"""The commands with their options, as click knows them: what `--help` prints, as pages."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Final

import click

from tomowire.cli.main import main

_CODE: Final = re.compile(r"(`[^`]+`)")
_MARKUP: Final = re.compile(r"([*_<>\[\]])")


def programs() -> list[str]:
    """The names of the commands, each of which has a page in `reference/programs`."""
    return main.list_commands(click.Context(main))


def every_program() -> str:
    """What `tomowire --help` prints, with the exit codes that all have."""
    context = click.Context(main, info_name="tomowire")
    return "\n\n".join(_parts(main, context))


def program(name: str) -> str:
    """The text and a table of options for a command, and a heading with these for each of its own commands."""
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return "\n\n".join(_pages(command, f"tomowire {name}", is_first=True))


def _pages(command: click.Command, name: str, *, is_first: bool = False) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    if not is_first:
        yield f"## `{name}`"
    yield from _parts(command, context)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from _pages(found, f"{name} {each}")


def _parts(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"```text\n{command.get_usage(context)}\n```"
    yield _paragraphs(command.help or "")
    yield _options(command, context)
    if command.epilog:
        yield _paragraphs(command.epilog)


def _paragraphs(text: str) -> str:
    """click's paragraphs: one that begins with a backspace is printed as it stands."""
    paragraphs = re.split(r"\n[ \t]*\n", inspect.cleandoc(text))
    return "\n\n".join(
        f"```text\n{each.removeprefix(chr(8)).strip(chr(10))}\n```" if each.startswith("\b") else _escaped(each)
        for each in paragraphs
    )


def _options(command: click.Command, context: click.Context) -> str:
    records = [each.get_help_record(context) for each in command.get_params(context)]
    # A bar ends a cell of a table, in code too.
    rows = [
        [f"`{record[0]}`".replace("|", r"\|"), _escaped(record[1]).replace("|", r"\|")] for record in records if record
    ]
    return "\n".join(["| option | meaning |", "|---|---|", *(f"| {' | '.join(row)} |" for row in rows)])


def _escaped(text: str) -> str:
    """Markup, but for code in single backticks, is what it looks like."""
    return "".join(each if each.startswith("`") else _MARKUP.sub(r"\\\1", each) for each in _CODE.split(text))
