"""SIGHUP for `serve`: the configuration and the certificates are read again. It never ends the program."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Final, Self

from tomowire.cli.configured import complain_of
from tomowire.cli.running import complain
from tomowire.errors import ConfigurationInvalid, TomowireError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tomowire.cli.configured import Source
    from tomowire.server.app import Archive, Reconfigured

_SIGHUP: Final = getattr(signal, "SIGHUP", None)  # Windows has none


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
            signal.signal(_SIGHUP, signal.SIG_IGN)  # one that comes late must not end what is being finished

    @contextlib.asynccontextmanager
    async def served(self, archive: Archive, source: Source | None) -> AsyncIterator[None]:
        """In the block the archive is reconfigured whenever the signal comes, as `source` says then; without one it is the same
        again, with what the certificates hold then."""
        task = asyncio.get_running_loop().create_task(self._serve(archive, source))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _serve(self, archive: Archive, source: Source | None) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            await _reload(archive, source)


async def _reload(archive: Archive, source: Source | None) -> None:
    try:
        settings = archive.settings if source is None else await asyncio.to_thread(source.load_for_serving)
        report = await archive.reconfigure(settings)
    except ConfigurationInvalid as invalid:
        complain_of(invalid)
        complain("the configuration of before remains in use")
    except (TomowireError, OSError) as error:
        complain(f"the configuration and the TLS certificates of before remain in use: {error}")
    else:
        _tell(report, archive, source)


def _tell(report: Reconfigured, archive: Archive, source: Source | None) -> None:
    settings = archive.settings
    if settings.tls is not None or settings.node_tls is not None:
        complain("the TLS certificates have been read again")
    if source is not None:
        complain(f"the configuration has been read again; {report}")
    elif settings.tls is None and settings.node_tls is None:
        complain("there is no configuration and no TLS certificate to be read again")
