"""One run: start the receiver, send everything, count what arrived.

The time of a run is that of whole processes, by one rule for all: from the start of the receiver's process until it listens,
plus from the start of the sender's process until it has ended. Stopping the receiver is not part of it. A sender ends when the
receiver has answered for the last object, so all of them are where that receiver puts them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from arrivals import Arrived
from processes import ProgramFailed, free_port, running
from programs import Pairing
from workloads import Workload

SEND_TIMEOUT: Final = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds and bytes. `receiver_adds` is the receiver's peak above what it took before it was sent anything."""

    start: float
    send: float
    receiver_peak: int
    receiver_adds: int
    sender_peak: int

    @property
    def total(self) -> float:
        return self.start + self.send


def run(pairing: Pairing, workload: Workload, source: Path, work_dir: Path) -> Run:
    """Send the files of `workload`, which are in `source`. Raises `ProgramFailed` unless every object arrived."""
    folder = work_dir / "received"
    folder.mkdir()
    receiver, port = pairing.receiver, free_port()
    try:
        with running(receiver.command(port, folder), work_dir / "receiver.log") as program:
            start = program.wait_until_listening(port)
            idle = program.memory("VmRSS")
            command = pairing.sender.command(receiver.ae_title, port, source)
            with running(command, work_dir / "sender.log") as sender:
                send, sender_peak = sender.wait(SEND_TIMEOUT)
            peak = program.memory("VmHWM")
        check(pairing.title, workload, receiver.arrived(folder))
    finally:
        shutil.rmtree(folder)
    return Run(start, send, peak, peak - idle, sender_peak)


def check(title: str, workload: Workload, arrived: Arrived) -> None:
    """Raises `ProgramFailed` unless every object is there, with at least its pixels."""
    if arrived.objects != workload.objects or arrived.bytes < workload.pixel_bytes:
        raise ProgramFailed(
            f"{title}: sent {workload.objects} objects with {workload.pixel_bytes} bytes of pixels, "
            f"found {arrived.objects} objects in {arrived.bytes} bytes"
        )
