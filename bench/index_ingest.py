"""The same objects to `tomowire serve` with its index in SQLite and in PostgreSQL.

In each round each of them gets everything once, in every other round in the opposite order, always as a new archive; the time that
is compared is that of `tomowire send`. What a first start takes, which with PostgreSQL makes the tables, stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from arrivals import Arrived, in_folder
from figures import INGEST_LIMIT
from postgres import PostgresServer, objects_in, postgres_server
from programs import PAIRINGS, Pairing, Receiver, serve_command
from table import Figure, figures_table, markdown, number, ratios, spread
from transfer import Result, transfer
from workloads import Workload

_DATABASE = "database"


def measure_ingest(
    work_dir: Path, *, workloads: Sequence[Workload], rounds: int, warm_up: bool, say: Callable[[str], None]
) -> str:
    """Run it and return the tables."""
    sqlite = next(pairing for pairing in PAIRINGS if pairing.name == "serve")
    with postgres_server(work_dir) as server:
        postgres = Pairing("postgres", sqlite.group, sqlite.sender, _receiver(server), ours=True)
        results = transfer([sqlite, postgres], workloads, work_dir, rounds=rounds, warm_up=warm_up, say=say)
    pairs = list(zip(results[::2], results[1::2], strict=True))
    head = (
        "seconds of `tomowire send`",
        "SQLite",
        "PostgreSQL",
        "PostgreSQL ÷ SQLite",
        "start, SQLite",
        "start, PostgreSQL",
    )
    return f"{markdown(head, [_row(*pair) for pair in pairs])}\n\n{figures_table([_figure(*pair) for pair in pairs])}"


def _receiver(server: PostgresServer) -> Receiver:
    def command(port: int, folder: Path) -> list[str]:
        url = server.new_database()
        folder.with_name(_DATABASE).write_text(url)
        return serve_command(port, folder, "--index-url", url)

    return Receiver("tomowire serve, PostgreSQL", command, _arrived, ae_title="TOMOWIRE")


def _arrived(data_dir: Path) -> Arrived:
    """Objects that are both a file and a row of the index."""
    files = in_folder(data_dir / "objects")
    return Arrived(min(files.objects, objects_in(data_dir.with_name(_DATABASE).read_text())), files.bytes)


def _row(sqlite: Result, postgres: Result) -> tuple[str, ...]:
    return (
        sqlite.workload.title,
        *(number(median(run.send for run in each.runs)) for each in (sqlite, postgres)),
        spread(ratios(postgres, sqlite, of_sender=True)),
        *(number(median(run.start for run in each.runs)) for each in (sqlite, postgres)),
    )


def _figure(sqlite: Result, postgres: Result) -> Figure:
    what = f"{sqlite.workload.title}: index in PostgreSQL, time against SQLite"
    return Figure(what, median(ratios(postgres, sqlite, of_sender=True)), INGEST_LIMIT)
