"""tomowire's commands as processes of their own, as a person starts them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from support.subprocesses import python_environment
from support.warm_commands import WarmCommands

SECONDS_TO_START = 60.0
SECONDS_TO_RUN = 60.0

_ADDRESS = re.compile(r"(?:listening|DICOM +\S+) on (\S+):(\d+)")


warm: WarmCommands | None = None
"""By which commands are run to their end, where a `conftest.py` says so."""


def command_line(*arguments: object) -> list[str]:
    """`tomowire ARGUMENT...` with this Python."""
    return [sys.executable, "-m", "tomowire", *map(str, arguments)]


def run_tomowire(
    *arguments: object, cwd: Path | None = None, timeout: float = SECONDS_TO_RUN, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. A failure is the caller's to look at."""
    complete = {**python_environment(), **environment}
    if warm is not None and warm.suit(complete):
        code, stdout, stderr = warm.run([*map(str, arguments)], cwd=cwd, environment=complete, timeout=timeout)
        return subprocess.CompletedProcess(command_line(*arguments), code, _text(stdout), _text(stderr))
    return subprocess.run(
        command_line(*arguments),
        cwd=cwd,
        env=complete,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=timeout,
        check=False,
    )


def run_on_a_terminal(arguments: Sequence[object]) -> bytes:
    """Run a command whose stderr is a terminal; gives what it wrote there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(
            command_line()[0], command_line(*arguments), {**python_environment(), "TERM": "xterm", "COLUMNS": "100"}
        )
    output = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        output += piece
    os.close(terminal)
    os.waitpid(pid, 0)
    return output


def messages(log: str) -> str:
    """What a log of JSON lines says, line by line."""
    return "\n".join(json.loads(line)["message"] for line in log.splitlines())


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What `--json` printed: one value and nothing else."""
        return json.loads(self.stdout)


async def tomowire(*arguments: object, timeout: float = SECONDS_TO_RUN, **environment: str) -> Done:
    """Run a command to its end while the test's event loop goes on, to answer it. It is killed after `timeout` seconds."""
    complete = {**python_environment(), **environment}
    if warm is not None and warm.suit(complete):
        run = partial(warm.run, [*map(str, arguments)], cwd=None, environment=complete, timeout=timeout)
        code, *outputs = await asyncio.to_thread(run)
        return Done(code, *map(_text, outputs))
    process = await asyncio.create_subprocess_exec(
        *command_line(*arguments),
        env=complete,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Done(process.returncode or 0, _text(stdout), _text(stderr))


def _text(output: bytes) -> str:
    return output.decode(errors="surrogateescape")


class Output:
    """What a process writes to a pipe, read as it comes, so that the pipe never fills."""

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe = pipe
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str | re.Pattern[str], timeout: float = SECONDS_TO_START) -> re.Match[str]:
        """The first match in all that has been written, waiting for it up to `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                text = "".join(self._lines)
                if match := re.search(pattern, text):
                    return match
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = "the process ended" if self._ended else f"{timeout} s passed"
                    raise TimeoutError(f"{why} without {pattern!r}:\n{text[-4000:]}")
                self._news.wait(left)

    def join(self) -> None:
        """Wait for the end of the output, which comes with the end of the process."""
        self._thread.join(10)

    def _read(self) -> None:
        with self._pipe:
            for line in self._pipe:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class Program:
    """A running `serve` or `listen`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.process = process
        self._stdout = Output(process.stdout) if process.stdout is not None else None
        self.stderr = Output(process.stderr)
        self.port = 0

    @property
    def stdout(self) -> Output:
        assert self._stdout is not None, "it goes somewhere else"
        return self._stdout

    def wait_until_listening(self) -> None:
        self.port = int(self.stderr.wait_for(_ADDRESS)[2])

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = SECONDS_TO_RUN) -> int:
        """Send a signal, wait for the end, and give the exit code; killed after `timeout` seconds, which is an error."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        for output in (self._stdout, self.stderr):
            if output is not None:
                output.join()
        return code


def start(arguments: Sequence[object], *, cwd: Path | None = None, **options: Any) -> Program:
    """Start a command and leave it running; `options` go to `Popen`. `serve` has an HTTP port if one is asked for."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if arguments[0] == "serve" and not {"--http-port", "--config"} & set(arguments):
        arguments = [*arguments, "--no-http"]  # many of them run at the same time
    process = subprocess.Popen(
        command_line(*arguments),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="surrogateescape",
        **({"env": python_environment()} | pipes | options),
    )
    return Program(process)


@contextmanager
def serving(*arguments: object, cwd: Path | None = None, **options: Any) -> Iterator[Program]:
    """`tomowire serve` or `listen` on a free port, ready to be called; stopped at the end of the block."""
    program = start([*arguments, "--port", "0"], cwd=cwd, **options)
    try:
        program.wait_until_listening()
        yield program
    finally:
        program.end()
