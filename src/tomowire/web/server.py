"""The HTTP port of an archive, in the archive's own event loop.

uvicorn's protocol does HTTP/1.1 (with h11, which is strict about what could be read in two ways); the socket, TLS and the end are
ours: no signal handlers, no thread, no timer that wakes an idle process, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Self, cast

from tomowire.aio.threads import finished
from tomowire.errors import ConnectFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tomowire.aio.connection import Connection
    from tomowire.aio.tls_acceptor import TlsAcceptor
    from tomowire.server.app import Archive
    from tomowire.server.audit.events import Party
    from tomowire.server.changes import Reconfigured
    from tomowire.server.settings import HttpSettings
    from tomowire.web.app import WebApp
    from tomowire.web.protocol import Connections

logger: Final = logging.getLogger("tomowire.http")

_BACKLOG: Final = 128
_HANDSHAKE_TIMEOUT: Final = 10.0
_DEFAULT_GRACE: Final = 5.0


class HttpServer:
    """`async with HttpServer(archive, settings) as http`: answers at `http.url` until the block is left.

    `grace` are the seconds that requests being answered get at the end; streams that would go on for ever end at once. `shut_down`
    is called when somebody wants the archive to end, and `reload` to have its configuration read again and applied; without them
    who asks for that is refused.

    Raises `ConnectFailed` when the address cannot be had, `UsageError` for certificates that cannot be used.
    """

    def __init__(
        self,
        archive: Archive,
        settings: HttpSettings,
        *,
        grace: float = _DEFAULT_GRACE,
        shut_down: Callable[[], object] | None = None,
        reload: Callable[[Party], Awaitable[Reconfigured]] | None = None,
    ) -> None:
        self._archive = archive
        self._shut_down = shut_down
        self._reload = reload
        self._settings = settings
        self._grace = grace
        self._server: asyncio.Server | None = None
        self._tls: TlsAcceptor | None = None
        self._app: WebApp | None = None
        self._connections: Connections | None = None

    async def __aenter__(self) -> Self:
        # What this imports takes a second, in which associations are served.
        load = asyncio.get_running_loop().run_in_executor(None, self._load)
        app, connections = await finished(load)
        settings = self._settings
        accept: Callable[[], asyncio.BaseProtocol] = connections.new
        if settings.certificate is not None:
            self._tls = await _tls_acceptor(settings)
            accept = self._tls.accepting(cast("Callable[[], Connection]", connections.new))
        elif settings.key is not None:
            raise UsageError(f"the HTTP key {settings.key} is of no use without its certificate")
        await self._listen(accept)
        self._app, self._connections = app, connections
        self._archive.on_reload.append(self.reload_tls)
        logger.info("HTTP on %s", self.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, let answers finish within the grace, and end the rest."""
        assert self._server is not None and self._app is not None and self._connections is not None
        self._archive.on_reload.remove(self.reload_tls)
        self._server.close()
        if self._tls is not None:
            self._tls.stop()
        self._app.closing.set()
        try:
            await self._connections.close(self._grace)
            if self._tls is not None:
                await self._tls.wait_stopped()
        finally:
            self._connections.kill()

    @property
    def port(self) -> int:
        """The port that is listened on; where 0 was asked for, the one the system chose."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Where a person finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._settings.bind, self._settings.bind)
        scheme = "https" if self._settings.certificate is not None else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def reload_tls(self) -> None:
        """Read the certificate again, for who connects from now on. Raises `UsageError`, and then all stays as it is."""
        if self._tls is not None:
            await self._tls.reload()

    def _load(self) -> tuple[WebApp, Connections]:
        from tomowire.web.app import WebApp
        from tomowire.web.gate import Process
        from tomowire.web.protocol import Connections

        app = WebApp(self._archive, self._settings, Process(self._shut_down, self._reload))
        return app, Connections(app)

    async def _listen(self, accept: Callable[[], asyncio.BaseProtocol]) -> None:
        bind, port = self._settings.bind, self._settings.port
        loop = asyncio.get_running_loop()
        try:
            # In two steps: cancelled while it begins to serve, `create_server` would leave sockets that nobody knows of.
            self._server = await loop.create_server(accept, bind, port, start_serving=False, backlog=_BACKLOG)
            try:
                await self._server.start_serving()
            except BaseException:
                self._server.close()
                raise
        except OSError as error:
            raise ConnectFailed(
                f"cannot listen for HTTP on {bind}, port {port}: {error.strerror or error}; "
                "take another with --http-port, or end what listens there"
            ) from error


async def _tls_acceptor(settings: HttpSettings) -> TlsAcceptor:
    from tomowire.aio.tls import TlsServer
    from tomowire.aio.tls_acceptor import TlsAcceptor

    assert settings.certificate is not None
    acceptor = TlsAcceptor(TlsServer(settings.certificate, settings.key), _HANDSHAKE_TIMEOUT)
    await acceptor.load()
    return acceptor
