"""tomowire's commands in processes that need not import everything first: the client of `support.command_server`.

Importing takes some 0.3 s of a processor, and the tests run more than a thousand commands. That each command also runs from
nothing is shown by those tests that start programs and leave them running, and by those of the imports.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from support.subprocesses import python_environment

# What an interpreter, or a library that it loads, looks at once, when it starts.
_LOOKED_AT_ONCE = ("LANG", "LC_", "LD_", "MALLOC", "OPENSSL", "PYTHON", "SSL")


class WarmCommands:
    """Runs commands to their end."""

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        self._address = address
        self._fixed = _fixed(environment)

    def suit(self, environment: Mapping[str, str]) -> bool:
        """Whether a command with this environment can be run: whether it would have started the interpreter as it was started."""
        return _fixed(environment) == self._fixed

    def run(
        self, arguments: Sequence[str], *, cwd: Path | None, environment: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes, bytes]:
        """Exit code, stdout and stderr. It is killed after `timeout` seconds; raises `subprocess.TimeoutExpired`."""
        request = {"arguments": arguments, "cwd": str(cwd or Path.cwd()), "environment": dict(environment)}
        deadline = time.monotonic() + timeout
        with socket.socket(socket.AF_UNIX) as server, _pipe() as (stdout, to_stdout), _pipe() as (stderr, to_stderr):
            server.settimeout(timeout)
            server.connect(self._address)
            data = json.dumps(request).encode() + b"\n"
            sent = socket.send_fds(server, [data], [to_stdout, to_stderr])
            server.sendall(data[sent:])
            os.close(to_stdout)
            os.close(to_stderr)
            with server.makefile() as answers:
                pid = int(answers.readline())
                try:
                    outputs = _read_all((stdout, stderr), deadline)
                    return int(answers.readline()), *outputs
                except TimeoutError:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(["tomowire", *arguments], timeout) from None


@contextmanager
def warm_commands() -> Iterator[WarmCommands | None]:
    """None: this system lacks what it takes."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    environment = python_environment()
    with tempfile.TemporaryDirectory(prefix="tomowire-commands-") as folder:
        start = [sys.executable, "-c", "from support.command_server import main; main()", folder]
        process = subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield WarmCommands(f"{folder}/socket", environment)
        finally:
            process.stdin.close()
            process.wait()
            process.stdout.close()


def _fixed(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_LOOKED_AT_ONCE)}


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """The end that is read, which is closed at the end, and the one that is written."""
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        os.close(reading)


def _read_all(pipes: Sequence[int], deadline: float) -> list[bytes]:
    """What comes from each until its end. Raises `TimeoutError`."""
    found = dict.fromkeys(pipes, b"")
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready and time.monotonic() >= deadline:
                raise TimeoutError
            for key, _ in ready:
                piece = os.read(key.fd, 1 << 16)
                found[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
    return list(found.values())
