"""Side-by-side benchmarks of tomowire and of what people use today. `python bench/run.py --help` says what can be chosen."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import growth
import index_ingest
import index_queries
import retrieval
import window
from document import replace_section
from echo import measure_echo
from figures import transfer_figures
from machine import machine, versions
from processes import ProgramFailed
from programs import PAIRINGS
from table import figures_table, transfer_tables
from transfer import transfer
from workloads import FULL, TINY

_DOCUMENT: Final = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
_RAM_DISK: Final = Path("/dev/shm")
_ECHO_TIMES: Final = 11


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    # A gigabyte on the RAM disk must not stay there when somebody ends the benchmark.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    document = options.document or (None if options.small or options.only or options.no_write else _DOCUMENT)
    try:
        for name in _MODES if options.mode == "all" else (options.mode,):
            with tempfile.TemporaryDirectory(prefix="tomowire-bench-", dir=options.work_dir) as work_dir:
                tables = _MODES[name](Path(work_dir), options)
            text = f"{tables}\n\n{_circumstances(name, options)}"
            print(text)
            if document is not None:
                replace_section(document, name, text)
    except ProgramFailed as error:
        say("\n\n".join((f"failed: {error}", *getattr(error, "__notes__", ()))))
        return 1
    return 0


def say(text: str) -> None:
    """What happens, on stderr: stdout is for the tables."""
    print(text, file=sys.stderr, flush=True)


def _transfer(work_dir: Path, options: argparse.Namespace) -> str:
    only = options.only or ()
    workloads = TINY if options.small else FULL
    results = transfer(
        [each for each in PAIRINGS if each.name in only] or PAIRINGS,
        [each for each in workloads if each.name in only] or workloads,
        work_dir,
        rounds=options.rounds,
        warm_up=not options.small,
        say=say,
    )
    return f"{transfer_tables(results)}\n\n### What was promised\n\n{figures_table(transfer_figures(results))}"


def _echo(work_dir: Path, options: argparse.Namespace) -> str:
    return measure_echo(work_dir, times=1 if options.small else _ECHO_TIMES, say=say)


def _growth(work_dir: Path, options: argparse.Namespace) -> str:
    return growth.measure_growth(work_dir, sizes=growth.TINY if options.small else growth.FULL, say=say)


def _index(work_dir: Path, options: argparse.Namespace) -> str:
    return index_ingest.measure_ingest(
        work_dir,
        workloads=(TINY if options.small else FULL)[:2],
        rounds=options.rounds,
        warm_up=not options.small,
        say=say,
    )


def _query(work_dir: Path, options: argparse.Namespace) -> str:
    sizes = index_queries.TINY if options.small else index_queries.FULL
    parts = {
        "With DCMTK, beside Orthanc": retrieval.measure_retrieval(
            work_dir,
            sizes=retrieval.TINY if options.small else retrieval.FULL,
            rounds=options.rounds,
            warm_up=not options.small,
            say=say,
        ),
        "Few and many objects in the index": index_queries.measure_growth_of_queries(work_dir, sizes=sizes, say=say),
        "Memory": index_queries.measure_memory_of_answers(work_dir, sizes=sizes, say=say),
    }
    figures = [figure for _, promised in parts.values() for figure in promised]
    tables = [f"### {title}\n\n{text}" for title, (text, _) in parts.items()]
    return "\n\n".join((*tables, f"### What was promised\n\n{figures_table(figures)}"))


def _window(work_dir: Path, options: argparse.Namespace) -> str:
    workload = window.TINY if options.small else window.FULL
    return window.measure_window(work_dir, workload=workload, rounds=options.rounds, say=say)


_MODES: Final[dict[str, Callable[[Path, argparse.Namespace], str]]] = {
    "transfer": _transfer,
    "echo": _echo,
    "growth": _growth,
    "index": _index,
    "query": _query,
    "window": _window,
}


def _circumstances(name: str, options: argparse.Namespace) -> str:
    """The command that made the table, and what it ran with."""
    chosen = [name]
    if name in ("transfer", "index", "query", "window"):
        chosen += ["--rounds", str(options.rounds)]
    if options.only:
        chosen += ["--only", ",".join(options.only)]
    if options.small:
        chosen += ["--small"]
    return f"Made by `scripts/bench {shlex.join(chosen)}` on {machine()}, with {versions()}."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Side-by-side benchmarks of tomowire and of what people use today."
    )
    parser.add_argument(
        "mode",
        nargs="?",
        choices=[*_MODES, "all"],
        default="transfer",
        help="transfer: all pairings of sender and receiver (default); echo: the time of `tomowire echo`; "
        "growth: what an object costs an archive that holds many; index: archives with SQLite and with PostgreSQL; "
        "query: C-FIND, C-GET and C-MOVE; "
        "window: requests outstanding over a link with a delay",
    )
    parser.add_argument("--rounds", type=_positive, default=5, help="counted runs of each pairing (default 5)")
    parser.add_argument(
        "--only", type=_names, help=f"workloads and pairings, with commas between: {', '.join(_known_names())}"
    )
    parser.add_argument("--small", action="store_true", help="tiny workloads, to see that all works")
    parser.add_argument("--work-dir", type=Path, default=_RAM_DISK, help="a RAM disk with 8 GB free (default /dev/shm)")
    parser.add_argument(
        "--document",
        type=Path,
        help="where the tables go, beside stdout (default docs/benchmarks.md, but not with --small or --only)",
    )
    parser.add_argument("--no-write", action="store_true", help="tables on stdout only")
    return parser


def _known_names() -> list[str]:
    return [*(each.name for each in FULL), *(each.name for each in PAIRINGS)]


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in _known_names():
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(_known_names())}")
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
