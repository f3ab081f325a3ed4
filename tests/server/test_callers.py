"""Who may associate with an archive, by name and by host."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tomowire.server import callers as module
from tomowire.server.callers import Callers
from tomowire.server.nodes import Node
from tomowire.services.hosts import addresses_of, host_of

HERE, THERE = "192.0.2.1", "192.0.2.2"


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


async def test_a_node_that_has_moved_is_found_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, no_leaks: None
) -> None:
    """It is turned away once; its host is looked up meanwhile, but not for each who tries."""
    looked_up: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1)  # what is asked for first is done first
    loop.set_default_executor(executor)
    address = THERE

    def look_up(host: str) -> frozenset[str]:
        loop.call_soon_threadsafe(looked_up.put_nowait, host)
        return frozenset({address})

    monkeypatch.setattr(module, "addresses_of", look_up)
    async with asyncio.timeout(10), Callers((), {"VIEWER": Node("VIEWER", "workstation", 104)}) as callers:
        assert await looked_up.get() == "workstation"
        address = HERE
        assert callers.lets_in("VIEWER", f"{THERE}:1")
        assert not callers.lets_in("VIEWER", f"{HERE}:1")
        assert not callers.lets_in("STRANGER", f"{THERE}:1")
        await asyncio.sleep(0)
        await asyncio.to_thread(int)
        await asyncio.sleep(0)
        assert looked_up.empty(), "it has just been looked up"
        monkeypatch.setattr(module, "_BETWEEN_LOOKUPS", 0.0)
        assert not callers.lets_in("VIEWER", f"{HERE}:1")
        assert not callers.lets_in("VIEWER", f"{HERE}:1")
        assert await looked_up.get() == "workstation"
        while not callers.lets_in("VIEWER", f"{HERE}:1"):  # noqa: ASYNC110 - there is nobody to tell
            await asyncio.sleep(0)
        assert not callers.lets_in("VIEWER", f"{THERE}:1")
    executor.shutdown()
    assert "VIEWER calls from 192.0.2.1:1, and is a node at workstation" in caplog.text


async def test_a_host_that_is_slow_to_be_found_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, no_leaks: None
) -> None:
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def hang(*_: object) -> None:
        await never

    monkeypatch.setattr(module.asyncio, "to_thread", hang)
    monkeypatch.setattr(module, "_LOOKUP_TIMEOUT", 0.01)
    async with asyncio.timeout(10), Callers((), {"VIEWER": Node("VIEWER", "workstation", 104)}) as callers:
        assert not callers.lets_in("VIEWER", f"{HERE}:1"), "it could be anybody"
    assert "the host workstation of node VIEWER is not found" in caplog.text
    assert never.cancelled()
