"""Runs tomowire's commands, each in a process of its own that is forked from one which has imported what commands import.

`support.warm_commands` talks to it: a connection for each command, over which go its arguments, environment and the descriptors
of its output, and come its process id and its exit code. `python -c "from support.command_server import main; main()" FOLDER`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

IMPORTED = ("alembic", "click", "fastapi", "pydantic", "pydicom", "rich", "sqlalchemy", "starlette", "tomowire")
"""What a command imports of these is imported here before the next: neither starts threads, nor looks at the environment."""

REQUEST_LIMIT = 1 << 20


class Server:
    """One thread, no event loop, nothing open but what it waits for: what is forked from it is as good as new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "socket"))
        self._listener.listen(64)
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(self._listener, selectors.EVENT_READ)
        self._waiting.register(sys.stdin, selectors.EVENT_READ)

    def serve(self) -> dict[str, Any] | None:
        """Fork for each request, until standard input ends. In the forked process it gives the request."""
        while True:
            for key, _ in self._waiting.select():
                if key.fileobj is sys.stdin:
                    return None
                if key.fileobj is not self._listener:
                    self._ended(key)
                elif (request := self._accept()) is not None:
                    return request

    def _accept(self) -> dict[str, Any] | None:
        connection, _ = self._listener.accept()
        data, outputs, _, _ = socket.recv_fds(connection, REQUEST_LIMIT, 2)
        while not data.endswith(b"\n"):
            data += connection.recv(REQUEST_LIMIT)
        request: dict[str, Any] = json.loads(data)
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            connection.close()
            self._become(request, outputs)
            return request
        for output in outputs:
            os.close(output)
        self._waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
        with suppress(OSError):  # it is not waited for any more
            connection.sendall(f"{pid}\n".encode())
        return None

    def _become(self, request: dict[str, Any], outputs: list[int]) -> None:
        """What a process has that was started for the command: nothing is open but the standard streams."""
        for key in [*self._waiting.get_map().values()]:
            if key.data is not None:
                os.close(key.fd)
                key.data[1].close()
        self._waiting.close()
        self._listener.close()
        null = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((null, *outputs)):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        time.tzset()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _ended(self, key: selectors.SelectorKey) -> None:
        pid, connection = key.data
        self._waiting.unregister(key.fileobj)
        os.close(key.fd)
        _, status = os.waitpid(pid, 0)
        with suppress(OSError):
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        connection.close()
        told = self._folder / str(pid)
        if told.exists():
            for name in told.read_text().split():
                with suppress(ImportError):  # a command may have made it, or found it elsewhere
                    importlib.import_module(name)
            told.unlink()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder = Path(sys.argv[1])
    server = Server(folder)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    request = server.serve()
    if request is not None:
        before = set(sys.modules)
        atexit.register(tell, folder, before)
        sys.argv[1:] = request["arguments"]
        runpy.run_module("tomowire", run_name="__main__", alter_sys=True)


def tell(folder: Path, before: set[str]) -> None:
    """Leave the names of the modules that this command was the first to import."""
    names = [name for name in sys.modules if name not in before and name.partition(".")[0] in IMPORTED]
    if names:
        with suppress(OSError):
            part = folder / f"{os.getpid()}.part"
            part.write_text("\n".join(names))
            part.rename(folder / str(os.getpid()))
