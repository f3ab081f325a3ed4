"""Whether it is this host that calls: the address of a connection against the name that a person wrote."""

from __future__ import annotations

import ipaddress
import socket


def host_of(peer_address: str) -> str:
    """The address in what `Association.peer_address` gives, as `addresses_of` has it."""
    return _plain(peer_address.rpartition(":")[0].strip("[]"))


def addresses_of(host: str) -> frozenset[str]:
    """All addresses that a name stands for; none if it is not known (now). Blocking."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # the latter for names that cannot be asked for
        return frozenset()
    return frozenset(_plain(str(address[0])) for *_, address in found)


def _plain(host: str) -> str:
    """`::ffff:192.0.2.1` is 192.0.2.1, which called a socket of both families (RFC 4291 2.5.5.2); without the zone of RFC 4007."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
