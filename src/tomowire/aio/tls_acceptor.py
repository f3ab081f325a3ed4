"""TLS on the acceptor's side: which context new connections get, and their handshakes."""

from __future__ import annotations

import asyncio
import logging
from ssl import SSLContext
from typing import TYPE_CHECKING, Final

from tomowire.aio.connection import printable_address
from tomowire.aio.failing import log_failure
from tomowire.aio.tls import differences
from tomowire.aio.tls_context import check_side, context_of_server
from tomowire.aio.tls_handshake import Handshake
from tomowire.aio.tls_reasons import why_acceptor
from tomowire.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tomowire.aio.connection import Connection
    from tomowire.aio.tls import TlsServer

logger = logging.getLogger("tomowire.tls")

# Who connects and does not shake hands uses up descriptors that others need.
_MOST_HANDSHAKES: Final = 128


class TlsAcceptor:
    """Shakes hands with those who connect, and hands those over with whom that went well. `timeout` is in seconds.

    From one address there may be `maximum_per_address` of them; None is no limit of its own. `on_failed` is told the address of a
    peer that has begun a handshake which failed, and why. Raises `UsageError` for an `SSLContext` of the other side.
    """

    def __init__(
        self,
        tls: SSLContext | TlsServer,
        timeout: float,
        maximum_per_address: int | None = None,
        on_failed: Callable[[str, str], object] | None = None,
    ) -> None:
        self._on_failed = on_failed
        if isinstance(tls, SSLContext):
            check_side(tls, server_side=True)
        self._tls = tls
        self._timeout = timeout
        self._maximum_per_address = maximum_per_address
        self._context: SSLContext | None = tls if isinstance(tls, SSLContext) else None
        self._loading = asyncio.Lock()
        self._handshakes: dict[asyncio.Task[None], str] = {}  # with whom, in the order in which they began
        self._is_stopped = False

    async def load(self) -> None:
        """Read the certificates. Raises `UsageError` when they cannot be used; those of before remain then."""
        if not isinstance(self._tls, SSLContext):
            async with self._loading:  # who began last has read what is there now
                self._context = await context_of_server(self._tls)

    async def reload(self, tls: TlsServer | None = None) -> None:
        """Read the certificates again, or those of `tls`, for connections that come from now on.

        Raises `UsageError` as `load` does.
        """
        if isinstance(self._tls, SSLContext):
            raise UsageError("an SSLContext of the caller's own cannot be loaded again: give `listen` a TlsServer")
        async with self._loading:
            before = self._tls
            self._context = await context_of_server(tls or before)
            self._tls = tls or before
        changes = differences(before, self._tls)
        logger.info("TLS certificates have been read again%s", f"; {changes}" if changes else ", from the same files")

    def accepting(self, connection: Callable[[], Connection]) -> Callable[[], asyncio.BaseProtocol]:
        """The protocol factory for `loop.create_server`; `connection` gives what takes over after a handshake."""
        return lambda: Handshake(lambda handshake, transport: self._begin(handshake, transport, connection))

    def stop(self) -> None:
        """Drop all with whom the handshake is not finished, and whoever may still come."""
        self._is_stopped = True
        for task in self._handshakes:
            task.cancel()

    async def wait_stopped(self) -> None:
        """Wait until they are gone."""
        if self._handshakes:
            await asyncio.wait(list(self._handshakes))

    def _begin(self, handshake: Handshake, transport: asyncio.Transport, connection: Callable[[], Connection]) -> None:
        if self._is_stopped:
            transport.abort()
            return
        host = printable_address(transport.get_extra_info("peername")).rpartition(":")[0]
        if self._maximum_per_address is not None:
            self._make_room(
                self._maximum_per_address, [task for task, other in self._handshakes.items() if other == host]
            )
        self._make_room(_MOST_HANDSHAKES, self._handshakes)
        task = asyncio.get_running_loop().create_task(self._shake_hands(handshake, transport, connection))
        self._handshakes[task] = host

        def on_end(ended: asyncio.Task[None]) -> None:
            self._handshakes.pop(ended, None)
            if ended.cancelled():  # perhaps before it had begun
                transport.abort()

        task.add_done_callback(on_end)

    def _make_room(self, most: int, waiting: Collection[asyncio.Task[None]]) -> None:
        if waiting and len(waiting) >= most:
            oldest = next(iter(waiting))
            logger.warning("too many connections without a TLS handshake: the one that has waited longest is dropped")
            del self._handshakes[oldest]
            oldest.cancel()

    async def _shake_hands(
        self, handshake: Handshake, transport: asyncio.Transport, connection: Callable[[], Connection]
    ) -> None:
        assert self._context is not None
        peer = printable_address(transport.get_extra_info("peername"))
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                tls = await handshake.run(transport, self._context, server_side=True, server_hostname=None)
        except OSError as error:  # of which TimeoutError is one; the kernel has those too
            if limit.expired():
                logger.info("%s: no TLS handshake within %g s", peer, self._timeout)
                return
            # Port scanners and health checks connect and go.
            level = logging.WARNING if handshake.first else logging.INFO
            why = why_acceptor(error, handshake.first)
            logger.log(level, "%s: %s", peer, why)
            if handshake.first and self._on_failed is not None:
                self._on_failed(peer, why)
        except Exception as error:  # of an SSLContext of the caller's own, or a mistake here
            log_failure(logger, f"{peer}: the TLS handshake", error)
        else:
            try:
                handshake.hand_over(tls, connection())
            except Exception as error:
                tls.abort()
                log_failure(logger, f"{peer}: what follows the TLS handshake", error)
