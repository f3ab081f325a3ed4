"""Fixtures for what uses TLS."""

from __future__ import annotations

import pytest

from support.certificates import Authority
from support.event_loops import pytest_asyncio_loop_factories

__all__ = ["authority", "pytest_asyncio_loop_factories", "stranger"]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that both sides know."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")
