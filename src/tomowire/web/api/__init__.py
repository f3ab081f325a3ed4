"""`/api`: the REST API, one module for each topic, and its OpenAPI document at `/api/openapi.json`."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tomowire._version import __version__
from tomowire.server.app import Archive
from tomowire.web.api import (
    associations,
    audit,
    configuration,
    instances,
    jobs,
    logs,
    nodes,
    series,
    shutdown,
    statistics,
    status,
    studies,
    transfers,
    users,
)
from tomowire.web.api.document import COMPONENTS, DESCRIPTION, SECURITY, TAGS, tidy
from tomowire.web.gate import Gate
from tomowire.web.problems import handlers

TOPICS = (
    status,
    studies,
    series,
    instances,
    statistics,
    associations,
    nodes,
    transfers,
    jobs,
    logs,
    audit,
    configuration,
    users,
    shutdown,
)


def make_api(archive: Archive, gate: Gate, closing: asyncio.Event) -> FastAPI:
    """The application that is mounted at `/api`."""
    api = Api(
        title="tomowire",
        version=__version__,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        openapi_url=None,  # `_document` is it, made in a thread
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=handlers(),
    )
    for each in TOPICS:
        api.include_router(each.router)
    api.router.routes.append(Route("/openapi.json", _document))
    api.state.operations = [*api.router.routes, *(route for each in TOPICS for route in each.router.routes)]
    api.state.archive, api.state.gate, api.state.closing = archive, gate, closing
    return api


async def _document(request: Request) -> Response:
    """Making it takes longer than associations may be kept waiting for."""
    api: Api = request.app
    return Response(await asyncio.to_thread(api.document), media_type="application/json")


class Api(FastAPI):
    """Its document has the two ways to log in and the form of errors besides."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._making = threading.Lock()
        """FastAPI's routes share parts with the document that is being made: two threads would disturb each other."""

    def openapi(self) -> dict[str, Any]:
        with self._making:
            if self.openapi_schema is None:
                self.openapi_schema = self._made()
            return self.openapi_schema

    def _made(self) -> dict[str, Any]:
        made = get_openapi(
            title=self.title,
            version=self.version,
            openapi_version="3.1.0",
            description=self.description,
            routes=self.routes,
            tags=self.openapi_tags,
            servers=[{"url": "/api"}],
        )
        components = made.setdefault("components", {})
        for kind, entries in COMPONENTS.items():
            components.setdefault(kind, {}).update(entries)
        made["security"] = SECURITY
        tidy(made)
        return made

    def document(self) -> bytes:
        """The document as it is sent."""
        return json.dumps(self.openapi(), separators=(",", ":")).encode("ascii")
