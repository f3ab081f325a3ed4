"""What a piece of asyncio code must not leave behind: that of `tomowire.testing`."""

from __future__ import annotations

from tomowire.testing.leaks import DESCRIPTORS, SECONDS_TO_SETTLE, Resources, leaks_since, open_descriptors

__all__ = ["DESCRIPTORS", "SECONDS_TO_SETTLE", "Resources", "leaks_since", "open_descriptors"]
