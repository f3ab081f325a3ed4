"""The ASGI application: what is done for every request, who may ask, health and metrics, and `/api`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Mount, Route

from tomowire.web.api import make_api
from tomowire.web.gate import Gate, Process
from tomowire.web.health import Health
from tomowire.web.login import Login
from tomowire.web.problems import handlers
from tomowire.web.requests import EveryRequest

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from tomowire.server.app import Archive
    from tomowire.server.settings import HttpSettings


class WebApp:
    """An ASGI application over `archive`. `closing` is set when answers that would go on for ever have to end."""

    def __init__(self, archive: Archive, settings: HttpSettings, process: Process) -> None:
        self.closing = asyncio.Event()
        self.gate = Gate(archive, settings, process)
        health = Health(archive)
        self.api = make_api(archive, self.gate, self.closing)
        root = Starlette(
            routes=[
                Route("/healthz", health.alive),
                Route("/readyz", health.ready),
                Route("/metrics", health.metrics),
                Mount("/api", self.api),
            ],
            exception_handlers=handlers(),
        )
        root.router.redirect_slashes = False
        self._app: ASGIApp = EveryRequest(Login(root, self.gate))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
