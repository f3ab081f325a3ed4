"""The requestor: open a connection, propose, and hand out the association."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio import arguments
from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.aio.arguments import check, seconds, tls, whole
from tomowire.aio.association import Association
from tomowire.aio.defaults import DEFAULT_MAXIMUM_LENGTH, DEFAULT_WINDOW
from tomowire.aio.dispatcher import Dispatcher
from tomowire.aio.leaving import DEFAULT_RELEASE_TIMEOUT
from tomowire.aio.malformed import check_malformed, is_lenient
from tomowire.aio.opening import Opening
from tomowire.aio.providers import checked
from tomowire.errors import AssociationAborted, AssociationLost, IdentityNotConfirmed, OperationTimeout, UsageError
from tomowire.protocol.negotiation import ProposedContext, propose
from tomowire.protocol.upper_layer import DEFAULT_ARTIM, UpperLayer
from tomowire.wire.user_information import AsynchronousOperationsWindow
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from socket import socket
    from ssl import SSLContext

    from tomowire.aio.arguments import Check
    from tomowire.aio.existing import Stream
    from tomowire.aio.malformed import Malformed
    from tomowire.aio.serving import ServiceProvider
    from tomowire.aio.tls import TlsClient
    from tomowire.wire.pdu import AAssociateRQ
    from tomowire.wire.user_identity import UserIdentity
    from tomowire.wire.user_information import CommonExtendedNegotiation, ExtendedNegotiation

DEFAULT_AE_TITLE: Final = "TOMOWIRE"
DEFAULT_CONNECT_TIMEOUT: Final = 10.0
DEFAULT_ASSOCIATION_TIMEOUT: Final = 30.0


@asynccontextmanager
async def associate(
    peer: str | PeerAddress,
    contexts: Iterable[ProposedContext | Iterable[ProposedContext]],
    *,
    aet: str = DEFAULT_AE_TITLE,
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
    association_timeout: float = DEFAULT_ASSOCIATION_TIMEOUT,
    release_timeout: float = DEFAULT_RELEASE_TIMEOUT,
    artim_timeout: float = DEFAULT_ARTIM,
    maximum_length: int = DEFAULT_MAXIMUM_LENGTH,
    window: int = DEFAULT_WINDOW,
    services: Sequence[ServiceProvider] = (),
    performed: int = 1,
    identity: UserIdentity | None = None,
    identity_required: bool = False,
    extended: Sequence[ExtendedNegotiation | CommonExtendedNegotiation] = (),
    malformed: Malformed = "strict",
    ssl: SSLContext | TlsClient | None = None,
    sock: socket | None = None,
    stream: Stream | None = None,
) -> AsyncIterator[Association]:
    """An association with `peer` for the time of an `async with`: released at its end, aborted when it is left by an exception.

    `peer` is `AET@host:port` or a `PeerAddress`, `aet` one's own AE title, `contexts` up to 128 presentation contexts. `window` is
    the number of our requests that may be outstanding, if the peer agrees (PS3.7 D.3.3.3). Times are in seconds.

    `services` serve what the acceptor asks of this side: the sub-operations of a C-GET on contexts that are proposed with
    `scp=True`, and event reports. `performed` is how many such requests it may have outstanding; 0 is no limit. Without services
    a request of the acceptor ends the association.

    `identity` says who the user is (PS3.7 D.3.3.7); `association.identity_response` is the answer, if there was one. With
    `identity_required` a positive response is asked for, and without it there is no association. `extended` is sent as far as its
    SOP classes are proposed; `association.extended(sop_class)` is the answer (PS3.7 D.3.3.5).

    `malformed` says what becomes of the association when the peer sends a response that cannot be read, or answers what was not
    asked: "strict" aborts it, "lenient" tells the log, lets the operation fail that it belongs to, and goes on where it can.

    `ssl` makes it TLS. `sock` (a connected socket) or `stream` (a transport, or a reader and its writer) is used instead of a
    connection to `peer`, of which only the AE title counts then, and the name with TLS. It belongs to the association from now
    on, and is closed with it.

    Raises `UsageError` for what cannot be, before a connection is opened; `ConnectFailed`, `AssociationRejected`,
    `IdentityNotConfirmed`, `OperationTimeout`, and what else can end an association (`AssociationError`).
    """
    address = PeerAddress.of(peer)
    limits = Limits(
        connect_timeout=connect_timeout,
        association_timeout=association_timeout,
        release_timeout=release_timeout,
        artim_timeout=artim_timeout,
        malformed=malformed,
        ssl=ssl,
    )
    check(_LIMITS, limits)
    offer = Offer(
        aet=aet,
        maximum_length=maximum_length,
        window=window,
        performed=performed,
        identity=_to_confirm(identity) if identity_required else identity,
        extended=extended,
    )
    association = _association(address, offer.to(address, contexts), limits, services)
    opening = Opening(address, ssl, sock, stream)  # last: until then a socket or stream is the caller's, and as it was
    await opening.open(association, connect_timeout)
    try:
        await _establish(association, address, association_timeout, opening)
        if identity_required and association.identity_response is None:
            raise IdentityNotConfirmed(f"{address} accepted the association, but does not confirm {identity}")
        yield association
        await association.release(timeout=release_timeout)
    finally:
        await association.close()


@value(kw_only=True)
class Limits:
    """What a requestor bears with, by the names of `associate`. Times are in seconds."""

    connect_timeout: float
    association_timeout: float
    release_timeout: float
    artim_timeout: float
    malformed: Malformed
    ssl: SSLContext | TlsClient | None


@value(kw_only=True)
class Offer:
    """What a requestor says of itself, by the names of `associate`."""

    aet: str
    maximum_length: int
    window: int
    performed: int
    identity: UserIdentity | None
    extended: Sequence[ExtendedNegotiation | CommonExtendedNegotiation]

    def to(self, address: PeerAddress, contexts: Iterable[ProposedContext | Iterable[ProposedContext]]) -> AAssociateRQ:
        """The request. Raises `UsageError` for what cannot be asked."""
        check(_OFFER, self)
        window = (self.window, self.performed)
        return propose(
            called_ae_title=address.ae_title,
            calling_ae_title=check_ae_title(self.aet),
            contexts=list(_flattened(contexts)),
            maximum_length=self.maximum_length,
            window=AsynchronousOperationsWindow(*window) if window != (1, 1) else None,
            extended=self.extended,
            identity=self.identity,
        )


_LIMITS: Final[Mapping[str, Check]] = {
    "connect_timeout": seconds(),
    "association_timeout": seconds(),
    "release_timeout": seconds(),
    "artim_timeout": seconds(),
    "malformed": check_malformed,
    "ssl": tls("TlsClient", "who calls"),
}
_OFFER: Final[Mapping[str, Check]] = {
    "maximum_length": whole(0, 0xFFFFFFFF),
    "window": whole(0, 0xFFFF),
    "performed": whole(0, 0xFFFF),
    "identity": arguments.identity,
}


def _to_confirm(identity: UserIdentity | None) -> UserIdentity:
    """`identity`, with the wish that it be confirmed."""
    arguments.identity("identity", identity)
    if identity is None:
        raise UsageError("identity_required needs an identity that can be confirmed")
    return replace(identity, positive_response_requested=True)


def _association(
    address: PeerAddress, request: AAssociateRQ, limits: Limits, services: Sequence[ServiceProvider]
) -> Association:
    """An association that is to be opened."""
    upper = UpperLayer(
        is_requestor=True,
        maximum_length=request.user_information.maximum_length,
        artim_timeout=limits.artim_timeout,
        lenient=is_lenient(limits.malformed),
    )
    association = Association(
        upper,
        called_ae_title=address.ae_title,
        calling_ae_title=request.calling_ae_title,
        dispatcher=Dispatcher(checked(services)) if services else None,
    )
    association.identity = request.user_information.user_identity
    upper.associate(request, asyncio.get_running_loop().time())
    return association


def _flattened(contexts: Any) -> Iterator[ProposedContext]:
    if isinstance(contexts, str | ProposedContext) or not isinstance(contexts, Iterable):
        raise UsageError(f"contexts are given as a list, [verification()], and not as {contexts!r:.60}")
    for each in contexts:
        if isinstance(each, ProposedContext):
            yield each
        elif isinstance(each, str):
            raise UsageError(
                f"a presentation context is made by storage(...), say, or ProposedContext(...): {each!r:.60}"
            )
        else:
            yield from _flattened(each)


async def _establish(association: Association, address: PeerAddress, timeout: float, opening: Opening) -> None:
    try:
        async with asyncio.timeout(timeout):
            await association.wait_established()
    except TimeoutError:
        raise OperationTimeout(
            f"{address} did not answer the association request within {timeout:g} s; is it a DICOM server?"
            " If it is, allow it more time"
        ) from None
    except (AssociationAborted, AssociationLost) as error:
        better = opening.explain(association, error)
        if better is None:
            raise
        better.proposed = error.proposed
        raise better from error
