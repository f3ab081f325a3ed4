"""Peers in the test's own event loop, and in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from support.leaks import open_descriptors
from support.raw_peer import RawPeer
from tomowire import CEchoScu, associate, verification
from tomowire.errors import UsageError
from tomowire.testing import FaultyPeer, no_leaks
from tomowire.testing.hosting import Hosted
from tomowire.wire.pdu import AReleaseRP


class Recorded(Hosted):
    """Remembers in which thread it was started and stopped."""

    def __init__(self, *, fails_at: str = "") -> None:
        self.fails_at = fails_at
        self.threads: list[threading.Thread] = []

    async def start(self) -> None:
        self.threads.append(threading.current_thread())
        if self.fails_at == "start":
            raise RuntimeError("no start")

    async def stop(self) -> None:
        self.threads.append(threading.current_thread())
        if self.fails_at == "stop":
            raise RuntimeError("no stop")


async def test_with_async_with_it_lives_in_the_running_loop() -> None:
    recorded = Recorded()
    async with recorded:
        pass
    assert recorded.threads == [threading.current_thread()] * 2


def test_with_with_it_lives_in_a_thread_that_is_gone_afterwards() -> None:
    recorded = Recorded()
    before = threading.enumerate(), open_descriptors()
    for _ in range(3):
        with recorded:
            assert threading.current_thread() not in recorded.threads
    assert len(recorded.threads) == 6
    assert (threading.enumerate(), open_descriptors()) == before


@pytest.mark.parametrize("when", ["start", "stop"])
def test_what_fails_in_the_thread_is_raised_by_the_block(when: str) -> None:
    before = threading.enumerate()
    with pytest.raises(RuntimeError, match=f"no {when}"), Recorded(fails_at=when):
        assert when == "stop"
    assert threading.enumerate() == before


def test_it_is_used_once_at_a_time() -> None:
    recorded = Recorded()
    with recorded, pytest.raises(UsageError, match="in use already"), recorded:
        pass
    with recorded:
        pass


async def test_in_a_loop_too() -> None:
    recorded = Recorded()
    async with recorded:
        with pytest.raises(UsageError, match="in use already"):
            await recorded.__aenter__()
    async with recorded:
        pass


def test_what_the_test_failed_with_comes_first() -> None:
    with pytest.raises(ZeroDivisionError) as caught, Recorded(fails_at="stop"):
        _ = 1 / 0
    assert caught.value.__notes__ == ["and the Recorded failed: RuntimeError('no stop')"]


def test_a_peer_can_be_used_again_in_another_loop() -> None:
    peer = FaultyPeer.babbles(b"hello")

    async def use() -> None:
        async with peer, await RawPeer.connect(peer.port) as raw:
            await raw.send(AReleaseRP())
            await raw.read_until_closed()
            await peer.wait_idle()

    for _ in range(2):
        with pytest.raises(AssertionError, match="AReleaseRP"):
            asyncio.run(use())
    with peer:
        pass
    assert peer.heard.connections == 2


def test_a_test_that_is_not_asynchronous_can_talk_to_it() -> None:
    with FaultyPeer.babbles(b"hello") as peer, socket.create_connection(("127.0.0.1", peer.port), timeout=10) as sock:
        sock.settimeout(10)
        sock.sendall(b"\x07\0\0\0\0\4\0\0\0\0")  # A-ABORT
        assert sock.recv(1) == b""
    assert peer.heard.connections == 1


def test_asyncio_run_is_enough() -> None:
    async def main() -> None:
        async with (
            no_leaks(),
            FaultyPeer.answers(0x0110) as peer,
            associate(peer.address, [verification()]) as association,
        ):
            assert await CEchoScu(association).echo() == 0x0110

    asyncio.run(main())


async def test_what_is_left_behind_is_named() -> None:
    sleeping: list[asyncio.Task[None]] = []

    async def leave() -> None:
        async with no_leaks():
            sleeping.append(asyncio.create_task(asyncio.sleep(60), name="left here"))

    with pytest.raises(AssertionError, match="left behind:\n  task left here"):
        await leave()
    sleeping[0].cancel()
