"""A progress bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tomowire.cli.running import say_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, ProgressColumn


@contextmanager
def open_progress(title: str, total: int, *, enabled: bool) -> Iterator[Callable[[int], None] | None]:
    """Yield a function that is told how many bytes more are done, of `total`; None where nobody looks."""
    if not enabled or not sys.stderr.isatty():
        yield None
        return
    # Not needed, and not paid for, when nobody looks.
    from rich.progress import DownloadColumn, TransferSpeedColumn

    with _shown(DownloadColumn(), TransferSpeedColumn()) as progress:
        task = progress.add_task(title, total=total)
        yield lambda size: progress.update(task, advance=size)


@contextmanager
def open_counter(title: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """Yield a function that is told how many objects are done, and of how many if that is known; None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import MofNCompleteColumn

    with _shown(MofNCompleteColumn()) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def open_transfer(title: str) -> Iterator[Callable[[int, int | None, int], None] | None]:
    """Yield a function that is told how many objects are there, of how many if that is known, and of how many bytes; None where
    nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import MofNCompleteColumn, TextColumn

    began = time.perf_counter()

    def update(done: int, total: int | None, size: int) -> None:
        rate = size / max(time.perf_counter() - began, 0.001)
        progress.update(task, completed=done, total=total, size=f"{size / 1e6:.1f} MB, {rate / 1e6:.0f} MB/s")

    with _shown(MofNCompleteColumn(), TextColumn("{task.fields[size]}")) as progress:
        task = progress.add_task(title, total=None, size="")
        yield update


@contextmanager
def _shown(*columns: ProgressColumn) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    begin = (TextColumn("{task.description}"), BarColumn())
    # rich's own redirection would break lines at the width of the terminal, and names with them.
    with Progress(*begin, *columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        say_through(lambda line, level: console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False))
        try:
            yield progress
        finally:
            say_through(None)
