"""C-FIND, C-GET and C-MOVE by DCMTK from `tomowire serve` and from Orthanc, which hold the same objects and run side by side.

The time is that of the client's process, from its start to its end. In each round each archive is asked once, in every other round
in the opposite order.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from arrivals import in_folder
from asking import ask_in_turn
from dcmtk_clients import DESTINATION, check_found, check_retrieved, findscu, getscu, movescu
from figures import FIRST_ANSWER_LIMIT_SECONDS, RETRIEVAL_LIMIT
from objects import Template
from processes import LOOPBACK, Program, ProgramFailed, free_port, running
from programs import ORTHANC, PAIRINGS, SERVE, Receiver, orthanc_command, serve_command, storescp
from table import Figure, markdown, number, spread

from tomowire import Query

_TIMEOUT: Final = 120.0
_ATTEMPTS: Final = 3
_ROWS_STUDY, _CT_STUDY = 1, 2


@dataclass(frozen=True, slots=True)
class Sizes:
    """Images in the series that is searched, CT in the study that is retrieved, and how often a first answer is waited for."""

    rows: int
    ct: int
    times: int


FULL: Final = Sizes(rows=1901, ct=400, times=11)
TINY: Final = Sizes(rows=31, ct=4, times=1)


@dataclass(frozen=True, slots=True)
class Archive:
    """One that runs and holds everything."""

    receiver: Receiver
    port: int
    program: Program

    @property
    def title(self) -> str:
        return self.receiver.title

    @property
    def address(self) -> str:
        return f"{self.receiver.ae_title}@{LOOPBACK}:{self.port}"


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds of DCMTK's client, and of processor time meanwhile: in the archive, and in DCMTK, client and destination."""

    client: float
    processor: float
    dcmtk_processor: float


@dataclass(frozen=True, slots=True)
class Task:
    """What DCMTK is asked to do; `run` gives its seconds."""

    title: str
    run: Callable[[Archive], float]


def measure_retrieval(
    work_dir: Path, *, sizes: Sizes, rounds: int, warm_up: bool, say: Callable[[str], None]
) -> tuple[str, list[Figure]]:
    """Run it and return the tables and the figures that were promised."""
    destination = free_port()
    with _archives(work_dir, sizes, destination) as archives:
        tasks = _tasks(work_dir, sizes, destination)
        taken = {task.title: _take_turns(task, archives, rounds, warm_up, say) for task in tasks}
        asked = asyncio.run(ask_in_turn([each.address for each in archives], _all_images(), sizes.times))
    first = [median(each.first for each in answers) * 1000 for answers in asked]
    say(f"first answer: {' and '.join(f'{each:.1f}' for each in first)} ms")
    figures = [
        Figure(f"{title}: time with tomowire serve against Orthanc", median(_ratios(runs, _clock)), RETRIEVAL_LIMIT)
        for title, runs in taken.items()
    ]
    what = f"C-FIND, {sizes.rows} images: first answer, median of {sizes.times}"
    figures.append(Figure(what, first[0], FIRST_ANSWER_LIMIT_SECONDS * 1000, " ms"))
    titles = [each.title for each in archives]
    answers = markdown(
        ("ms to the first answer, by tomowire's SCU", *titles), [(f"C-FIND, {sizes.rows} images", *map(number, first))]
    )
    tables = (
        _table("seconds of DCMTK's client", titles, taken, _clock),
        _table("seconds of processor time in the archive", titles, taken, _processor),
        _table("seconds of processor time in DCMTK, client and destination", titles, taken, _dcmtk_processor),
        answers,
    )
    return "\n\n".join(tables), figures


def _table(
    what: str, titles: Sequence[str], taken: Mapping[str, Sequence[Sequence[Taken]]], part: Callable[[Taken], float]
) -> str:
    rows = [
        (title, *(number(median(map(part, each))) for each in runs), spread(_ratios(runs, part)))
        for title, runs in taken.items()
    ]
    return markdown((what, *titles, "tomowire ÷ Orthanc"), rows)


def _clock(taken: Taken) -> float:
    return taken.client


def _processor(taken: Taken) -> float:
    return taken.processor


def _dcmtk_processor(taken: Taken) -> float:
    return taken.dcmtk_processor


def _ratios(runs: Sequence[Sequence[Taken]], part: Callable[[Taken], float]) -> list[float]:
    """tomowire's time divided by Orthanc's, for each round."""
    return [part(ours) / part(its) for ours, its in zip(*runs, strict=True)]


def _take_turns(
    task: Task, archives: Sequence[Archive], rounds: int, warm_up: bool, say: Callable[[str], None]
) -> list[list[Taken]]:
    """What each archive took in each round."""
    runs: list[list[Taken]] = [[] for _ in archives]
    turn = list(zip(archives, runs, strict=True))
    for round_ in range(0 if warm_up else 1, rounds + 1):
        for archive, of_archive in turn if round_ % 2 else reversed(turn):
            taken = _attempt(task, archive, say)
            label = f"round {round_} of {rounds}" if round_ else "warm-up"
            say(f"{task.title}, {label}, {archive.title}: {taken.client:.3f} s")
            if round_:
                of_archive.append(taken)
    return runs


def _attempt(task: Task, archive: Archive, say: Callable[[str], None]) -> Taken:
    """One run. With a foreign archive it is tried again when it failed, and that is said."""
    for _ in range(0 if archive.receiver is SERVE else _ATTEMPTS - 1):
        try:
            return _run(task, archive)
        except ProgramFailed as error:
            say(f"{task.title}, {archive.title}, tried again: {error}")
    return _run(task, archive)


def _run(task: Task, archive: Archive) -> Taken:
    before, before_in_dcmtk = archive.program.processor_time(), _of_ended_programs()
    seconds = task.run(archive)
    # The kernel counts in hundredths of a second: what took less has taken one.
    in_archive = max(archive.program.processor_time() - before, 1 / os.sysconf("SC_CLK_TCK"))
    return Taken(seconds, in_archive, _of_ended_programs() - before_in_dcmtk)


def _of_ended_programs() -> float:
    """Seconds of processor time of every program that was started and has ended: the archives run on."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tasks(work_dir: Path, sizes: Sizes, destination: int) -> tuple[Task, ...]:
    folder, log = work_dir / "retrieved", work_dir / "client.log"
    pixel_bytes = sizes.ct * _CT.pixel_bytes

    def run(command: list[str]) -> float:
        with running(command, log) as client:
            return client.wait(_TIMEOUT)[0]

    def find(archive: Archive) -> float:
        seconds = run(findscu(archive.receiver.ae_title, archive.port, *_uids(_ROWS_STUDY)))
        check_found(archive.title, log, sizes.rows)
        return seconds

    def get(archive: Archive) -> float:
        with _empty(folder):
            seconds = run(getscu(archive.receiver.ae_title, archive.port, _uids(_CT_STUDY)[0], folder))
            check_retrieved(archive.title, in_folder(folder), sizes.ct, pixel_bytes)
        return seconds

    def move(archive: Archive) -> float:
        command = storescp("+B")(destination, folder)
        with _empty(folder), running(command, work_dir / "storescp.log") as receiver:
            receiver.wait_until_listening(destination)
            seconds = run(movescu(archive.receiver.ae_title, archive.port, _uids(_CT_STUDY)[0]))
            check_retrieved(archive.title, in_folder(folder), sizes.ct, pixel_bytes)
        return seconds

    return (
        Task(f"C-FIND, {sizes.rows} images", find),
        Task(f"C-GET, {sizes.ct} CT of 526 kB", get),
        Task(f"C-MOVE to storescp +B, {sizes.ct} CT of 526 kB", move),
    )


@contextmanager
def _empty(folder: Path) -> Iterator[None]:
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder)


@contextmanager
def _archives(work_dir: Path, sizes: Sizes, destination: int) -> Iterator[tuple[Archive, Archive]]:
    """Both, running, filled, and knowing the destination. That they hold everything shows when they are asked for it."""
    source = work_dir / "source"
    _write(source, sizes)
    with ExitStack() as stack:
        archives = []
        for receiver in (SERVE, ORTHANC):
            port, folder = free_port(), work_dir / receiver.ae_title
            folder.mkdir()
            command = _command(receiver, port, folder, destination)
            program = stack.enter_context(running(command, folder.with_suffix(".log")))
            program.wait_until_listening(port)
            sending = PAIRINGS[0].sender.command(receiver.ae_title, port, source)
            with running(sending, work_dir / "sender.log") as sender:
                sender.wait(_TIMEOUT)
            archives.append(Archive(receiver, port, program))
        shutil.rmtree(source)
        ours, other = archives
        yield ours, other


def _command(receiver: Receiver, port: int, folder: Path, destination: int) -> list[str]:
    if receiver is SERVE:
        return serve_command(port, folder, "--node", f"{DESTINATION}@{LOOPBACK}:{destination}")
    return orthanc_command(
        port,
        folder,
        DicomModalities={"destination": [DESTINATION, LOOPBACK, destination]},
        DicomAlwaysAllowFind=True,
        DicomAlwaysAllowGet=True,
        DicomAlwaysAllowMove=True,
    )


_CT: Final = Template(512, 512, 1)


def _write(folder: Path, sizes: Sizes) -> None:
    """Two studies of one series each: the small images that are searched, and the CT that are retrieved."""
    folder.mkdir()
    for study, template, first, count in (
        (_ROWS_STUDY, Template(24, 44, 1), 0, sizes.rows),
        (_CT_STUDY, _CT, sizes.rows, sizes.ct),
    ):
        for instance in range(first, first + count):
            template.write(folder / f"{instance:06}.dcm", study=study, series=study, instance=instance)


def _uids(study: int) -> tuple[str, str]:
    """Study and Series Instance UID, as `Template` writes them."""
    return f"2.25.1{study:034}", f"2.25.2{study:034}"


def _all_images() -> Query:
    return Query.images(*_uids(_ROWS_STUDY)).returning("InstanceNumber")
