"""Starting programs and watching them: when they listen, when they end, how much memory they took. Linux only: it reads /proc."""

from __future__ import annotations

import os
import select
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 5.0
# How often memory is looked at. The kernel keeps the high-water mark; what is missed is what the last interval before the end adds.
_SAMPLE_MILLISECONDS: Final = 10
_LISTENING: Final = "0A"

# DCMTK's libraries, Orthanc's included, leave Nagle's algorithm on unless this is set: with it each small object waits some 40 ms.
# Python compiles an installed package once, when it is installed. Where it may not keep what it compiles of a working copy, each
# program would do that anew.
ENVIRONMENT: Final = {
    **{name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    "TCP_NODELAY": "1",
}


class ProgramFailed(Exception):
    """A program did not do what it was started for. Notes hold the output of all that ran at the time."""


class Program:
    """A running program, its output going to the file `log`."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = command
        self._log = log
        self.started = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=ENVIRONMENT
            )

    def wait_until_listening(self, port: int) -> float:
        """Seconds from the start of the program until it listens on `port`.

        The kernel's table of sockets is read instead of connecting: a connection that says nothing would cost the program
        something, and not each the same.
        """
        while not _is_listening(port):
            if self._process.poll() is not None:
                raise self.failed(f"ended with exit code {self._process.returncode} before it listened")
            if time.perf_counter() - self.started > START_TIMEOUT:
                raise self.failed(f"does not listen after {START_TIMEOUT:.0f} s")
            time.sleep(0.001)
        return time.perf_counter() - self.started

    def wait(self, timeout: float) -> tuple[float, int]:
        """Wait for exit code 0. Returns seconds from start to end, and the peak of resident memory in bytes."""
        peak = 0
        descriptor = os.pidfd_open(self._process.pid)
        try:
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            # The end is noticed as it happens; a time-out of `subprocess` would look for it every 50 ms.
            while not poller.poll(_SAMPLE_MILLISECONDS):
                peak = max(peak, self.memory("VmHWM"))
                if time.perf_counter() - self.started > timeout:
                    raise self.failed(f"still runs after {timeout:.0f} s")
            ended = time.perf_counter()
        finally:
            os.close(descriptor)
        if self._process.wait() != 0:
            raise self.failed(f"ended with exit code {self._process.returncode}")
        return ended - self.started, peak

    def memory(self, name: str) -> int:
        """`VmRSS` or `VmHWM` in bytes, or 0 if the process has ended."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        for line in status.splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        return 0

    def processor_time(self) -> float:
        """Seconds of processor time used so far, by all threads."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not do."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def failed(self, what: str) -> ProgramFailed:
        """The error that says `what` happened."""
        return ProgramFailed(f"{self.title}\n{what}")

    @property
    def title(self) -> str:
        """The command line."""
        return shlex.join(self._command)

    @property
    def output(self) -> str:
        """The end of what the program has said."""
        return self._log.read_text(errors="replace")[-2000:]


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[Program]:
    """The program, until the block ends. If another program fails in it, its error gets a note with what this one said."""
    program = Program(command, log)
    try:
        yield program
    except ProgramFailed as error:
        error.add_note(f"{program.title}\n{program.output}")
        raise
    finally:
        program.stop()


def free_port() -> int:
    """A TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _is_listening(port: int) -> bool:
    wanted = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state == _LISTENING and local.endswith(wanted):
                return True
    return False
