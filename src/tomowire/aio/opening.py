"""Opening the transport connection of a requestor, and what to say when that fails."""

from __future__ import annotations

import asyncio
import socket
from ssl import SSLContext
from typing import TYPE_CHECKING

from tomowire.aio.existing import Stream, check_socket, take_over, transport_of
from tomowire.aio.unreachable import not_answered, the_same_in_all, why_not_connected
from tomowire.errors import AssociationAborted, AssociationLost, ConnectFailed, TlsFailed, UsageError
from tomowire.protocol.explain import SPEAKS_TLS

if TYPE_CHECKING:
    from tomowire.aio.address import PeerAddress
    from tomowire.aio.association import Association
    from tomowire.aio.tls import TlsClient
    from tomowire.aio.tls_handshake import Handshake
    from tomowire.errors import AssociationError


class Opening:
    """How a requestor gets its connection: a new one to `address`, or one that is there already; with or without TLS.

    Raises `UsageError` for a socket or stream that cannot be used, which is still the caller's then, and for a name that is none.
    """

    def __init__(
        self,
        address: PeerAddress,
        tls: SSLContext | TlsClient | None,
        sock: socket.socket | None = None,
        stream: Stream | None = None,
    ) -> None:
        if sock is not None and stream is not None:
            raise UsageError("there can be a socket or a stream, not both")
        self._address = address
        self._tls = tls
        if isinstance(tls, SSLContext):
            from tomowire.aio.tls_context import check_side

            check_side(tls, server_side=False)
        if tls is not None:
            name = getattr(tls, "server_hostname", None)  # an SSLContext says nothing of it
            self._server_hostname = certificate_host(address.host if name is None else name)
        self._stream = stream  # a StreamWriter that nobody holds closes its transport
        self._socket = check_socket(sock) if sock is not None else None
        self._transport = transport_of(stream) if stream is not None else None

    async def open(self, association: Association, timeout: float) -> None:
        """Connect `association` within `timeout` seconds. A socket or stream belongs to it from now on.

        Raises `ConnectFailed`, of which `TlsFailed` is one, and `UsageError` for certificates of one's own that cannot be used.
        """
        handshake: Handshake | None = None
        try:
            context = await self._context()
            async with asyncio.timeout(timeout):
                if context is None:
                    await self._connect(association.connection)
                else:
                    from tomowire.aio.tls_handshake import Handshake  # a program without TLS does not need it

                    handshake = Handshake()
                    tls = await self._shake_hands(handshake, context)
                    handshake.hand_over(tls, association.connection)
        except BaseException as error:
            self._close_existing()
            if not isinstance(error, TimeoutError):
                raise
            if handshake is not None and handshake.has_begun:
                text = f"{self._with_tls}: no answer within {timeout:g} s to the TLS handshake; does it speak TLS on this port?"
                raise TlsFailed(text) from None
            raise ConnectFailed(f"{self._cannot}: {not_answered(timeout)}") from None

    def explain(self, association: Association, error: AssociationError) -> AssociationError | None:
        """A better word for `error`, which ended `association` before it was accepted.

        In TLS 1.3 the requestor's handshake is over before the acceptor has seen its certificate (RFC 8446 2): what it says of that
        comes instead of its answer.
        """
        from tomowire.aio.tls_reasons import alert_of, why_refused

        alert = alert_of(association.connection.broken_by)
        if alert is not None:
            return TlsFailed(f"{self._with_tls}: {why_refused(alert, self._shows_certificate)}")
        if isinstance(error, AssociationAborted) and error.foreign is not None:
            return self._not_dicom(error, error.foreign)
        if not isinstance(error, AssociationLost):
            return None
        doubt = "and one without TLS" if self._tls is None else "and does it take this side's certificate"
        closed = f"{self._address} closed the connection instead of answering the association request"
        return AssociationLost(
            f"{closed}; is it a DICOM server, {doubt}? It may also let in only hosts that it knows: its log may say more"
        )

    def _not_dicom(self, error: AssociationAborted, foreign: str) -> AssociationError:
        if foreign == "TLS":
            return TlsFailed(f"{self._cannot}: {SPEAKS_TLS} (ssl=)")
        text = f"{self._address} is no DICOM server, as it seems: check host and port; {error}"
        return AssociationAborted(
            text, source=error.source, reason=error.reason, by_peer=error.by_peer, foreign=foreign
        )

    async def _context(self) -> SSLContext | None:
        if self._tls is None or isinstance(self._tls, SSLContext):
            return self._tls
        from tomowire.aio.tls_context import context_of_client

        return await context_of_client(self._tls)

    async def _shake_hands(self, handshake: Handshake, context: SSLContext) -> asyncio.Transport:
        transport = await self._connect(handshake)
        try:
            return await handshake.run(transport, context, server_side=False, server_hostname=self._server_hostname)
        except OSError as error:
            from tomowire.aio.tls_reasons import why_requestor

            why = why_requestor(error, handshake.first, self._shows_certificate)
            raise TlsFailed(f"{self._with_tls}: {why}") from error

    async def _connect(self, protocol: asyncio.BufferedProtocol) -> asyncio.Transport:
        """Open the connection. Raises `ConnectFailed` that says why there is none."""
        if self._transport is not None and self._stream is not None:
            take_over(self._stream, self._transport, protocol)
            return self._transport
        loop = asyncio.get_running_loop()
        try:
            if self._socket is not None:
                sock, self._socket = self._socket, None  # the loop closes it from now on, and nobody else must
                transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
                if transport.is_closing() and not isinstance(loop, asyncio.BaseEventLoop):
                    # uvloop has closed the descriptor without telling the socket, which would close what gets its number next.
                    sock.detach()
            else:
                transport, _ = await loop.create_connection(lambda: protocol, self._address.host, self._address.port)
        except (OSError, UnicodeError) as error:
            found = the_same_in_all(error) if isinstance(error, OSError) else error
            raise ConnectFailed(f"{self._cannot}: {why_not_connected(found)}") from found
        return transport

    def _close_existing(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        if self._socket is not None:
            self._socket.close()

    @property
    def _cannot(self) -> str:
        return f"cannot connect to {self._address}"

    @property
    def _with_tls(self) -> str:
        return f"{self._cannot} with TLS"

    @property
    def _shows_certificate(self) -> bool | None:
        """None where that is not known."""
        return None if isinstance(self._tls, SSLContext) or self._tls is None else self._tls.certificate is not None


def certificate_host(name: object) -> str:
    """A name that a certificate can be for. Python's own check of it comes too late to be told in an orderly way."""
    try:
        if isinstance(name, str) and name.encode("idna") and not name.startswith("."):
            return name
    except UnicodeError:
        pass  # as below
    raise UsageError(f"{name!r} is no host name that a certificate can be for")
