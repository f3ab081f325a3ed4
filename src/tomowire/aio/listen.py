"""The acceptor: `listen`."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Iterable, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio import admission, conduct
from tomowire.aio.address import check_ae_title
from tomowire.aio.admission import Rules
from tomowire.aio.arguments import check, tls
from tomowire.aio.budget import DEFAULT_MEMORY, MemoryBudget
from tomowire.aio.conduct import Conduct
from tomowire.aio.defaults import DEFAULT_MAXIMUM_LENGTH, DEFAULT_WINDOW
from tomowire.aio.memory import DEFAULT_MEMORY_WAIT
from tomowire.aio.server import Server
from tomowire.errors import UsageError
from tomowire.protocol.upper_layer import DEFAULT_ARTIM

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from ssl import SSLContext

    from tomowire.aio.admission import Offers
    from tomowire.aio.association import Association
    from tomowire.aio.association_request import AssociationRequest
    from tomowire.aio.malformed import Malformed
    from tomowire.aio.serving import ServiceProvider
    from tomowire.aio.tls import TlsServer
    from tomowire.aio.tls_titles import TitlesOf

__all__ = [
    "DEFAULT_IDLE_TIMEOUT",
    "DEFAULT_MAXIMUM_ASSOCIATIONS",
    "DEFAULT_MAXIMUM_LENGTH",
    "DEFAULT_WINDOW",
    "Server",
    "listen",
]

DEFAULT_MAXIMUM_ASSOCIATIONS: Final = 200
DEFAULT_IDLE_TIMEOUT: Final = 600.0

# What `loop.create_server` can be told, and is not told here.
_OPTIONS: Final = signature(AbstractEventLoop.create_server).parameters.keys() - {
    *("self", "protocol_factory", "host", "port", "start_serving"),
    *("ssl", "ssl_handshake_timeout", "ssl_shutdown_timeout"),
}


def listen(
    host: str | Sequence[str] | None = "127.0.0.1",
    port: int = 11112,
    *,
    services: Sequence[ServiceProvider],
    aet: str | Iterable[str] | None = None,
    calling_aets: str | Iterable[str] | None = None,
    maximum_length: int = DEFAULT_MAXIMUM_LENGTH,
    maximum_associations: int = DEFAULT_MAXIMUM_ASSOCIATIONS,
    maximum_per_title: int | None = None,
    maximum_per_address: int | None = None,
    maximum_waiting_per_address: int | None = None,
    window: int = DEFAULT_WINDOW,
    artim_timeout: float = DEFAULT_ARTIM,
    idle_timeout: float | None = DEFAULT_IDLE_TIMEOUT,
    shutdown_grace: float = 10.0,
    malformed: Malformed = "lenient",
    ssl: SSLContext | TlsServer | None = None,
    certificate_titles: TitlesOf | None = None,
    admits: Callable[[str, str], bool] | None = None,
    on_request: Callable[[AssociationRequest], Awaitable[bool | None]] | None = None,
    identify: Callable[[AssociationRequest], Awaitable[Any]] | None = None,
    anonymous: bool = False,
    offers: Offers | None = None,
    on_established: Callable[[Association], object] | None = None,
    on_ended: Callable[[Association], object] | None = None,
    on_rejected: Callable[[Association], object] | None = None,
    on_tls_failed: Callable[[str, str], object] | None = None,
    memory: int = DEFAULT_MEMORY,
    memory_wait: float = DEFAULT_MEMORY_WAIT,
    **options: Any,
) -> Server:
    """An acceptor for `services`, to be used as `async with listen(...) as server`.

    `aet` is the AE title, or several, that callers must call; None answers to any. `calling_aets` are the callers that are let in,
    one or several; None lets in any. `admits` is asked besides, with the calling AE title and `host:port` of the peer, and must not
    take long.

    `on_request` is asked next, about every `AssociationRequest`; it refuses by raising `AssociationRejected` or returning False.
    `identify` is asked last, and returns who the user is: anything that is true, kept as `association.user`, or an `Identified`.
    With it, who does not say who the user is gets no association, unless `anonymous`. Both are asynchronous. Together
    they have `artim_timeout` seconds; what takes longer, or fails, is a rejection for now. When the peer goes away or the server
    closes they are cancelled.

    `offers` chooses for each association: it is asked at the end, with the `AssociationRequest` and `services`, and gives those
    that there are for this caller, or raises `AssociationRejected`. It must not take long. What it leaves out is not supported; a
    provider that `Refuses` can be told from that.

    `on_established` and `on_ended` are told of each association when it has begun, and when it is over and its last request is
    served; `association.end` says how. `on_rejected` is told of those that were rejected; `association.rejection` says why. They
    may be asynchronous; then they run beside the association. `on_tls_failed` is told `host:port` of a peer whose TLS handshake
    failed, and why; it must not take long.

    `maximum_length` is the largest P-DATA-TF in bytes (0: no limit), `window` the number of requests a peer may have outstanding on
    one association if it asks for more than one (PS3.7 D.3.3.3; 0: no limit), as may this side if the peer lets it. Times are in
    seconds: `artim_timeout` for a peer to ask for an association (PS3.8 9.1.5), `idle_timeout` after which an association on which
    nothing comes is aborted, `shutdown_grace` that associations in progress get at the end. `options` go to `loop.create_server`.

    `ssl` makes it TLS. `certificate_titles` gives the AE titles that the holder of a certificate may call by
    (`titles_by_certificate`); who calls by another, or shows none, is rejected.

    `malformed` says what becomes of an association whose peer sends a command set that cannot be read, or a response that fits no
    request: "lenient" answers or passes over it, tells the log, and goes on where it can; "strict" aborts.

    Beyond `maximum_associations`, `maximum_per_title` of one calling AE title and `maximum_per_address` of one address, callers are
    rejected with "local limit exceeded" (PS3.8 Table 9-21). Of more than `maximum_waiting_per_address` connections from one address
    that have not asked for an association, the oldest is closed.

    `memory` is how many bytes the receive blocks and held data sets of all associations may take together, and with TLS its buffers
    (`MemoryBudget`); if it is not enough for so many associations, fewer are let in. `memory_wait` is how many seconds an object
    waits for its part.

    Raises `UsageError` for what cannot be, at once.
    """
    _check(host, port, ssl, certificate_titles, options)
    budget = MemoryBudget(memory, maximum_associations=maximum_associations, tls=ssl is not None, wait=memory_wait)
    rules = Rules(
        ae_titles=_checked("aet", aet),
        calling_ae_titles=_checked("calling_aets", calling_aets),
        maximum_length=maximum_length,
        window=window,
        maximum_associations=budget.maximum_associations,
        maximum_per_title=maximum_per_title,
        maximum_per_address=maximum_per_address,
        certificate_titles=certificate_titles,
        admits=admits,
        on_request=on_request,
        identify=identify,
        anonymous=anonymous,
        offers=offers,
        artim_timeout=artim_timeout,
    )
    manners = Conduct(
        artim_timeout=artim_timeout,
        idle_timeout=idle_timeout,
        shutdown_grace=shutdown_grace,
        malformed=malformed,
        maximum_waiting_per_address=maximum_waiting_per_address,
        on_established=on_established,
        on_ended=on_ended,
        on_rejected=on_rejected,
        on_tls_failed=on_tls_failed,
    )
    check(admission.ALLOWED, rules)
    check(conduct.ALLOWED, manners)
    return Server(host, port, services=services, rules=rules, conduct=manners, budget=budget, ssl=ssl, options=options)


def _check(host: Any, port: Any, ssl: Any, certificate_titles: Any, options: dict[str, Any]) -> None:
    """Raises `UsageError`, and `TypeError` for the name of an option that nobody knows."""
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(f"listen() got an unexpected keyword argument {name!r}")
    hosts = [host] if isinstance(host, str) else host
    if hosts is not None and not (isinstance(hosts, Sequence) and all(isinstance(each, str) for each in hosts)):
        raise UsageError(f"host is an address or a name as text, several of them, or None for all, and not {host!r}")
    if port is not None or "sock" not in options:
        _check_port(port)
    tls("TlsServer", "who listens")("ssl", ssl)
    if certificate_titles is not None and ssl is None:
        raise UsageError("certificate_titles needs TLS: without it there are no certificates")


def _check_port(port: Any) -> None:
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 0xFFFF:
        raise UsageError(f"port: {port!r} is not a TCP port (a whole number from 0 to 65535; 0 is any that is free)")


def _checked(name: str, titles: Any) -> frozenset[str] | None:
    """The AE titles that were given, one or several."""
    if titles is None:
        return None
    if not isinstance(titles, Iterable):
        raise UsageError(f"{name} is an AE title, several of them, or None for any, and not {titles!r}")
    return frozenset(map(check_ae_title, [titles] if isinstance(titles, str) else titles))
