"""The HTTP port of `serve`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tomowire.cli.running import complain

if TYPE_CHECKING:
    from tomowire.cli.configured import Source
    from tomowire.server.app import Archive, Reconfigured


@asynccontextmanager
async def http_port(archive: Archive, source: Source | None, stop: asyncio.Event) -> AsyncIterator[None]:
    """Open in the block, if the archive is to have one. `stop` is set when somebody ends the archive over it."""
    settings = archive.settings.http
    if settings is None:
        yield
        return
    await _see_to_a_login(archive)
    from tomowire.web.server import HttpServer

    async def reload() -> Reconfigured:
        wanted = archive.settings if source is None else (await asyncio.to_thread(source.load)).settings
        return await archive.reconfigure(wanted)

    async with HttpServer(archive, settings, shut_down=stop.set, reload=reload) as http:
        print(f"  HTTP   {http.url}/api/status", file=sys.stderr, flush=True)
        yield


async def _see_to_a_login(archive: Archive) -> None:
    """Who has to log in needs one to begin with."""
    from tomowire.server.first_administrator import first_administrator, needs_login

    if needs_login(archive.settings):
        path = await first_administrator(archive.users, archive.storage.root)
        if path is not None:
            complain(f"nobody could log in to HTTP: the token of a first administrator is in {path}")
