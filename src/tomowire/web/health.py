"""For load balancers, service managers and Prometheus: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, Response

from tomowire.errors import IndexUnavailable
from tomowire.server.metrics import Metrics
from tomowire.server.room import is_full

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from starlette.requests import Request

    from tomowire.server.app import Archive

PATIENCE: Final = 5.0
"""Seconds that a part may take to answer."""

FRESH: Final = 0.5
"""Seconds for which an answer is as good as another."""

_NEVER: Final = "2.25.0"
"""A UID that no object has: asking for it is the least that an index can be asked."""


class Health:
    """Answers for `archive`."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._checks: dict[str, Callable[[], Awaitable[str]]] = {
            "index": self._index,
            "storage": self._storage,
            "dicom": self._dicom,
        }
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._answers: list[str] = []

    async def alive(self, _: Request) -> Response:
        """200 as long as the event loop answers."""
        return JSONResponse({"status": "alive"})

    async def ready(self, _: Request) -> Response:
        """200 when objects can be stored and found; 503 says what is wrong, part by part."""
        async with self._looking:  # who asks meanwhile gets the same answer: everybody may ask
            if time.monotonic() - self._looked_at > FRESH:
                self._answers = await asyncio.gather(*(self._checked(check) for check in self._checks.values()))
                self._looked_at = time.monotonic()
        answers = self._answers
        checks = dict(zip(self._checks, (answer or "ok" for answer in answers), strict=True))
        is_ready = not any(answers)
        return JSONResponse(
            {"status": "ready" if is_ready else "not ready", "checks": checks}, 200 if is_ready else 503
        )

    async def metrics(self, _: Request) -> Response:
        """Prometheus' text format."""
        return Response(await asyncio.to_thread(self._archive.metrics.exposition), media_type=Metrics.CONTENT_TYPE)

    async def _checked(self, check: Callable[[], Awaitable[str]]) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                return await check()
        except TimeoutError:
            return f"no answer within {PATIENCE:g} s"
        except (IndexUnavailable, OSError):
            return "cannot be used now"  # why is in the log: it may name paths and hosts

    async def _index(self) -> str:
        storage = self._archive.storage
        if trouble := await storage.keeping.trouble():
            return trouble
        await storage.index.instance(_NEVER)
        return ""

    async def _storage(self) -> str:
        return await asyncio.to_thread(_trouble_with, self._archive.storage.root)

    async def _dicom(self) -> str:
        return "" if self._archive.server.is_listening else "the DICOM port is closed"


def _trouble_with(root: Path) -> str:
    """What hinders that objects are written to `root`; empty if nothing does."""
    if not os.access(root / "incoming", os.W_OK | os.X_OK):
        return "the data directory cannot be written to"
    if is_full(root):
        return "the disk is full"
    return ""
