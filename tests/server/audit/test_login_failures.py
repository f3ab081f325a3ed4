"""Who fails to log in again and again does not fill the trail, and is in it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tomowire.server.audit.events import Login, Outcome, Party
from tomowire.server.audit.login_failures import MOST, MOST_NAMES, LoginFailures

HERE, THERE = "192.0.2.1", "192.0.2.2"


class Told(list[Login]):
    """What the audit was told; `more` is set by what comes at the end of an interval."""

    def __init__(self) -> None:
        super().__init__()
        self.more = asyncio.Event()

    def record(self, event: Login) -> None:
        self.append(event)
        if event.outcome is Outcome.SERIOUS_FAILURE:
            self.more.set()


@pytest.fixture
async def told() -> Told:
    return Told()


def failures(told: Told, **options: Any) -> LoginFailures:
    audit: Any = SimpleNamespace(record=told.record)
    return LoginFailures(audit, **options)


def fail(many: LoginFailures, network: str, count: int, name: str = "jo") -> None:
    for _ in range(count):
        event = Login(user=Party(name, network), outcome=Outcome.MINOR_FAILURE, reason="no such password")
        many.failed(event, network)


async def test_few_are_told_each_and_at_once(told: Told) -> None:
    many = failures(told, interval=0.0)
    fail(many, HERE, MOST)
    assert [(each.user, each.outcome, each.reason) for each in told] == [
        (Party("jo", HERE), Outcome.MINOR_FAILURE, "no such password")
    ] * MOST
    many.close()
    assert len(told) == MOST


async def test_of_more_it_is_told_how_many_they_were(told: Told) -> None:
    many = failures(told, interval=0.01)
    fail(many, HERE, MOST + 500)
    assert len(told) == MOST
    async with asyncio.timeout(20):
        await told.more.wait()
    assert len(told) == MOST + 1
    assert told[-1].user == Party("jo", HERE)
    assert told[-1].reason == "500 more have failed within 0.01 s; the last: no such password"
    fail(many, HERE, 1)
    assert len(told) == MOST + 2, "a new interval begins with the next"
    many.close()


async def test_each_who_was_tried_is_named_as_long_as_there_is_room(told: Told) -> None:
    many = failures(told, interval=100)
    fail(many, HERE, MOST)
    for number in range(MOST_NAMES + 50):
        fail(many, HERE, 2, f"user{number}")
    many.close()
    more = {each.user.name: int(each.reason.split()[0]) for each in told[MOST:]}
    assert more == {f"user{number}": 2 for number in range(MOST_NAMES)} | {"other names": 100}


async def test_addresses_are_told_apart_as_long_as_there_is_room(told: Told) -> None:
    many = failures(told, interval=100, most_addresses=3)
    fail(many, HERE, 10 * MOST)
    fail(many, THERE, 1)
    assert told[-1].user.address == THERE, "what one address does hides nobody else"
    for number in range(100):
        fail(many, f"198.51.100.{number}", 1)
    assert len(told) == MOST + 1 + 1 + MOST
    many.close()
    assert sorted(int(each.reason.split()[0]) for each in told[-2:]) == [100 - 1 - MOST, 9 * MOST]
