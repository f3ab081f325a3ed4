"""A wire to a server that a test can cut, or silence in one direction."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

from support.network import LOOPBACK


class Wire:
    """`with Wire(port) as wire`: connections to `wire.port` go on to `port`.

    What comes while a direction is silent is lost, as by a cable that was pulled: nobody is told.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._requests_pass = Event()
        self._answers_pass = Event()
        self._lock = Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[Thread] = []
        self.restore()

    def silence(self, *, requests: bool = True, answers: bool = True) -> None:
        """Lose what is sent from now on."""
        if requests:
            self._requests_pass.clear()
        if answers:
            self._answers_pass.clear()

    def restore(self) -> None:
        """For what is sent from now on. What was lost stays lost."""
        self._requests_pass.set()
        self._answers_pass.set()

    def cut(self) -> None:
        """End all connections, and tell both sides."""
        with self._lock:
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()
        for each in self._sockets:
            each.close()

    def _start(self, work: object, *arguments: object) -> None:
        thread = Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection((LOOPBACK, self._target))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._sockets += [near, far]
            self._start(self._pass_on, near, far, self._requests_pass)
            self._start(self._pass_on, far, near, self._answers_pass)

    def _pass_on(self, source: socket.socket, target: socket.socket, passes: Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if passes.is_set():
                    target.sendall(data)
            if passes.is_set():
                target.shutdown(socket.SHUT_RDWR)
