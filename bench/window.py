"""What the asynchronous operations window brings over a link with a delay: objects per second, by the number outstanding."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from arrivals import in_folder
from figures import WINDOW_LIMIT
from processes import LOOPBACK, ProgramFailed, free_port, running
from table import Figure, figures_table, markdown, number
from workloads import Workload

from tomowire import PeerAddress, associate, send_files, storage
from tomowire.services.dicom_file import DicomFile, inspect

_PEERS: Final = Path(__file__).parent / "peers"
DELAY_MILLISECONDS: Final = 10.0
"""In each direction: an answer is there 20 ms after the question, at the earliest."""


@dataclass(frozen=True, slots=True)
class Case:
    """A requestor that asks for a window of `asked`, and an acceptor that grants `granted` at most."""

    asked: int
    granted: int

    @property
    def window(self) -> int:
        return min(self.asked, self.granted)


CASES: Final = (Case(1, 16), Case(16, 8), Case(16, 16), Case(64, 64))
FULL: Final = Workload("window", "600 objects of 4 kB", objects=600, rows=24, columns=44)
TINY: Final = Workload("window", "40 objects of 4 kB", objects=40, rows=24, columns=44)


def measure_window(work_dir: Path, *, workload: Workload, rounds: int, say: Callable[[str], None]) -> str:
    """Send the objects with each window, round after round, every other round in the opposite order; return the tables.

    A first round is not counted.
    """
    source = work_dir / "source"
    workload.write(source)
    files = [inspect(path) for path in sorted(source.iterdir())]
    seconds: dict[Case, list[float]] = {case: [] for case in CASES}
    for round_ in range(rounds + 1):
        for case in CASES if round_ % 2 else reversed(CASES):
            took = _send(files, case, work_dir)
            say(f"window: {workload.title}, {case.asked} asked, {case.granted} granted: {took:.2f} s")
            if round_:
                seconds[case].append(took)
    return _tables(workload, seconds)


def _send(files: Sequence[DicomFile], case: Case, work_dir: Path) -> float:
    """Seconds from opening the association until it has been released."""
    folder = work_dir / "received"
    folder.mkdir()
    port, near = free_port(), free_port()
    scp = [sys.executable, str(_PEERS / "tomowire_scp.py"), str(port), str(folder), str(case.granted)]
    link = [sys.executable, str(_PEERS / "delaying_link.py"), str(near), str(port), str(DELAY_MILLISECONDS)]
    try:
        with (
            running(scp, work_dir / "receiver.log") as receiver,
            running(link, work_dir / "link.log") as delaying,
        ):
            receiver.wait_until_listening(port)
            delaying.wait_until_listening(near)
            took = asyncio.run(_send_all(PeerAddress("RECEIVER", LOOPBACK, near), files, case))
        if in_folder(folder).objects != len(files):
            raise ProgramFailed(f"sent {len(files)} objects, found {in_folder(folder).objects}")
    finally:
        shutil.rmtree(folder)
    return took


async def _send_all(peer: PeerAddress, files: Sequence[DicomFile], case: Case) -> float:
    await _check_window(peer, files[0], case)
    begun = time.perf_counter()
    async for sent in send_files(peer, files, window=case.asked):
        if sent.is_failure:
            raise ProgramFailed(f"{sent.path}: {sent.outcome}")
    return time.perf_counter() - begun


async def _check_window(peer: PeerAddress, file: DicomFile, case: Case) -> None:
    """What is measured is what was agreed on."""
    async with associate(peer, [storage(file.sop_class_uid)], window=case.asked) as association:
        if association.window != case.window:
            raise ProgramFailed(f"a window of {association.window} was agreed on, not of {case.window}")


def _tables(workload: Workload, seconds: dict[Case, list[float]]) -> str:
    one = seconds[CASES[0]]
    rows = [
        (
            f"{case.asked} asked for, {case.granted} granted: {case.window}",
            number(workload.objects / median(seconds[case])),
            number(median(single / took for single, took in zip(one, seconds[case], strict=True))),
        )
        for case in CASES
    ]
    table = markdown((f"window, {workload.title}", "objects per second", "times a window of one"), rows)
    ratio = median(took / single for took, single in zip(seconds[Case(16, 16)], one, strict=True))
    what = f"{workload.title} over a round trip of {2 * DELAY_MILLISECONDS:.0f} ms: time with a window of 16 against one of 1"
    return f"{table}\n\n### What was promised over a slow link\n\n{figures_table([Figure(what, ratio, WINDOW_LIMIT)])}"
