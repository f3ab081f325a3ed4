"""What storing costs with an index in SQLite and in PostgreSQL: `BatchWriter` alone, without a network, in pairs.

    PYTHONPATH=src:tests TMPDIR=/dev/shm python bench/index_writing.py --rounds 5

The PostgreSQL server is one of the tests' own, over TCP, with `fsync` on. Where the machine is busy the CPU times tell more than
the others.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from support.objects import Sample
from support.postgres import cluster
from tomowire.server.batch import BatchWriter
from tomowire.server.files import DataDirectory
from tomowire.server.incoming import DuplicatePolicy, NewObject, Stored
from tomowire.server.index.backend import backend_for

SIZE = 4000
IN_A_SERIES = 50
BATCHES = {1: 400, 8: 1600, 32: 3200, 128: 3200}
"""Objects in a batch, and in a round: one sender, or many at once."""


@dataclass(frozen=True)
class Cost:
    """Microseconds for an object."""

    elapsed: float
    cpu: float
    """Of this process; the database server's own comes to it."""


def objects(round_number: int, count: int) -> list[NewObject]:
    """New ones, of 50 in a series."""
    first = round_number * 10_000
    return [
        Sample(first + n, series=n // IN_A_SERIES, study=first, patient_id=f"P{first}", size=SIZE).new_object()
        for n in range(count)
    ]


def store(root: Path, url: str | None, new: list[NewObject], batch: int) -> Cost:
    """Store `new` in an archive that has been opened."""
    with (
        DataDirectory.open(root) as directory,
        closing(backend_for(url, root).open_writer()) as index,
        closing(BatchWriter(directory, index, policy=DuplicatePolicy.KEEP)) as writer,
    ):
        began, cpu = time.perf_counter(), time.process_time()
        results = [result for start in range(0, len(new), batch) for result in writer.write(new[start : start + batch])]
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert all(isinstance(result, Stored) and result.is_new for result in results)
    return Cost(elapsed / len(new) * 1e6, cpu / len(new) * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with cluster(fsync="on", full_page_writes="on") as postgres:
        for batch, count in BATCHES.items():
            places = {None: tempfile.mkdtemp(), postgres.url(postgres.create()): tempfile.mkdtemp()}
            costs: list[tuple[Cost, ...]] = []
            for number in range(1, rounds + 1):
                new = objects(number, count)
                costs.append(tuple(store(Path(root), url, new, batch) for url, root in places.items()))
            for root in places.values():
                shutil.rmtree(root)
            sqlite, other = (
                [statistics.median(getattr(pair[which], kind) for pair in costs) for kind in ("elapsed", "cpu")]
                for which in (0, 1)
            )
            ratio = statistics.median(pair[1].elapsed / pair[0].elapsed for pair in costs)
            print(
                f"batches of {batch:3}: SQLite {sqlite[0]:6.0f} µs (CPU {sqlite[1]:4.0f}),"
                f" PostgreSQL {other[0]:6.0f} µs (CPU {other[1]:4.0f}), ratio {ratio:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
