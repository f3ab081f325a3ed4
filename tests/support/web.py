"""An archive with its HTTP port, users of each role, and clients for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from support.filled import fill, small_hospital
from tomowire.server.app import Archive
from tomowire.server.settings import HttpSettings, Settings
from tomowire.server.users import Role
from tomowire.web.server import HttpServer

PASSWORD = "correct horse battery"


@dataclass
class Web:
    """A running archive. `clients` has one for each role, and one under None for who does not log in."""

    archive: Archive
    http: HttpServer
    clients: dict[Role | None, httpx2.AsyncClient]
    tokens: dict[Role, str]
    events: list[str] = field(default_factory=list)
    """What the process was asked for."""

    @property
    def nobody(self) -> httpx2.AsyncClient:
        return self.clients[None]

    @property
    def administrator(self) -> httpx2.AsyncClient:
        return self.clients[Role.ADMINISTRATOR]


@asynccontextmanager
async def web(
    root: Path,
    *,
    users: bool = True,
    filled: bool = True,
    index_url: str | None = None,
    settings: dict[str, Any] | None = None,
    **http: Any,
) -> AsyncIterator[Web]:
    """An archive in `root` with the small hospital in it. Without `users` nobody has to log in."""
    if filled:
        await fill(root, small_hospital(), index_url=index_url)
    events: list[str] = []
    given = Settings(root, port=0, index_url=index_url, **(settings or {}))
    async with AsyncExitStack() as stack:
        archive = await stack.enter_async_context(Archive(given))
        tokens = await add_users(archive) if users else {}
        server = HttpServer(
            archive, HttpSettings(**{"port": 0, **http}), grace=1.0, shut_down=lambda: events.append("shut down")
        )
        await stack.enter_async_context(server)
        clients = {None: await stack.enter_async_context(httpx2.AsyncClient(base_url=server.url, timeout=20))}
        for role, token in tokens.items():
            client = httpx2.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
            clients[role] = await stack.enter_async_context(client)
        yield Web(archive, server, clients, tokens, events)


async def add_users(archive: Archive) -> dict[Role, str]:
    """One user of each role, named like it; their tokens."""
    tokens = {}
    for role in Role:
        await archive.users.add(role.value, role)
        tokens[role] = (await archive.users.make_token(role.value)).secret
    return tokens
