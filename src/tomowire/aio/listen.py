"""The acceptor: a server socket, its associations, and their orderly end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.address import check_ae_title
from tomowire.aio.association import Association
from tomowire.aio.serving import Dispatcher
from tomowire.aio.tls_acceptor import TlsAcceptor
from tomowire.aio.tls_titles import why_not_let_in
from tomowire.errors import ConnectFailed, UsageError
from tomowire.protocol.negotiation import REJECT_CALLING_AE_TITLE, REJECT_LOCAL_LIMIT, AcceptorPolicy, answer
from tomowire.protocol.upper_layer import DEFAULT_ARTIM, UpperLayer
from tomowire.wire.pdu import AAssociateAC, AAssociateRJ

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence
    from ssl import SSLContext

    from tomowire.aio.connection import Connection
    from tomowire.aio.serving import ServiceProvider
    from tomowire.aio.tls import TlsServer
    from tomowire.aio.tls_titles import TitlesOf
    from tomowire.wire.pdu import AAssociateRQ

logger = logging.getLogger("tomowire.listen")

DEFAULT_MAXIMUM_LENGTH: Final = 256 * 1024
"""The P-DATA-TF length that is announced: header costs vanish, and a peer that buffers whole PDUs is not asked for much."""
DEFAULT_MAXIMUM_ASSOCIATIONS: Final = 200
DEFAULT_WINDOW: Final = 16
DEFAULT_IDLE_TIMEOUT: Final = 600.0

# Connections beyond the limit of associations: they are there to be rejected in an orderly way, or have yet to ask.
_MOST_WAITING: Final = 64
_BACKLOG: Final = 128

REJECT_CONGESTION: Final = AAssociateRJ(result=2, source=3, reason=1)


class _Supported:
    """What a list of providers supports, as the negotiation asks for it."""

    def __init__(self, providers: Sequence[ServiceProvider]) -> None:
        self._providers = providers

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        for provider in self._providers:
            supported = provider.transfer_syntaxes(abstract_syntax)
            if supported is not None:
                return supported
        return None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        """Any provider may want to send: storage is served by one, and sent by the one that serves C-GET."""
        return any(provider.may_be_scp(abstract_syntax) for provider in self._providers)

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        provider = self._provider_for(abstract_syntax)
        return provider.extended_negotiation(abstract_syntax, proposed) if provider is not None else None

    def _provider_for(self, abstract_syntax: str) -> ServiceProvider | None:
        for provider in self._providers:
            if provider.transfer_syntaxes(abstract_syntax) is not None:
                return provider
        return None


class Server:
    """A listening acceptor: `async with listen(...) as server`. Times are in seconds."""

    def __init__(
        self,
        host: str | Sequence[str] | None,
        port: int,
        *,
        services: Sequence[ServiceProvider],
        ae_titles: frozenset[str] | None,
        calling_ae_titles: frozenset[str] | None,
        maximum_length: int,
        maximum_associations: int,
        window: int,
        artim_timeout: float,
        idle_timeout: float | None,
        shutdown_grace: float,
        ssl: SSLContext | TlsServer | None,
        certificate_titles: TitlesOf | None,
        admits: Callable[[str, str], bool] | None,
        on_end: Callable[[Association], None] | None,
        options: dict[str, Any],
    ) -> None:
        self._host = host
        self._port = port
        self._services = tuple(services)
        self._policy = AcceptorPolicy(
            _Supported(self._services), ae_titles, calling_ae_titles, maximum_length, window, window
        )
        self._maximum_associations = maximum_associations
        self._artim_timeout = artim_timeout
        self._idle_timeout = idle_timeout
        self._shutdown_grace = shutdown_grace
        self._tls = TlsAcceptor(ssl, artim_timeout) if ssl is not None else None
        self._certificate_titles = certificate_titles
        self._admits = admits
        self._on_end = on_end
        self._options = options
        self._server: asyncio.Server | None = None
        self._connections: dict[Association, None] = {}  # in the order in which they came
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
    def associations(self) -> list[Association]:
        """The associations that are established now."""
        return [each for each in self._connections if each.is_established]

    async def start(self) -> None:
        """Begin to listen. Raises `ConnectFailed` when the address or port cannot be used."""
        loop = asyncio.get_running_loop()
        accept: Callable[[], asyncio.BaseProtocol] = self._accept
        if self._tls is not None:  # ARTIM begins after the handshake, which must not take longer either
            await self._tls.load()
            accept = self._tls.accepting(self._accept)
        try:
            self._server = await loop.create_server(accept, self._host, self._port, backlog=_BACKLOG, **self._options)
        except OSError as error:
            reason = error.strerror or error
            raise ConnectFailed(
                f"cannot listen on {self._host or 'any address'}, port {self._port}: {reason}"
            ) from error

    async def close(self, *, grace: float | None = None) -> None:
        """Stop listening, wait up to `grace` seconds (default: `shutdown_grace`) for the associations in progress, then abort them.

        Who asks for an association meanwhile is rejected ("temporary congestion"). Handlers that are still running then are
        cancelled, and may take as long again to clean up.
        """
        self._closing = True
        if self._server is not None:
            self._server.close()
        if self._tls is not None:
            self._tls.stop()
        limit = self._shutdown_grace if grace is None else grace
        try:
            await self._wait_released(limit)
            if self._tls is not None:
                await self._tls.wait_stopped()
            await asyncio.gather(*(each.close(handler_grace=max(limit, 1.0)) for each in list(self._connections)))
        finally:
            for each in list(self._connections):  # only if this was cancelled
                each.abort()
                each.connection.kill()
            self._closed.set()

    async def _wait_released(self, limit: float) -> None:
        waiting = [asyncio.ensure_future(each.wait_closed()) for each in self._connections if each.has_begun]
        try:
            if waiting and limit > 0:
                await asyncio.wait(waiting, timeout=limit)
        finally:
            for future in waiting:
                future.cancel()

    async def reload_tls(self) -> None:
        """Read the certificates again: those who connect from now on get the new ones, associations in progress go on.

        Raises `UsageError` when they cannot be used, and where `listen` was not given a `TlsServer`; then all stays as it is.
        """
        if self._tls is None:
            raise UsageError("the server does not use TLS")
        await self._tls.reload()

    async def wait_closed(self) -> None:
        """Wait until someone has called `close`, and all associations are over."""
        await self._closed.wait()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _accept(self) -> Connection:
        upper = UpperLayer(
            is_requestor=False,
            maximum_length=self._policy.maximum_length,
            lenient=True,
            artim_timeout=self._artim_timeout,
        )
        association = Association(
            upper,
            dispatcher=Dispatcher(self._services, self._admit),
            idle_timeout=self._idle_timeout,
            on_open=self._on_open,
            on_gone=self._forget,
        )
        return association.connection

    def _on_open(self, association: Association) -> None:
        self._connections[association] = None
        if self._closing:  # it was in the queue of the kernel
            association.connection.kill()
        elif len(self._connections) > self._maximum_associations + _MOST_WAITING:
            # They would use up the descriptors that the objects of others are written to. Who has waited longest without asking
            # for an association is the least likely to do so.
            waiting = next((each for each in self._connections if not each.has_begun), association)
            logger.warning("%s: too many connections without an association: dropped", waiting.title)
            waiting.connection.kill()

    def _forget(self, association: Association) -> None:
        self._connections.pop(association, None)
        if self._on_end is not None:
            self._on_end(association)

    def _admit(self, association: Association, request: AAssociateRQ) -> AAssociateAC | AAssociateRJ:
        if self._closing:
            return REJECT_CONGESTION
        if len(self.associations) >= self._maximum_associations:
            return REJECT_LOCAL_LIMIT
        answered = answer(request, self._policy)
        if isinstance(answered, AAssociateAC) and self._certificate_titles is not None:
            why = why_not_let_in(self._certificate_titles, association.peer_certificate, request.calling_ae_title)
            if why is not None:
                logger.warning("%s: rejected: %s", association.title, why)
                return REJECT_CALLING_AE_TITLE
        if isinstance(answered, AAssociateAC) and self._admits is not None:
            title, address = request.calling_ae_title, association.peer_address
            return answered if self._admits(title, address) else REJECT_CALLING_AE_TITLE
        return answered


def listen(
    host: str | Sequence[str] | None = "127.0.0.1",
    port: int = 11112,
    *,
    services: Sequence[ServiceProvider],
    aet: str | Iterable[str] | None = None,
    calling_aets: Iterable[str] | None = None,
    maximum_length: int = DEFAULT_MAXIMUM_LENGTH,
    maximum_associations: int = DEFAULT_MAXIMUM_ASSOCIATIONS,
    window: int = DEFAULT_WINDOW,
    artim_timeout: float = DEFAULT_ARTIM,
    idle_timeout: float | None = DEFAULT_IDLE_TIMEOUT,
    shutdown_grace: float = 10.0,
    ssl: SSLContext | TlsServer | None = None,
    certificate_titles: TitlesOf | None = None,
    admits: Callable[[str, str], bool] | None = None,
    on_end: Callable[[Association], None] | None = None,
    **options: Any,
) -> Server:
    """An acceptor for `services`, to be used as `async with listen(...) as server`.

    `aet` is the AE title, or several, that callers must call; None answers to any. `calling_aets` are the callers that are let in;
    None lets in any. `admits` is asked besides, with the calling AE title and `host:port` of the peer, and must not take long.
    `on_end` is told of each connection when it is over and its last request has been served.

    `ssl` makes it TLS. `certificate_titles` gives the AE titles that the holder of a certificate may call by
    (`titles_by_certificate`); who calls by another, or shows none, is rejected.

    `maximum_length` is the largest P-DATA-TF in bytes (0: no limit), `window` the number of requests a peer may have outstanding on
    one association if it asks for more than one (PS3.7 D.3.3.3; 0: no limit), as may this side if the peer lets it. Times are in
    seconds: `artim_timeout` for a peer to ask for an association (PS3.8 9.1.5), `idle_timeout` after which an association on which
    nothing comes is aborted, `shutdown_grace` that associations in progress get at the end. `options` go to `loop.create_server`.

    Beyond `maximum_associations` callers are rejected with "local limit exceeded" (PS3.8 Table 9-21).
    """
    titles = [aet] if isinstance(aet, str) else aet
    if certificate_titles is not None and ssl is None:
        raise UsageError("certificate_titles needs TLS: without it there are no certificates")
    return Server(
        host,
        port,
        services=services,
        ae_titles=frozenset(check_ae_title(title) for title in titles) if titles is not None else None,
        calling_ae_titles=frozenset(check_ae_title(title) for title in calling_aets)
        if calling_aets is not None
        else None,
        maximum_length=maximum_length,
        maximum_associations=maximum_associations,
        window=window,
        artim_timeout=artim_timeout,
        idle_timeout=idle_timeout,
        shutdown_grace=shutdown_grace,
        ssl=ssl,
        certificate_titles=certificate_titles,
        admits=admits,
        on_end=on_end,
        options=options,
    )
