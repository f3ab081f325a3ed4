"""What the tests of several commands need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from support import programs
from support.network import LOOPBACK
from support.receiver import Receiver
from support.warm_commands import warm_commands
from tomowire import Storage, listen


@pytest.fixture(scope="session", autouse=True)
def commands_start_warm() -> Iterator[None]:
    """Those that run to their end: see `support.warm_commands`."""
    with warm_commands() as programs.warm:
        yield
    programs.warm = None


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with listen(LOOPBACK, 0, services=[Storage(receiver.keep)], shutdown_grace=0) as server:
        receiver.server = server
        yield receiver
