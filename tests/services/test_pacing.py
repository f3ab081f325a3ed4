"""The cap on the bandwidth: by arithmetic first, then for real."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.files import write_file
from support.network import LOOPBACK
from support.services import Keeper, serve
from tomowire import Peer, UsageError
from tomowire.aio.address import PeerAddress
from tomowire.services.pacing import Bucket, Pacer

pytestmark = pytest.mark.usefixtures("no_leaks")

RATES = st.floats(10.0, 1e9)
SECONDS = st.floats(0.0, 10.0)


def waited_for(bucket: Bucket, now: float, amount: int) -> float:
    """When `amount` bytes have been taken by someone who comes at `now` and waits exactly as long as told."""
    now += bucket.delay(now, amount)
    bucket.take(now, amount)
    return now


def test_a_thousand_pieces_take_as_long_as_the_rate_says() -> None:
    bucket = Bucket(1_000_000.0)
    now = 0.0
    for _ in range(1000):
        now = waited_for(bucket, now, 50_000)
    assert now == pytest.approx(50.0, rel=1e-9)


@given(RATES, st.lists(st.tuples(st.integers(1, 1 << 20), SECONDS), min_size=1, max_size=60))
def test_no_more_is_sent_than_the_rate_allows(rate: float, asked: list[tuple[int, float]]) -> None:
    """Whatever is asked for, and however late those who ask come: never more than what ran in, and one piece."""
    bucket = Bucket(rate)
    now = sent = 0.0
    largest = 0
    for amount, late in asked:
        now = waited_for(bucket, now, amount) + late
        sent += amount
        largest = max(largest, amount)
        assert sent - largest <= rate * now * (1 + 1e-9) + bucket.depth


@given(RATES, st.lists(st.tuples(st.integers(1, 1 << 20), SECONDS), min_size=1, max_size=60))
def test_nobody_waits_longer_than_the_rate_needs(rate: float, asked: list[tuple[int, float]]) -> None:
    bucket = Bucket(rate)
    now = sent = 0.0
    for amount, late in asked:
        now = waited_for(bucket, now, amount)
        sent += amount
        assert now <= sum(seconds for _, seconds in asked) + sent / rate * (1 + 1e-9) + 1e-6
        now += late


def test_what_is_saved_up_in_a_pause_is_no_more_than_a_tenth_of_a_second() -> None:
    bucket = Bucket(1000.0)
    bucket.delay(0.0, 1)
    assert bucket.depth == 128
    assert bucket.delay(3600.0, 100_000) == 0.0
    bucket.take(3600.0, 1128)
    assert bucket.delay(3600.0, 128) == pytest.approx(1.128)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_bandwidth_of_nothing_is_a_mistake(rate: float) -> None:
    with pytest.raises(UsageError, match="bytes per second"):
        Peer("ANY@localhost:104", bandwidth=rate)


@given(RATES)
def test_pieces_are_even_and_short(rate: float) -> None:
    piece = Pacer(rate).piece
    assert piece % 2 == 0
    assert 64 <= piece <= max(rate / 20, 64) * (1 + 1e-9)


async def test_who_comes_first_is_served_first() -> None:
    pacer = Pacer(1_000_000.0)
    order: list[int] = []

    async def send(number: int) -> None:
        await pacer.wait(20_000)
        order.append(number)

    async with asyncio.timeout(30):
        await asyncio.gather(*map(send, range(20)))
    assert order == list(range(20))


async def test_who_is_cancelled_has_taken_nothing_and_holds_up_nobody() -> None:
    pacer = Pacer(1000.0)
    await pacer.wait(64)
    waiting = asyncio.create_task(pacer.wait(10**9))
    behind = asyncio.create_task(pacer.wait(64))
    await asyncio.sleep(0)
    waiting.cancel()
    async with asyncio.timeout(30):
        await behind
        await asyncio.wait([waiting])
    assert waiting.cancelled()


@pytest.mark.parametrize("size", [200_000, 4 << 20])
async def test_all_associations_of_a_peer_share_the_bandwidth(tmp_path: Path, size: int) -> None:
    """What is read ahead and what is streamed: together it takes as long as the rate says, and not much longer."""
    count = max((4 << 20) // size, 1)
    files = [write_file(tmp_path, number, bytes([number]) * size) for number in range(1, count + 1)]
    keeper = Keeper()
    rate = 4e6
    loop = asyncio.get_running_loop()
    async with serve(keeper) as server, Peer(PeerAddress("ANY", LOOPBACK, server.port), bandwidth=rate) as peer:
        began = loop.time()
        results = [sent async for sent in peer.send([file.path for file in files], associations=3)]
        seconds = loop.time() - began
    assert [sent.status for sent in results] == [0] * count
    assert keeper.stored == {f"1.2.{number}": bytes([number]) * size for number in range(1, count + 1)}
    at_least = (count * size) / rate
    assert 0.95 * at_least <= seconds < 10 * at_least


async def test_calls_at_the_same_time_share_it_too(tmp_path: Path) -> None:
    files = [write_file(tmp_path, number, bytes(500_000)) for number in range(1, 5)]
    loop = asyncio.get_running_loop()
    async with serve() as server, Peer(PeerAddress("ANY", LOOPBACK, server.port), bandwidth=4e6) as peer:

        async def send(path: Path) -> list[object]:
            return [sent.status async for sent in peer.send(path)]

        began = loop.time()
        assert await asyncio.gather(*(send(file.path) for file in files)) == [[0]] * 4
        assert loop.time() - began >= 0.95 * 0.5


async def test_waiting_for_the_bandwidth_is_no_time_out(tmp_path: Path) -> None:
    """Something has to move every two seconds; the object takes longer, in small steps."""
    file = write_file(tmp_path, 1, bytes(30_000))
    async with serve() as server, Peer(PeerAddress("ANY", LOOPBACK, server.port), bandwidth=10_000) as peer:
        assert [sent.status async for sent in peer.send(file.path, timeout=2.0)] == [0]


async def test_waiting_for_others_that_share_the_bandwidth_is_no_time_out(tmp_path: Path) -> None:
    """Three associations: pieces of 64 bytes take a third of a second each, so that each waits for its turn for about one."""
    files = [write_file(tmp_path, number, bytes(60)).path for number in range(6)]
    async with serve() as server, Peer(PeerAddress("ANY", LOOPBACK, server.port), bandwidth=200) as peer:
        sending = peer.send(files, associations=3, retries=0, timeout=0.5)
        assert [sent.outcome async for sent in sending] == [0] * 6


async def test_left_while_it_waits_it_leaves_nothing_behind(tmp_path: Path) -> None:
    files = [write_file(tmp_path, number, bytes(100_000)) for number in range(1, 5)]
    async with serve() as server, Peer(PeerAddress("ANY", LOOPBACK, server.port), bandwidth=1000) as peer:
        sending = asyncio.ensure_future(anext(peer.send([file.path for file in files])))
        async with asyncio.timeout(10):
            while not server.associations:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
