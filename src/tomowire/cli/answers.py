"""Answers to a query on stdout: for people a table, for programs DICOM JSON (PS3.18 F), JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from tomowire.cli.running import printable, printable_lines, writing_to_stdout
from tomowire.cli.table import Table, keyword_of
from tomowire.cli.values import json_of, shown, texts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from pydicom import Dataset

    Show = Callable[[Dataset], None]

FORMATS: Final = ("table", "json", "jsonl", "csv")

_SPECIFIC_CHARACTER_SET: Final = 0x00080005
_QUERY_RETRIEVE_LEVEL: Final = 0x00080052


def open_output(form: str, asked: Sequence[int]) -> AbstractContextManager[Show]:
    """Yield a function that shows an answer; the end of the block completes the output, also when an exception ends it.

    `asked` are the tags of the query: the columns of a table and of CSV.
    """
    _let_pydicom_take_all()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # better a question mark than no table, where the locale is not UTF-8
    columns = [tag for tag in sorted(asked) if tag not in (_SPECIFIC_CHARACTER_SET, _QUERY_RETRIEVE_LEVEL)]
    if form == "json":
        return _json_array()
    if form == "jsonl":
        return _json_lines()
    return _csv(columns) if form == "csv" else _table(columns)


def _let_pydicom_take_all() -> None:
    """A value that breaks the standard is shown as it is."""
    import pydicom  # whole, before its parts
    import pydicom.config

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


def _echo(text: str | bytes, *, nl: bool = True) -> None:
    with writing_to_stdout():
        click.echo(text, nl=nl)


@contextmanager
def _json_array() -> Iterator[Show]:
    separator = "["

    def show(answer: Dataset) -> None:
        nonlocal separator
        _echo(f"{separator}\n{json_of(answer)}", nl=False)
        separator = ","

    try:
        yield show
    finally:
        _echo("[]" if separator == "[" else "\n]")


@contextmanager
def _json_lines() -> Iterator[Show]:
    yield lambda answer: _echo(json_of(answer))


@contextmanager
def _csv(columns: Sequence[int]) -> Iterator[Show]:
    """RFC 4180. The header is there from the beginning, and each answer as it comes.

    Of the control characters only line breaks are left, between quotation marks; on a terminal not even those.
    """
    on_terminal = sys.stdout.isatty()
    clean = printable if on_terminal else printable_lines
    line = io.StringIO(newline="")
    # What is in the line terminator is put between quotation marks, and of CR that is not so otherwise.
    writer = csv.writer(line, lineterminator="\r\n")

    def show(row: Sequence[str]) -> None:
        line.seek(0)
        line.truncate()
        writer.writerow([clean(each) for each in row])
        if on_terminal:
            _echo(line.getvalue().removesuffix("\r\n"))
        else:  # a program that reads it shall not have to know the locale
            _echo(line.getvalue().encode("utf-8", "replace"), nl=False)

    show([keyword_of(tag) for tag in columns])
    yield lambda answer: show(["\\".join(texts_of(answer, tag)) for tag in columns])


@contextmanager
def _table(columns: Sequence[int]) -> Iterator[Show]:
    """Shown at the end: how wide a column has to be is known only then."""
    table = Table(columns)
    try:
        yield lambda answer: table.add([printable(shown(answer, tag)) for tag in columns])
    finally:
        with writing_to_stdout():
            table.print()
