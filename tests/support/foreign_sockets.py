"""What pynetdicom leaves open, closed."""

from __future__ import annotations

import contextlib
import socket
from types import ModuleType
from typing import Any


def close_what_is_left(pynetdicom: ModuleType) -> None:
    """Have pynetdicom close the sockets of its associations also when the peer has gone.

    It shuts a socket down first, which fails on a connection that was reset, and then does not close it (3.0.4,
    `AssociationSocket._shutdown_socket`). The garbage collector would, in the middle of another test.
    """

    def shutdown_and_close(self: Any) -> None:
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    pynetdicom.transport.AssociationSocket._shutdown_socket = shutdown_and_close
