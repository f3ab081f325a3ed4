"""A link with a delay: `delaying_link.py PORT TARGET_PORT MILLISECONDS` passes on all bytes, each so much later, both ways."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import cast

LOOPBACK = "127.0.0.1"


class End(asyncio.Protocol):
    """One of the two connections: what comes here is written to the `other` one, later."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.loop = asyncio.get_running_loop()
        self.other: End | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.loop.call_later(self.delay, self.other.write, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.loop.call_later(self.delay, self.other.close)

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Near(End):
    """The end to which the requestor connects; it opens the other one before it reads."""

    def __init__(self, delay: float, target: int) -> None:
        super().__init__(delay)
        self.target = target
        self.opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self.opening = self.loop.create_task(self.open())

    async def open(self) -> None:
        assert self.transport is not None
        try:
            _, self.other = await self.loop.create_connection(lambda: End(self.delay), LOOPBACK, self.target)
        except OSError:
            self.transport.abort()
            return
        self.other.other = self
        self.transport.resume_reading()


async def main(port: int, target: int, delay: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Near(delay, target), LOOPBACK, port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000))
