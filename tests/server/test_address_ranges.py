"""Ranges of addresses: what may be written, and which addresses are in them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomowire.errors import UsageError
from tomowire.server.address_ranges import holds, read_range
from tomowire.services.hosts import host_of

V4, V6 = ipaddress.IPv4Address, ipaddress.IPv6Address


@pytest.mark.parametrize(
    ("written", "inside", "outside"),
    [
        ("10.1.0.0/16", ["10.1.0.0", "10.1.255.255"], ["10.0.255.255", "10.2.0.0", "::a01:0", "", "host"]),
        ("192.0.2.7", ["192.0.2.7"], ["192.0.2.6", "192.0.2.70"]),
        (" 192.0.2.7 ", ["192.0.2.7"], ["192.0.2.6"]),
        ("10.0.0.0/255.0.0.0", ["10.255.0.1"], ["11.0.0.0"]),
        ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::1", "::", ""]),
        ("::/0", ["::1", "2001:db8::1"], ["127.0.0.1", ""]),
        ("2001:db8::/32", ["2001:db8::1", "2001:db8:ffff::"], ["2001:db9::", "192.0.2.1"]),
        ("::ffff:10.0.0.0/104", ["10.255.255.255"], ["11.0.0.0", "::ffff"]),
        ("::ffff:192.0.2.7", ["192.0.2.7"], ["192.0.2.8"]),
        ("::ffff:0:0/96", ["1.2.3.4"], ["::1"]),
        ("::fffe:0:0/95", ["::fffe:1:2"], ["1.2.3.4"]),
    ],
)
def test_what_is_in_a_range(written: str, inside: list[str], outside: list[str]) -> None:
    network = read_range(written)
    assert [each for each in inside if not holds(network, each)] == []
    assert [each for each in outside if holds(network, each)] == []


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "no address and no range"),
        ("localhost", "no address and no range"),
        ("10.1.0.0/33", "no address and no range"),
        ("10.1.0.0/-1", "no address and no range"),
        ("10.1.0.0/", "no address and no range"),
        ("10.1", "no address and no range"),
        ("10.1.0.0-10.2.0.0", "no address and no range"),
        ("010.1.0.1", "no address and no range"),  # 8.1.0.1 to some, 10.1.0.1 to others
        ("10.1.0.0/16/8", "no address and no range"),
        ("2001:db8::/129", "no address and no range"),
        ("[::1]", "no address and no range"),
        ("٣.0.0.0", "no address and no range"),
        ("10.1.2.3/16", "is an address within a range: write 10.1.0.0/16"),
        ("2001:db8::1/32", "is an address within a range: write 2001:db8::/32"),
        ("fe80::1%eth0", "leave out the zone"),
        (7, "is text"),
        (None, "is text"),
    ],
)
def test_what_is_no_range(written: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_range(written)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(0, 128), st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_an_address_is_in_a_range_when_its_first_bits_are_those_of_the_range(
    base: V4 | V6, length: int, address: V4 | V6
) -> None:
    """Against the arithmetic, with an IPv4 address written in either way, as a connection has it and as a person writes it."""
    bits = base.max_prefixlen
    length = min(length, bits)
    first = int(base) >> (bits - length) << (bits - length)
    network = ipaddress.IPv4Network((first, length)) if bits == 32 else ipaddress.IPv6Network((first, length))
    expected = address.version == base.version and int(address) >> (bits - length) == int(base) >> (bits - length)
    if base.version == 6 and base in ipaddress.IPv6Network("::ffff:0:0/96"):
        return
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return
    assert holds(read_range(str(network)), str(address)) == expected
    if network.version == 4:
        written = f"::ffff:{network.network_address}/{length + 96}"
        assert holds(read_range(written), str(address)) == expected
    if address.version == 4:
        for shown in (f"{address}:104", f"[::ffff:{address}]:104"):
            assert holds(read_range(str(network)), host_of(shown)) == expected


@given(st.text(max_size=50) | st.from_regex(r"[0-9a-f.:/]{1,40}", fullmatch=True))
def test_any_text_is_a_range_or_a_usage_error(written: str) -> None:
    try:
        network = read_range(written)
    except UsageError:
        return
    assert holds(network, str(network.network_address))
    assert holds(network, str(network.broadcast_address))


@given(st.text(max_size=60))
def test_no_text_but_an_address_is_in_the_range_of_all(host: str) -> None:
    found = holds(read_range("0.0.0.0/0"), host) or holds(read_range("::/0"), host)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        assert not found
    else:
        assert found
