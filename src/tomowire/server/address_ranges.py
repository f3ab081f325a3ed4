"""Ranges of addresses, as a person writes them: `10.1.0.0/16`, `2001:db8::/32`, `192.0.2.7`.

An IPv4 address that a socket of both families has as `::ffff:192.0.2.7` (RFC 4291 2.5.5.2) is that IPv4 address, in a range too.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from tomowire.errors import UsageError

Range = IPv4Network | IPv6Network

_MAPPED: Final = IPv6Network("::ffff:0:0/96")


@lru_cache(maxsize=1024)
def read_range(text: str) -> Range:
    """Raises `UsageError` that says what is wrong with it."""
    if not isinstance(text, str):
        raise UsageError(f"an address or a range of addresses is text, and not {text!r}")
    if "%" in text:
        raise UsageError(f"{text!r}: leave out the zone, the part from '%' on: it names a network card of one machine")
    try:
        meant = ip_network(text.strip(), strict=False)
    except ValueError:
        raise UsageError(
            f"{text!r} is no address and no range of addresses: write 10.1.0.0/16, 2001:db8::/32 or 192.0.2.7"
        ) from None
    if meant.network_address != ip_address(text.strip().partition("/")[0]):
        raise UsageError(f"{text!r} is an address within a range: write {meant} for the range")
    return _plain(meant)


def holds(network: Range, host: str) -> bool:
    """Whether an address, as `host_of` gives it, is in the range. What is no address is in none."""
    address = _address(host)
    return address is not None and address.version == network.version and address in network


def _plain(network: Range) -> Range:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        assert mapped is not None
        return IPv4Network((mapped, network.prefixlen - _MAPPED.prefixlen))
    return network


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
