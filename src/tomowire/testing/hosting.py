"""Peers that live where a test wants them: in its own event loop (`async with`), or in a thread with a loop of its own (`with`)."""

from __future__ import annotations

import asyncio
import socket
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from tomowire.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

LOOPBACK: Final = "127.0.0.1"
_BACKLOG: Final = 128


class Hosted(ABC):
    """Something that is started and stopped: `async with` does it in the running loop, `with` in a thread of its own.

    The latter is for tests that are not asynchronous, or block: a command that is run, a stack with threads. Everything has ended,
    the thread too, when the block is left. One object can be used for several blocks, one after the other.
    """

    _in_use = False
    _stop: Callable[[], object] | None = None
    _thread: threading.Thread | None = None
    _ended: Future[None] | None = None

    @abstractmethod
    async def start(self) -> None:
        """Begin. On failure nothing is left behind."""

    @abstractmethod
    async def stop(self) -> None:
        """End, and wait until nothing is left."""

    async def __aenter__(self) -> Self:
        if self._in_use:
            raise UsageError(f"this {type(self).__name__} is in use already")
        await self.start()
        self._in_use = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._in_use = False
        try:
            await self.stop()
        except Exception as failure:
            self._tell(failure, error)

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise UsageError(f"this {type(self).__name__} is in use already")
        started: Future[None] = Future()
        self._ended = Future()
        self._thread = threading.Thread(
            target=self._run, args=(started, self._ended), name="tomowire-testing", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except BaseException:
            if self._stop is not None:  # an interrupt, not a failure
                self._stop()
            self._join()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._stop is not None
        assert self._ended is not None
        self._stop()
        self._join()
        try:
            self._ended.result()
        except Exception as failure:
            self._tell(failure, error)

    def _tell(self, failure: Exception, error: BaseException | None) -> None:
        """Raise what failed here; but what the test failed with comes first, and this may be why."""
        if error is None:
            raise failure
        error.add_note(f"and the {type(self).__name__} failed: {failure!r}")

    def _join(self) -> None:
        assert self._thread is not None
        self._thread.join()
        self._thread = self._stop = None

    def _run(self, started: Future[None], ended: Future[None]) -> None:
        try:
            asyncio.run(self._live(started))
        except BaseException as error:
            # Whoever waits is in another thread: raised there, and only once.
            (ended if started.done() else started).set_exception(error)
        else:
            ended.set_result(None)

    async def _live(self, started: Future[None]) -> None:
        loop = asyncio.get_running_loop()
        to_stop = asyncio.Event()
        async with self:
            self._stop = partial(loop.call_soon_threadsafe, to_stop.set)
            started.set_result(None)
            await to_stop.wait()


class Listener:
    """A listening socket on 127.0.0.1 and a free port. Each connection is given to `play`, in a task of its own."""

    def __init__(
        self, play: Callable[[socket.socket], Coroutine[Any, Any, None]], *, receive_buffer: int | None = None
    ) -> None:
        self._play = play
        self._receive_buffer = receive_buffer
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._playing: dict[asyncio.Task[None], socket.socket] = {}
        self._failures: list[BaseException] = []
        self._idle = asyncio.Event()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Begin to listen."""
        listening = socket.socket()
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._receive_buffer is not None:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            listening.bind((LOOPBACK, 0))
            listening.listen(_BACKLOG)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
        self._socket = listening
        self._failures = []
        self._idle = asyncio.Event()  # of this event loop
        self._idle.set()
        self._accepting = asyncio.create_task(self._accept(listening))

    async def stop(self) -> None:
        """Stop listening, end what is being played, and raise what failed in it."""
        accepting = self._accepting
        if accepting is None or self._socket is None:
            return
        tasks = [accepting, *self._playing]
        for each in tasks:
            each.cancel()
        try:
            await asyncio.wait(tasks)
        finally:
            self._socket.close()
            self._accepting = None
        if not accepting.cancelled() and (error := accepting.exception()) is not None:
            self._failures.append(error)
        if self._failures:
            raise self._failures[0]

    async def wait_idle(self) -> None:
        """Wait until no connection is open."""
        await self._idle.wait()

    async def _accept(self, listening: socket.socket) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(listening, self._accept_now, listening)
        except NotImplementedError:  # Windows' default loop
            while True:
                self._take((await loop.sock_accept(listening))[0])
        # Not with `sock_accept`: what it has accepted at the moment of its cancellation is lost, and open.
        try:
            await loop.create_future()
        finally:
            loop.remove_reader(listening)

    def _accept_now(self, listening: socket.socket) -> None:
        try:
            sock, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._failures.append(error)
            asyncio.get_running_loop().remove_reader(listening)
            return
        sock.setblocking(False)
        self._take(sock)

    def _take(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # some systems say here that it is gone already
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(self._play(sock))
        self._idle.clear()
        self._playing[task] = sock
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._playing.pop(task).close()  # here, since a task that is cancelled at once never begins
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)
        if not self._playing:
            self._idle.set()
