"""Who is refused again and again does not fill the trail."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tomowire.server.audit.events import AssociationRefused, Party
from tomowire.server.audit.refusals import Refusals


@pytest.fixture
def told() -> list[AssociationRefused]:
    return []


def refusals(told: list[AssociationRefused], **options: Any) -> Refusals:
    audit: Any = SimpleNamespace(record=told.append)
    return Refusals(audit, **options)


def refuse(many: Refusals, host: str, count: int = 1) -> None:
    for number in range(count):
        many.refused(Party.node(f"AE{number}", f"{host}:{number}"), "TOMOWIRE", "not known", host=host)


async def test_the_first_is_told_at_once_and_then_how_many_more(told: list[AssociationRefused]) -> None:
    many = refusals(told, interval=0.1)
    refuse(many, "192.0.2.1", 500)
    assert [event.caller.name for event in told] == ["AE0"]
    await asyncio.sleep(0.2)
    assert [event.caller.name for event in told] == ["AE0", "AE499"]
    assert told[1].reason == "499 more from there within 0.1 s; the last: not known"
    assert (told[0].outcome, told[1].outcome) == (4, 8)
    refuse(many, "192.0.2.1")
    assert len(told) == 3, "a new interval begins with the next"
    many.close()


async def test_one_alone_is_one_event(told: list[AssociationRefused]) -> None:
    many = refusals(told, interval=0.05)
    refuse(many, "192.0.2.1")
    await asyncio.sleep(0.1)
    assert len(told) == 1
    many.close()
    assert len(told) == 1


async def test_addresses_are_told_apart_as_long_as_there_is_room(told: list[AssociationRefused]) -> None:
    many = refusals(told, interval=10, most_addresses=3)
    for number in range(100):
        refuse(many, f"192.0.2.{number}")
    assert len(told) == 4
    many.close()
    assert len(told) == 5
    assert told[-1].reason.startswith("96 more from there")
