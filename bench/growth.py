"""What one more small object costs `tomowire serve` when it holds many already, against what it costs when it holds few.

The two are measured in turn: an archive that has been filled stays up, and for each sample a new one with few objects stands
beside it. Both get the same number of objects over one association. Counted is the time from the first answer to the last, so that
neither the start of a program nor the search for files hides what an object costs.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from arrivals import in_tomowire
from figures import GROWTH_LIMIT
from postgres import PostgresServer, objects_in, postgres_server
from processes import LOOPBACK, Program, ProgramFailed, free_port, running
from programs import SERVE, serve_command
from table import Figure, figures_table, markdown
from workloads import write_window

from tomowire import Peer

_PORTION: Final = 20_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """Objects held by the small and by the large archive, objects in one sample, and number of samples."""

    few: int
    many: int
    sample: int
    samples: int


FULL: Final = Sizes(few=1000, many=200_000, sample=2000, samples=5)
TINY: Final = Sizes(few=20, many=200, sample=20, samples=1)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one object, in seconds: by the clock, and of processor time in the server."""

    clock: float
    processor: float


class GrowingArchive:
    """A running `tomowire serve` that gets objects number 0, 1, 2, ..."""

    def __init__(self, program: Program, port: int, work_dir: Path) -> None:
        self._program = program
        self._address = f"{SERVE.ae_title}@{LOOPBACK}:{port}"
        self._source = work_dir / "source"
        self.objects = 0

    def grow(self, objects: int) -> None:
        """Send that many more."""
        while objects > 0:
            portion = min(objects, _PORTION)
            self.sample(portion)
            objects -= portion

    def sample(self, objects: int) -> Cost:
        """Send that many more and measure it."""
        write_window(self._source, self.objects, objects)
        self.objects += objects
        before = self._program.processor_time()
        clock = asyncio.run(_send(self._address, self._source, objects))
        processor = self._program.processor_time() - before
        shutil.rmtree(self._source)
        return Cost(clock / (objects - 1), processor / objects)


def measure_growth(work_dir: Path, *, sizes: Sizes, say: Callable[[str], None]) -> str:
    """Run it with an index in SQLite and one in PostgreSQL, and return the tables."""
    with postgres_server(work_dir) as server:
        costs = {
            "SQLite": _measure(work_dir, None, sizes, say),
            "PostgreSQL": _measure(work_dir, server, sizes, say),
        }
    return _report(sizes, costs)


def _measure(
    work_dir: Path, server: PostgresServer | None, sizes: Sizes, say: Callable[[str], None]
) -> tuple[list[Cost], list[Cost]]:
    """What an object costs an archive with few, and one with many."""
    few: list[Cost] = []
    many: list[Cost] = []
    with _archive(work_dir, "many", server) as large:
        large.grow(sizes.many)
        say(f"filled with {large.objects} objects")
        for _ in range(sizes.samples):
            with _archive(work_dir, "few", server) as small:
                small.grow(sizes.few)
                few.append(small.sample(sizes.sample))
            many.append(large.sample(sizes.sample))
            say(
                f"{few[-1].clock * 1e6:.0f} us an object after {sizes.few}, {many[-1].clock * 1e6:.0f} us after {sizes.many}"
            )
    return few, many


def _report(sizes: Sizes, costs: Mapping[str, tuple[list[Cost], list[Cost]]]) -> str:
    rows, figures = [], []
    for index, (few, many) in costs.items():
        rows += [
            (
                f"after {held}",
                index,
                f"{median(each.clock for each in of_held) * 1e6:.0f}",
                f"{median(each.processor for each in of_held) * 1e6:.0f}",
            )
            for held, of_held in ((sizes.few, few), (sizes.many, many))
        ]
        ratio = median(large.clock / small.clock for large, small in zip(many, few, strict=True))
        what = f"cost of an object in `serve`, {index}, after {sizes.many} objects, against after {sizes.few}"
        figures.append(Figure(what, ratio, GROWTH_LIMIT))
    head = ("objects held before", "index", "µs for one more, by the clock", "µs of the processor time of `serve`")
    return f"{markdown(head, rows)}\n\n{figures_table(figures)}"


@contextmanager
def _archive(work_dir: Path, name: str, server: PostgresServer | None) -> Iterator[GrowingArchive]:
    """An empty archive. When the block ends it must hold all that it was sent; then it is removed."""
    folder, port = work_dir / name, free_port()
    folder.mkdir()
    url = None if server is None else server.new_database()
    options = () if url is None else ("--index-url", url)
    try:
        with running(serve_command(port, folder, *options), work_dir / f"{name}.log") as program:
            program.wait_until_listening(port)
            archive = GrowingArchive(program, port, work_dir)
            yield archive
        held = in_tomowire(folder).objects if url is None else objects_in(url)
        if held != archive.objects:
            raise ProgramFailed(f"tomowire serve: sent {archive.objects} objects, found {held}")
    finally:
        shutil.rmtree(folder)


async def _send(address: str, folder: Path, objects: int) -> float:
    """Seconds from the first answer to the last."""
    answers = []
    async for sent in Peer(address).send(folder):
        if sent.is_failure:
            raise ProgramFailed(f"{sent.file.path}: {sent.error or sent.response}")
        answers.append(time.perf_counter())
    if len(answers) != objects:
        raise ProgramFailed(f"tomowire serve answered for {len(answers)} of {objects} objects")
    return answers[-1] - answers[0]
