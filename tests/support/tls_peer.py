"""The other end of a TLS connection, by hand: the end of TLS is not confirmed."""

from __future__ import annotations

import asyncio
import ssl
from typing import Self

from support.raw_peer import RawPeer
from tomowire.wire.pdu import Pdu, encode_pdu


class TlsRawPeer(RawPeer):
    """A `RawPeer` behind TLS. `has_ended` says whether close_notify has come; the connection is open after that as before."""

    has_ended = False

    @classmethod
    async def over(cls, plain: RawPeer, context: ssl.SSLContext, *, server_side: bool, name: str | None = None) -> Self:
        """Shake hands on a connection."""
        peer = cls(plain.socket)
        peer._incoming, peer._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        peer._tls = context.wrap_bio(
            peer._incoming, peer._outgoing, server_side=server_side, server_hostname=None if server_side else name
        )
        while True:
            try:
                peer._tls.do_handshake()
            except ssl.SSLWantReadError:
                await peer._flush()
                peer._incoming.write(await RawPeer._receive(peer))
            else:
                await peer._flush()
                return peer

    async def send(self, *items: bytes | Pdu) -> None:
        self._tls.write(b"".join(item if isinstance(item, bytes) else encode_pdu(item) for item in items))
        await self._flush()

    async def _receive(self) -> bytes:
        while not self.has_ended:
            try:
                received = self._tls.read(1 << 16)
            except ssl.SSLWantReadError:
                came = await super()._receive()
                assert came, "the connection was closed before the end of TLS"
                self._incoming.write(came)
            else:
                if received:
                    return received
                self.has_ended = True
        return await super()._receive()  # what is below TLS: the end of the connection

    async def end_tls(self) -> None:
        """Send close_notify, and wait for the other side's."""
        while True:
            try:
                self._tls.unwrap()
            except ssl.SSLWantReadError:
                await self._flush()
                self._incoming.write(await super()._receive())
            else:
                self.has_ended = True
                return

    @property
    def certificate(self) -> bytes | None:
        """What the other side has shown, as DER."""
        return self._tls.getpeercert(binary_form=True)

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await asyncio.get_running_loop().sock_sendall(self.socket, data)
