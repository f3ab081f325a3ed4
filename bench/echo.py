"""How long `tomowire echo` takes as a whole process, from its start to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

from figures import ECHO_LIMIT_SECONDS
from processes import LOOPBACK, free_port, running
from programs import SERVE, tomowire
from table import Figure, figures_table

_TIMEOUT: Final = 30.0


def measure_echo(work_dir: Path, *, times: int, say: Callable[[str], None]) -> str:
    """Run it against `tomowire serve`, once without counting and then `times` times; return the table."""
    folder = work_dir / "received"
    folder.mkdir()
    port = free_port()
    with running(SERVE.command(port, folder), work_dir / "receiver.log") as server:
        server.wait_until_listening(port)
        seconds = [_echo(port, work_dir) for _ in range(times + 1)][1:]
    say(f"tomowire echo: {', '.join(f'{each * 1000:.0f}' for each in seconds)} ms")
    what = f"`tomowire echo` against `tomowire serve`, whole process, median of {times}"
    return figures_table([Figure(what, median(seconds) * 1000, ECHO_LIMIT_SECONDS * 1000, " ms")])


def _echo(port: int, work_dir: Path) -> float:
    with running(tomowire("echo", f"{SERVE.ae_title}@{LOOPBACK}:{port}"), work_dir / "sender.log") as process:
        return process.wait(_TIMEOUT)[0]
