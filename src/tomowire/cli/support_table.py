"""What a peer supports, as a table for people: classes that it treats alike are one row."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Final

import click

from tomowire.wire.items import ContextResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tomowire.services.probing import Options, Support

_NAMED: Final = 3
_FIRST: Final = (
    "CT Image Storage",
    "MR Image Storage",
    "Computed Radiography Image Storage",
    "Ultrasound Image Storage",
)
_LEVELS: Final = {0: "local", 1: "base", 2: "full: all attributes are kept", 3: "no SCP"}
_COERCION: Final = {0: "attributes are not changed", 1: "attributes may be changed"}
"""PS3.4 Table B.3-1."""
_TITLES: Final = ("SOP class", "transfer syntaxes", "sent by C-GET")


def print_support(classes: Sequence[Support], *, every_class: bool) -> None:
    """A row for each service class, and for each kind of support of storage classes, or for each of those with `every_class`."""
    rows = list(_rows([each for each in classes if each.is_supported], every_class=every_class))
    if not rows:
        click.echo("nothing that was asked for")
    elif sys.stdout.isatty():
        _print_fitted(rows)
    else:
        _print_plain(rows)
    _print_refused([each for each in classes if not each.is_supported])


def print_options(classes: Sequence[Support]) -> None:
    """A row for each answer to extended negotiation; SOP classes for which it is the same are together."""
    alike: dict[str, list[str]] = {}
    for each in classes:
        if each.options is not None:
            alike.setdefault(_said_of(each.options), []).append(each.name)
    if not alike:
        click.echo("nothing was answered to what was asked for")
    for said, names in alike.items():
        click.echo(f"{_some(sorted(names, key=_rank))}: {said}")


def _said_of(options: Options) -> str:
    from tomowire.services.extended import StorageOptions

    if isinstance(options, StorageOptions):
        level = _LEVELS.get(options.level, "unknown")
        coercion = _COERCION.get(options.coercion, "it is not said whether attributes are changed")
        return f"level {options.level} ({level}), {coercion}"
    chosen = [each.name.replace("_", " ") for each in fields(options) if getattr(options, each.name)]
    return ", ".join(chosen) or "none of it"


def _rows(supported: Sequence[Support], *, every_class: bool) -> Iterator[tuple[str, str, str]]:
    alike: dict[tuple[str, str], list[str]] = {}
    for each in supported:
        said = (", ".join(each.kinds), "yes" if each.is_sent else "")
        if each.is_storage and not every_class:
            alike.setdefault(said, []).append(each.name)
        else:
            yield each.name, *said
    for said, names in alike.items():
        yield _some(sorted(names, key=_rank)), *said


def _rank(name: str) -> int:
    """What people look for stands first, what is retired last."""
    if name in _FIRST:
        return _FIRST.index(name)
    return len(_FIRST) + name.endswith("(Retired)")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _print_refused(refused: Iterable[Support]) -> None:
    unknown, otherwise = 0, []
    for each in refused:
        if each.result == ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED:
            unknown += 1
        else:
            otherwise.append(each.name)
    click.echo()
    if otherwise:
        click.echo(f"refused, but not as unknown: {_some(otherwise)}")
    click.echo(f"not supported: {unknown} other SOP classes (--json names them)")


def _print_fitted(rows: Iterable[tuple[str, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in _TITLES:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False, emoji=False, markup=False).print(table)


def _print_plain(rows: Sequence[tuple[str, ...]]) -> None:
    table = [_TITLES, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_TITLES))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
