"""The pytest plugin: fixtures that hand out the peers of `tomowire.testing`.

None of them needs an event loop to be set up, so they work beside pytest-asyncio, anyio, or no plugin at all. This module is
imported by every run of pytest where tomowire is installed: it imports nothing but pytest before a fixture is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tomowire.testing.archive import Archive
    from tomowire.testing.faulty_peer import FaultyPeer
    from tomowire.testing.faulty_sender import FaultySender


@pytest.fixture
def faulty_peer() -> type[FaultyPeer]:
    """DICOM peers that misbehave: `async with faulty_peer.resets(after_bytes=1000) as peer:`, or `with` in a plain test."""
    from tomowire.testing.faulty_peer import FaultyPeer

    return FaultyPeer


@pytest.fixture
def faulty_sender() -> FaultySender:
    """A DICOM requestor that misbehaves: `outcome = await faulty_sender.resets("AET@127.0.0.1:11112")`."""
    from tomowire.testing.faulty_sender import FaultySender

    return FaultySender()


@pytest.fixture
def archive() -> Iterator[Archive]:
    """A DICOM archive that is empty, runs in a thread and keeps what it gets: `archive.address`, `archive.objects`."""
    from tomowire.testing.archive import Archive

    with Archive() as running:
        yield running
