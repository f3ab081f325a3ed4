"""A server socket, its associations, and their orderly end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.admission import Admission
from tomowire.aio.association import Association
from tomowire.aio.background import Background
from tomowire.aio.dispatcher import Dispatcher
from tomowire.aio.malformed import is_lenient
from tomowire.aio.providers import checked
from tomowire.errors import ConnectFailed, UsageError
from tomowire.protocol.upper_layer import UpperLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from ssl import SSLContext

    from tomowire.aio.admission import Rules
    from tomowire.aio.budget import MemoryBudget
    from tomowire.aio.conduct import Conduct
    from tomowire.aio.connection import Connection
    from tomowire.aio.serving import ServiceProvider
    from tomowire.aio.tls import TlsServer
    from tomowire.aio.tls_acceptor import TlsAcceptor
    from tomowire.wire.pdu import AAssociateRQ

logger = logging.getLogger("tomowire.listen")

# Connections beyond the limit of associations: they are there to be rejected in an orderly way, or have yet to ask.
_MOST_WAITING: Final = 64
_BACKLOG: Final = 128


class Server:
    """A listening acceptor: `async with listen(...) as server`. `options` go to `loop.create_server`."""

    def __init__(
        self,
        host: str | Sequence[str] | None,
        port: int,
        *,
        services: Sequence[ServiceProvider],
        rules: Rules,
        conduct: Conduct,
        budget: MemoryBudget,
        ssl: SSLContext | TlsServer | None,
        options: dict[str, Any],
    ) -> None:
        self._host = host
        self._port = port
        self._services = checked(services)
        self._rules = rules
        self._conduct = conduct
        self._budget = budget
        waiting = conduct.maximum_waiting_per_address
        self._tls = _tls_acceptor(ssl, conduct, waiting) if ssl is not None else None
        self._options = options
        self._server: asyncio.Server | None = None
        self._connections: dict[Association, None] = {}  # in the order in which they came
        self._background = Background()
        self._admission = Admission(self._services, rules, self._connections, self._background)
        self._is_started = False
        self._closing = False
        self._closed = asyncio.Event()

    @property
    def port(self) -> int:
        """The port that is listened on; where 0 was asked for, the one the system chose."""
        return self.addresses[0][1]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listening socket."""
        if self._server is None or not self._server.sockets:
            raise UsageError("the server is not listening")
        return [sock.getsockname()[:2] for sock in self._server.sockets]

    @property
    def is_listening(self) -> bool:
        """Whether callers are let in: the port is open, and nobody has called `close`."""
        return self._server is not None and self._server.is_serving() and not self._closing

    @property
    def associations(self) -> list[Association]:
        """The associations that are established now."""
        return [each for each in self._connections if each.is_established]

    async def start(self) -> None:
        """Begin to listen, once. Raises `ConnectFailed` when the address or port cannot be used: then it may be tried again.

        Raises `UsageError` for a server that listens already, or has been closed.
        """
        if self._is_started or self._closing:
            raise UsageError(
                "a server is used once, and this one has been started or closed: call listen(...) for another"
            )
        self._is_started = True
        self._budget.warn()
        try:
            accept: Callable[[], asyncio.BaseProtocol] = self._accept
            if self._tls is not None:  # ARTIM begins after the handshake, which must not take longer either
                await self._tls.load()
                accept = self._tls.accepting(self._accept)
            await self._listen(accept)
        except BaseException:
            self._is_started = False
            if self._server is not None:
                self._server.close()
                self._server = None
            raise

    async def _listen(self, accept: Callable[[], asyncio.BaseProtocol]) -> None:
        loop = asyncio.get_running_loop()
        options = {"backlog": _BACKLOG, **self._options}
        try:
            # In two steps: cancelled while it begins to serve, `create_server` would leave sockets that nobody knows of.
            self._server = await loop.create_server(accept, self._host, self._port, start_serving=False, **options)
            await self._server.start_serving()
        except OSError as error:
            reason = error.strerror or error
            raise ConnectFailed(
                f"cannot listen on {self._host or 'any address'}, port {self._port}: {reason}"
            ) from error
        if self._closing:
            raise UsageError("the server was closed while it was being started")

    async def close(self, *, grace: float | None = None) -> None:
        """Stop listening, wait up to `grace` seconds (default: `shutdown_grace`) for the associations in progress, then abort them.

        Who asks for an association meanwhile, or waits for the answer, is rejected ("temporary congestion"). Handlers that are
        still running then are cancelled, and may take as long again to clean up.
        """
        self._closing = True
        self._admission.close()
        if self._server is not None:
            self._server.close()
        if self._tls is not None:
            self._tls.stop()
        limit = self._conduct.shutdown_grace if grace is None else grace
        try:
            await self._wait_released(limit)
            if self._tls is not None:
                await self._tls.wait_stopped()
            await asyncio.gather(*(each.close(handler_grace=max(limit, 1.0)) for each in list(self._connections)))
            await self._background.close(limit)
        finally:
            for each in list(self._connections):  # only if this was cancelled
                each.abort()
                each.connection.kill()
            self._background.cancel()
            self._closed.set()

    async def _wait_released(self, limit: float) -> None:
        waiting = [asyncio.ensure_future(each.wait_closed()) for each in self._connections if each.has_begun]
        try:
            if waiting and limit > 0:
                await asyncio.wait(waiting, timeout=limit)
        finally:
            for future in waiting:
                future.cancel()

    async def reload_tls(self, tls: TlsServer | None = None) -> None:
        """Read the certificates again: those who connect from now on get the new ones, associations in progress go on. With `tls`
        that takes the place of what `listen` was given.

        Raises `UsageError` when they cannot be used, and where `listen` was not given a `TlsServer`; then all stays as it is.
        """
        if self._tls is None:
            raise UsageError("the server does not use TLS")
        await self._tls.reload(tls)

    async def wait_closed(self) -> None:
        """Wait until someone has called `close`, and all associations are over.

        Raises `UsageError` for a server that was never started: nobody could call it, and this would wait for ever.
        """
        if self._server is None and not self._closing:
            raise UsageError("the server is not listening: use it as `async with listen(...) as server`")
        await self._closed.wait()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _accept(self) -> Connection:
        upper = UpperLayer(
            is_requestor=False,
            maximum_length=self._rules.maximum_length,
            lenient=is_lenient(self._conduct.malformed),
            artim_timeout=self._conduct.artim_timeout,
        )
        association = Association(
            upper,
            dispatcher=Dispatcher(self._services),
            idle_timeout=self._conduct.idle_timeout,
            host=self,
            budget=self._budget,
        )
        return association.connection

    # From the associations

    def on_open(self, association: Association) -> None:
        self._connections[association] = None
        if self._closing:  # it was in the queue of the kernel
            association.connection.kill()
            return
        most = self._rules.maximum_associations + _MOST_WAITING
        if len(self._connections) > most:
            # They would use up the descriptors that the objects of others are written to.
            there = self._not_closing()
            if len(there) > most:
                self._drop_first(each for each in there if not (each.has_begun or each.awaits_answer))
        most_unasked = self._conduct.maximum_waiting_per_address
        if most_unasked is not None:
            host = association.peer_host
            unasked = [each for each in self._not_closing() if each.is_unasked and each.peer_host == host]
            if len(unasked) > most_unasked:
                self._drop_first(unasked)

    def _not_closing(self) -> list[Association]:
        """Who has been dropped is heard of a little later: of many that come at once another has to go for each."""
        return [each for each in self._connections if not each.connection.is_closing]

    def _drop_first(self, waiting: Iterable[Association]) -> None:
        """Of too many connections: who has waited longest without asking for an association is the least likely to do so."""
        first = next(iter(waiting), None)
        if first is not None:
            logger.warning("%s: too many connections without an association: dropped", first.title)
            first.connection.kill()

    def on_request(self, association: Association, request: AAssociateRQ) -> None:
        self._admission.begin(association, request)

    def on_established(self, association: Association) -> None:
        if self._conduct.on_established is not None:
            name = f"{association.title}: the handler of its beginning"
            self._background.call(self._conduct.on_established, association, name=name)

    def on_ended(self, association: Association) -> None:
        self._admission.give_up(association)
        if self._conduct.on_ended is not None and association.end is not None:
            name = f"{association.title}: the handler of its end"
            self._background.call(self._conduct.on_ended, association, name=name)
        if self._conduct.on_rejected is not None and association.rejection is not None:
            name = f"{association.title}: the handler of its rejection"
            self._background.call(self._conduct.on_rejected, association, name=name)

    def on_gone(self, association: Association) -> None:
        self._connections.pop(association, None)


def _tls_acceptor(tls: SSLContext | TlsServer, conduct: Conduct, maximum_per_address: int | None) -> TlsAcceptor:
    from tomowire.aio.tls_acceptor import TlsAcceptor  # a program without TLS does not need it

    return TlsAcceptor(tls, conduct.artim_timeout, maximum_per_address, conduct.on_tls_failed)
