"""How many associations are used: by simulated peers first, then with real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.files import write_file
from support.network import LOOPBACK
from support.services import Keeper
from tomowire import Peer, Server, Storage, StoreRequest, UsageError, listen
from tomowire.aio.address import PeerAddress
from tomowire.services.adapting import AdaptivePace
from tomowire.services.dicom_file import DicomFile

pytestmark = pytest.mark.usefixtures("no_leaks")

Throughput = Callable[[int, int], float]
"""Objects per second, by associations and window."""


def simulate(pace: AdaptivePace, throughput: Throughput, objects: int, *, window: int = 1, now: float = 0.0) -> float:
    """Answer so many objects as fast as a peer would; what time it is then."""
    pace.opened(now, window)
    open_now = pace.associations
    for _ in range(objects):
        now += 1 / throughput(pace.associations, pace.window)
        if pace.answered(now, 1000, pace.associations * pace.window - 1):
            for _ in range(open_now, pace.associations):
                pace.opened(now, window)
            open_now = pace.associations
    return now


def test_it_begins_with_one_association_and_a_little_of_the_window() -> None:
    pace = AdaptivePace(8)
    assert (pace.associations, pace.window) == (1, 4)
    pace.opened(0.0, 16)
    assert (pace.associations, pace.window) == (1, 4)
    pace.opened(0.0, 1)
    assert (pace.associations, pace.window) == (1, 1)
    pace = AdaptivePace(8)
    pace.opened(0.0, 0)
    assert (pace.associations, pace.window) == (1, 4)


def test_more_are_used_as_long_as_more_help() -> None:
    """Each association takes 20 ms for an object, up to five at a time."""
    pace = AdaptivePace(8)
    simulate(pace, lambda associations, _: 50.0 * min(associations, 5), 2000)
    assert pace.associations in (5, 6)


def test_the_window_is_used_before_more_associations() -> None:
    pace = AdaptivePace(8)
    simulate(pace, lambda associations, window: 50.0 * min(associations * window, 16), 2000, window=16)
    assert (pace.associations, pace.window) in ((1, 16), (2, 16))


def test_where_one_is_as_good_as_many_there_is_one() -> None:
    pace = AdaptivePace(8)
    used: list[int] = []
    for _ in range(50):
        simulate_step = simulate(pace, lambda _, __: 100.0, 40)
        used.append(pace.associations)
        assert simulate_step > 0
    assert sum(used) / len(used) < 1.5


def test_where_more_are_worse_there_is_one() -> None:
    pace = AdaptivePace(8)
    simulate(pace, lambda associations, _: 100.0 / associations, 500)
    assert pace.associations <= 2
    now = simulate(pace, lambda associations, _: 100.0 / associations, 2000)
    assert now < 2000 / 100.0 * 1.4, "most of the time it is not tried"


def test_a_peer_that_becomes_slow_with_many_is_asked_for_fewer() -> None:
    pace = AdaptivePace(8)
    now = simulate(pace, lambda associations, _: 50.0 * associations, 3000)
    assert pace.associations == 8
    simulate(pace, lambda associations, _: 100.0 / associations, 3000, now=now)
    assert pace.associations <= 3


def test_a_rejection_ends_the_climb_and_is_tried_again_seldom() -> None:
    pace = AdaptivePace(8)
    rejections = 0
    now = 0.0
    pace.opened(now, 1)
    used = 1
    for _ in range(5000):
        now += 1 / (50.0 * used)
        if pace.answered(now, 1000, used - 1) and pace.associations > used:
            if pace.associations > 2:
                rejections += 1
                pace.rejected(used)
            else:
                used = pace.associations
                pace.opened(now, 1)
        used = min(used, pace.associations)
    assert used == 2
    assert 1 <= rejections <= 20


def test_who_is_out_of_resources_gets_less_at_once() -> None:
    pace = AdaptivePace(8)
    simulate(pace, lambda associations, _: 50.0 * associations, 3000)
    for _ in range(5):
        pace.short_of_resources()
    assert pace.associations == 7, "five refusals of the same moment are one reason"


def test_a_pause_of_ones_own_is_not_held_against_the_peer() -> None:
    """What is to be sent comes slowly, now and then."""
    pace = AdaptivePace(8)
    now = simulate(pace, lambda associations, _: 50.0 * associations, 3000)
    for _ in range(100):
        pace.interrupted()
        now = simulate(pace, lambda associations, _: 50.0 * associations, 4, now=now + 60.0)
    assert pace.associations == 8


def test_large_objects_are_measured_by_their_bytes() -> None:
    """Four of 200 MB each tell enough."""
    pace = AdaptivePace(8)
    now = 0.0
    pace.opened(now, 1)
    changes = 0
    for _ in range(4):
        now += 1.0
        changes += pace.answered(now, 200 << 20, 0)
    assert changes >= 1


def test_at_least_one_association_is_needed() -> None:
    with pytest.raises(UsageError, match="at least one"):
        AdaptivePace(0)


STEPS = st.one_of(
    st.tuples(st.just("answered"), st.floats(1e-6, 10.0), st.integers(0, 1 << 30)),
    st.tuples(st.just("opened"), st.just(0.0), st.integers(0, 64)),
    st.tuples(st.just("rejected"), st.just(0.0), st.integers(0, 20)),
    st.tuples(st.just("short_of_resources"), st.just(0.0), st.just(0)),
    st.tuples(st.just("interrupted"), st.just(0.0), st.just(0)),
)


@given(st.integers(1, 12), st.lists(STEPS, max_size=400))
def test_whatever_happens_it_stays_within_its_bounds(most: int, steps: list[tuple[str, float, int]]) -> None:
    pace = AdaptivePace(most)
    now = 0.0
    largest = 4
    for what, seconds, number in steps:
        now += seconds
        if what == "answered":
            before = pace.associations, pace.window
            changed = pace.answered(now, number, number % 7)
            assert changed == (before != (pace.associations, pace.window))
        elif what == "opened":
            pace.opened(now, number)
            largest = max(largest, number or 16)
        elif what == "rejected":
            pace.rejected(number)
            assert pace.associations <= max(number, 1)
        else:
            getattr(pace, what)()
        assert 1 <= pace.associations <= most
        assert 1 <= pace.window <= largest


@given(st.integers(1, 8), st.integers(1, 16), st.floats(20.0, 5000.0))
def test_it_finds_the_best_of_a_peer_that_serves_so_many_at_once(best: int, window: int, speed: float) -> None:
    """In the second half of 20,000 objects nine tenths of what the peer can do are used."""

    def throughput(associations: int, window: int) -> float:
        return speed * min(associations * window, best)

    pace = AdaptivePace(8)
    began = simulate(pace, throughput, 10_000, window=window)
    seconds = simulate(pace, throughput, 10_000, window=window, now=began) - began
    assert 10_000 / seconds >= 0.9 * speed * best


# With real peers


@pytest.fixture
def files(tmp_path: Path) -> list[DicomFile]:
    return [write_file(tmp_path, number) for number in range(400)]


async def send_all(server: Server, files: list[DicomFile], **options: Any) -> None:
    options["associations"] = "auto"
    async with asyncio.timeout(60), Peer(PeerAddress("ANY", LOOPBACK, server.port), window=1) as peer:
        results = [sent async for sent in peer.send([file.path for file in files], **options)]
    assert [sent.outcome for sent in results] == [0] * len(files)


class Watched(Keeper):
    """Remembers how many associations there were at each object, and takes its time."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        super().__init__()
        self.seconds = seconds
        self.server: Server | None = None
        self.counts: list[int] = []
        self.turn = asyncio.Lock()

    async def keep(self, request: StoreRequest) -> int:
        assert self.server is not None
        self.counts.append(sum(each.has_begun for each in self.server.associations))
        await self.wait(self.seconds(self.counts[-1]))
        return await super().keep(request)

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class OneAtATime(Watched):
    async def wait(self, seconds: float) -> None:
        async with self.turn:
            await asyncio.sleep(seconds)


async def test_a_peer_with_a_delay_for_each_object_is_asked_on_more_associations(files: list[DicomFile]) -> None:
    keeper = Watched(lambda _: 0.02)
    async with listen(LOOPBACK, 0, services=[Storage(keeper.keep)]) as server:
        keeper.server = server
        await send_all(server, files)
    assert 3 <= max(keeper.counts) <= 8


async def test_never_more_than_the_bound(files: list[DicomFile]) -> None:
    keeper = Watched(lambda _: 0.02)
    async with listen(LOOPBACK, 0, services=[Storage(keeper.keep)]) as server:
        keeper.server = server
        await send_all(server, files[:200], most_associations=2)
    assert max(keeper.counts) == 2


async def test_a_peer_that_gets_slower_with_more_associations_gets_few(files: list[DicomFile]) -> None:
    """One object after the other, and each takes four times as long with twice the associations."""
    keeper = OneAtATime(lambda associations: 0.015 * associations**2)
    async with listen(LOOPBACK, 0, services=[Storage(keeper.keep)]) as server:
        keeper.server = server
        await send_all(server, files[:150])
    assert sum(keeper.counts) / len(keeper.counts) < 2


async def test_a_peer_that_rejects_the_third_association_gets_two(files: list[DicomFile]) -> None:
    keeper = Watched(lambda _: 0.02)
    async with listen(LOOPBACK, 0, services=[Storage(keeper.keep)], maximum_associations=2) as server:
        keeper.server = server
        await send_all(server, files)
    assert max(keeper.counts) == 2
    assert sum(keeper.counts) / len(keeper.counts) > 1.5
    assert keeper.stored.keys() == {file.sop_instance_uid for file in files}
