"""Thousands of associations of which much goes wrong: then memory, tasks, timers, threads and descriptors are where they were.

`python -m support.soak --associations 20000 [--seed N] [--at-once 12] [--uvloop]`, with `src` and `tests` on the PYTHONPATH.
One line of result at the end; exit code 1 when something is left.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import importlib
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from support.leaks import Resources, leaks_since
from support.network import LOOPBACK
from support.soak_work import SHORT, Handlers, Work, make_files
from tomowire import PeerAddress, listen

QUARTERS = 4
GROWTH = 3 << 20
"""Bytes of resident memory by which the last quarter may end above the second: what a heap differs by anyway."""
GROWTH_BLOCKS = 3000
"""Objects of the interpreter by which it may: caches that are still filling. One for each association would be many more."""


class SoakFailed(Exception):
    """Something is left, or something happened that must not."""


@dataclass(frozen=True)
class Memory:
    """What the process holds when nothing is going on."""

    resident: int
    blocks: int
    kinds: Counter[str]

    @classmethod
    def now(cls) -> Memory:
        for _ in range(3):
            gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # what is free is not held
            trim(0)
        status = Path("/proc/self/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return cls(
            int(line.split()[1]) * 1024,
            sys.getallocatedblocks(),
            Counter(sys.intern(f"{type(each).__module__}.{type(each).__qualname__}") for each in gc.get_objects()),
        )

    def grown_since(self, before: Memory) -> str:
        """The kinds of objects that there are more of."""
        return ", ".join(f"{count} {kind}" for kind, count in (self.kinds - before.kinds).most_common(8))


async def soak(folder: Path, *, associations: int, seed: int, at_once: int, may_warm_up: bool) -> str:
    """Do it; gives the line of result. Raises `SoakFailed`.

    `may_warm_up` is for a short one: what is imported late and kept in caches is more than what could leak.
    """
    chance = random.Random(seed)
    begun = time.monotonic()
    # What a loop opens for itself when it first listens.
    first = await asyncio.start_server(lambda *_: None, LOOPBACK, 0)
    first.close()
    await first.wait_closed()
    before = Resources.now()
    files = make_files(folder)
    handlers = Handlers(files, chance)

    async with listen(LOOPBACK, 0, services=handlers.services, shutdown_grace=1.0) as server:
        handlers.own_address = PeerAddress("SOAK", LOOPBACK, server.port)
        work = Work(chance, files, server)
        listening = Resources.now()
        memory: list[Memory] = []
        for quarter in range(1, QUARTERS + 1):
            await _turns(work, associations // QUARTERS, at_once)
            if left := await leaks_since(listening):
                raise SoakFailed(f"after quarter {quarter} there are still: " + "; ".join(left))
            memory.append(Memory.now())
    if left := await leaks_since(before):
        raise SoakFailed("at the end there are still: " + "; ".join(left))
    _, second, _, last = memory
    grown = last.resident - second.resident > GROWTH or last.blocks - second.blocks > GROWTH_BLOCKS
    if grown and not may_warm_up:
        raise SoakFailed(
            f"{last.resident - second.resident} bytes and {last.blocks - second.blocks} objects more than after the second"
            f" quarter: {last.grown_since(second)}"
        )
    resident = ", ".join(f"{each.resident / 1e6:.1f}" for each in memory)
    return (
        f"{associations} associations at least, in {time.monotonic() - begun:.0f} s; MB after each quarter:"
        f" {resident}; objects: {', '.join(str(each.blocks) for each in memory)}; nothing is left. "
        + ", ".join(f"{count} {name}" for name, count in work.outcomes.most_common())
    )


async def _turns(work: Work, count: int, at_once: int) -> None:
    """So many turns, in `at_once` tasks. The first that fails ends them all."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await work.turn()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    await asyncio.sleep(SHORT)


def run(
    *, associations: int, seed: int, at_once: int = 12, may_warm_up: bool = False, with_uvloop: bool = False
) -> str:
    """`soak` in an event loop and a folder of its own."""
    factory = importlib.import_module("uvloop").new_event_loop if with_uvloop else None
    logging.getLogger("asyncio").addHandler(errors := _Errors())
    try:
        with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=factory) as runner:
            result = runner.run(
                soak(Path(folder), associations=associations, seed=seed, at_once=at_once, may_warm_up=may_warm_up)
            )
    finally:
        logging.getLogger("asyncio").removeHandler(errors)
    if errors.seen:
        raise SoakFailed(f"asyncio complained: {errors.seen[:3]}")
    return result


class _Errors(logging.Handler):
    """Keeps what asyncio complains of: exceptions that nobody has seen, tasks that were destroyed."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--associations", type=int, default=20_000)
    parser.add_argument("--at-once", type=int, default=12)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--uvloop", action="store_true", help="in uvloop, which tells of no timers")
    options = parser.parse_args()
    try:
        line = run(
            associations=options.associations, seed=options.seed, at_once=options.at_once, with_uvloop=options.uvloop
        )
    except Exception as error:
        sys.stdout.write(f"seed {options.seed}: FAILED: {error!r}\n")
        if isinstance(error, SoakFailed):
            return 1
        raise
    sys.stdout.write(f"seed {options.seed}: {line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
