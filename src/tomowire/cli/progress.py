"""A progress bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def open_progress(title: str, total: int, *, enabled: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many bytes more are done, of `total`."""
    if not enabled or not sys.stderr.isatty():
        yield lambda _: None
        return
    # Not needed, and not paid for, when nobody looks.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda size: progress.update(task, advance=size)
