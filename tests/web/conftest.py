"""The event loops that tests run on."""

from __future__ import annotations

from support.event_loops import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
