"""What the tests of several commands need."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.network import LOOPBACK
from support.receiver import Receiver
from tomowire import Storage, listen


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with listen(LOOPBACK, 0, services=[Storage(receiver.keep)], shutdown_grace=0) as server:
        receiver.server = server
        yield receiver
