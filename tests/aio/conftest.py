"""Fixtures for what uses TLS, and the event loops that tests run on."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from support.certificates import Authority
from support.leaks import Resources, leaks_since, open_descriptors


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that both sides know."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """As everywhere, but uvloop opens and closes descriptors of its own between the steps of a test."""
    is_uvloop = type(asyncio.get_running_loop()).__module__.startswith("uvloop")
    before = Resources.now()
    yield
    if is_uvloop:
        before = replace(before, descriptors=open_descriptors())
    assert await leaks_since(before) == []


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A module with `ON_EVERY_LOOP = True` has its tests run on uvloop too, where it is installed."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    wanted = isinstance(item, pytest.Function) and getattr(item.module, "ON_EVERY_LOOP", False)
    if wanted and importlib.util.find_spec("uvloop") is not None:
        factories["uvloop"] = importlib.import_module("uvloop").new_event_loop
    return factories
