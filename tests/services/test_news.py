"""What a retrieval tells: in order, the end last, and not without bounds."""

from __future__ import annotations

import asyncio

import pytest

from tomowire.services import news
from tomowire.services.news import News


async def all_of(told: News[str, int]) -> list[str | int]:
    found: list[str | int] = []
    async with asyncio.timeout(20):
        while (each := await told.next()) is not None:
            found.append(each)
    return found


async def test_of_progress_only_the_latest_counts() -> None:
    told = News[str, int]()
    told.of_progress(1)
    told.of_progress(2)
    told.of_object("a")
    told.of_object("b")
    for number in range(3, 1000):
        told.of_progress(number)
    told.end()
    assert await all_of(told) == [2, "a", "b", 999]


async def test_who_waits_gets_everything_as_it_comes() -> None:
    told = News[str, int]()
    reading = asyncio.create_task(all_of(told))
    for number in range(3):
        told.of_progress(number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    told.end()
    assert await reading == [0, 1, 2]


async def test_there_is_room_when_something_has_been_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "_MOST_UNREAD", 2)
    told = News[str, int]()
    for name in ("a", "b"):
        await asyncio.wait_for(told.room(), 20)
        told.of_object(name)
        told.of_progress(1)
    waiting = [asyncio.create_task(told.room()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    assert await told.next() == "a"
    async with asyncio.timeout(20):
        await asyncio.gather(*waiting)


async def test_when_nobody_reads_any_more_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "_MOST_UNREAD", 1)
    told = News[str, int]()
    told.of_object("a")
    waiting = asyncio.create_task(told.room())
    await asyncio.sleep(0)
    told.close()
    async with asyncio.timeout(20):
        await waiting
        told.of_object("b")
        await told.room()
    told.end()
    assert await all_of(told) == []
