"""What the project has promised of these times and sizes, held against what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from table import Figure, number, ratios
from transfer import Result

ECHO_LIMIT_SECONDS = 0.250
GROWTH_LIMIT = 1.3
FIRST_ANSWER_LIMIT_SECONDS = 0.020
QUERY_GROWTH_LIMIT = 2.0
RETRIEVAL_LIMIT = 1 / 2
MEMORY_OF_ANSWERS_LIMIT_MB = 8
WINDOW_LIMIT = 1 / 5
INGEST_LIMIT = 1.5
_LIMIT_MB = 32


def transfer_figures(results: Sequence[Result]) -> list[Figure]:
    """Those that can be told from these results."""
    found = {(each.workload.name, each.pairing.name): each for each in results}
    figures = []
    for ours, other, limit, workloads in (
        ("listen", "storescp+B", 1.0, ("small", "ct", "large")),
        ("listen", "pynetdicom", 1 / 15, ("small",)),
        ("serve", "orthanc", 1 / 2, ("small", "ct", "large")),
    ):
        for workload in workloads:
            if (workload, ours) in found and (workload, other) in found:
                mine, its = found[workload, ours], found[workload, other]
                what = f"{mine.workload.title}: {mine.pairing.title}, time against {its.pairing.title}"
                aside = f"sender alone {number(median(ratios(mine, its, of_sender=True)))}"
                figures.append(Figure(what, median(ratios(mine, its)), limit, aside=aside))
    serve = found.get(("large", "serve"))
    if serve is not None:
        what = f"{serve.workload.title}: memory that"
        figures.append(Figure(f"{what} receiving adds to serve", serve.receiver_adds / 1e6, _LIMIT_MB, " MB"))
        figures.append(Figure(f"{what} sending adds to send", serve.sender_adds / 1e6, _LIMIT_MB, " MB"))
    return figures
