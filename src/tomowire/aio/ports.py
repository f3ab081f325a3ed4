"""Whether a port can be had, before anything is made for whoever is to listen on it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

from tomowire.errors import ConnectFailed


async def require_free(host: str | None, port: int, *, purpose: str = "", advice: str = "") -> None:
    """Raises `ConnectFailed` if nobody could listen there now, in the words of `Server.start`. 0 is any port: one is free."""
    if not port:
        return
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in found:
            try:
                _bind(family, kind, protocol, address)
            except OSError as error:
                if (
                    error.errno != errno.EADDRNOTAVAIL or len(found) == 1
                ):  # a name may have addresses that are not in use here
                    raise
    except OSError as error:
        reason = error.strerror or error
        raise ConnectFailed(
            f"cannot listen{purpose} on {host or 'any address'}, port {port}: {reason}{advice}"
        ) from error


def _bind(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> None:
    """As asyncio does. Raises `OSError`."""
    try:
        made = socket.socket(family, kind, protocol)
    except OSError:  # a family that this system does not have: whoever listens passes over it too
        return
    with made:
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
