"""Told when the other end of a socket has gone, while nobody reads from it: a server was stopped, or a connection broke."""

from __future__ import annotations

import select
from typing import Final

_HAS_EPOLL: Final = hasattr(select, "epoll")


class Hangup:
    """`fileno()` can be read from when the socket that is watched has been hung up on; what comes over the socket is nothing to it.

    (Watched by the event loop itself, the socket of a database would wake it with each answer that another thread waits for.) Only
    Linux has it; elsewhere `fileno()` is -1, and the loss is noticed when the connection is used.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll() if _HAS_EPOLL else None

    def watch(self, descriptor: int) -> None:
        """This socket, until it is closed: the system forgets it then."""
        if self._epoll is not None:
            self._epoll.register(descriptor, select.EPOLLRDHUP | select.EPOLLONESHOT)

    def fileno(self) -> int:
        return self._epoll.fileno() if self._epoll is not None else -1

    def take(self) -> bool:
        """Whether the socket was hung up on; said once for each."""
        return self._epoll is not None and bool(self._epoll.poll(0))

    def close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
