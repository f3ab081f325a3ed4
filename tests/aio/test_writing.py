"""Sending without joining: whatever the kernel takes at once, all bytes arrive, in order."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tomowire.aio.writing import direct_descriptor, write_buffers

pytestmark = pytest.mark.skipif(not hasattr(socket, "socketpair"), reason="needs socket pairs")


class Wire:
    """A transport, and the socket at the other end of it."""

    def __init__(self, transport: asyncio.Transport, far: socket.socket) -> None:
        self.transport = transport
        self.far = far
        self.descriptor = direct_descriptor(transport)

    async def read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end."""
        data = b""
        async with asyncio.timeout(10):
            while len(data) < size:
                received = await asyncio.get_running_loop().sock_recv(self.far, size - len(data))
                if not received:
                    break
                data += received
        return data


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    far.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    yield Wire(transport, far)
    transport.abort()
    far.close()
    await asyncio.sleep(0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(count=st.integers(1, 1300), most=st.integers(0, 3000), large_one=st.none() | st.integers(0, 1299))
async def test_all_bytes_arrive_in_order(wire: Wire, count: int, most: int, large_one: int | None) -> None:
    """More buffers than `writev` takes at once, empty ones, and more bytes than the kernel does."""
    sizes = [number * 7919 % (most + 1) for number in range(count)]
    if large_one is not None:
        sizes[large_one % count] = 100_000
    buffers = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    expected = b"".join(buffers)
    write_buffers(wire.transport, wire.descriptor, [memoryview(each) for each in buffers])
    assert await wire.read(len(expected)) == expected


async def test_what_waits_already_is_not_overtaken(wire: Wire) -> None:
    first, second = b"a" * 300_000, b"b" * 100
    write_buffers(wire.transport, wire.descriptor, [first])
    assert wire.transport.get_write_buffer_size()
    read = wire.far.recv(100_000)  # now the kernel has room again, and the transport does not know it yet
    write_buffers(wire.transport, wire.descriptor, [second])
    assert read + await wire.read(300_100 - len(read)) == first + second


async def test_a_closing_transport_takes_nothing(wire: Wire) -> None:
    wire.transport.close()
    write_buffers(wire.transport, wire.descriptor, [b"late"])
    assert await wire.read(4) == b""


async def test_a_connection_that_broke_does_not_fill_the_log(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    wire.transport.abort()
    for _ in range(20):  # asyncio says nothing of the first few
        write_buffers(wire.transport, wire.descriptor, [b"an answer"])
    assert not caplog.records


async def test_a_broken_connection_is_left_to_the_transport_to_report(wire: Wire) -> None:
    lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    class Watcher(asyncio.Protocol):
        def connection_lost(self, error: Exception | None) -> None:
            lost.set_result(error)

    wire.transport.set_protocol(Watcher())
    assert wire.descriptor is not None
    with socket.socket(fileno=os.dup(wire.descriptor)) as same:
        same.shutdown(socket.SHUT_WR)
    write_buffers(wire.transport, wire.descriptor, [b"into", b"nothing"])
    async with asyncio.timeout(10):
        assert isinstance(await lost, OSError)


async def test_a_broken_connection_is_complained_about_once(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """By who lost it; asyncio has a warning for every buffer that is written to it afterwards."""
    wire.far.close()
    for _ in range(2):
        write_buffers(wire.transport, wire.descriptor, [bytes(10_000)] * 100)
    assert wire.transport.is_closing()
    assert caplog.records == []
