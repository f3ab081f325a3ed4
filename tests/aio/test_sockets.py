"""What a TCP connection is told; on a connection that is gone it is told in vain."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from support.network import LOOPBACK
from tomowire.aio.sockets import QUICK_ACK, acknowledge_now, prepare


class Gone:
    """As macOS has it for a connection that its peer has reset."""

    def setsockopt(self, *_: Any) -> None:
        raise OSError(22, "Invalid argument")


def test_small_messages_are_sent_at_once_and_dead_peers_found() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        prepare(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_connection_that_is_gone_is_no_error_of_ours() -> None:
    gone: Any = Gone()
    prepare(gone)
    if QUICK_ACK is not None:
        acknowledge_now(gone)


@pytest.mark.skipif(QUICK_ACK is None, reason="only Linux can be asked to")
def test_what_has_come_is_acknowledged_when_that_is_asked_for() -> None:
    assert QUICK_ACK is not None
    with socket.create_server((LOOPBACK, 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 0)
        acknowledge_now(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, QUICK_ACK)
