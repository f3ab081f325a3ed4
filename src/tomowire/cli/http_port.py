"""The HTTP port of `serve`: opened beside the DICOM port, which does not wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from tomowire.cli.running import complain, explain, say
from tomowire.errors import TomowireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from tomowire.server.app import Archive, Reconfigured
    from tomowire.server.audit.events import Party
    from tomowire.server.settings import HttpSettings


def warn_of_plain_http(settings: HttpSettings) -> None:
    """Whoever gives options alone is told what the checks of a configuration would say."""
    from tomowire.server.access_settings import is_loopback

    if settings.certificate is None and not is_loopback(settings.bind):
        complain(
            f"HTTP on {settings.bind} is open to the network without TLS: passwords and tokens can be read on the way; only a"
            " configuration can give it a certificate ([http] certificate and key)",
            "warning",
        )


class HttpPort:
    """`async with HttpPort(archive, settings, ...) as http`: the port is open a second later, or it has been said why not.

    Where a person has asked for it (`is_wanted`) what goes wrong ends the program: `stop` is called, and `failure` is what it was.
    Else the archive goes on without it. `reload` has the configuration read again. `what_to_do` is said once it has been said where
    the archive is.
    """

    def __init__(
        self,
        archive: Archive,
        settings: HttpSettings,
        *,
        is_wanted: bool,
        stop: Callable[[], object],
        reload: Callable[[Party], Awaitable[Reconfigured]] | None,
        what_to_do: str,
    ) -> None:
        self._archive = archive
        self._settings = settings
        self._is_wanted = is_wanted
        self._stop = stop
        self._reload = reload
        self._what_to_do = what_to_do
        self._stack = contextlib.AsyncExitStack()
        self.failure: Exception | None = None

    async def __aenter__(self) -> Self:
        self._opening = asyncio.get_running_loop().create_task(self._open())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opening.cancel()
        await asyncio.wait([self._opening])
        await self._stack.aclose()

    async def _open(self) -> None:
        try:
            from tomowire.web.server import HttpServer

            server = HttpServer(self._archive, self._settings, shut_down=self._stop, reload=self._reload)
            await self._stack.enter_async_context(server)
        except (TomowireError, OSError, ModuleNotFoundError) as error:
            self._fail(error)
        else:
            say(f"  HTTP   {server.url}/api/status")
            say(self._what_to_do)

    def _fail(self, error: Exception) -> None:
        if self._is_wanted:
            self.failure = error
            self._stop()
        else:
            complain(f"there is no HTTP port, and the archive goes on without it: {explain(error)}", "error")
            say(self._what_to_do)
