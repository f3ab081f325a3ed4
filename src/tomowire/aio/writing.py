"""Sending buffers without joining them: the one place that knows a faster way than `transport.write`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import Transport
    from collections.abc import Sequence

_IOV_LIMIT = 512


def direct_descriptor(transport: Transport) -> int | None:
    """The descriptor for `os.writev`, or None where bytes must go through the transport: TLS, Windows, not a socket."""
    if not hasattr(os, "writev") or transport.get_extra_info("ssl_object") is not None:
        return None
    sock = transport.get_extra_info("socket")
    return sock.fileno() if sock is not None else None


def write_buffers(transport: Transport, descriptor: int | None, buffers: Sequence[bytes | memoryview]) -> None:
    """Send `buffers` in order. What the kernel does not take now goes to the transport, which copies it or keeps a reference."""
    if not transport.get_write_buffer_size():
        if transport.is_closing():
            return  # it would pass them over, and log a warning for each: as many as a peer likes that asks much and goes away
        if descriptor is not None:
            buffers = _write_now(descriptor, buffers)
    for buffer in buffers:  # not `writelines`: before Python 3.12 it joins them first, a second copy
        if transport.is_closing() and not transport.get_write_buffer_size():
            return  # it takes nothing any more, and asyncio would log a warning for each of what may be a hundred buffers
        transport.write(buffer)


def _write_now(descriptor: int, buffers: Sequence[bytes | memoryview]) -> Sequence[bytes | memoryview]:
    """Write until the kernel takes no more; return the rest."""
    start = 0
    while start < len(buffers):
        batch = buffers[start : start + _IOV_LIMIT]
        try:
            written = os.writev(descriptor, batch)
        except (BlockingIOError, InterruptedError):
            break
        except OSError:
            break  # the transport will meet the same error and report it in its own way
        for buffer in batch:
            if written < len(buffer):
                rest = memoryview(buffer)[written:]
                return [rest, *buffers[start + 1 :]]
            written -= len(buffer)
            start += 1
    return buffers[start:]
