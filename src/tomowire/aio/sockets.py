"""What a TCP connection is told, so that small messages are not delayed and peers that are switched off are found."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

INTERNET: Final = (socket.AF_INET, socket.AF_INET6)

SMALL_READ: Final = 64 * 1024
"""What is larger than this is acknowledged soon enough: the kernel does so after every second segment."""

QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
"""None where acknowledging at once cannot be asked for."""


def prepare(sock: socket.socket) -> None:
    """Without TCP_NODELAY a peer's delayed ACK costs 40 ms for every message; keep-alive finds peers that are switched off."""
    with suppress(OSError):  # macOS says so of a connection that has been reset: that will be told in its own way
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def acknowledge_now(sock: socket.socket) -> None:
    """Acknowledge what has come. Linux forgets that at every read.

    A peer without TCP_NODELAY (DCMTK's default) holds back its next small write until this one is acknowledged, and the kernel
    would take 40 ms for that: measured, 50 ms for each object.
    """
    assert QUICK_ACK is not None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
    except OSError:
        return  # the connection is gone: that will be told in its own way
