"""C-FIND against `tomowire serve` with few and with many objects in its index; and what a million answers take of memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from asking import Asked, ask_in_turn
from dcmtk_clients import check_found, findscu
from figures import FIRST_ANSWER_LIMIT_SECONDS, MEMORY_OF_ANSWERS_LIMIT_MB, QUERY_GROWTH_LIMIT
from filled_index import QUERIES, record_of_a_file, write_hospital, write_long_series
from postgres import PostgresServer, postgres_server
from processes import LOOPBACK, Program, ProgramFailed, free_port, running
from programs import SERVE, serve_command
from table import Figure, markdown, number, spread

_FIND_TIMEOUT: Final = 900.0
_TEN: Final = 10

INDEXES: Final = ("SQLite", "PostgreSQL")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Objects in the small and in the large index, in one study, and in the one series that is asked for as a whole."""

    few: int
    many: int
    per_study: int
    rows: int
    times: int


FULL: Final = Sizes(few=10_000, many=1_000_000, per_study=100, rows=1_000_000, times=11)
TINY: Final = Sizes(few=400, many=2000, per_study=20, rows=2000, times=1)


def measure_growth_of_queries(work_dir: Path, *, sizes: Sizes, say: Callable[[str], None]) -> tuple[str, list[Figure]]:
    """Four queries at the level of studies, each with as many answers from the small index as from the large one; of indexes in
    SQLite and in PostgreSQL."""
    counts = (sizes.few, sizes.many)
    with postgres_server(work_dir) as server:
        parts = [
            _measure_growth(work_dir, INDEXES[0], None, sizes, say),
            _measure_growth(work_dir, INDEXES[1], server, sizes, say),
        ]
    head = (
        "studies by",
        "index",
        "answers",
        *(f"{what}, {count} objects" for count in counts for what in ("first ms", "last ms")),
        "first, many ÷ few",
    )
    # Of each query, one database below the other.
    rows = [row for of_query in zip(*(rows for rows, _ in parts), strict=True) for row in of_query]
    return markdown(head, rows), [figure for _, figures in parts for figure in figures]


def _measure_growth(
    work_dir: Path, index: str, server: PostgresServer | None, sizes: Sizes, say: Callable[[str], None]
) -> tuple[list[tuple[str, ...]], list[Figure]]:
    template = record_of_a_file(work_dir)
    rows: list[tuple[str, ...]] = []
    figures: list[Figure] = []
    with ExitStack() as stack:
        addresses = []
        for count in (sizes.few, sizes.many):
            data_dir, url = work_dir / f"{index}-{count}", None if server is None else server.new_database()
            write_hospital(data_dir, template, count, sizes.per_study, url)
            if server is not None and url is not None:
                server.analyze(url)
            say(f"{index}: an index of {count} objects")
            _, port = stack.enter_context(_serving(data_dir, url))
            addresses.append(_address(port))
        for title, query, answers in QUERIES:
            asked = asyncio.run(ask_in_turn(addresses, query, sizes.times))
            for of_one in asked:
                _check(title, of_one, answers)
            ratios = [large.first / small.first for small, large in zip(*asked, strict=True)]
            cells = [cell for each in asked for cell in _milliseconds(each)]
            rows.append((title, index, str(answers), *cells, spread(ratios)))
            say(
                f"{index}, {title}: {' and '.join(f'{_first(each) * 1000:.1f}' for each in asked)} ms to the first answer"
            )
            what = f"studies by {title}, {index}: first answer"
            figures += [
                Figure(
                    f"{what} with {sizes.many} objects, median of {sizes.times}",
                    _first(asked[1]) * 1000,
                    FIRST_ANSWER_LIMIT_SECONDS * 1000,
                    " ms",
                ),
                Figure(f"{what} with {sizes.many} objects against {sizes.few}", median(ratios), QUERY_GROWTH_LIMIT),
            ]
    return rows, figures


def measure_memory_of_answers(work_dir: Path, *, sizes: Sizes, say: Callable[[str], None]) -> tuple[str, list[Figure]]:
    """The peak of the server's memory after ten answers at the level of images, and after very many."""
    data_dir, lengths = work_dir / "series", (_TEN, sizes.rows)
    series = write_long_series(data_dir, record_of_a_file(work_dir), *lengths)
    seconds, peaks = [], []
    with _serving(data_dir) as (program, port):
        for length, uids in zip(lengths, series, strict=True):
            seconds.append(_find_images(port, uids, length, work_dir))
            peaks.append(program.memory("VmHWM"))
            say(f"{length} answers in {seconds[-1]:.2f} s, then the peak is {peaks[-1] / 1e6:.1f} MB")
    rows = [
        (str(length), f"{each / length * 1e6:.0f}", f"{peak / 1e6:.0f}")
        for length, each, peak in zip(lengths, seconds, peaks, strict=True)
    ]
    what = f"memory that {sizes.rows} answers at the level of images add to `serve`, against {_TEN}"
    figure = Figure(what, (peaks[1] - peaks[0]) / 1e6, MEMORY_OF_ANSWERS_LIMIT_MB, " MB")
    head = ("answers at the level of images", "µs for each, `findscu` as a whole", "peak of `serve`, MB")
    return markdown(head, rows), [figure]


@contextmanager
def _serving(data_dir: Path, index_url: str | None = None) -> Iterator[tuple[Program, int]]:
    """`tomowire serve` on a data directory, and its port."""
    port = free_port()
    options = () if index_url is None else ("--index-url", index_url)
    with running(serve_command(port, data_dir, *options), data_dir.with_suffix(".log")) as program:
        program.wait_until_listening(port)
        yield program, port


def _find_images(port: int, uids: tuple[str, str], answers: int, work_dir: Path) -> float:
    """Seconds of `findscu` from start to end."""
    log = work_dir / "findscu.log"
    with running(findscu(SERVE.ae_title, port, *uids), log) as program:
        seconds, _ = program.wait(_FIND_TIMEOUT)
    check_found("tomowire serve", log, answers)
    return seconds


def _address(port: int) -> str:
    return f"{SERVE.ae_title}@{LOOPBACK}:{port}"


def _check(title: str, asked: Sequence[Asked], answers: int) -> None:
    for each in asked:
        if each.answers != answers:
            raise ProgramFailed(f"tomowire serve: {each.answers} studies by {title} instead of {answers}")


def _first(asked: Sequence[Asked]) -> float:
    return median(each.first for each in asked)


def _milliseconds(asked: Sequence[Asked]) -> tuple[str, str]:
    return number(_first(asked) * 1000), number(median(each.whole for each in asked) * 1000)
