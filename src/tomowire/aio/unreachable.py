"""Why a connection could not be opened, in words: what happened, whose fault it is, and what to do about it."""

from __future__ import annotations

import errno
import os
import re
import socket
from typing import Final

_REFUSED: Final = "refused; nothing listens there: check host and port, and whether the peer runs"
_WAY: Final = "check the address, and the network between here and there (VPN, routes, cable)"
_ADVICE: Final = {
    errno.ENETUNREACH: _WAY,
    errno.EHOSTUNREACH: _WAY,
    errno.ENETDOWN: _WAY,
    errno.EHOSTDOWN: _WAY,
    errno.ECONNRESET: "the peer, or a firewall on the way, ends the connection at once: ask its operator to let this host in",
    errno.ECONNABORTED: "a firewall or a virus scanner may have ended it: ask who runs it to let this connection through",
    errno.EACCES: "this machine does not let it connect: look at its firewall",
    errno.EPERM: "this machine does not let it connect: look at its firewall",
    errno.EMFILE: "this program has too many open: use fewer associations, or raise its limit (ulimit -n)",
    errno.ENFILE: "this machine has too many open: use fewer associations, or raise its limit",
    errno.EADDRNOTAVAIL: "no port of this machine is free for it, or it is no address to connect to: use fewer associations",
}
_NUMBERS: Final = re.compile(r"\[Errno (\d+)\]")


def the_same_in_all(error: OSError) -> OSError:
    """What several addresses of a host have in common, if it is the same: asyncio strings it together in an error without a number.

    `localhost` has two of them nearly everywhere.
    """
    numbers = set(_NUMBERS.findall(str(error))) if error.errno is None else set()
    return error if len(numbers) != 1 else _numbered(int(numbers.pop()), error)


def why_not_connected(error: OSError | UnicodeError) -> str:
    """`error` is what opening a connection has raised."""
    if isinstance(error, socket.gaierror | UnicodeError):
        reason = error.strerror if isinstance(error, OSError) else "it is no host name"
        return f"the host name cannot be resolved ({reason}): check how it is written, or use the IP address"
    if isinstance(error, ConnectionRefusedError):
        return _REFUSED
    if isinstance(error, TimeoutError):
        return not_answered(None)
    happened = error.strerror or ("none of its addresses answers" if error.errno is None else str(error))
    return f"{happened}: {_ADVICE.get(error.errno or 0, _WAY)}"


def not_answered(seconds: float | None) -> str:
    """Nothing came back, in the time that was allowed, or that the kernel allows (None)."""
    within = f" within {seconds:g} s" if seconds is not None else ""
    return f"no answer{within}: check the address, and whether the host is on; a firewall may drop what is sent to it"


def _numbered(number: int, error: OSError) -> OSError:
    found = OSError(number, os.strerror(number))  # of the subclass that belongs to the number
    found.__cause__ = error
    return found
