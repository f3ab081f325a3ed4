"""The first quiet moment: when no association is open, not too soon, and not too late."""

from __future__ import annotations

import asyncio

import pytest

from tomowire.server.lull import Lull


async def test_it_comes_when_the_last_association_is_over() -> None:
    lull = Lull(soonest=0, longest=60)
    lull.began()
    lull.began()
    coming = asyncio.create_task(lull.come())
    lull.ended()
    await asyncio.sleep(0.05)
    assert not coming.done()
    lull.ended()
    await asyncio.wait_for(coming, 10)


async def test_who_stays_puts_it_off_for_so_long_and_no_longer() -> None:
    lull = Lull(soonest=0, longest=0.05)
    lull.began()
    await asyncio.wait_for(lull.come(), 10)


async def test_it_does_not_come_at_once() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Lull(soonest=60, longest=120).come(), 0.05)
