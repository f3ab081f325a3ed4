"""The event loops that tests run on: a `conftest` that imports this hook lets its modules choose."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable

import pytest


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A module with `ON_EVERY_LOOP = True` has its tests run on uvloop too, where it is installed."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    wanted = isinstance(item, pytest.Function) and getattr(item.module, "ON_EVERY_LOOP", False)
    if wanted and importlib.util.find_spec("uvloop") is not None:
        factories["uvloop"] = importlib.import_module("uvloop").new_event_loop
    return factories
