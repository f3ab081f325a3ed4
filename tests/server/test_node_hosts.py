"""Where nodes are, by the names of their hosts."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tomowire.server import node_hosts as module
from tomowire.server.node_hosts import NodeHosts
from tomowire.services.hosts import addresses_of, host_of

HERE, THERE = "192.0.2.1", "192.0.2.2"
HOSTS = {"workstation": "VIEWER"}


@pytest.mark.parametrize(
    ("peer_address", "host"),
    [
        ("192.0.2.1:1234", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:1234", "192.0.2.1"),  # RFC 4291 2.5.5.2
        ("[2001:DB8:0::1]:1234", "2001:db8::1"),
        ("[fe80::1%eth0]:1234", "fe80::1"),
        ("", ""),
    ],
)
def test_the_host_of_a_connection(peer_address: str, host: str) -> None:
    assert host_of(peer_address) == host


def test_the_addresses_of_a_host() -> None:
    assert addresses_of("192.0.2.1") == {"192.0.2.1"}
    assert addresses_of("::ffff:192.0.2.1") == {"192.0.2.1"}
    assert addresses_of("localhost") in ({"127.0.0.1"}, {"::1"}, {"127.0.0.1", "::1"})
    assert addresses_of("nowhere.invalid") == frozenset()
    assert addresses_of("x" * 64 + ".example") == frozenset()
    assert addresses_of("a\0b") == frozenset()


async def test_a_host_that_has_moved_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who calls from there is turned away once; the host is looked up meanwhile, but not for each who tries."""
    looked_up: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1)  # what is asked for first is done first
    loop.set_default_executor(executor)
    address = THERE

    def look_up(host: str) -> frozenset[str]:
        loop.call_soon_threadsafe(looked_up.put_nowait, host)
        return frozenset({address})

    monkeypatch.setattr(module, "addresses_of", look_up)
    hosts = NodeHosts()
    async with asyncio.timeout(10):
        await hosts.find(HOSTS)
        assert await looked_up.get() == "workstation"
        address = HERE
        assert hosts.is_at("workstation", THERE)
        assert not hosts.is_at("workstation", HERE)
        await asyncio.sleep(0)
        await asyncio.to_thread(int)
        await asyncio.sleep(0)
        assert looked_up.empty(), "it has just been looked up"
        monkeypatch.setattr(module, "_BETWEEN_LOOKUPS", 0.0)
        assert not hosts.is_at("workstation", HERE)
        assert not hosts.is_at("workstation", HERE)
        assert await looked_up.get() == "workstation"
        while not hosts.is_at("workstation", HERE):  # noqa: ASYNC110 - there is nobody to tell
            await asyncio.sleep(0)
        await hosts.close()
    assert not hosts.is_at("workstation", THERE)
    await hosts.close()
    executor.shutdown()


async def test_a_host_that_is_slow_to_be_found_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def hang(*_: object) -> None:
        await never

    monkeypatch.setattr(module.asyncio, "to_thread", hang)
    monkeypatch.setattr(module, "_LOOKUP_TIMEOUT", 0.01)
    hosts = NodeHosts()
    async with asyncio.timeout(10):
        await hosts.find(HOSTS)
        assert not hosts.is_at("workstation", HERE), "it could be anybody"
        await hosts.close()
    assert "the host workstation of node VIEWER is not found" in caplog.text
    assert never.cancelled()


async def test_a_host_that_is_no_node_s_any_more_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "addresses_of", lambda host: frozenset({HERE}))
    hosts = NodeHosts()
    await hosts.find(HOSTS | {"console": "CONSOLE"})
    assert hosts.is_at("console", HERE)
    hosts.keep(HOSTS)
    assert hosts.is_at("workstation", HERE)
    assert not hosts.is_at("console", HERE)
    await hosts.close()
