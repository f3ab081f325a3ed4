"""SIGHUP for `serve`: the configuration and the certificates are read again. It never ends the program."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING, Final, Self

from tomowire.cli.configured import warn_of
from tomowire.cli.running import complain, printable
from tomowire.errors import ConfigurationInvalid, TomowireError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tomowire.cli.configured import Source
    from tomowire.server.app import Archive, Reconfigured
    from tomowire.server.audit.events import Party

# Whoever watches the log, or follows it over the API, hears of what was refused.
logger: Final = logging.getLogger("tomowire.serve")

_SIGHUP: Final = getattr(signal, "SIGHUP", None)  # Windows has none


def ignore_sighup() -> None:
    """While the program begins there is nothing to be read again, and it must not end."""
    if _SIGHUP is not None:
        signal.signal(_SIGHUP, signal.SIG_IGN)


class Reloads:
    """`with Reloads() as reloads`: a signal that comes while the archive begins is acted on when it has begun, and one that comes
    while it ends is nothing. Several that come while one is acted on are one more."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()

    def __enter__(self) -> Self:
        if _SIGHUP is not None:
            asyncio.get_running_loop().add_signal_handler(_SIGHUP, self._asked.set)
        return self

    def __exit__(self, *_: object) -> None:
        if _SIGHUP is not None:
            asyncio.get_running_loop().remove_signal_handler(_SIGHUP)
            ignore_sighup()  # one that comes late must not end what is being finished

    @contextlib.asynccontextmanager
    async def served(self, reload: Reload) -> AsyncIterator[None]:
        """In the block the signal has `reload` called, and what comes of it is told."""
        task = asyncio.get_running_loop().create_task(self._serve(reload))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _serve(self, reload: Reload) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                report = await reload()
            except ConfigurationInvalid as invalid:
                for problem in invalid.problems:
                    logger.error("%s", printable(str(problem)))
                logger.error("the configuration of before remains in use")
            except (TomowireError, OSError) as error:
                text = printable(str(error))
                logger.error("the configuration and the TLS certificates of before remain in use: %s", text)
            except Exception:  # a mistake here: the next signal is to be heard all the same
                logger.exception("the configuration could not be read again")
            else:
                reload.tell(report)


class Reload:
    """`await reload()` has `archive` reconfigured as `source` says now; without one it is the same again, with what the
    certificates hold now. `by` whom, for the audit; None is a signal.

    Raises `ConfigurationInvalid` and `UsageError`: then all is as it was.
    """

    def __init__(self, archive: Archive, source: Source | None) -> None:
        self._archive = archive
        self._source = source

    async def __call__(self, by: Party | None = None) -> Reconfigured:
        if self._source is None:
            return await self._archive.reconfigure(lambda settings: settings, by=by)
        loaded, warnings = await asyncio.to_thread(self._source.load_for_serving)
        warn_of(warnings)
        return await self._archive.reconfigure(loaded.settings, by=by)

    def tell(self, report: Reconfigured) -> None:
        """Say on stderr what has been read again."""
        settings = self._archive.settings
        http = settings.http
        has_tls = settings.tls is not None or any(node.tls for node in settings.nodes)
        if has_tls or (http is not None and http.certificate is not None):
            complain("the TLS certificates have been read again")
        elif self._source is None:
            complain("there is no configuration and no TLS certificate to be read again")
        if self._source is not None:
            complain(f"the configuration has been read again; {report}")
